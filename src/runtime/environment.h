// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The only place that reads environment variables (layer L0):
//   NEARFIELD_BACKEND          forces a backend where the caller names none (tests)
//   NEARFIELD_BF16_ARITHMETIC  1: every call allows bf16 arithmetic (problem.h: Precision)
//   NEARFIELD_CPU_TARGET       avx512, avx2, sse4, neon or scalar: forces the SIMD target (tests)
//   NEARFIELD_NUM_THREADS      threads of make_executor(0)
//   NEARFIELD_VERBOSE          `dispatch`: one line on stderr for every plan that is made
#pragma once

#include <string>
#include <string_view>

namespace nearfield {

std::string environment(const char* name);  // empty if unset

// True if the variable is 1, false if it is 0 or unset; throws std::invalid_argument otherwise.
bool environment_switch(const char* name);

// The variable's whole number from 1 on, 0 if it is unset; throws std::invalid_argument otherwise.
int environment_number(const char* name);

// True if the comma-separated NEARFIELD_VERBOSE names the topic. Read once.
bool verbose(std::string_view topic);
// One line on stderr, `nearfield,TOPIC,TEXT`, written at once so that threads do not mix lines.
void log_line(std::string_view topic, std::string_view text);

}  // namespace nearfield
