// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// What the backward pass of the tuned kernels adds to the inner products of score-inl.h.
//
//   weigh_gradients   P = exp(S - lse),  dS = P (dP - delta)                       [key][lane]
//   spread            out[key][c] += sum_lane W[key][lane] rows[lane][c]           dV from P, dO; dK from dS, Q
#if defined(NEARFIELD_CPU_GRADIENT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NEARFIELD_CPU_GRADIENT_INL_H_
#undef NEARFIELD_CPU_GRADIENT_INL_H_
#else
#define NEARFIELD_CPU_GRADIENT_INL_H_
#endif

#include "cpu/exp-inl.h"
#include "cpu/score-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nearfield::cpu::HWY_NAMESPACE {

// scores := P, grads := dS. Masked scores are -inf, and lse is +inf where a row is empty: P is exactly 0 there, and
// so is dS whatever dP is.
template <int kL>
void tile_gradients(int keys, float* HWY_RESTRICT scores, float* HWY_RESTRICT grads,
                    const float* HWY_RESTRICT lse, const float* HWY_RESTRICT delta) {
  const FloatTag d;
  const Floats log2e = hn::Set(d, kLog2e);
  for (int v = 0; v < kL; v += kFloats) {
    const Floats l = hn::Load(d, lse + v), rows = hn::Load(d, delta + v);
    for (int j = 0; j < keys; ++j) {
      float *s = scores + j * kL + v, *g = grads + j * kL + v;
      const Floats p = exp2(hn::Mul(hn::Sub(hn::Load(d, s), l), log2e));
      const Floats ds = hn::Mul(p, hn::Sub(hn::Load(d, g), rows));
      hn::Store(p, d, s);
      hn::Store(hn::IfThenZeroElse(hn::Eq(p, hn::Zero(d)), ds), d, g);
    }
  }
}

// J keys and C vectors of channels. packs: the groups of lanes that see some of the keys, a bit each.
template <int J, int C>
HWY_INLINE void spread_tile(const float* HWY_RESTRICT weights, int lanes, std::uint32_t packs,
                            const float* HWY_RESTRICT rows, std::size_t pitch, float* HWY_RESTRICT out) {
  const FloatTag d;
  Floats acc[J][C];
  NF_UNROLL
  for (int j = 0; j < J; ++j)
    for (int v = 0; v < C; ++v)
      acc[j][v] = hn::Load(d, out + static_cast<std::size_t>(j) * pitch + v * kFloats);
  for (; packs != 0; packs &= packs - 1) {
    const int first = __builtin_ctz(packs) * kPack;
    const float* HWY_RESTRICT row = rows + static_cast<std::size_t>(first) * pitch;
    const float* HWY_RESTRICT w = weights + first;
#if HWY_COMPILER_GCC_ACTUAL
#pragma GCC unroll 1  // unrolled, it is no faster, and loads move ahead until an accumulator is spilled
#endif
    for (int l = 0; l < kPack; ++l, row += pitch, ++w) {
      Floats x[C];
      for (int v = 0; v < C; ++v) x[v] = pinned(hn::Load(d, row + v * kFloats));
      for (int j = 0; j < J; ++j) {
        Floats p = hn::Set(d, w[j * lanes]);
        if (C > 1) p = pinned(p);
        for (int v = 0; v < C; ++v) acc[j][v] = hn::MulAdd(p, x[v], acc[j][v]);
      }
    }
  }
  NF_UNROLL
  for (int j = 0; j < J; ++j)
    for (int v = 0; v < C; ++v)
      hn::Store(acc[j][v], d, out + static_cast<std::size_t>(j) * pitch + v * kFloats);
}

// Accumulators of a register tile (NEON: g++ 12 loads the weights ahead of them all), and its keys.
inline constexpr int kSpreadTile = HWY_TARGET == HWY_NEON ? 20 : kManyRegisters ? 24 : 12;
template <int C>
inline constexpr int kSpreadKeys = kSpreadTile / C < 12 ? kSpreadTile / C : 12;

// C vectors of channels of a run.
template <int C, int kL>
HWY_NOINLINE void spread_run(int count, const float* weights, std::uint32_t packs, const float* rows,
                             std::size_t pitch, float* out) {
  constexpr int kMost = kSpreadKeys<C>;
  for (int tiles = (count + kMost - 1) / kMost; tiles > 0; --tiles) {
    const int n = (count + tiles - 1) / tiles;
    const auto tile = [&](auto size) HWY_ATTR {
      constexpr int J = decltype(size)::value;
      if constexpr (J <= kMost) spread_tile<J, C>(weights, kL, packs, rows, pitch, out);
    };
    switch (n) {
#define NF_SPREAD(J) \
  case J: tile(std::integral_constant<int, J>()); break;
      NF_SPREAD(1)
      NF_SPREAD(2)
      NF_SPREAD(3)
      NF_SPREAD(4)
      NF_SPREAD(5)
      NF_SPREAD(6)
      NF_SPREAD(7)
      NF_SPREAD(8)
      NF_SPREAD(9)
      NF_SPREAD(10)
      NF_SPREAD(11)
      NF_SPREAD(12)
#undef NF_SPREAD
    }
    weights += n * kL;
    out += static_cast<std::size_t>(n) * pitch;
    count -= n;
  }
}

// out[key] += W^T rows for the keys of a chunk. weights [keys][kL]; rows [kL][pitch]; out: the rows that the chunk
// numbers, of the same pitch.
template <int kL>
void spread_chunk(const Chunk& chunk, const float* weights, const float* rows, std::size_t pitch,
                  Index channels, float* out) {
  constexpr int kMost = kManyRegisters ? 4 : 2;
  const int vectors = static_cast<int>(ceil_div(channels, kFloats));
  for (int i = 0; i < chunk.runs; ++i) {
    const PackedRun& r = chunk.run[i];
    const float* w = weights + r.at * kL;
    float* to = out + static_cast<std::size_t>(r.row) * pitch;
    for (int at = 0, passes = (vectors + kMost - 1) / kMost; passes > 0; --passes) {
      const int n = (vectors - at + passes - 1) / passes;
      switch (n) {
        case 1: spread_run<1, kL>(r.count, w, r.packs, rows + at * kFloats, pitch, to + at * kFloats); break;
        case 2: spread_run<2, kL>(r.count, w, r.packs, rows + at * kFloats, pitch, to + at * kFloats); break;
        case 3:
          if constexpr (kMost > 2)
            spread_run<3, kL>(r.count, w, r.packs, rows + at * kFloats, pitch, to + at * kFloats);
          break;
        case 4:
          if constexpr (kMost > 2)
            spread_run<4, kL>(r.count, w, r.packs, rows + at * kFloats, pitch, to + at * kFloats);
          break;
      }
      at += n;
    }
  }
}

}  // namespace nearfield::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
