// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The CUDA stream that PyTorch works on at present.
#pragma once

#include <cstdint>

namespace nearfield::torch_ops {

// A cudaStream_t of that device. Throws where this PyTorch was built without CUDA.
void* current_stream(std::int32_t device);

}  // namespace nearfield::torch_ops
