// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "runtime/environment.h"

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

namespace nearfield {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

bool environment_switch(const char* name) {
  const std::string value = environment(name);
  if (value != "" && value != "0" && value != "1")
    throw std::invalid_argument("[nearfield] got " + std::string(name) + "=" + value +
                                ", expected 0 or 1; unset it for 0");
  return value == "1";
}

int environment_number(const char* name) {
  const std::string value = environment(name);
  if (value.empty()) return 0;
  int number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size() || number < 1)
    throw std::invalid_argument("[nearfield] got " + std::string(name) + "=" + value +
                                ", expected a whole number from 1 on; unset it for the default");
  return number;
}

bool verbose(std::string_view topic) {
  static const std::string topics = "," + environment("NEARFIELD_VERBOSE") + ",";
  return topics.find("," + std::string(topic) + ",") != std::string::npos;
}

void log_line(std::string_view topic, std::string_view text) {
  const std::string line = "nearfield," + std::string(topic) + "," + std::string(text) + "\n";
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace nearfield
