// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The right answer to any problem, and how far from it an answer may be: a dense softmax over an
// explicit mask, in float64 (long double for float64 problems), with a mask built token by token from
// axis_oracle.h and a dropout mask from philox_oracle.h. Shares no code with the library but the Problem
// itself.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "nearfield/problem.h"

namespace nearfield::testing {

using RoleValues = std::array<std::vector<double>, kRoles>;  // raster order; empty: absent

// Shape of a tensor of the problem in one direction or the other; empty if the call has none.
std::vector<Index> shape_for(const Problem& problem, Role role);

// How far a computed number may be from the exact one (specification, section 3).
//   exact       the number itself, rounded once to the dtype of the output
//   terms       sum of the absolute values of the products it is the sum of ...
//   weighted    ... and the same, each weighted by the c of its softmax: 4 + log2(keys), and twice the
//               largest sum of the absolute terms of a score (bias included), which are rounded too
//   out_terms   what is rounded to the dtype on the way: the part of a gradient that comes from the output O;
//               in bf16 arithmetic the terms of O, whose weights are; on tensor cores those of the gradients too
struct Bound {
  double exact = 0, weighted = 0, terms = 0, out_terms = 0;
};
double tolerance(const Bound& bound, Index summands, DType dtype);
double lse_tolerance(double lse, DType dtype);

struct Answer {
  RoleValues exact, tolerance;  // outputs of both directions
};

// inputs: q, k, v (ak, av, bias), and do (dlse) if `backward`. The gradients are those of the exact O and
// lse. seed: of dropout. tensor_cores: P and dS may be rounded to 16-bit dtypes before they are multiplied.
Answer solve(const Problem& problem, const RoleValues& inputs, bool backward, std::int64_t seed,
             bool tensor_cores = false);

}  // namespace nearfield::testing
