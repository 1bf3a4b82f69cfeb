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

namespace {

std::string checked_topics() {
  std::string topics = environment("NEARFIELD_VERBOSE");
  std::string_view rest = topics;
  while (!rest.empty()) {
    const std::string_view topic = rest.substr(0, rest.find(','));
    if (topic != "dispatch" && topic != "exec" && topic != "check" && topic != "all")
      throw std::invalid_argument(
          "[nearfield] got NEARFIELD_VERBOSE=" + topics +
          ", expected some of dispatch, exec, check, or all; separate them by commas");
    rest.remove_prefix(topic.size() == rest.size() ? rest.size() : topic.size() + 1);
  }
  return "," + topics + ",";
}

}  // namespace

bool verbose(std::string_view topic) {
  static const std::string topics = checked_topics();
  const auto has = [](std::string_view word) {
    return topics.find("," + std::string(word) + ",") != std::string::npos;
  };
  return has(topic) || has("all");
}

void log_row(std::string_view topic, std::initializer_list<std::string_view> fields) {
  std::string line = "nearfield," + std::string(topic);
  for (const std::string_view field : fields) {
    line += ',';
    if (field.find_first_of(",\"\n") == std::string_view::npos) {
      line += field;
      continue;
    }
    line += '"';
    for (const char c : field) line += c == '"' ? "\"\"" : std::string(1, c);
    line += '"';
  }
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace nearfield
