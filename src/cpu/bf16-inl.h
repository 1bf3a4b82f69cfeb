// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The products of the tuned kernels with bf16 dot products: vdpbf16ps multiplies two pairs of bfloat16 and adds both
// to a float, as fast as one FMA. A pair is one 32-bit number, and so is the unit of every packed array:
//
//   Q   [pairs of channels][kL]              raw: the scale is applied to S
//   K   [keys][pairs of channels]            the tensor's rows as they are
//   S   [keys][kL] floats, then P in place   [pairs of keys][kL], rounded to bfloat16
//   V   [pairs of keys][channels]            a pair is a key of even number and the next one
//
// Key numbers are coordinates along the last axis, so that what is paired depends on the problem alone; where a
// run of keys begins or ends within a pair, P and V of the other half are taken as 0.
// The instruction takes subnormal numbers as 0. It rounds twice, to nearest: first after the odd product.
#if defined(NEARFIELD_CPU_BF16_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NEARFIELD_CPU_BF16_INL_H_
#undef NEARFIELD_CPU_BF16_INL_H_
#else
#define NEARFIELD_CPU_BF16_INL_H_
#endif

#include <array>
#include <utility>

#include "cpu/bf16_pack-inl.h"
#include "cpu/exp-inl.h"

#if NF_BF16_TARGET
HWY_BEFORE_NAMESPACE();
namespace nearfield::cpu::HWY_NAMESPACE {

#undef NF_BF16_ATTR
#define NF_BF16_ATTR __attribute__((target(HWY_TARGET_STR ",avx512bf16")))

NF_BF16_ATTR HWY_INLINE __m512 dot_pairs(__m512 sum, Pairs a, Pairs b) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

// score_tile() of score-inl.h, with max in memory. depth: pairs of channels.
template <int J, int V, int kL, int kPitch>
NF_BF16_ATTR void score_pairs(const std::uint32_t* HWY_RESTRICT keys, std::size_t pitch,
                              const std::uint32_t* HWY_RESTRICT queries, std::size_t depth, float scale,
                              const std::uint32_t* masks, int first_lane, float* HWY_RESTRICT scores,
                              float* HWY_RESTRICT max_out) {
  const FloatTag d;
  const std::size_t step = kPitch ? kPitch : pitch;
  __m512 acc[J][V];
  NF_UNROLL
  for (int j = 0; j < J; ++j)
    for (int v = 0; v < V; ++v) acc[j][v] = _mm512_setzero_ps();
  for (std::size_t c = 0; c < depth; ++c) {
    Pairs q[V];
    for (int v = 0; v < V; ++v) q[v] = pinned_pairs(_mm512_load_si512(queries + c * kL + v * kFloats));
    for (int j = 0; j < J; ++j) {
      Pairs k = _mm512_set1_epi32(static_cast<int>(keys[static_cast<std::size_t>(j) * step + c]));
      if (V > 1) k = pinned_pairs(k);
      for (int v = 0; v < V; ++v) acc[j][v] = dot_pairs(acc[j][v], q[v], k);
    }
  }
  const __m512 by = _mm512_set1_ps(scale);
  NF_UNROLL
  for (int j = 0; j < J; ++j)
    for (int v = 0; v < V; ++v) acc[j][v] = _mm512_mul_ps(acc[j][v], by);
  if (masks) {
    NF_UNROLL
    for (int j = 0; j < J; ++j)
      for (int v = 0; v < V; ++v)
        acc[j][v] = only_seen(masks[j], first_lane + v * kFloats, Floats{acc[j][v]}).raw;
  }
  Floats max[V];
  for (int v = 0; v < V; ++v) max[v] = hn::Load(d, max_out + v * kFloats);
  NF_UNROLL
  for (int j = 0; j < J; ++j)
    for (int v = 0; v < V; ++v) {
      hn::Store(Floats{acc[j][v]}, d, scores + j * kL + v * kFloats);
      max[v] = hn::Max(max[v], Floats{acc[j][v]});
    }
  for (int v = 0; v < V; ++v) hn::Store(max[v], d, max_out + v * kFloats);
}

template <int V, int kL, int kPitch, int... J>
constexpr auto score_pairs_table(std::integer_sequence<int, J...>) {
  return std::array{&score_pairs<J + 1, V, kL, kPitch>...};
}

// S of a chunk for all lanes, -inf for the keys between its runs. max [kL] is raised.
template <int kL, int kPitch>
void score_pairs_chunk(const Chunk& chunk, const std::uint32_t* keys, std::size_t pitch,
                       const std::uint32_t* queries, std::size_t depth, float scale, float* scores,
                       float* max, Ahead& ahead) {
  constexpr int V = kTileVectors<kL>, kMost = kTileKeys<kL, kPitch>;
  static constexpr auto kTable = score_pairs_table<V, kL, kPitch>(std::make_integer_sequence<int, kMost>());
  const auto see_nothing = [&](int key) HWY_ATTR {
    std::fill(scores + key * kL, scores + (key + 1) * kL, -std::numeric_limits<float>::infinity());
  };
  for (int i = 0; i < chunk.runs; ++i) {
    const PackedRun& r = chunk.run[i];
    if (r.at % 2) see_nothing(r.at - 1);
    if ((r.at + r.count) % 2) see_nothing(r.at + r.count);
    for (int l = 0; l < kL; l += V * kFloats)
      for (int j = 0, tiles = (r.count + kMost - 1) / kMost; tiles > 0; --tiles) {
        const int n = (r.count - j + tiles - 1) / tiles;
        kTable[static_cast<std::size_t>(n - 1)](
            keys + static_cast<std::size_t>(r.row + j) * (kPitch ? kPitch : pitch), pitch, queries + l, depth,
            scale, r.full ? nullptr : chunk.mask + r.at + j, l, scores + (r.at + j) * kL + l, max + l);
        ahead.fetch_some();
        j += n;
      }
  }
}

template <int kL>
using ScorePairs = void (*)(const Chunk&, const std::uint32_t*, std::size_t, const std::uint32_t*,
                            std::size_t, float, float*, float*, Ahead&);

template <int kL>
ScorePairs<kL> score_pairs_for(std::size_t pitch) {
  switch (pitch) {
    case 16: return &score_pairs_chunk<kL, 16>;
    case 32: return &score_pairs_chunk<kL, 32>;
    case 64: return &score_pairs_chunk<kL, 64>;
    case 128: return &score_pairs_chunk<kL, 128>;
    default: return &score_pairs_chunk<kL, 0>;
  }
}

// exponentiate() of banded-inl.h: the sum is that of the weights before they are rounded and paired.
template <int kL>
NF_BF16_ATTR bool exponentiate_pairs(int pairs, float* HWY_RESTRICT scores, const float* HWY_RESTRICT old_max,
                                     const float* HWY_RESTRICT max, float* HWY_RESTRICT sum,
                                     float* HWY_RESTRICT factor) {
  const FloatTag d;
  alignas(64) static constexpr std::uint16_t kZip[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                         21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                         11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const Pairs zip = _mm512_load_si512(kZip);
  const Floats log2e = hn::Set(d, kLog2e);
  bool grew = false;
  for (int v = 0; v < kL; v += kFloats) {
    const Floats m = hn::Load(d, max + v), old = hn::Load(d, old_max + v);
    Floats even = hn::Zero(d), odd = even;
    for (int j = 0; j < pairs; ++j) {
      const float* s = scores + 2 * j * kL + v;
      const Floats a = exp2(hn::Mul(hn::Sub(hn::Load(d, s), m), log2e)),
                   b = exp2(hn::Mul(hn::Sub(hn::Load(d, s + kL), m), log2e));
      even = hn::Add(even, a);
      odd = hn::Add(odd, b);
      const auto both = reinterpret_cast<Pairs>(_mm512_cvtne2ps_pbh(b.raw, a.raw));
      _mm512_store_si512(scores + j * kL + v, _mm512_permutexvar_epi16(zip, both));
    }
    const auto same = hn::Eq(old, m);
    const Floats f = hn::IfThenElse(same, hn::Set(d, 1.0f), exp2(hn::Mul(hn::Sub(old, m), log2e)));
    grew = grew || !hn::AllTrue(d, same);
    hn::Store(f, d, factor + v);
    hn::Store(hn::MulAdd(hn::Load(d, sum + v), f, hn::Add(even, odd)), d, sum + v);
  }
  return grew;
}

// One pair of keys; kHalf: of V only what `mask` has.
template <int C, bool kHalf>
NF_BF16_ATTR HWY_INLINE void weigh_pair(__m512 (&acc)[kPack][C], const std::uint32_t* HWY_RESTRICT row,
                                        const std::uint32_t* HWY_RESTRICT p, std::uint32_t mask) {
  Pairs x[C];
  for (int v = 0; v < C; ++v) {
    x[v] = _mm512_load_si512(row + v * kFloats);
    if (kHalf) x[v] = _mm512_and_si512(x[v], _mm512_set1_epi32(static_cast<int>(mask)));
    x[v] = pinned_pairs(x[v]);
  }
  for (int l = 0; l < kPack; ++l) {
    Pairs w = _mm512_set1_epi32(static_cast<int>(p[l]));
    if (C > 1) w = pinned_pairs(w);
    for (int v = 0; v < C; ++v) acc[l][v] = dot_pairs(acc[l][v], w, x[v]);
  }
}

// C vectors of channels of one group of lanes.
template <int C, bool kFirst>
NF_BF16_ATTR void weigh_pairs(const Span* HWY_RESTRICT span, int spans,
                              const std::uint32_t* HWY_RESTRICT weights, int lanes,
                              const std::uint32_t* HWY_RESTRICT values, std::size_t pitch,
                              float* HWY_RESTRICT out, std::size_t out_pitch) {
  __m512 acc[kPack][C];
  NF_UNROLL
  for (int l = 0; l < kPack; ++l)
    for (int v = 0; v < C; ++v)
      acc[l][v] = kFirst ? _mm512_setzero_ps()
                         : _mm512_load_ps(out + static_cast<std::size_t>(l) * out_pitch + v * kFloats);
  for (int i = 0; i < spans; ++i) {
    const std::uint32_t* HWY_RESTRICT row = values + static_cast<std::size_t>(span[i].row / 2) * pitch;
    const std::uint32_t* HWY_RESTRICT p = weights + span[i].at / 2 * lanes;
    int n = span[i].count;
    if (span[i].row % 2) {
      weigh_pair<C, true>(acc, row, p, 0xffff0000u);
      row += pitch;
      p += lanes;
      --n;
    }
    for (; n >= 2; n -= 2, row += pitch, p += lanes) weigh_pair<C, false>(acc, row, p, 0);
    if (n > 0) weigh_pair<C, true>(acc, row, p, 0x0000ffffu);
  }
#if HWY_COMPILER_GCC_ACTUAL  // else the addresses of the rows of `out` are kept for the stores, in vector registers
  asm volatile("" : "+r"(out_pitch));
#endif
  NF_UNROLL
  for (int l = 0; l < kPack; ++l)
    for (int v = 0; v < C; ++v)
      _mm512_store_ps(out + static_cast<std::size_t>(l) * out_pitch + v * kFloats, acc[l][v]);
}

// O += P V of a chunk, or O = P V if kFirst. weights [pairs of keys][lanes]; out [lanes][pitch].
template <bool kFirst>
void weigh_pairs_chunk(const Chunk& chunk, const std::uint32_t* weights, int lanes,
                       const std::uint32_t* values, std::size_t pitch, Index channels, float* out) {
  static constexpr std::array kTable = {&weigh_pairs<1, kFirst>, &weigh_pairs<2, kFirst>,
                                        &weigh_pairs<3, kFirst>, &weigh_pairs<4, kFirst>};
  constexpr int kMost = 4;
  const int vectors = static_cast<int>(ceil_div(channels, kFloats));
  for (int g = 0; g < lanes / kPack; ++g)
    for (int at = 0, passes = (vectors + kMost - 1) / kMost; passes > 0; --passes) {
      const int n = (vectors - at + passes - 1) / passes;
      kTable[static_cast<std::size_t>(n - 1)](
          chunk.span[g], chunk.spans[g], weights + g * kPack, lanes, values + at * kFloats, pitch,
          out + static_cast<std::size_t>(g * kPack) * pitch + at * kFloats, pitch);
      at += n;
    }
}

// What Forward of banded-inl.h is made of: see FloatArithmetic there.
template <int kL>
struct Bf16Arithmetic : PairPacking {
  ScorePairs<kL> score_chunk;
  std::size_t depth;
  float scale;

  Bf16Arithmetic(const Problem& p, std::size_t k_pitch)
      : score_chunk(score_pairs_for<kL>(k_pitch)), depth(static_cast<std::size_t>(ceil_div(p.head_dim, 2))),
        scale(static_cast<float>(p.effective_scale())) {}

  static void queries(const GridView& view, const QueryTile& tile, const LaneOffsets& at, Index head,
                      Index channels, float*, float* to) {
    pack_lane_pairs<kL>(view, tile, at, head, channels, pairs(to));
  }
  void score(const Chunk& chunk, const float* k, std::size_t pitch, const float* q, float* scores, float* max,
             Ahead& ahead) const {
    score_chunk(chunk, pairs(k), pitch, pairs(q), depth, scale, scores, max, ahead);
  }
  static int register_tiles(const Chunk& chunk, std::size_t pitch) {
    return ScoreChunk<kL>::tiles(chunk, pitch);
  }
  static bool weights(int keys, float* scores, const float* old_max, const float* max, float* sum,
                      float* factor) {
    return exponentiate_pairs<kL>((keys + 1) / 2, scores, old_max, max, sum, factor);
  }
  template <bool kFirst>
  static void weigh(const Chunk& chunk, const float* p, const float* v, std::size_t pitch, Index channels,
                    float* out) {
    weigh_pairs_chunk<kFirst>(chunk, pairs(p), kL, pairs(v), pitch, channels, out);
  }
};

}  // namespace nearfield::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // NF_BF16_TARGET

#endif  // per-target guard
