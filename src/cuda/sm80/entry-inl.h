// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Kernel bodies as kernels. Included by one file per dtype and direction, which nvcc compiles side by side.
#pragma once

#include "cuda/sm80/instances.h"
#include "cuda/sm80/lists.h"

namespace nearfield::sm80 {

// On sm_120 shared memory holds two blocks of an SM at most: registers saved for more of them would be spilled.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
#define NF_LAUNCH_BOUNDS(threads) __launch_bounds__(threads, 1)
#else
#define NF_LAUNCH_BOUNDS(threads) __launch_bounds__(threads)
#endif

template <class B, class S>
__global__ void NF_LAUNCH_BOUNDS(S::kThreads) kernel(const __grid_constant__ Arguments args) {
  extern __shared__ __align__(128) char shared[];
  ptx::Block block{shared, static_cast<int>(threadIdx.x) / ptx::kLanes};
  B::template run<S>(block, args);
}

struct Make {
  std::vector<Kernel>& list;
  template <class B, class S>
  void operator()(Task task) const {
    list.push_back({task, dtype_of(typename S::E{}), S::kDepth, S::kRows, S::kColumns, S::kThreads,
                    static_cast<int>(S::kBytes), reinterpret_cast<const void*>(&kernel<B, S>)});
  }
};

}  // namespace nearfield::sm80
