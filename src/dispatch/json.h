// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// (layer L4.) How the C API answers: JSON in a new string, with what was thrown as {"error": ...}.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "nearfield/status.h"
#include "problem/message.h"

namespace nearfield {

inline std::string quoted(std::string_view text) {
  std::string json = "\"";
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') json += std::string("\\") + c;
    else if (c == '\n') json += "\\n";
    else if (code >= 0x20 && code < 0x7f) json += c;
    else {  // control characters, and bytes of text that may not be UTF-8
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", code);
      json += escape;
    }
  }
  return json + "\"";
}

inline std::string number(double x) {
  if (!std::isfinite(x)) return "null";
  char text[32];
  std::snprintf(text, sizeof text, "%.17g", x);
  return text;
}

inline char* copied(const std::string& text) {
  char* copy = new (std::nothrow) char[text.size() + 1];
  if (copy) std::memcpy(copy, text.c_str(), text.size() + 1);
  return copy;
}

template <class Fn>
char* guarded(const Fn& fn) {
  try {
    return copied("{\"ok\": " + fn() + "}");
  } catch (const std::exception& e) { return copied("{\"error\": " + quoted(e.what()) + "}"); }
}

inline std::string text_argument(const char* text) {
  if (!text) refuse("nearfield", "a null pointer", "a string");
  return text;
}

inline std::string names(const std::vector<std::string>& list) {
  std::string json;
  for (const std::string& name : list) json += (json.empty() ? "" : ", ") + quoted(name);
  return "[" + json + "]";
}

inline std::string numbers(const std::vector<Index>& list) {
  return "[" + joined(list, list.size(), ", ") + "]";
}

}  // namespace nearfield
