// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// How far the outputs of a run are from float64 arithmetic on the same inputs.
#pragma once

#include <string>

#include "tensors.h"

namespace nearfield::bench {

struct Error {
  double largest = 0;  // absolute, over all outputs
  std::string of;      // "all", or which tokens were compared
};

// Compares with the `reference` backend. That is slow plain code: of a large problem it computes ranges of
// one token each, queries (out, lse, dq) and keys (dk, dv). In the backward pass it is given out and lse as
// the forward pass rounded them, because those are inputs of that pass.
Error error_of(const Problem& problem, const Tensors& tensors, Executor& executor);

}  // namespace nearfield::bench
