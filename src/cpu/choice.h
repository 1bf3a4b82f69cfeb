// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Which kernel runs each sequence of a problem: the one that is predicted to be fastest, general among them. The
// choice for a sequence is the same alone, in a batch and in a list.
#pragma once

#include <string>
#include <vector>

#include "cpu/band.h"
#include "plan/tuner.h"

namespace nearfield::cpu {

struct KernelChoice {
  std::vector<std::optional<Cut>> cuts;  // of each sequence; nothing where the general path is taken
  std::string kernel;                    // "b16", or "b16 (3), general (1)"
  double seconds = 0;                    // of all of them, one thread
  std::vector<Candidate> candidates;     // every kernel for the whole problem
  bool all_general() const;
};

// general: its tiles, one per sequence or one. each: a sequence's kernel, or none. tuned: false if only
// the general path serves the problem. bf16: tuned kernels that can multiply in bf16 do.
KernelChoice choose_kernels(const Problem& problem, const Plan& general, const SequenceOptions& each,
                            bool tuned, bool bf16);

}  // namespace nearfield::cpu
