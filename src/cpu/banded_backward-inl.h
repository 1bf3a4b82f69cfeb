// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The backward pass of the tuned kernels: five products, each pair once.
//
//   S = Q K^T   dP = dO V^T   (lanes = queries)      P = exp(S - lse)   dS = P (dP - delta)
//   dQ += dS K  (channels in SIMD, per tile)         dV += P^T dO   dK += dS^T Q   (per packed key)
//
// A band writes dQ of its own queries. dK and dV are summed in float beside the packed keys, in the order of
// the band's tiles, and leave them when no later step sees the key: keys that no other band sees go
// to the tensors, the others to the band's part of a shared buffer, which add_bands() sums in ascending order of bands.
// Bands depend on the sequence only, so no bit depends on threads.
//
// A masked pair has P = dS = 0, but 0 * NaN is NaN: where an output is not finite, the band says so and the
// general path, which leaves such rows out, computes this sequence and batch entry again.
#if defined(NEARFIELD_CPU_BANDED_BACKWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NEARFIELD_CPU_BANDED_BACKWARD_INL_H_
#undef NEARFIELD_CPU_BANDED_BACKWARD_INL_H_
#else
#define NEARFIELD_CPU_BANDED_BACKWARD_INL_H_
#endif

#include "cpu/banded-inl.h"
#include "cpu/fetch-inl.h"
#include "cpu/gradient-inl.h"
#include "cpu/leave-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nearfield::cpu::HWY_NAMESPACE {

// What a tile carries from chunk to chunk: rows as they are and transposed.
struct GradientState {
  float *queries, *queries_t;  // scaled: [kL][k_pitch], [head_dim][kL]
  float *grads, *grads_t;      // dO
  float *lse, *delta;          // [kL]
  float* grad_queries;         // [kL][k_pitch], unscaled
  bool started;
};

template <int kL>
struct Backward {
  const Band& band;
  const Problem& p;
  const Cut& cut;
  const Sequence& seq;
  BandScratch m;
  LaneOrder order;
  ScoreChunk<kL> score_k, score_v;
  float scale;
  float check = 0;  // NaN if something was not finite
  Ahead ahead;

  Backward(const Band& b, std::byte* memory)
      : band(b), p(*b.problem), cut(*b.cut), seq(*b.sequence), m(p, cut, memory), order(cut.tile, cut.pack),
        score_k(score_for<kL>(m.k_pitch)), score_v(score_for<kL>(m.v_pitch)),
        scale(static_cast<float>(p.effective_scale())) {}

  GradientState state(int t) const {
    const auto n = static_cast<std::size_t>(t);
    float* lanes = m.max + n * kL;
    return {m.query_rows + n * kL * m.k_pitch,
            m.queries + n * m.queries_size,
            m.grad_rows + n * kL * m.v_pitch,
            m.grads_t + n * m.grads_size,
            lanes,
            m.sum + n * kL,
            m.out + n * m.out_size,
            false};
  }

  // Rows of the lanes times `by`, as they are and transposed.
  void load_lanes(Role role, const QueryTile& tile, const LaneOffsets& at, Index head, Index channels,
                  float by, float* rows, std::size_t pitch, float* transposed) {
    const FloatTag d;
    const GridView& view = seq[role];
    const std::size_t n = vectors_of(channels);
    const bool in_place = whole_floats(view, channels);
    for (int l = 0; l < kL; ++l) {
      float* row = rows + static_cast<std::size_t>(l) * pitch;
      if (!tile.live[l]) {
        std::fill(row, row + n, 0.0f);
        continue;
      }
      const Index from = at.at[l] + head * view.head;
      const Floats factor = hn::Set(d, by);
      if (in_place) {
        const float* own = static_cast<const float*>(view.data) + from;
        for (std::size_t c = 0; c < n; c += kFloats)
          hn::Store(hn::Mul(hn::LoadU(d, own + c), factor), d, row + c);
        continue;
      }
      pack_row(view, from, channels, row);
      for (std::size_t c = 0; c < n; c += kFloats)
        hn::Store(hn::Mul(hn::Load(d, row + c), factor), d, row + c);
    }
    transpose_rows<kL>(rows, pitch, channels, transposed);
  }

