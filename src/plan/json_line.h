// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// (layer L2.) One line of a tuner file: a JSON object without objects or lists inside.
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace nearfield {

// {key: value}; strings without their quotes and escapes, all else as it is written. Throws std::invalid_argument,
// whose text says what is wrong and at which column.
std::map<std::string, std::string> parse_json_line(std::string_view line);

}  // namespace nearfield
