// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The shapes that are compiled: one kernel per dtype and size of head dims; extents, windows, tiles, ranks and
// features are run-time numbers. Why these sizes:
//
//   16-bit forward  32 rows per warp: an operand that comes from shared memory serves two products, since at 128
//                   bytes per cycle and SM one alone would hold tensor cores to half their rate
//   depth 256       16 rows per warp: O takes 128 registers of each lane
//   backward        two or three sums and operands: 16 rows per warp; at depth 256, dK and dV apart
//   float32         twice the bytes, and two words per operand
//
// Shared memory stays below 99 KiB, the least that devices from 8.0 on have.
#pragma once

#include "cuda/sm80/backward.h"
#include "cuda/sm80/bias_gradient.h"
#include "cuda/sm80/forward.h"
#include "cuda/sm80/kernels.h"
#include "cuda/sm80/tails.h"

namespace nearfield::sm80 {

template <class E>
struct Shapes {
  using Forward64 = Shape<E, 64, 4, 2, 64, 1>;
  using Forward128 = Shape<E, 128, 4, 2, 64, 1>;
  using Forward256 = Shape<E, 256, 4, 1, 32, 1>;
  using Backward64 = Shape<E, 64, 4, 1, 64, 2>;
  using Backward128 = Shape<E, 128, 4, 1, 64, 2>;
  using Backward256 = Shape<E, 256, 2, 1, 32, 2>;
};
template <>
struct Shapes<ptx::F32> {
  using Forward64 = Shape<ptx::F32, 64, 4, 1, 64, 1>;
  using Forward128 = Shape<ptx::F32, 128, 4, 1, 32, 1>;
  using Forward256 = Shape<ptx::F32, 256, 2, 1, 16, 1>;
  using Backward64 = Shape<ptx::F32, 64, 4, 1, 32, 2>;
  using Backward128 = Shape<ptx::F32, 128, 2, 1, 32, 2>;
  using Backward256 = Shape<ptx::F32, 256, 1, 1, 16, 2>;
};

// The launcher's list of kernels, shapes of small head dims first. make(Task, Body<S>): the kernel of a body.
struct ForwardBody {
  template <class S>
  static NF_DEVICE void run(ptx::Block& block, const Arguments& args) {
    forward<S>(block, args);
  }
};
template <Owner kOwner, bool kFirst, bool kSecond>
struct BackwardBody {
  template <class S>
  static NF_DEVICE void run(ptx::Block& block, const Arguments& args) {
    backward<kOwner, S, kFirst, kSecond>(block, args);
  }
};
struct TailsBody {
  template <class S>
  static NF_DEVICE void run(ptx::Block& block, const Arguments& args) {
    tails<typename S::E>(block, args);
  }
};
struct ItemsBody {
  template <class S>
  static NF_DEVICE void run(ptx::Block& block, const Arguments& args) {
    items(block, args);
  }
};
struct BiasBody {
  template <class S>
  static NF_DEVICE void run(ptx::Block& block, const Arguments& args) {
    bias_gradient<typename S::E>(block, args);
  }
};
// What the kernels without tiles have of a shape.
template <class E_>
struct Plain {
  using E = E_;
  static constexpr int kDepth = 1 << 20, kRows = 128, kColumns = 0, kThreads = 128;
  static constexpr Word kBytes = 16;
};

template <class E, class Make>
void add_forward(const Make& make) {
  make.template operator()<ForwardBody, typename Shapes<E>::Forward64>(Task::kForward);
  make.template operator()<ForwardBody, typename Shapes<E>::Forward128>(Task::kForward);
  make.template operator()<ForwardBody, typename Shapes<E>::Forward256>(Task::kForward);
  make.template operator()<TailsBody, Plain<E>>(Task::kTails);
  make.template operator()<ItemsBody, Plain<E>>(Task::kItems);
}
template <class E, class Make>
void add_backward(const Make& make) {
  using OfQueries = BackwardBody<Owner::kQueries, true, false>;
  using OfKeys = BackwardBody<Owner::kKeys, true, true>;
  make.template operator()<OfQueries, typename Shapes<E>::Backward64>(Task::kQueryGradient);
  make.template operator()<OfQueries, typename Shapes<E>::Backward128>(Task::kQueryGradient);
  make.template operator()<OfQueries, typename Shapes<E>::Backward256>(Task::kQueryGradient);
  make.template operator()<OfKeys, typename Shapes<E>::Backward64>(Task::kKeyGradient);
  make.template operator()<OfKeys, typename Shapes<E>::Backward128>(Task::kKeyGradient);
  make.template operator()<BackwardBody<Owner::kKeys, true, false>, typename Shapes<E>::Backward256>(
      Task::kKeyGradient);
  make.template operator()<BackwardBody<Owner::kKeys, false, true>, typename Shapes<E>::Backward256>(
      Task::kValueGradient);
  make.template operator()<BiasBody, Plain<E>>(Task::kBiasGradient);
}

inline constexpr DType dtype_of(ptx::BF16) { return DType::kBFloat16; }
inline constexpr DType dtype_of(ptx::F16) { return DType::kFloat16; }
inline constexpr DType dtype_of(ptx::F32) { return DType::kFloat32; }

}  // namespace nearfield::sm80
