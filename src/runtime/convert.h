// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// One element of any dtype, as double and back, rounded to nearest even.
#pragma once

#include <bit>
#include <cstdint>

#include "nearfield/tensor.h"

namespace nearfield {

// The compiler's IEEE half; g++ before 13 knows it on Arm by its older name only.
#if defined(__aarch64__) || defined(__arm__)
using Float16 = __fp16;
#else
using Float16 = _Float16;
#endif

// What a pointer to 16-bit floats points to, where their bits are wanted.
struct BFloat16Bits {
  std::uint16_t bits;
};
struct Float16Bits {
  std::uint16_t bits;
};

inline float bfloat16_to_float(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

inline std::uint16_t float_to_bfloat16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u)
    return static_cast<std::uint16_t>((bits >> 16) | 0x40u);  // NaN stays one
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline double load_element(const void* data, DType t, Index i) {
  switch (t) {
    case DType::kFloat64: return static_cast<const double*>(data)[i];
    case DType::kFloat32: return static_cast<double>(static_cast<const float*>(data)[i]);
    case DType::kBFloat16:
      return static_cast<double>(bfloat16_to_float(static_cast<const std::uint16_t*>(data)[i]));
    case DType::kFloat16: break;
  }
  return static_cast<double>(static_cast<const Float16*>(data)[i]);
}

inline void store_element(void* data, DType t, Index i, double x) {
  switch (t) {
    case DType::kFloat64: static_cast<double*>(data)[i] = x; return;
    case DType::kFloat32: static_cast<float*>(data)[i] = static_cast<float>(x); return;
    case DType::kBFloat16:
      static_cast<std::uint16_t*>(data)[i] = float_to_bfloat16(static_cast<float>(x));
      return;
    case DType::kFloat16: static_cast<Float16*>(data)[i] = static_cast<Float16>(x); return;
  }
}

}  // namespace nearfield
