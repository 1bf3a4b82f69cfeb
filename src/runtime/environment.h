// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The only place that reads environment variables (layer L0):
//   NEARFIELD_BACKEND          forces a backend where the caller names none (tests)
//   NEARFIELD_BF16_ARITHMETIC  1: every call allows bf16 arithmetic (problem.h: Precision)
//   NEARFIELD_CPU_TARGET       avx512, avx2, sse4, neon or scalar: forces the SIMD target (tests)
//   NEARFIELD_NUM_THREADS      threads of make_executor(0)
//   NEARFIELD_TRACE            a file that gets every problem of the process, once (trace.h)
//   NEARFIELD_TUNER            a file of measured choices of kernels (src/plan/tuner.h)
//   NEARFIELD_VERBOSE          comma-separated topics, or `all`; rows of CSV on stderr:
//     nearfield,dispatch,CALL,BACKEND,KERNEL            for every plan that is made
//     nearfield,exec,PROBLEM,BACKEND,KERNEL,THREADS,MS  for every call
//     nearfield,check,FUNCTION,PROBLEM                  for every call whose arguments were checked
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

namespace nearfield {

std::string environment(const char* name);  // empty if unset

// True if the variable is 1, false if it is 0 or unset; throws std::invalid_argument otherwise.
bool environment_switch(const char* name);

// The variable's whole number from 1 on, 0 if it is unset; throws std::invalid_argument otherwise.
int environment_number(const char* name);

// True if NEARFIELD_VERBOSE names the topic. The variable is read once; one that names no topic throws
// std::invalid_argument. Callers on the way of a call keep the answer.
bool verbose(std::string_view topic);
// One row on stderr, `nearfield,TOPIC,FIELD,...`, written at once so that threads do not mix rows. Fields with commas
// or quotes are quoted, as in every CSV.
void log_row(std::string_view topic, std::initializer_list<std::string_view> fields);

}  // namespace nearfield
