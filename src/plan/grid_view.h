// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// (layer L2.) How a backend addresses a tensor: whatever the rank, the packing and the strides, one sequence of it
// is [batch, three axes, heads, channels]. Rank is data: a missing axis has stride 0 and extent 1.
#pragma once

#include <vector>

#include "nearfield/plan.h"

namespace nearfield {

struct GridView {
  void* data = nullptr;  // null: absent
  DType dtype = DType::kFloat32;
  Index origin = 0;  // element of the (virtual) token (0, 0, 0) of the global layout
  Index batch = 0, axis[kMaxRank] = {0, 0, 0}, head = 0, channel = 0;  // strides in elements

  // Element index of channel 0.
  Index at(Index b, const Index token[kMaxRank], Index h) const {
    return origin + b * batch + token[0] * axis[0] + token[1] * axis[1] + token[2] * axis[2] + h * head;
  }
};

// The part of a tensor that belongs to sequence i. `first_token` is where the sequence begins in a
// packed tensor (0 unless varlen). Additional keys lie along the last axis.
GridView grid_view(const Problem& problem, const TensorView& tensor, Role role, Index i, Index first_token);

// The three axes of one sequence, with every tensor of the call.
struct Sequence {
  Index number = 0;
  Grid grid;
  std::array<GridView, kRoles> view;
  const GridView& operator[](Role r) const { return view[static_cast<std::size_t>(r)]; }
};
std::vector<Sequence> sequences_of(const Problem& problem, const Tensors& tensors);

// Outputs of the packed tokens that belong to no sequence (a tail): out 0, lse -inf, gradients 0.
void fill_tails(const Problem& problem, const Tensors& tensors);

}  // namespace nearfield
