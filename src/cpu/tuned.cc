// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Compiles the tuned kernels once per SIMD target.
#include "cpu/targets.h"

#include "cpu/kernel.h"
#include "cpu/tuned.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/tuned.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/banded_backward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nearfield::cpu::HWY_NAMESPACE {

const char* const kTunedTarget = NF_TARGET_NAME;
#if NF_BF16_TARGET
#define NF_BF16_KERNEL(lanes) &tuned_forward<lanes, Bf16Arithmetic<lanes>>
#else
#define NF_BF16_KERNEL(lanes) nullptr
#endif
const TunedKernels kTuned = {&tuned_forward<16>,  &tuned_forward<32>,  NF_BF16_KERNEL(16), NF_BF16_KERNEL(32),
                             &tuned_backward<16>, &tuned_backward<32>, &add_bands};
#undef NF_BF16_KERNEL

}  // namespace nearfield::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nearfield::cpu {

const TunedKernels& tuned_kernels() {
  struct Row {
    std::string_view target;
    const TunedKernels* kernels;
  };
  static const TunedKernels& chosen = []() -> const TunedKernels& {
    const Row table[] = {
#if HWY_TARGETS & HWY_AVX3
      {N_AVX3::kTunedTarget, &N_AVX3::kTuned},
#endif
#if HWY_TARGETS & HWY_AVX2
      {N_AVX2::kTunedTarget, &N_AVX2::kTuned},
#endif
#if HWY_TARGETS & HWY_SSE4
      {N_SSE4::kTunedTarget, &N_SSE4::kTuned},
#endif
#if HWY_TARGETS & HWY_NEON
      {N_NEON::kTunedTarget, &N_NEON::kTuned},
#endif
#if HWY_TARGETS & HWY_EMU128
      {N_EMU128::kTunedTarget, &N_EMU128::kTuned},
#endif
#if HWY_TARGETS & HWY_SCALAR
      {N_SCALAR::kTunedTarget, &N_SCALAR::kTuned},
#endif
    };
    const std::string name = targets()[0];
    for (const Row& row : table)
      if (row.target == name) return *row.kernels;
    return *table[std::size(table) - 1].kernels;
  }();
  return chosen;
}

}  // namespace nearfield::cpu
#endif  // HWY_ONCE
