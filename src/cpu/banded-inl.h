// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The forward pass of the tuned kernels: see band.h for how the work is cut.
//
//   S = Q K^T  (lanes = queries, scale folded into Q)   P = exp(S - m)   O += P V  (channels in SIMD)
//
// Online softmax over chunks of keys: the running maximum m, the sum l and O of a tile stay in the L1 cache.
// Scratch of a task: the packed keys, and per tile in flight kL (D + Dv + 2) floats.
#if defined(NEARFIELD_CPU_BANDED_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NEARFIELD_CPU_BANDED_INL_H_
#undef NEARFIELD_CPU_BANDED_INL_H_
#else
#define NEARFIELD_CPU_BANDED_INL_H_
#endif

#include <new>

#include "cpu/band_scratch.h"
#include "cpu/bf16-inl.h"
#include "cpu/exp-inl.h"
#include "cpu/fetch-inl.h"
#include "cpu/pack-inl.h"
#include "cpu/sweep.h"

HWY_BEFORE_NAMESPACE();
namespace nearfield::cpu::HWY_NAMESPACE {

// scores [keys][kL] := exp(S - max); sum is carried over. factor: what O and the sum are multiplied with. True if it is
// not 1 somewhere.
template <int kL>
HWY_INLINE bool exponentiate(int keys, float* HWY_RESTRICT scores, const float* HWY_RESTRICT old_max,
                             const float* HWY_RESTRICT max, float* HWY_RESTRICT sum,
                             float* HWY_RESTRICT factor) {
  const FloatTag d;
  const Floats log2e = hn::Set(d, kLog2e);
  bool grew = false;
  for (int v = 0; v < kL; v += kFloats) {
    const Floats m = hn::Load(d, max + v), old = hn::Load(d, old_max + v);
    Floats total = hn::Zero(d);
    for (int j = 0; j < keys; ++j) {
      float* s = scores + j * kL + v;
      const Floats p = exp2(hn::Mul(hn::Sub(hn::Load(d, s), m), log2e));
      total = hn::Add(total, p);
      hn::Store(p, d, s);
    }
    const auto same = hn::Eq(old, m);
    const Floats f = hn::IfThenElse(same, hn::Set(d, 1.0f), exp2(hn::Mul(hn::Sub(old, m), log2e)));
    grew = grew || !hn::AllTrue(d, same);
    hn::Store(f, d, factor + v);
    hn::Store(hn::MulAdd(hn::Load(d, sum + v), f, total), d, sum + v);
  }
  return grew;
}

inline void scale_rows(float* HWY_RESTRICT rows, int count, std::size_t pitch, Index channels,
                       const float* factor) {
  const FloatTag d;
  for (int l = 0; l < count; ++l) {
    if (factor[l] == 1.0f) continue;
    const Floats f = hn::Set(d, factor[l]);
    float* row = rows + static_cast<std::size_t>(l) * pitch;
    for (Index c = 0; c < channels; c += kFloats) hn::Store(hn::Mul(hn::Load(d, row + c), f), d, row + c);
  }
}

// What a tile sees of a block of rows that are packed from 0 on.
inline void see_block(const QueryTile& tile, const RowBlock& block, Chunk& chunk) {
  for (int i = 0; i < block.runs; ++i) {
    const RowRun& run = block.run[i];
    const Interval x = intersect(tile.hull.axis[2], {run.token[2], run.token[2] + run.count});
    if (x.empty() || !tile.hull.axis[0].contains(run.token[0]) || !tile.hull.axis[1].contains(run.token[1]))
      continue;
    chunk.see(tile, run.token[0], run.token[1], x, run.start + static_cast<int>(x.begin - run.token[2]));
  }
}

// What a tile carries from chunk to chunk.
struct TileState {
  float* queries;    // [head_dim][kL]
  float* out;        // [kL][v_pitch]
  float *max, *sum;  // [kL]
  bool started;      // out holds something
};

// What Forward is made of: how Q, K and V are packed, and the products. bf16-inl.h has another.
template <int kL>
struct FloatArithmetic : FloatPacking {
  ScoreChunk<kL> score_chunk;
  std::size_t depth;
  float scale;

  FloatArithmetic(const Problem& p, std::size_t k_pitch)
      : score_chunk(score_for<kL>(k_pitch)), depth(static_cast<std::size_t>(p.head_dim)),
        scale(static_cast<float>(p.effective_scale())) {}

