// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// What was measured of one call, and its two forms: a line of a table, a line of JSON (as bench/worker.py
// writes them: report.py reads both).
#pragma once

#include <cstdio>
#include <string>
#include <vector>

namespace nearfield::bench {

struct Sample {
  double seconds;             // mean of the calls in it
  double fma_one[2], fma[2];  // FMA peak of one thread and of all, before and after, in GFLOP/s
  double waited;              // share of the time that threads were ready to run and had no core, together
};

struct Record {
  std::string name, direction, by, problem, kernel, refusal;
  int threads = 1, process = 0;
  double flops = 0;
  std::size_t workspace = 0;
  double error = -1;      // negative: not compared
  double predicted = -1;  // seconds; negative: the planner does not say
  std::string error_of;
  std::vector<Sample> samples;
};

// Samples during which all threads had a core: before and after (0.9 of as many times one thread's peak), and in
// between (5 % of the time without).
std::vector<Sample> kept(const Record& record);

void print_header(std::FILE* to);
void print_line(std::FILE* to, const Record& record);
void print_json(std::FILE* to, const Record& record);

}  // namespace nearfield::bench
