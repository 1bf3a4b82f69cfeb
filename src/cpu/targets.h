// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The SIMD targets that kernels are compiled for. Include before any header of Highway's.
#pragma once

#define HWY_COMPILE_ALL_ATTAINABLE  // the plain-C++ target too: "scalar"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)

// The name of the target that is being compiled.
#define NF_TARGET_NAME                 \
  (HWY_TARGET == HWY_AVX3   ? "avx512" \
   : HWY_TARGET == HWY_AVX2 ? "avx2"   \
   : HWY_TARGET == HWY_SSE4 ? "sse4"   \
   : HWY_TARGET == HWY_NEON ? "neon"   \
                            : "scalar")