  void queries(const GridView& view, const QueryTile& tile, const LaneOffsets& at, Index head, Index channels,
               float* line, float* to) const {
    pack_lanes<kL>(view, tile, at, head, channels, scale, line, to);
  }
  void score(const Chunk& chunk, const float* k, std::size_t pitch, const float* q, float* scores, float* max,
             Ahead& ahead) const {
    score_chunk(chunk, true, k, pitch, q, depth, scores, max, &ahead);
  }
  static int register_tiles(const Chunk& chunk, std::size_t pitch) {
    return ScoreChunk<kL>::tiles(chunk, pitch);
  }
  static bool weights(int keys, float* scores, const float* old_max, const float* max, float* sum,
                      float* factor) {
    return exponentiate<kL>(keys, scores, old_max, max, sum, factor);
  }
  template <bool kFirst>
  static void weigh(const Chunk& chunk, const float* p, const float* v, std::size_t pitch, Index channels,
                    float* out) {
    weigh_chunk<kFirst>(chunk, p, kL, v, pitch, channels, out);
  }
};

template <int kL, class Arithmetic>
struct Forward {
  static constexpr int kAlign = Arithmetic::kKeysPerRow;
  const Band& band;
  const Problem& p;
  const Cut& cut;
  const Sequence& seq;
  BandScratch m;
  LaneOrder order;
  Arithmetic arithmetic;
  Ahead ahead;

  Forward(const Band& b, std::byte* memory)
      : band(b), p(*b.problem), cut(*b.cut), seq(*b.sequence), m(p, cut, memory), order(cut.tile, cut.pack),
        arithmetic(p, m.k_pitch) {}

  TileState state(int t) const {
    const auto n = static_cast<std::size_t>(t);
    return {m.queries + n * m.queries_size, m.out + n * m.out_size, m.max + n * kL, m.sum + n * kL, false};
  }

  void begin(TileState& t, const QueryTile& tile, const LaneOffsets& at, Index head) {
    arithmetic.queries(seq[Role::kQuery], tile, at, head, p.head_dim, m.line, t.queries);
    std::fill(t.max, t.max + kL, std::numeric_limits<float>::lowest());
    std::fill(t.sum, t.sum + kL, 0.0f);
    t.started = false;
  }

  void attend(TileState& t, const Chunk& chunk, const float* k, const float* v) {
    if (chunk.runs == 0) return;
    float* old = m.factor;
    std::copy(t.max, t.max + kL, old);
    arithmetic.score(chunk, k, m.k_pitch, t.queries, m.scores, t.max, ahead);
    const bool grew = Arithmetic::weights(chunk.keys, m.scores, old, t.max, t.sum, m.factor + kL);
    if (t.started && grew) scale_rows(t.out, kL, m.v_pitch, p.value_dim, m.factor + kL);
    if (t.started) Arithmetic::template weigh<false>(chunk, m.scores, v, m.v_pitch, p.value_dim, t.out);
    else Arithmetic::template weigh<true>(chunk, m.scores, v, m.v_pitch, p.value_dim, t.out);
    t.started = true;
  }

  void finish(TileState& t, const QueryTile& tile, const LaneOffsets& out_at, const LaneOffsets& lse_at,
              Index head) {
    const FloatTag d;
    float *factor = m.factor, *lse = m.factor + kL;
    for (int v = 0; v < kL; v += kFloats) {  // 1 / l, 0 where nothing was seen
      const Floats l = hn::Load(d, t.sum + v);
      const auto none = hn::Eq(l, hn::Zero(d));
      hn::Store(hn::IfThenZeroElse(none, hn::Div(hn::Set(d, 1.0f), l)), d, factor + v);
      const Floats value = hn::Add(hn::Load(d, t.max + v), log_or_nan(l));
      hn::Store(hn::IfThenElse(none, hn::Set(d, -std::numeric_limits<float>::infinity()), value), d, lse + v);
    }
    if (!t.started) std::fill(t.out, t.out + static_cast<std::size_t>(kL) * m.v_pitch, 0.0f);
    unpack_lanes(seq[Role::kOut], tile, out_at, head, p.value_dim, t.out, m.v_pitch, factor, m.line);
    const GridView& view = seq[Role::kLse];
    if (!view.data) return;
    for (int l = 0; l < kL; ++l)
      if (tile.live[l]) static_cast<float*>(view.data)[lse_at.at[l] + head * view.head] = lse[l];
  }

