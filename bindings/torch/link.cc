// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// What C++ programs link against (nearfield/torch/operators.h): the names and the rule of the core that the
// header asks for, as C symbols.
#include <stdexcept>
#include <string>

#include "nearfield/attention.h"

#define NF_EXPORT extern "C" __attribute__((visibility("default")))

NF_EXPORT const char* nf_torch_backends() {
  static const std::string names = [] {
    std::string text;
    for (const nearfield::Backend* backend : nearfield::backends())
      text += (text.empty() ? "" : " ") + std::string(backend->name());
    return text;
  }();
  return names.c_str();
}

NF_EXPORT const char* nf_torch_function(int64_t function) {
  return nearfield::function_name(function).data();  // of a literal
}

NF_EXPORT const char* nf_torch_check_lengths(const char* op, const char* name, const int64_t* lengths,
                                             int64_t n, int64_t total, const char* packed) {
  static thread_local std::string error;
  try {
    nearfield::check_lengths(op, name, {lengths, static_cast<std::size_t>(n)}, total, packed);
    return nullptr;
  } catch (const std::invalid_argument& e) { error = e.what(); }
  return error.c_str();
}
