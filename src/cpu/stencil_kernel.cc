// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Compiles the stencil kernel for the SIMD targets that it is made for.
#include "cpu/targets.h"

#include "cpu/kernel.h"
#include "cpu/stencil.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/stencil_kernel.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/stencil_forward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nearfield::cpu::HWY_NAMESPACE {

#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
const RunStencil kStencil = &run_stencil;
#endif

}  // namespace nearfield::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nearfield::cpu {

RunStencil stencil_kernel() {
  const std::string target = targets()[0];
#if HWY_TARGETS & HWY_AVX3
  if (target == "avx512") return N_AVX3::kStencil;
#endif
#if HWY_TARGETS & HWY_AVX2
  if (target == "avx2") return N_AVX2::kStencil;
#endif
  return nullptr;
}

}  // namespace nearfield::cpu
#endif  // HWY_ONCE
