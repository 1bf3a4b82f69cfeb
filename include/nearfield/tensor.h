// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Borrowed memory with a shape: pointer, dtype, sizes and strides (in elements). Owns nothing.
//
//   std::vector<float> q(2 * 64 * 64 * 8 * 32);
//   TensorView query(q.data(), DType::kFloat32, {2, 64, 64, 8, 32});   // dense, row-major
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string_view>

#include "nearfield/geometry.h"
#include "nearfield/status.h"

namespace nearfield {

enum class DType : int { kFloat32, kFloat64, kBFloat16, kFloat16 };

constexpr Index size_of(DType t) { return t == DType::kFloat64 ? 8 : t == DType::kFloat32 ? 4 : 2; }
constexpr std::string_view name_of(DType t) {
  constexpr std::string_view kNames[] = {"f32", "f64", "bf16", "f16"};
  return kNames[static_cast<int>(t)];
}
// What the softmax statistics are stored in: float64 for float64 inputs, float32 for all others.
constexpr DType lse_dtype(DType t) { return t == DType::kFloat64 ? t : DType::kFloat32; }

inline constexpr int kMaxTensorRank = 6;

struct TensorView {
  void* data = nullptr;  // may be null only for an absent or empty tensor
  DType dtype = DType::kFloat32;
  int rank = 0;  // 0: absent
  std::array<Index, kMaxTensorRank> size{};
  std::array<Index, kMaxTensorRank> stride{};  // in elements

  TensorView() = default;
  // Dense and row-major. The data of inputs is never written, whatever the pointer's type.
  TensorView(const void* d, DType t, std::initializer_list<Index> sizes)
      : TensorView(d, t, sizes.begin(), static_cast<int>(sizes.size())) {}
  TensorView(const void* d, DType t, const Index* sizes, int n) : TensorView(d, t, sizes, nullptr, n) {}
  // With strides in elements; null means dense.
  NF_API TensorView(const void* d, DType t, const Index* sizes, const Index* strides, int n);

  bool present() const { return rank > 0; }
  Index elements() const {
    Index n = 1;
    for (int i = 0; i < rank; ++i) n *= size[i];
    return n;
  }
};

}  // namespace nearfield
