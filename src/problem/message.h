// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The one form of every message about bad input: `[op] got X, expected Y; hint`.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "nearfield/geometry.h"

namespace nearfield {

[[noreturn]] inline void refuse(std::string_view op, const std::string& got, const std::string& expected,
                                const std::string& hint = "") {
  std::string text = "[" + std::string(op) + "] got " + got + ", expected " + expected;
  if (!hint.empty()) text += "; " + hint;
  throw std::invalid_argument(text);
}

template <class Numbers>
std::string joined(const Numbers& numbers, std::size_t count, std::string_view separator) {
  std::string text;
  for (std::size_t i = 0; i < count; ++i) {
    if (i) text += separator;
    text += std::to_string(numbers[i]);
  }
  return text;
}

inline std::string shape_text(const std::vector<Index>& size) {
  return "(" + joined(size, size.size(), ", ") + (size.size() == 1 ? ",)" : ")");
}

}  // namespace nearfield
