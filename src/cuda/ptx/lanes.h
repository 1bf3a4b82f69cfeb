// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Kernel bodies are written once, per warp: code that differs between lanes stands in NF_LANES, registers that
// differ are PerLane, and what a warp does together (mma, ldmatrix, votes) stands outside. nvcc makes of it
// ordinary device code, in which NF_LANES is nothing and PerLane is plain registers. Any other compiler makes a
// host program of the same text: NF_LANES loops over 32 lanes, PerLane holds the registers of all of them, and
// warps are fibers that switch at barriers only (emulator.h). So the bodies run, checked, where there is no GPU;
// and fast, since a barrier costs one switch per warp and not one per thread.
//
//   PerLane<float, 2> x;
//   NF_LANES(lane) x.of(lane)[0] = lane;     // of() wants constant indices: they are registers
//   quad_max(x, 0);
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "nearfield/interval.h"

#if defined(__CUDACC__)
#define NF_DEVICE __device__ __forceinline__
#define NF_UNROLL _Pragma("unroll")
#define NF_NO_UNROLL _Pragma("unroll 1")
#define NF_UNROLL_BY(n) _Pragma(NF_TEXT(unroll n))
#define NF_TEXT(x) #x
#define NF_LANES(lane) \
  for (int lane = ::nearfield::ptx::lane_id(), lane##_once = 1; lane##_once; lane##_once = 0)
#else
#define NF_EMULATED 1
#define NF_DEVICE inline
#define NF_UNROLL
#define NF_NO_UNROLL
#define NF_UNROLL_BY(n)
#define NF_LANES(lane) for (int lane = 0; lane < ::nearfield::ptx::kLanes; ++lane)
#endif

namespace nearfield::ptx {

inline constexpr int kLanes = 32;
using Word = std::uint32_t;

#if defined(__CUDACC__)

NF_DEVICE int lane_id() { return static_cast<int>(threadIdx.x) & 31; }

template <class T, int N>
struct PerLane {
  T value[N];
  NF_DEVICE T (&of(int))[N] { return value; }
  NF_DEVICE const T (&of(int) const)[N] { return value; }
};

#else

// Full of NaN until written.
template <class T, int N>
struct PerLane {
  T value[kLanes][N];
  PerLane() { std::memset(static_cast<void*>(value), 0xff, sizeof value); }
  T (&of(int lane))[N] { return value[lane]; }
  const T (&of(int lane) const)[N] { return value[lane]; }
};

#endif

// Over the four lanes of a quad, which hold the columns of one row of an accumulator; every lane gets the result.
template <int N>
NF_DEVICE void quad_max(PerLane<float, N>& x, int i) {
#if defined(__CUDACC__)
  float& v = x.of(0)[i];
  v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
  v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
#else
  for (int q = 0; q < kLanes; q += 4) {
    const float most =
        std::fmax(std::fmax(x.of(q)[i], x.of(q + 1)[i]), std::fmax(x.of(q + 2)[i], x.of(q + 3)[i]));
    for (int t = 0; t < 4; ++t) x.of(q + t)[i] = most;
  }
#endif
}
template <int N>
NF_DEVICE void quad_sum(PerLane<float, N>& x, int i) {
#if defined(__CUDACC__)
  float& v = x.of(0)[i];
  v += __shfl_xor_sync(0xffffffffu, v, 1);
  v += __shfl_xor_sync(0xffffffffu, v, 2);
#else
  for (int q = 0; q < kLanes; q += 4) {
    const float sum = (x.of(q)[i] + x.of(q + 1)[i]) + (x.of(q + 2)[i] + x.of(q + 3)[i]);
    for (int t = 0; t < 4; ++t) x.of(q + t)[i] = sum;
  }
#endif
}

// Over the whole warp.
NF_DEVICE float warp_sum(PerLane<float, 1>& x) {
#if defined(__CUDACC__)
  float v = x.of(0)[0];
  for (int d = 16; d > 0; d /= 2) v += __shfl_xor_sync(0xffffffffu, v, d);
  return v;
#else
  float v[kLanes];
  for (int l = 0; l < kLanes; ++l) v[l] = x.of(l)[0];
  for (int d = 16; d > 0; d /= 2)
    for (int l = 0; l < d; ++l) v[l] += v[l + d];
  return v[0];
#endif
}
NF_DEVICE int warp_max(PerLane<int, 1>& x) {
#if defined(__CUDACC__)
  return __reduce_max_sync(0xffffffffu, x.of(0)[0]);
#else
  int most = x.of(0)[0];
  for (int l = 1; l < kLanes; ++l) most = x.of(l)[0] > most ? x.of(l)[0] : most;
  return most;
#endif
}
NF_DEVICE bool warp_any(PerLane<bool, 1>& x) {
#if defined(__CUDACC__)
  return __any_sync(0xffffffffu, x.of(0)[0]);
#else
  for (int l = 0; l < kLanes; ++l)
    if (x.of(l)[0]) return true;
  return false;
#endif
}

// The lane's number, whose origin the compiler does not see: what is computed from it here (addresses) is computed
// again next time and does not sit in registers meanwhile.
NF_DEVICE int fresh(int lane) {
#if defined(__CUDACC__)
  asm volatile("" : "+r"(lane));
#endif
  return lane;
}
NF_DEVICE void fresh_lanes(PerLane<int, 1>& me) { NF_LANES(lane) me.of(lane)[0] = fresh(lane); }

// 2^x: relative error below 2^-22; 0 for -inf. Results below 2^-126 are 0, unless they are asked for.
template <bool kSubnormal = false>
NF_DEVICE float exp2(float x) {
#if defined(__CUDACC__)
  float y;
  if (kSubnormal) asm("ex2.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  else asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  const float y = std::exp2(x);
  return !kSubnormal && std::fabs(y) < 0x1p-126f ? 0.0f : y;
#endif
}

NF_DEVICE float fused(float a, float b, float c) {
#if defined(__CUDACC__)
  return __fmaf_rn(a, b, c);
#else
  return std::fma(a, b, c);
#endif
}

}  // namespace nearfield::ptx
