// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The inner products of the tuned kernels, in float.
//
//   score   S[key][lane] = sum_c K[key][c] Q^T[c][lane], masked, with the running maximum
//   weigh   O[lane][c] += sum_key P[key][lane] V[key][c], four lanes at a time
//
// Rows are packed and their pitch is known at compile time, so that one pointer reaches all keys of a
// register tile. Operands used by more than one FMA are pinned in registers (see pinned()).
//
// Included once per target: no include guard of the usual kind.
#if defined(NEARFIELD_CPU_SCORE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NEARFIELD_CPU_SCORE_INL_H_
#undef NEARFIELD_CPU_SCORE_INL_H_
#else
#define NEARFIELD_CPU_SCORE_INL_H_
#endif

#include "cpu/ahead.h"
#include "cpu/micro-inl.h"
#include "cpu/query_tile.h"

HWY_BEFORE_NAMESPACE();
namespace nearfield::cpu::HWY_NAMESPACE {

using FloatTag = Tag<float>;
using Floats = hn::Vec<FloatTag>;
using LaneMask = hn::Mask<FloatTag>;
inline constexpr int kFloats = kWidth<float>;

// g++ 12 keeps an array of more than a dozen vectors on the stack unless the loops that begin and end its life,
// outermost in their function, are unrolled early.
#undef NF_UNROLL
#if HWY_COMPILER_GCC_ACTUAL
#define NF_UNROLL _Pragma("GCC unroll 32")
#else
#define NF_UNROLL
#endif

#if HWY_TARGET != HWY_AVX3
alignas(64) inline constexpr std::uint32_t kLaneBit[kMostLanes] = {
    1u << 0,  1u << 1,  1u << 2,  1u << 3,  1u << 4,  1u << 5,  1u << 6,  1u << 7,
    1u << 8,  1u << 9,  1u << 10, 1u << 11, 1u << 12, 1u << 13, 1u << 14, 1u << 15,
    1u << 16, 1u << 17, 1u << 18, 1u << 19, 1u << 20, 1u << 21, 1u << 22, 1u << 23,
    1u << 24, 1u << 25, 1u << 26, 1u << 27, 1u << 28, 1u << 29, 1u << 30, 1u << 31};
#endif

// Lanes [first, first + kFloats) of a tile's mask.
HWY_INLINE LaneMask lane_mask(std::uint32_t bits, int first) {
#if HWY_TARGET == HWY_AVX3
  return LaneMask{static_cast<__mmask16>(bits >> first)};
#else
  const hn::RebindToUnsigned<FloatTag> u;
  const auto lane = hn::Load(u, kLaneBit + first);
  return hn::RebindMask(FloatTag(), hn::Eq(hn::And(hn::Set(u, bits), lane), lane));
#endif
}

// x where the tile's mask has a bit, else -inf.
HWY_INLINE Floats only_seen(std::uint32_t bits, int first, Floats x) {
  return hn::IfThenElse(lane_mask(bits, first), x,
                        hn::Set(FloatTag(), -std::numeric_limits<float>::infinity()));
}

// Vectors of lanes and keys of a register tile: two FMA ports with a latency of 4 cycles want at least 8
// accumulators, AVX-512 and NEON have 32 registers, the others 16.
template <int kL>
inline constexpr int kTileVectors = kL / kFloats < (HWY_TARGET == HWY_NEON ? 4 : 2) ? kL / kFloats
                                    : HWY_TARGET == HWY_NEON                        ? 4
                                                                                    : 2;
template <int kL, int kPitch>
inline constexpr int kTileKeys = kPitch == 0                ? 4
                                 : HWY_TARGET == HWY_AVX3   ? (kTileVectors<kL> == 1 ? 16 : 12)
                                 : kTileVectors<kL> == 1    ? 12
                                 : HWY_TARGET == HWY_SCALAR ? 2
                                 : HWY_TARGET == HWY_NEON   ? 5
                                                            : 6;

// S of J keys and V vectors of lanes. masks: of the keys, or null where all lanes see all. next: the keys to come; they
// are fetched meanwhile.
template <int J, int V, int kL, int kPitch>
HWY_INLINE void score_tile(const float* HWY_RESTRICT keys, std::size_t pitch,
                           const float* HWY_RESTRICT queries, std::size_t depth, const std::uint32_t* masks,
                           int first_lane, const float* next, float* HWY_RESTRICT scores, Floats (&max)[V]) {
  const FloatTag d;
  const std::size_t step = kPitch ? kPitch : pitch;
  Floats acc[J][V];
  NF_UNROLL
  for (int j = 0; j < J; ++j)
    for (int v = 0; v < V; ++v) acc[j][v] = hn::Zero(d);
  for (std::size_t c = 0; c < depth; ++c, next += J) {
    __builtin_prefetch(next);
    Floats q[V];
    for (int v = 0; v < V; ++v) q[v] = pinned(hn::Load(d, queries + c * kL + v * kFloats));
    for (int j = 0; j < J; ++j) {
      Floats k = hn::Set(d, keys[static_cast<std::size_t>(j) * step + c]);
      if (V > 1) k = pinned(k);
      for (int v = 0; v < V; ++v) acc[j][v] = hn::MulAdd(k, q[v], acc[j][v]);
    }
  }
  if (masks) {
    NF_UNROLL
    for (int j = 0; j < J; ++j)
      for (int v = 0; v < V; ++v) acc[j][v] = only_seen(masks[j], first_lane + v * kFloats, acc[j][v]);
  }
  NF_UNROLL
  for (int j = 0; j < J; ++j)
    for (int v = 0; v < V; ++v) {
      hn::Store(acc[j][v], d, scores + j * kL + v * kFloats);
      max[v] = hn::Max(max[v], acc[j][v]);
    }
}

// The same for a run of any number of keys: tiles of nearly equal size.
template <int V, int kL, int kPitch>
HWY_NOINLINE void score_run(const float* keys, std::size_t pitch, int count, const float* queries,
                            std::size_t depth, const std::uint32_t* masks, int first_lane, const float* after,
                            float* scores, float* max_out, Ahead* ahead) {
  constexpr int kMost = kTileKeys<kL, kPitch>;
  const FloatTag d;
  Floats max[V];
  for (int v = 0; v < V; ++v) max[v] = hn::Load(d, max_out + v * kFloats);
  const std::size_t step = kPitch ? kPitch : pitch;
  for (int tiles = (count + kMost - 1) / kMost; tiles > 0; --tiles) {
    const int n = (count + tiles - 1) / tiles;
    const float* next = tiles > 1 ? keys + static_cast<std::size_t>(n) * step : after;
    const auto tile = [&](auto size) HWY_ATTR {
      constexpr int J = decltype(size)::value;
      if constexpr (J <= kMost)
        score_tile<J, V, kL, kPitch>(keys, pitch, queries, depth, masks, first_lane, next, scores, max);
    };
    switch (n) {
#define NF_SCORE(J) \
  case J: tile(std::integral_constant<int, J>()); break;
      NF_SCORE(1)
      NF_SCORE(2)
      NF_SCORE(3)
      NF_SCORE(4)
      NF_SCORE(5)
      NF_SCORE(6)
      NF_SCORE(7)
      NF_SCORE(8)
      NF_SCORE(9)
      NF_SCORE(10)
      NF_SCORE(11)
      NF_SCORE(12)
      NF_SCORE(13)
      NF_SCORE(14)
      NF_SCORE(15)
      NF_SCORE(16)
#undef NF_SCORE
    }
    if (ahead) ahead->fetch_some();
    keys += static_cast<std::size_t>(n) * step;
    scores += n * kL;
    if (masks) masks += n;
    count -= n;
  }
  for (int v = 0; v < V; ++v) hn::Store(max[v], d, max_out + v * kFloats);
}

// S of a chunk for all lanes, -inf where masked if asked for. keys: the rows that the chunk numbers. max [kL] is raised.
template <int kL, int kPitch>
void score_chunk(const Chunk& chunk, bool masked, const float* keys, std::size_t pitch, const float* queries,
                 std::size_t depth, float* scores, float* max, Ahead* ahead) {
  constexpr int V = kTileVectors<kL>;
  for (int i = 0; i < chunk.runs; ++i) {
    const PackedRun& r = chunk.run[i];
    const float* after =
        keys + static_cast<std::size_t>(chunk.run[i + 1 < chunk.runs ? i + 1 : i].row) * pitch;
    for (int l = 0; l < kL; l += V * kFloats)
      score_run<V, kL, kPitch>(keys + static_cast<std::size_t>(r.row) * pitch, pitch, r.count, queries + l,
                               depth, r.full || !masked ? nullptr : chunk.mask + r.at, l, after,
                               scores + r.at * kL + l, max + l, ahead);
  }
}

// score_chunk() for a pitch. ahead: what is fetched meanwhile, or null.
template <int kL>
class ScoreChunk {
 public:
  explicit ScoreChunk(std::size_t pitch) : fn_(chosen(pitch)) {}
  void operator()(const Chunk& chunk, bool masked, const float* keys, std::size_t pitch, const float* queries,
                  std::size_t depth, float* scores, float* max, Ahead* ahead = nullptr) const {
    fn_(chunk, masked, keys, pitch, queries, depth, scores, max, ahead);
  }
  // Register tiles of a chunk: how often it fetches.
  static int tiles(const Chunk& chunk, std::size_t pitch) {
    const int most = pitch <= 256 ? kTileKeys<kL, 32> : kTileKeys<kL, 0>;
    int n = 0;
    for (int i = 0; i < chunk.runs; ++i) n += (chunk.run[i].count + most - 1) / most;
    return n * (kL / kFloats / kTileVectors<kL>);
  }

