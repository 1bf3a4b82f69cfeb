// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The two inner products that all three passes are made of, and the exponential.
//
//   dot_rows         S[j][l]    = sum_c rows[j][c] * lanes[c][l]        lanes in SIMD, rows broadcast
//   accumulate_rows  acc[l][c] += sum_j W[j][l] * rows[j][c]            channels in SIMD, W broadcast
//
// Neither needs a transpose or a horizontal sum. Cost per row and lane: depth / N FMAs each, N the
// vector length. Registers: 16 accumulators where there are 32 (AVX-512, NEON), 8 where there are 16:
// two FMA ports with a latency of 4 cycles want at least 8 in flight.
//
// Included once per target: no include guard of the usual kind.
#if defined(NEARFIELD_CPU_MICRO_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NEARFIELD_CPU_MICRO_INL_H_
#undef NEARFIELD_CPU_MICRO_INL_H_
#else
#define NEARFIELD_CPU_MICRO_INL_H_
#endif

#include <hwy/highway.h>

#include <hwy/contrib/math/math-inl.h>

#include "cpu/lane_tile.h"

HWY_BEFORE_NAMESPACE();
namespace nearfield::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class T>
using Tag = hn::CappedTag<T, kLanes>;
template <class T>
using Vector = hn::Vec<Tag<T>>;
template <class T>
inline constexpr int kWidth = static_cast<int>(hn::MaxLanes(Tag<T>()));  // T per vector
template <class T>
inline constexpr int kVectors = kLanes / kWidth<T>;  // vectors per lane tile

inline constexpr bool kManyRegisters = HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON;

// x, kept in a register: g++ otherwise folds its load into every FMA that uses it.
template <class V>
HWY_INLINE V pinned(V x) {
#if HWY_TARGET == HWY_AVX3 && HWY_COMPILER_GCC_ACTUAL
  asm volatile("" : "+v"(x.raw));
#endif
  return x;
}

// S of J rows and V vectors of lanes, starting at vector v0.
template <int J, int V, class T>
HWY_INLINE void dot_tile(const T* HWY_RESTRICT rows, std::size_t pitch, const T* HWY_RESTRICT lanes,
                         std::size_t depth, T* HWY_RESTRICT out) {
  const Tag<T> d;
  Vector<T> acc[J][V];
  for (int j = 0; j < J; ++j)
    for (int v = 0; v < V; ++v) acc[j][v] = hn::Zero(d);
  for (std::size_t c = 0; c < depth; ++c) {
    Vector<T> q[V];
    for (int v = 0; v < V; ++v) q[v] = pinned(hn::Load(d, lanes + c * kLanes + v * kWidth<T>));
    for (int j = 0; j < J; ++j) {
      const Vector<T> k = hn::Set(d, rows[static_cast<std::size_t>(j) * pitch + c]);
      for (int v = 0; v < V; ++v) acc[j][v] = hn::MulAdd(k, q[v], acc[j][v]);
    }
  }
  for (int j = 0; j < J; ++j)
    for (int v = 0; v < V; ++v) hn::Store(acc[j][v], d, out + j * kLanes + v * kWidth<T>);
}

// Writes whole groups of 4 rows: `rows` and `out` have room for 3 rows more than count.
template <class T>
void dot_rows(const T* rows, std::size_t pitch, int count, const T* lanes, std::size_t depth, T* out) {
  constexpr int kAtOnce = kVectors<T> < 2 ? 1 : 2;
  constexpr int kRows = kManyRegisters ? 16 / kAtOnce : 4;
  for (int v = 0; v < kVectors<T>; v += kAtOnce) {
    const T* q = lanes + v * kWidth<T>;
    T* s = out + v * kWidth<T>;
    int j = 0;
    for (; j + kRows <= count; j += kRows)
      dot_tile<kRows, kAtOnce>(rows + static_cast<std::size_t>(j) * pitch, pitch, q, depth, s + j * kLanes);
    for (; j < count; j += 4)
      dot_tile<4, kAtOnce>(rows + static_cast<std::size_t>(j) * pitch, pitch, q, depth, s + j * kLanes);
  }
}

// kLaneGroup lanes and V vectors of channels of acc, over all rows that concern these lanes.
template <int V, class T>
HWY_INLINE void accumulate_tile(const Sight<T>& sight, int group, const T* HWY_RESTRICT weights,
                                const T* HWY_RESTRICT rows, std::size_t pitch, T* HWY_RESTRICT acc_out) {
  const Tag<T> d;
  Vector<T> acc[kLaneGroup][V];
  for (int l = 0; l < kLaneGroup; ++l)
    for (int v = 0; v < V; ++v)
      acc[l][v] = hn::Load(d, acc_out + static_cast<std::size_t>(l) * pitch + v * kWidth<T>);
  for (int i = 0; i < sight.segments; ++i) {
    const Segment<T>& s = sight.segment[i];
    const int end = s.start + s.group_end[group];
    for (int j = s.start + s.group_begin[group]; j < end; ++j) {
      const T* row = rows + static_cast<std::size_t>(j) * pitch;
      Vector<T> x[V];
      for (int v = 0; v < V; ++v) x[v] = pinned(hn::Load(d, row + v * kWidth<T>));
      for (int l = 0; l < kLaneGroup; ++l) {
        const Vector<T> w = hn::Set(d, weights[j * kLanes + l]);
        for (int v = 0; v < V; ++v) acc[l][v] = hn::MulAdd(w, x[v], acc[l][v]);
      }
    }
  }
  for (int l = 0; l < kLaneGroup; ++l)
    for (int v = 0; v < V; ++v)
      hn::Store(acc[l][v], d, acc_out + static_cast<std::size_t>(l) * pitch + v * kWidth<T>);
}

// acc: [kLanes][pitch]; pitch is a multiple of the vector width and holds for rows and acc alike.
template <class T>
void accumulate_rows(const Sight<T>& sight, const T* weights, const T* rows, std::size_t pitch, T* acc) {
  constexpr std::size_t kWide = (kManyRegisters ? 4 : 2) * kWidth<T>;
  for (int group = 0; group < kGroups; ++group) {
    const T* w = weights + group * kLaneGroup;
    T* a = acc + static_cast<std::size_t>(group * kLaneGroup) * pitch;
    std::size_t c = 0;
    for (; c + kWide <= pitch; c += kWide)
      accumulate_tile<kWide / kWidth<T>>(sight, group, w, rows + c, pitch, a + c);
    if (kManyRegisters && c + 2 * kWidth<T> <= pitch) {
      accumulate_tile<2>(sight, group, w, rows + c, pitch, a + c);
      c += 2 * kWidth<T>;
    }
    for (; c < pitch; c += kWidth<T>) accumulate_tile<1>(sight, group, w, rows + c, pitch, a + c);
  }
}

// exp(x), 0 below about -104 (float) or -1000 (double), NaN for NaN (Highway's own gives 0).
template <class V>
HWY_INLINE V exp_or_nan(V x) {
  const hn::DFromV<V> d;
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Exp(d, x));
}

template <class V>
HWY_INLINE V log_or_nan(V x) {
  const hn::DFromV<V> d;
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Log(d, x));
}

// Lanes of vector v that see row j (counted from the segment's start).
template <class T>
HWY_INLINE hn::Mask<Tag<T>> sees(const Segment<T>& s, int v, Vector<T> j) {
  const Tag<T> d;
  return hn::And(hn::Ge(j, hn::LoadU(d, s.begin + v * kWidth<T>)),
                 hn::Lt(j, hn::LoadU(d, s.end + v * kWidth<T>)));
}

}  // namespace nearfield::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
