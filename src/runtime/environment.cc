// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "runtime/environment.h"

#include <cstdio>
#include <cstdlib>

namespace nearfield {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
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
