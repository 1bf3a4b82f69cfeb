// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The best cut of a grid into tiles for a kernel. Both counts are products of sums along the axes, so that thousands
// of shapes are compared in little time: of an axis cut into runs of `own` tokens that meet runs of `other` tokens,
//
//   loaded    a block meets every run of the span of its own
//   computed  each of its warps, which own `part` of the run, those that meet its part of the span
#pragma once

#include "cuda/sm80/plan.h"

namespace nearfield::sm80 {

struct Meetings {
  double loaded = 0, computed = 0;
};
Meetings meetings(const Axis& axis, bool queries_own, Index own, Index part, Index other);

// With options.query_tile and key_tile where they fit. `group`: query heads per key head, of which a tile of
// queries may hold several.
Cut best_cut(const Grid& grid, const Kernel& kernel, bool queries_own, Index group,
             const PlanOptions& options);

}  // namespace nearfield::sm80
