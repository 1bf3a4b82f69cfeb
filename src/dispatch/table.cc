// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The backends, fastest first: the only file that names them. A new backend is a folder and a row here.
#include <array>

#include "cpu/cpu.h"
#include "cuda/cuda.h"
#include "nearfield/attention.h"
#include "reference/reference.h"

namespace nearfield {

std::span<const Backend* const> backends() {
  static const std::array<const Backend*, 4> table = {
      &cuda_sm90_backend(),
      &cuda_sm80_backend(),
      &cpu_backend(),
      &reference_backend(),
  };
  return table;
}

}  // namespace nearfield
