// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/cuda.h"
#include "plan/absent.h"

namespace nearfield {

const Backend& cuda_sm80_backend() {
  static const Absent backend("cuda_sm80", Device::kCuda, "this build has no CUDA kernels");
  return backend;
}

const Backend& cuda_sm90_backend() {
  static const Absent backend("cuda_sm90", Device::kCuda, "this build has no CUDA kernels");
  return backend;
}

}  // namespace nearfield
