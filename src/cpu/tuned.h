// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// What the backend asks of a SIMD target for the tuned kernels: one task at a time.
#pragma once

#include <optional>
#include <string>

#include "cpu/band.h"

namespace nearfield::cpu {

struct TunedKernels {
  void (*forward16)(const Band& band, std::byte* scratch);  // tiles of 16 queries
  void (*forward32)(const Band& band, std::byte* scratch);
};

// Those of the target that kernels() of kernel.h chose.
const TunedKernels& tuned_kernels();

// Why the tuned kernels (or the one that options.kernel names) cannot run the problem; nothing if they can.
std::optional<std::string> tuned_refusal(const Problem& problem, const PlanOptions& options);

// Sets kernel, tiles, waste, memory and the cuts of the plan.
void plan_tuned(const Problem& problem, const PlanOptions& options, Plan& plan);
void run_tuned(const Problem& problem, const Plan& plan, const Tensors& tensors, Executor& executor,
               std::byte* workspace);

}  // namespace nearfield::cpu
