// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// (layer L0.) The peak that every share of the profiler and the bench is taken of: float32 multiply-adds in registers,
// on as many threads at the same time.
#pragma once

namespace nearfield {

// GFLOP/s of `threads` threads together (a multiply-add counts two) with the vectors of a CPU target:
// "avx512", "avx2", "sse4", "neon" or "scalar" (whatever vectors the compiler may assume); without FMA
// instructions, of a multiplication and an addition. Runs for `milliseconds`, in three parts, and takes
// the best one: a thread that is late spoils the first. -1: no such target, or not on this machine.
double fma_peak(const char* target, int threads, double milliseconds);

}  // namespace nearfield