 private:
  using Fn = void (*)(const Chunk&, bool, const float*, std::size_t, const float*, std::size_t, float*,
                      float*, Ahead*);
  Fn fn_;
  static Fn chosen(std::size_t pitch) {
    switch (pitch) {
      case 32: return &score_chunk<kL, 32>;
      case 64: return &score_chunk<kL, 64>;
      case 128: return &score_chunk<kL, 128>;
      case 256: return &score_chunk<kL, 256>;
      default: return &score_chunk<kL, 0>;
    }
  }
};

template <int kL>
ScoreChunk<kL> score_for(std::size_t pitch) {
  return ScoreChunk<kL>(pitch);
}

// C vectors of channels of one group of lanes.
template <int C, bool kFirst>
HWY_INLINE void weigh_tile(const Span* HWY_RESTRICT span, int spans, const float* HWY_RESTRICT weights,
                           int lanes, const float* HWY_RESTRICT values, std::size_t pitch,
                           float* HWY_RESTRICT out, std::size_t out_pitch) {
  const FloatTag d;
  Floats acc[kPack][C];
  NF_UNROLL
  for (int l = 0; l < kPack; ++l)
    for (int v = 0; v < C; ++v)
      acc[l][v] =
          kFirst ? hn::Zero(d) : hn::Load(d, out + static_cast<std::size_t>(l) * out_pitch + v * kFloats);
  for (int i = 0; i < spans; ++i) {
    const float* HWY_RESTRICT row = values + static_cast<std::size_t>(span[i].row) * pitch;
    const float* HWY_RESTRICT p = weights + span[i].at * lanes;
    for (int n = span[i].count; n > 0; --n, row += pitch, p += lanes) {
      Floats x[C];
      for (int v = 0; v < C; ++v) x[v] = pinned(hn::Load(d, row + v * kFloats));
      for (int l = 0; l < kPack; ++l) {
        Floats w = hn::Set(d, p[l]);
        if (C > 1) w = pinned(w);
        for (int v = 0; v < C; ++v) acc[l][v] = hn::MulAdd(w, x[v], acc[l][v]);
      }
    }
  }
  NF_UNROLL
  for (int l = 0; l < kPack; ++l)
    for (int v = 0; v < C; ++v)
      hn::Store(acc[l][v], d, out + static_cast<std::size_t>(l) * out_pitch + v * kFloats);
}

// O += P V of a chunk, or O = P V if kFirst. weights [keys][lanes]; out [lanes][pitch].
template <bool kFirst>
void weigh_chunk(const Chunk& chunk, const float* weights, int lanes, const float* values, std::size_t pitch,
                 Index channels, float* out) {
  constexpr int kMost = kManyRegisters ? 4 : 3;
  const int vectors = static_cast<int>(ceil_div(channels, kFloats));
  for (int g = 0; g < lanes / kPack; ++g) {
    const float* w = weights + g * kPack;
    float* o = out + static_cast<std::size_t>(g * kPack) * pitch;
    for (int at = 0, passes = (vectors + kMost - 1) / kMost; passes > 0; --passes) {
      const int n = (vectors - at + passes - 1) / passes;
      const auto tile = [&](auto size) HWY_ATTR {
        weigh_tile<decltype(size)::value, kFirst>(chunk.span[g], chunk.spans[g], w, lanes,
                                                  values + at * kFloats, pitch, o + at * kFloats, pitch);
      };
      switch (n) {
        case 1: tile(std::integral_constant<int, 1>()); break;
        case 2: tile(std::integral_constant<int, 2>()); break;
        case 3: tile(std::integral_constant<int, 3>()); break;
        case 4:
          if constexpr (kMost > 3) tile(std::integral_constant<int, 4>());
          break;
      }
      at += n;
    }
  }
}

}  // namespace nearfield::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