  void begin(GradientState& t, const QueryTile& tile, const LaneOffsets* at, Index head) {
    load_lanes(Role::kQuery, tile, at[0], head, p.head_dim, scale, t.queries, m.k_pitch, t.queries_t);
    load_lanes(Role::kGradOut, tile, at[1], head, p.value_dim, 1.0f, t.grads, m.v_pitch, t.grads_t);
    const GridView &out = seq[Role::kOut], &lse = seq[Role::kLse], &grad_lse = seq[Role::kGradLse];
    const bool in_place = whole_floats(out, p.value_dim);
    for (int l = 0; l < kL; ++l) {
      t.lse[l] = std::numeric_limits<float>::infinity();
      t.delta[l] = 0;
      if (!tile.live[l]) continue;
      const float value = static_cast<const float*>(lse.data)[at[3].at[l] + head * lse.head];
      if (value != -std::numeric_limits<float>::infinity()) t.lse[l] = value;
      const Index from = at[2].at[l] + head * out.head;
      const float* own = m.line;
      if (in_place) own = static_cast<const float*>(out.data) + from;
      else pack_row(out, from, p.value_dim, m.line);
      t.delta[l] = dot(own, t.grads + static_cast<std::size_t>(l) * m.v_pitch, p.value_dim);
      if (grad_lse.data)
        t.delta[l] -= static_cast<const float*>(grad_lse.data)[at[4].at[l] + head * grad_lse.head];
    }
    t.started = false;
  }

  static float dot(const float* a, const float* b, Index n) {
    const FloatTag d;
    Floats sum = hn::Zero(d);
    for (Index c = 0; c < n; c += kFloats) sum = hn::MulAdd(hn::LoadU(d, a + c), hn::Load(d, b + c), sum);
    return hn::GetLane(hn::SumOfLanes(d, sum));
  }

  void attend(GradientState& t, const Chunk& chunk, const PackedKeys& from, const PackedKeys& to, Index at) {
    if (chunk.runs == 0) return;
    const float *k = from.k_of(at), *v = from.v_of(at);
    score_k(chunk, true, k, m.k_pitch, t.queries_t, static_cast<std::size_t>(p.head_dim), m.scores, m.factor,
            &ahead);
    score_v(chunk, false, v, m.v_pitch, t.grads_t, static_cast<std::size_t>(p.value_dim), m.grads, m.factor,
            &ahead);
    tile_gradients<kL>(chunk.keys, m.scores, m.grads, t.lse, t.delta);
    spread_chunk<kL>(chunk, m.scores, t.grads, m.v_pitch, p.value_dim, to.v_of(at));
    spread_chunk<kL>(chunk, m.grads, t.queries, m.k_pitch, p.head_dim, to.k_of(at));
    if (t.started) weigh_chunk<false>(chunk, m.grads, kL, k, m.k_pitch, p.head_dim, t.grad_queries);
    else weigh_chunk<true>(chunk, m.grads, kL, k, m.k_pitch, p.head_dim, t.grad_queries);
    t.started = true;
  }

  void finish(GradientState& t, const QueryTile& tile, const LaneOffsets& at, Index head) {
    if (!t.started)
      std::fill(t.grad_queries, t.grad_queries + static_cast<std::size_t>(kL) * m.k_pitch, 0.0f);
    const FloatTag d;
    Floats sum = hn::Zero(d);
    for (int l = 0; l < kL; ++l)
      if (tile.live[l])
        sum = zero_if_finite(t.grad_queries + static_cast<std::size_t>(l) * m.k_pitch, vectors_of(p.head_dim),
                             sum);
    check += hn::GetLane(hn::SumOfLanes(d, sum));
    std::fill(m.factor, m.factor + kL, scale);
    unpack_lanes(seq[Role::kGradQuery], tile, at, head, p.head_dim, t.grad_queries, m.k_pitch, m.factor,
                 m.line);
  }

  void offsets(const QueryTile& tile, LaneOffsets* at) const {
    const Role roles[] = {Role::kQuery, Role::kGradOut, Role::kOut,
                          Role::kLse,   Role::kGradLse, Role::kGradQuery};
    for (int i = 0; i < 6; ++i)
      if (seq[roles[i]].data) at[i] = LaneOffsets(band, tile, seq[roles[i]]);
  }