  void run_banded() {
    const Index per_kv = p.heads / p.kv_heads;
    pack_additional_keys<Arithmetic>(band, m);
    Sweep sweep(band);
    TileState one = state(0);
    const PackedKeys ring{m.keys, m.values, m.k_pitch, m.v_pitch, m.rows, kAlign};
    const PackedKeys more{m.more_keys, m.more_values, m.k_pitch, m.v_pitch, m.more_rows, kAlign};
    for (bool some = sweep.next(); some;) {
      const QueryTile tile(band.grid, sweep.tile, order);
      pack_ring<Arithmetic>(band, m, sweep.fresh, sweep.keys);
      const int chunks = look_into_ring(band, m, tile, sweep.keys);
      const LaneOffsets q_at(band, tile, seq[Role::kQuery]), out_at(band, tile, seq[Role::kOut]),
          lse_at(band, tile, seq[Role::kLse]);
      some = sweep.next();
      // While the tile is worked on: its outputs, and what the next one needs.
      ahead.clear();
      fetch(band, Role::kOut, tile.box, true, ahead);
      if (some) {
        fetch(band, Role::kKey, sweep.fresh, false, ahead);
        fetch(band, Role::kValue, sweep.fresh, false, ahead);
        fetch(band, Role::kQuery, sweep.tile, false, ahead);
      }
      int times = 0;
      for (int c = 0; c < chunks; ++c) times += arithmetic.register_tiles(m.chunks[c], m.k_pitch);
      ahead.spread(times * per_kv * (band.head_end - band.head_begin));
      for (Index kv = band.head_begin; kv < band.head_end; ++kv) {
        const Index at = kv - band.head_begin;
        for (Index h = kv * per_kv; h < (kv + 1) * per_kv; ++h) {
          begin(one, tile, q_at, h);
          for (int c = 0; c < chunks; ++c) {
            const PackedKeys& from = m.chunks[c].additional ? more : ring;
            attend(one, m.chunks[c], from.k_of(at), from.v_of(at));
          }
          finish(one, tile, out_at, lse_at, h);
        }
      }
    }
  }

  // Packs the rows of a chunk of the macro's hull from (t, y, x) on, calls fn(t, y, x run, row) for its runs.
  void run_streamed() {
    const Index per_kv = p.heads / p.kv_heads;
    const TileGrid tiles{band.queries, cut.tile};
    const int count = static_cast<int>(tiles.count());
    auto* tile = static_cast<QueryTile*>(static_cast<void*>(m.tiles));
    Box all{{{0, 0}, {0, 0}, {0, 0}}};
    for (int i = 0; i < count; ++i) {
      new (tile + i) QueryTile(band.grid, tiles.box(i), order);
      all = i == 0 ? tile[i].hull : span(all, tile[i].hull);
    }
    for (Index kv = band.head_begin; kv < band.head_end; ++kv)
      for (Index h = kv * per_kv; h < (kv + 1) * per_kv; ++h) {
        for (int i = 0; i < count; ++i) {
          TileState s = state(i);
          begin(s, tile[i], LaneOffsets(band, tile[i], seq[Role::kQuery]), h);
          m.started[i] = false;
        }
        const auto attend_all = [&](const auto& see) HWY_ATTR {
          for (int i = 0; i < count; ++i) {
            m.chunks[0].clear(kAlign);
            see(tile[i], m.chunks[0]);
            TileState s = state(i);
            s.started = m.started[i];
            attend(s, m.chunks[0], m.keys, m.values);
            m.started[i] = s.started;
          }
        };
        RowBlocks blocks(all, std::min(cut.chunk_keys, kMaxRows), kAlign);
        RowBlock& block = *m.block;
        while (blocks.next(block)) {
          for (int i = 0; i < block.runs; ++i) {
            const RowRun& run = block.run[i];
            Index token[kMaxRank];
            token_at(run.token, band.dilation, band.residue, token);
            Arithmetic::keys(seq[Role::kKey], band.batch, token, band.dilation[2], run.count, p.head_dim, kv,
                             kv + 1, m.keys, m.k_pitch, 0, run.start);
            Arithmetic::values(seq[Role::kValue], band.batch, token, band.dilation[2], run.count, p.value_dim,
                               kv, kv + 1, m.values, m.v_pitch, 0, run.start);
          }
          attend_all([&](const QueryTile& own, Chunk& chunk) { see_block(own, block, chunk); });
        }
        const Index origin[kMaxRank] = {0, 0, 0};
        for (Index first = 0; first < p.additional; first += cut.chunk_keys) {
          const Index n = min_of(p.additional - first, cut.chunk_keys), token[kMaxRank] = {0, 0, first};
          (void)origin;
          Arithmetic::keys(seq[Role::kAdditionalKey], band.batch, token, 1, n, p.head_dim, kv, kv + 1, m.keys,
                           m.k_pitch, 0, 0);
          Arithmetic::values(seq[Role::kAdditionalValue], band.batch, token, 1, n, p.value_dim, kv, kv + 1,
                             m.values, m.v_pitch, 0, 0);
          attend_all(
              [&](const QueryTile&, Chunk& chunk) { chunk.see_additional(kL, 0, static_cast<int>(n)); });
        }
        for (int i = 0; i < count; ++i) {
          TileState s = state(i);
          s.started = m.started[i];
          finish(s, tile[i], LaneOffsets(band, tile[i], seq[Role::kOut]),
                 LaneOffsets(band, tile[i], seq[Role::kLse]), h);
        }
      }
  }
};

template <int kL, class Arithmetic = FloatArithmetic<kL>>
void tuned_forward(const Band& band, std::byte* memory) {
  Forward<kL, Arithmetic> f(band, memory);
  if (band.cut->streamed) f.run_streamed();
  else f.run_banded();
}

}  // namespace nearfield::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
