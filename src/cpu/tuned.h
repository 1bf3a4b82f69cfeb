// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// What the backend asks of a SIMD target for the tuned kernels: one task at a time.
#pragma once

#include <optional>
#include <string>

#include "cpu/band.h"
#include "cpu/choice.h"

namespace nearfield::cpu {

// dK and dV of the keys that more than one band sees, or none: sums over the bands, in ascending order.
struct SharedSums {
  const Problem* problem = nullptr;
  const Sequence* sequence = nullptr;
  const GroupBands* bands = nullptr;
  Index dilation[kMaxRank] = {1, 1, 1};
  Index batch = 0;
  const float* shared = nullptr;  // of the group's first band
  Box keys;                       // of the task
};

struct TunedKernels {
  void (*forward16)(const Band& band, std::byte* scratch);  // tiles of 16 queries
  void (*forward32)(const Band& band, std::byte* scratch);
  // In bf16 arithmetic; null where there is none.
  void (*bf16_forward16)(const Band& band, std::byte* scratch);
  void (*bf16_forward32)(const Band& band, std::byte* scratch);
  // dQ of a band, and dK and dV of its own keys. False if something was not finite.
  bool (*backward16)(const Band& band, std::byte* scratch);
  bool (*backward32)(const Band& band, std::byte* scratch);
  bool (*add_bands)(const SharedSums& job);
};

// Those of the target that kernels() of kernel.h chose.
const TunedKernels& tuned_kernels();

// Why the tuned kernels' forward pass multiplies in float32 although the problem allows bf16; nothing if it does not,
// or the problem does not allow it.
std::optional<std::string> bf16_refusal(const Problem& problem);

// Whether they multiply in bf16.
bool multiplies_bf16(const Problem& problem);

// Why the tuned kernels (or the one that options.kernel names) cannot run the problem; nothing if they can.
std::optional<std::string> tuned_refusal(const Problem& problem, const PlanOptions& options);

// Sets tiles, waste, memory and the cuts of the plan. general: the plan of the general path.
void plan_tuned(const Problem& problem, const KernelChoice& choice, Plan general, Plan& plan);
void run_tuned(const Problem& problem, const Plan& plan, const Tensors& tensors, Executor& executor,
               std::byte* workspace);

}  // namespace nearfield::cpu