  void run_banded() {
    const Index per_kv = p.heads / p.kv_heads;
    pack_additional_keys(band, m);
    const auto heads = static_cast<std::size_t>(band.head_end - band.head_begin);
    const auto more_rows = static_cast<std::size_t>(p.additional);
    std::fill(m.grad_keys, m.grad_keys + heads * m.rows * m.k_pitch, 0.0f);
    std::fill(m.grad_values, m.grad_values + heads * m.rows * m.v_pitch, 0.0f);
    std::fill(m.more_grad_keys, m.more_grad_keys + heads * more_rows * m.k_pitch, 0.0f);
    std::fill(m.more_grad_values, m.more_grad_values + heads * more_rows * m.v_pitch, 0.0f);
    const PackedKeys from{m.keys, m.values, m.k_pitch, m.v_pitch, m.rows},
        more{m.more_keys, m.more_values, m.k_pitch, m.v_pitch, more_rows},
        to{m.grad_keys, m.grad_values, m.k_pitch, m.v_pitch, m.rows},
        more_to{m.more_grad_keys, m.more_grad_values, m.k_pitch, m.v_pitch, more_rows};
    LaneOffsets at[6];
    Sweep sweep(band);
    GradientState one = state(0);
    for (bool some = sweep.next(); some;) {
      const QueryTile tile(band.grid, sweep.tile, order);
      check += leave_done(band, m, sweep);
      pack_ring(band, m, sweep.fresh, sweep.keys);
      const int chunks = look_into_ring(band, m, tile, sweep.keys);
      offsets(tile, at);
      some = sweep.next();
      // While the tile is worked on: its outputs, and what the next one needs.
      ahead.clear();
      fetch(band, Role::kGradQuery, tile.box, true, ahead);
      if (some) {
        for (Role role : {Role::kKey, Role::kValue}) fetch(band, role, sweep.fresh, false, ahead);
        for (Role role : {Role::kLse, Role::kGradLse, Role::kQuery, Role::kGradOut, Role::kOut})
          fetch(band, role, sweep.tile, false, ahead);
      }
      int times = 0;
      for (int c = 0; c < chunks; ++c)
        times += score_k.tiles(m.chunks[c], m.k_pitch) + score_v.tiles(m.chunks[c], m.v_pitch);
      ahead.spread(times * per_kv * (band.head_end - band.head_begin));
      for (Index kv = band.head_begin; kv < band.head_end; ++kv)
        for (Index h = kv * per_kv; h < (kv + 1) * per_kv; ++h) {
          begin(one, tile, at, h);
          for (int c = 0; c < chunks; ++c) {
            const bool extra = m.chunks[c].additional;
            attend(one, m.chunks[c], extra ? more : from, extra ? more_to : to, kv - band.head_begin);
          }
          finish(one, tile, at[5], h);
        }
    }
    sweep.end();
    check += leave_done(band, m, sweep);
    flush_additional();
  }

  // Sums over the additional keys lie behind the shared keys.
  void flush_additional() {
    const FloatTag d;
    Floats sum = hn::Zero(d);
    const Index numbers = p.head_dim + p.value_dim, token[kMaxRank] = {0, 0, 0};
    for (Index s = 0; s < p.additional; ++s)
      for (Index kv = band.head_begin; kv < band.head_end; ++kv) {
        const auto row = static_cast<std::size_t>((kv - band.head_begin) * p.additional + s);
        float* to = band.shared + ((band.share.count() + s) * p.kv_heads + kv) * numbers;
        sum = leave_row(seq[Role::kGradAdditionalKey], 0, token, kv, m.more_grad_keys + row * m.k_pitch,
                        p.head_dim, to, sum);
        sum = leave_row(seq[Role::kGradAdditionalValue], 0, token, kv, m.more_grad_values + row * m.v_pitch,
                        p.value_dim, to + p.head_dim, sum);
      }
    check += hn::GetLane(hn::SumOfLanes(d, sum));
  }

