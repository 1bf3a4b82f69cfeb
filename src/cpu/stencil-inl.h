// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The inner products of the stencil kernel, in float; lanes are kFloats queries that follow each other along x.
//
//   stencil_score   S[r][j][lane] = sum_c Q^T[c][r][lane] K^T[c][lane + j]         r: query rows, j: shifts
//   stencil_weigh   O[r][lane][c] += sum_j P[r][j][lane] V[lane + j][c]            channels in SIMD
//
// A shifted row of keys, loaded once, serves all query rows; a row of V serves two rows and two lanes of queries, whose
// windows lie one key apart.
//
// Included once per target: no include guard of the usual kind.
#if defined(NEARFIELD_CPU_STENCIL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NEARFIELD_CPU_STENCIL_INL_H_
#undef NEARFIELD_CPU_STENCIL_INL_H_
#else
#define NEARFIELD_CPU_STENCIL_INL_H_
#endif

#include "cpu/exp-inl.h"
#include "cpu/score-inl.h"
#include "cpu/stencil_keys.h"

HWY_BEFORE_NAMESPACE();
namespace nearfield::cpu::HWY_NAMESPACE {

// Shifts of a register tile of R query rows, at most: 32 registers hold 24 accumulators, 16 hold 10.
template <int R>
inline constexpr int kTileShifts = HWY_TARGET == HWY_AVX3 ? (R == 4   ? 6
                                                             : R == 3 ? 8
                                                                      : 9)
                                   : R == 4               ? 2
                                   : R == 3               ? 3
                                   : R == 2               ? 5
                                                          : 9;

// Keeps x in a register, as pin() does, on both targets of this kernel.
HWY_INLINE void keep(Floats& x) {
#if HWY_COMPILER_GCC_ACTUAL && (HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2)
  asm volatile("" : "+v"(x.raw));
#else
  (void)x;
#endif
}

// queries [depth][4][kFloats]; keys [depth][key_pitch], any alignment; max [R][kFloats] is raised. Every iteration
// prefetches from `next` on.
template <int R, int J>
HWY_NOINLINE void stencil_score(const float* HWY_RESTRICT queries, const float* HWY_RESTRICT keys,
                                Index key_pitch, Index depth, float* HWY_RESTRICT scores, Index row_pitch,
                                float* HWY_RESTRICT max, const char* next, std::size_t next_step) {
  const FloatTag d;
  Floats acc[R][J];
  NF_UNROLL
  for (int r = 0; r < R; ++r) NF_UNROLL
  for (int j = 0; j < J; ++j) acc[r][j] = hn::Zero(d);
  for (Index c = 0; c < depth; ++c, queries += kStencilRows * kFloats, keys += key_pitch) {
    Floats q[R];
    NF_UNROLL
    for (int r = 0; r < R; ++r) {
      q[r] = hn::Load(d, queries + r * kFloats);
      if (J > 1) keep(q[r]);
    }
    __builtin_prefetch(next, 0, 2);
    next += next_step;
    NF_UNROLL
    for (int j = 0; j < J; ++j) {
      Floats k = hn::LoadU(d, keys + j);
      if (R > 1) keep(k);
      NF_UNROLL
      for (int r = 0; r < R; ++r) acc[r][j] = hn::MulAdd(q[r], k, acc[r][j]);
    }
  }
  NF_UNROLL
  for (int r = 0; r < R; ++r) {
    Floats m = hn::Load(d, max + r * kFloats);
    NF_UNROLL
    for (int j = 0; j < J; ++j) {
      hn::Store(acc[r][j], d, scores + r * row_pitch + j * kFloats);
      m = hn::Max(m, acc[r][j]);
    }
    hn::Store(m, d, max + r * kFloats);
  }
}

using StencilScore = void (*)(const float*, const float*, Index, Index, float*, Index, float*, const char*,
                              std::size_t);

template <int R, int... J>
StencilScore stencil_score_of(int shifts, std::integer_sequence<int, J...>) {
  static constexpr StencilScore table[] = {&stencil_score<R, J + 1>...};
  return table[shifts - 1];
}
// shifts: at most most_shifts(rows).
inline StencilScore stencil_score_for(int rows, int shifts) {
  const auto of = [&](auto r) HWY_ATTR {
    constexpr int R = decltype(r)::value;
    return stencil_score_of<R>(shifts, std::make_integer_sequence<int, kTileShifts<R>>());
  };
  switch (rows) {
    case 1: return of(std::integral_constant<int, 1>());
    case 2: return of(std::integral_constant<int, 2>());
    case 3: return of(std::integral_constant<int, 3>());
    default: return of(std::integral_constant<int, 4>());
  }
}
inline int most_shifts(int rows) {
  return rows == 1   ? kTileShifts<1>
         : rows == 2 ? kTileShifts<2>
         : rows == 3 ? kTileShifts<3>
                     : kTileShifts<4>;
}

// One column: of lane 0 if kA, of lane 1 if kB. p: the weights of lane 0.
template <int R, int C, bool kA, bool kB>
HWY_INLINE void weigh_column(const float* HWY_RESTRICT values, const float* HWY_RESTRICT p, Index row_pitch,
                             Floats (&acc)[R][2][C]) {
  const FloatTag d;
  Floats x[C];
  NF_UNROLL
  for (int v = 0; v < C; ++v) {
    x[v] = hn::Load(d, values + v * kFloats);
    keep(x[v]);
  }
  NF_UNROLL
  for (int r = 0; r < R; ++r) {
    if (kA) {
      Floats w = hn::Set(d, p[r * row_pitch]);
      if (C > 1) keep(w);
      NF_UNROLL
      for (int v = 0; v < C; ++v) acc[r][0][v] = hn::MulAdd(w, x[v], acc[r][0][v]);
    }
    if (kB) {  // the next lane at the shift before
      Floats w = hn::Set(d, p[r * row_pitch + 1 - kFloats]);
      if (C > 1) keep(w);
      NF_UNROLL
      for (int v = 0; v < C; ++v) acc[r][1][v] = hn::MulAdd(w, x[v], acc[r][1][v]);
    }
  }
}

// Two lanes and R rows of queries, C vectors of channels, `count` key rows. weights [R][key row][shift][kFloats];
// value_rows: the key rows' V, `offset` floats before lane 0's first column.
template <int R, int C>
HWY_NOINLINE void stencil_weigh(int count, int window, const float* HWY_RESTRICT weights, Index row_pitch,
                                const float* const* value_rows, Index offset, Index value_pitch,
                                float* HWY_RESTRICT out, Index out_pitch, Index out_row) {
  const FloatTag d;
  Floats acc[R][2][C];
  NF_UNROLL
  for (int r = 0; r < R; ++r) NF_UNROLL
  for (int l = 0; l < 2; ++l) NF_UNROLL
  for (int v = 0; v < C; ++v) acc[r][l][v] = hn::Load(d, out + r * out_row + l * out_pitch + v * kFloats);
  for (int i = 0; i < count; ++i) {
    const float* x = value_rows[i] + offset;
    weigh_column<R, C, true, false>(x, weights, row_pitch, acc);
    for (int j = 1; j < window; ++j) {
      x += value_pitch;
      weights += kFloats;
      weigh_column<R, C, true, true>(x, weights, row_pitch, acc);
    }
    weights += kFloats;
    weigh_column<R, C, false, true>(x + value_pitch, weights, row_pitch, acc);
  }
  NF_UNROLL
  for (int r = 0; r < R; ++r) NF_UNROLL
  for (int l = 0; l < 2; ++l) NF_UNROLL
  for (int v = 0; v < C; ++v) hn::Store(acc[r][l][v], d, out + r * out_row + l * out_pitch + v * kFloats);
}

// Vectors of channels at once, at most.
inline constexpr int kStencilChannels = kManyRegisters ? 4 : 2;

using StencilWeigh = void (*)(int, int, const float*, Index, const float* const*, Index, Index, float*, Index,
                              Index);
template <int... C>
StencilWeigh stencil_weigh_of(int rows, int vectors, std::integer_sequence<int, C...>) {
  static constexpr StencilWeigh table[2][sizeof...(C)] = {{&stencil_weigh<1, C + 1>...},
                                                          {&stencil_weigh<2, C + 1>...}};
  return table[rows - 1][vectors - 1];
}
// rows: 1 or 2.
inline StencilWeigh stencil_weigh_for(int rows, int vectors) {
  return stencil_weigh_of(rows, vectors, std::make_integer_sequence<int, kStencilChannels>());
}

// scores [n][kFloats] := exp(scores - max); returns sum + their sum.
HWY_INLINE Floats stencil_exp(float* HWY_RESTRICT scores, Index n, Floats max, Floats sum) {
  const FloatTag d;
  const Floats log2e = hn::Set(d, kLog2e);
  Floats odd = hn::Zero(d);
  const auto weight = [&](Index j) HWY_ATTR {
    float* s = scores + j * kFloats;
    const Floats w = exp2(hn::Mul(hn::Sub(hn::Load(d, s), max), log2e));
    hn::Store(w, d, s);
    return w;
  };
  Index j = 0;
  for (; j + 2 <= n; j += 2) {
    sum = hn::Add(sum, weight(j));
    odd = hn::Add(odd, weight(j + 1));
  }
  if (j < n) sum = hn::Add(sum, weight(j));
  return hn::Add(sum, odd);
}

}  // namespace nearfield::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
