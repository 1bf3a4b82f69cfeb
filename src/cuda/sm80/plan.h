// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// What the device is asked to do: which kernels, and which shapes of tiles by the exact number of tile pairs that
// they load and compute.
#pragma once

#include <optional>
#include <string>

#include "cuda/sm80/kernels.h"
#include "nearfield/plan.h"
#include "plan/tuner.h"

namespace nearfield::sm80 {

// Kernels of a call; null where the direction has none.
struct Chosen {
  const Kernel *forward = nullptr, *query_gradient = nullptr, *key_gradient = nullptr,
               *value_gradient = nullptr, *bias_gradient = nullptr;
};
Chosen choose_kernels(std::span<const Kernel> kernels, const Problem& problem);

std::optional<std::string> refusal(std::span<const Kernel> kernels, const Problem& problem,
                                   const PlanOptions& options);

// How a sequence is cut for kernels of one kind of owner.
struct Cut {
  TileShape query{1, 1, 1}, key{1, 1, 1};
  int pack = 1;         // query heads of one key head that share the rows of a tile of queries
  double loaded = 0;    // tile pairs of a block ...
  double computed = 0;  // ... and of its warps, of one query head
};

// The backend's part of a plan.
struct OwnPlan {
  Chosen kernels;
  std::vector<Cut> of_queries, of_keys;  // per sequence, by owner; keys own rows only backward
  Index tokens = 0;                      // queries, tails included: rows of the statistics
};
// Throws std::invalid_argument where the tuner asks a sequence for what there is not.
void plan(std::span<const Kernel> kernels, const Problem& problem, const SequenceOptions& options,
          Plan& plan);

}  // namespace nearfield::sm80
