// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The general path: any problem that the backend serves, in float or double.
#pragma once

#include "cpu/scratch.h"
#include "plan/grid_view.h"
#include "plan/tuner.h"

namespace nearfield::cpu {

inline std::size_t aligned(std::size_t bytes) { return rounded(bytes, kAlignment); }

// Sets kernel, tiles, waste and memory of the plan.
void plan_general(const Problem& problem, const SequenceOptions& options, Plan& plan);
// only: nothing, or for each sequence and batch entry whether to run it.
void run_general(const Problem& problem, const Plan& plan, const Tensors& tensors, Executor& executor,
                 std::byte* workspace, const std::vector<char>* only = nullptr);

}  // namespace nearfield::cpu
