// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "nearfield/tensor.h"

#include <string>

namespace nearfield {

TensorView::TensorView(const void* d, DType t, const Index* sizes, const Index* strides, int n)
    : data(const_cast<void*>(d)), dtype(t), rank(n) {
  if (n < 1 || n > kMaxTensorRank)
    throw std::invalid_argument("[TensorView] got rank " + std::to_string(n) + ", expected 1 to 6");
  Index dense = 1;
  for (int i = n - 1; i >= 0; --i) {
    if (sizes[i] < 0) throw std::invalid_argument("[TensorView] got a negative size, expected sizes >= 0");
    size[i] = sizes[i];
    stride[i] = strides ? strides[i] : dense;
    if (!strides && __builtin_mul_overflow(dense, sizes[i] > 0 ? sizes[i] : 1, &dense))
      throw std::invalid_argument(
          "[TensorView] got more than 2**63 elements, expected a tensor that fits in memory");
  }
}

}  // namespace nearfield