  // Tiles of a macro use the packed keys of a chunk before the next ones are packed; the chunk's sums come from the shared
  // buffer and go back to it.
  void run_streamed() {
    const Index per_kv = p.heads / p.kv_heads, numbers = p.head_dim + p.value_dim;
    auto* tile = static_cast<QueryTile*>(static_cast<void*>(m.tiles));
    for (Index i = 0; i < band.share.count() + p.additional; ++i)
      for (Index kv = band.head_begin; kv < band.head_end; ++kv) {
        float* row = band.shared + (i * p.kv_heads + kv) * numbers;
        std::fill(row, row + numbers, 0.0f);
      }
    const PackedKeys from{m.keys, m.values, m.k_pitch, m.v_pitch, 0},
        to{m.grad_keys, m.grad_values, m.k_pitch, m.v_pitch, 0};
    const TileGrid macros{band.queries, cut.macro};
    LaneOffsets at[6];
    for (Index kv = band.head_begin; kv < band.head_end; ++kv)
      for (Index macro = 0; macro < macros.count(); ++macro) {
        const TileGrid tiles{macros.box(macro), cut.tile};
        const int count = static_cast<int>(tiles.count());
        Box all{{{0, 0}, {0, 0}, {0, 0}}};
        for (int i = 0; i < count; ++i) {
          new (tile + i) QueryTile(band.grid, tiles.box(i), order);
          all = i == 0 ? tile[i].hull : span(all, tile[i].hull);
        }
        for (Index h = kv * per_kv; h < (kv + 1) * per_kv; ++h) {
          for (int i = 0; i < count; ++i) {
            offsets(tile[i], at);
            GradientState s = state(i);
            begin(s, tile[i], at, h);
            m.started[i] = false;
          }
          // rows: of the shared buffer, one per key of the chunk.
          const auto attend_all = [&](int keys, const auto& number, const auto& see) HWY_ATTR {
            for (int j = 0; j < keys; ++j) {
              const float* row = band.shared + (number(j) * p.kv_heads + kv) * numbers;
              std::copy(row, row + p.head_dim, m.grad_keys + static_cast<std::size_t>(j) * m.k_pitch);
              std::copy(row + p.head_dim, row + numbers,
                        m.grad_values + static_cast<std::size_t>(j) * m.v_pitch);
            }
            for (int i = 0; i < count; ++i) {
              m.chunks[0].clear();
              see(tile[i], m.chunks[0]);
              GradientState s = state(i);
              s.started = m.started[i];
              attend(s, m.chunks[0], from, to, 0);
              m.started[i] = s.started;
            }
            for (int j = 0; j < keys; ++j) {
              float* row = band.shared + (number(j) * p.kv_heads + kv) * numbers;
              const float *dk = m.grad_keys + static_cast<std::size_t>(j) * m.k_pitch,
                          *dv = m.grad_values + static_cast<std::size_t>(j) * m.v_pitch;
              std::copy(dk, dk + p.head_dim, row);
              std::copy(dv, dv + p.value_dim, row + p.head_dim);
            }
          };
          RowBlocks blocks(all, std::min(cut.chunk_keys, kMaxRows));
          RowBlock& block = *m.block;
          Index number[kMaxRows];
          while (blocks.next(block)) {
            for (int i = 0; i < block.runs; ++i) {
              const RowRun& run = block.run[i];
              Index token[kMaxRank];
              token_at(run.token, band.dilation, band.residue, token);
              for (int j = 0; j < run.count; ++j)
                number[run.start + j] = band.share.number(run.token[0], run.token[1], run.token[2] + j);
              pack_tokens(seq[Role::kKey], band.batch, token, band.dilation[2], run.count, p.head_dim, kv,
                          kv + 1, m.keys, m.k_pitch, 0, run.start);
              pack_tokens(seq[Role::kValue], band.batch, token, band.dilation[2], run.count, p.value_dim, kv,
                          kv + 1, m.values, m.v_pitch, 0, run.start);
            }
            attend_all(
                block.rows, [&](int j) { return number[j]; },
                [&](const QueryTile& own, Chunk& chunk) { see_block(own, block, chunk); });
          }
          for (Index s = 0; s < p.additional; s += cut.chunk_keys) {
            const Index n = min_of(p.additional - s, cut.chunk_keys), token[kMaxRank] = {0, 0, s};
            pack_tokens(seq[Role::kAdditionalKey], band.batch, token, 1, n, p.head_dim, kv, kv + 1, m.keys,
                        m.k_pitch, 0, 0);
            pack_tokens(seq[Role::kAdditionalValue], band.batch, token, 1, n, p.value_dim, kv, kv + 1,
                        m.values, m.v_pitch, 0, 0);
            attend_all(
                static_cast<int>(n), [&](int j) { return band.share.count() + s + j; },
                [&](const QueryTile&, Chunk& chunk) { chunk.see_additional(kL, 0, static_cast<int>(n)); });
          }
          for (int i = 0; i < count; ++i) {
            offsets(tile[i], at);
            GradientState s = state(i);
            s.started = m.started[i];
            finish(s, tile[i], at[5], h);
          }
        }
      }
    for (Index i = 0; i < band.share.count() + p.additional; ++i)
      for (Index kv = band.head_begin; kv < band.head_end; ++kv) {
        const float* row = band.shared + (i * p.kv_heads + kv) * numbers;
        for (Index c = 0; c < numbers; ++c) check += row[c] * 0.0f;
      }
  }
};

template <int kL>
bool tuned_backward(const Band& band, std::byte* memory) {
  Backward<kL> b(band, memory);
  if (band.cut->streamed) b.run_streamed();
  else b.run_banded();
  return b.check == 0.0f;
}

}  // namespace nearfield::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
