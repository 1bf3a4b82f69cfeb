// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// From the arguments of an operator to a checked problem with its plan.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nearfield/attention.h"

namespace nearfield::torch_ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Ints = std::vector<int64_t>;

// What both operators share; ops.cc says what the numbers mean.
struct Arguments {
  Tensor query, key, value;
  std::optional<Tensor> additional_keys, additional_values, bias, seed, offsets_query, offsets_key;
  Ints axes, grids, ranges, tiles;
  std::optional<double> scale;
  double dropout_p;
  int64_t function, causal_type, backend, flags;
};

// What backward has besides.
struct Incoming {
  Tensor grad_out;
  std::optional<Tensor> grad_lse;
  Tensor out, lse;
};

struct Prepared {
  std::string op;  // the function the user called
  Problem problem;
  Choice choice;
};

// Checks every rule; incoming: of backward, else null. What was prepared is kept for the next call of the same
// numbers (all but the values of tensors), except where cumulative lengths are among the tensors.
std::shared_ptr<const Prepared> prepare(const Arguments& arguments, const Incoming* incoming);

}  // namespace nearfield::torch_ops
