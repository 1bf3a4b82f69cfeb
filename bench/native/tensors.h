// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The tensors of a problem, in memory of their own: random inputs, float64 copies of parts of them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "nearfield/attention.h"

namespace nearfield::bench {

struct Tensor {
  struct Free {
    void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  std::unique_ptr<std::byte[], Free> memory;
  TensorView view;
};

// A tensor of a problem, with the strides that the problem names; zero, or random numbers of about unit
// variance that every dtype holds exactly.
Tensor make_tensor(const Problem& problem, Role role, bool random);

// Everything that a run of the problem in its direction needs. A backward problem is given the out and lse
// of its forward pass, which is run here.
struct Inputs {
  Inputs(const Problem& problem, Executor& executor);
  std::array<Tensor, kRoles> tensor;
  std::int64_t seed = 1;
  Tensors views() const;
};

// A dense float64 copy of the box of a tensor [B, *layout, ...] that begins at `begin` on the axes of the
// layout and has the sizes `shape`.
Tensor copy_box(const TensorView& from, const std::vector<Index>& begin, const std::vector<Index>& shape);

double element(const TensorView& tensor, Index at);  // at: offset in elements
// Calls fn(offset) for every element, in row-major order.
void for_each_element(const TensorView& tensor, const std::function<void(Index)>& fn);

}  // namespace nearfield::bench
