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
#include "cpu/gradient-inl.h"
#include "cpu/sums-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nearfield::cpu::HWY_NAMESPACE {

// 0 if every number is finite, else NaN.
HWY_INLINE float not_finite(const float* HWY_RESTRICT numbers, std::size_t n) {
  const FloatTag d;
  Floats check = hn::Zero(d);
  for (std::size_t i = 0; i < n; i += kFloats)
    check = hn::MulAdd(hn::Load(d, numbers + i), hn::Zero(d), check);
  return hn::GetLane(hn::SumOfLanes(d, check));
}

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
  Ring ring;
  float scale;
  float check = 0;  // NaN if something was not finite

  Backward(const Band& b, std::byte* memory)
      : band(b), p(*b.problem), cut(*b.cut), seq(*b.sequence), m(p, cut, memory), order(cut.tile, cut.pack),
        score_k(score_for<kL>(m.k_pitch)), score_v(score_for<kL>(m.v_pitch)), ring{cut.ring_axis, cut.slots},
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
    const auto n = static_cast<std::size_t>(ceil_div(channels, kFloats) * kFloats);
    for (int l = 0; l < kL; ++l) {
      float* row = rows + static_cast<std::size_t>(l) * pitch;
      if (!tile.live[l]) {
        std::fill(row, row + n, 0.0f);
        continue;
      }
      pack_row(view, at.at[l] + head * view.head, channels, row);
      if (by != 1.0f)
        for (std::size_t c = 0; c < n; c += kFloats)
          hn::Store(hn::Mul(hn::Load(d, row + c), hn::Set(d, by)), d, row + c);
    }
    transpose_rows<kL>(rows, pitch, channels, transposed);
  }

  void begin(GradientState& t, const QueryTile& tile, const LaneOffsets* at, Index head) {
    load_lanes(Role::kQuery, tile, at[0], head, p.head_dim, scale, t.queries, m.k_pitch, t.queries_t);
    load_lanes(Role::kGradOut, tile, at[1], head, p.value_dim, 1.0f, t.grads, m.v_pitch, t.grads_t);
    const GridView &out = seq[Role::kOut], &lse = seq[Role::kLse], &grad_lse = seq[Role::kGradLse];
    for (int l = 0; l < kL; ++l) {
      t.lse[l] = std::numeric_limits<float>::infinity();
      t.delta[l] = 0;
      if (!tile.live[l]) continue;
      const float value = static_cast<const float*>(lse.data)[at[3].at[l] + head * lse.head];
      if (value != -std::numeric_limits<float>::infinity()) t.lse[l] = value;
      pack_row(out, at[2].at[l] + head * out.head, p.value_dim, m.line);
      t.delta[l] = dot(m.line, t.grads + static_cast<std::size_t>(l) * m.v_pitch, p.value_dim);
      if (grad_lse.data)
        t.delta[l] -= static_cast<const float*>(grad_lse.data)[at[4].at[l] + head * grad_lse.head];
    }
    t.started = false;
  }

  static float dot(const float* a, const float* b, Index n) {
    const FloatTag d;
    Floats sum = hn::Zero(d);
    for (Index c = 0; c < n; c += kFloats) sum = hn::MulAdd(hn::Load(d, a + c), hn::Load(d, b + c), sum);
    return hn::GetLane(hn::SumOfLanes(d, sum));
  }

  void attend(GradientState& t, const Chunk& chunk, const PackedKeys& from, const PackedKeys& to, Index at) {
    if (chunk.runs == 0) return;
    const float *k = from.k_of(at), *v = from.v_of(at);
    score_k(chunk, true, k, m.k_pitch, t.queries_t, static_cast<std::size_t>(p.head_dim), m.scores, m.factor);
    score_v(chunk, false, v, m.v_pitch, t.grads_t, static_cast<std::size_t>(p.value_dim), m.grads, m.factor);
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
    for (int l = 0; l < kL; ++l)
      if (tile.live[l])
        check += not_finite(t.grad_queries + static_cast<std::size_t>(l) * m.k_pitch, vectors_of(p.head_dim));
    std::fill(m.factor, m.factor + kL, scale);
    unpack_lanes(seq[Role::kGradQuery], tile, at, head, p.head_dim, t.grad_queries, m.k_pitch, m.factor,
                 m.line);
  }

  static std::size_t vectors_of(Index channels) {
    return static_cast<std::size_t>(ceil_div(channels, kFloats) * kFloats);
  }

  // One row of dK or dV where it belongs: `to` is the band's row of the shared buffer, or null for the tensor.
  void leave(Role role, const Index* token, Index kv, const float* row, Index channels, float* to) {
    check += not_finite(row, vectors_of(channels));
    if (to) {
      std::copy(row, row + channels, to);
      return;
    }
    const GridView& view = seq[role];
    store_row(view, view.at(band.batch, token, kv), row, channels);
  }

  // dK and dV of the keys whose coordinate on the ring's axis is in `done` leave; 0 if no step saw them.
  void flush(Interval done, const Box& keys, bool seen) {
    Box box = keys;
    box.axis[cut.ring_axis] = done;
    const Index numbers = p.head_dim + p.value_dim;
    if (!seen) std::fill(m.line, m.line + std::max(m.k_pitch, m.v_pitch), 0.0f);
    ring.for_each_run(keys, box, Index{1} << 40, [&](Index t, Index y, Interval run, Index row) HWY_ATTR {
      for (Index x = run.begin; x < run.end; ++x, ++row) {
        const Index coord[kMaxRank] = {t, y, x};
        Index token[kMaxRank];
        token_at(coord, band.dilation, band.residue, token);
        const Index shared = band.share.number(t, y, x);
        for (Index kv = band.head_begin; kv < band.head_end; ++kv) {
          const std::size_t at =
              static_cast<std::size_t>(kv - band.head_begin) * m.rows + static_cast<std::size_t>(row);
          float* to = shared < 0 ? nullptr : band.shared + (shared * p.kv_heads + kv) * numbers;
          leave(Role::kGradKey, token, kv, seen ? m.grad_keys + at * m.k_pitch : m.line, p.head_dim, to);
          leave(Role::kGradValue, token, kv, seen ? m.grad_values + at * m.v_pitch : m.line, p.value_dim,
                to ? to + p.head_dim : nullptr);
        }
      }
    });
  }

  // Starts the sums of fresh slots.
  void clear_slots(Interval fresh, const Box& keys) {
    Box box = keys;
    box.axis[cut.ring_axis] = fresh;
    ring.for_each_run(keys, box, Index{1} << 40, [&](Index, Index, Interval x, Index row) {
      for (Index h = 0; h < band.head_end - band.head_begin; ++h) {
        const std::size_t at = static_cast<std::size_t>(h) * m.rows + static_cast<std::size_t>(row),
                          n = static_cast<std::size_t>(x.size());
        std::fill(m.grad_keys + at * m.k_pitch, m.grad_keys + (at + n) * m.k_pitch, 0.0f);
        std::fill(m.grad_values + at * m.v_pitch, m.grad_values + (at + n) * m.v_pitch, 0.0f);
      }
    });
  }

  void offsets(const QueryTile& tile, LaneOffsets* at) const {
    const Role roles[] = {Role::kQuery, Role::kGradOut, Role::kOut,
                          Role::kLse,   Role::kGradLse, Role::kGradQuery};
    for (int i = 0; i < 6; ++i)
      if (seq[roles[i]].data) at[i] = LaneOffsets(band, tile, seq[roles[i]]);
  }

  void run_banded() {
    const Index per_kv = p.heads / p.kv_heads;
    const int r = cut.ring_axis;
    const Box keys = hull(band.grid, band.queries);
    pack_additional_keys(band, m);
    const auto heads = static_cast<std::size_t>(band.head_end - band.head_begin);
    const auto more_rows = static_cast<std::size_t>(p.additional);
    std::fill(m.more_grad_keys, m.more_grad_keys + heads * more_rows * m.k_pitch, 0.0f);
    std::fill(m.more_grad_values, m.more_grad_values + heads * more_rows * m.v_pitch, 0.0f);
    const PackedKeys from{m.keys, m.values, m.k_pitch, m.v_pitch, m.rows},
        more{m.more_keys, m.more_values, m.k_pitch, m.v_pitch, more_rows},
        to{m.grad_keys, m.grad_values, m.k_pitch, m.v_pitch, m.rows},
        more_to{m.more_grad_keys, m.more_grad_values, m.k_pitch, m.v_pitch, more_rows};
    Index packed_to = keys.axis[r].begin, flushed_to = packed_to;
    LaneOffsets at[6];
    for (Index s = band.queries.axis[r].begin; s < band.queries.axis[r].end; s += cut.step) {
      Box step = band.queries;
      step.axis[r] = {s, min_of(s + cut.step, band.queries.axis[r].end)};
      const Interval needed = hull(band.grid.axis[r], step.axis[r]);
      if (!keys.empty() && !needed.empty()) {
        flush({flushed_to, min_of(needed.begin, packed_to)}, keys, true);
        if (needed.begin > packed_to) {
          flush({packed_to, needed.begin}, keys, false);
          packed_to = needed.begin;
        }
        flushed_to = max_of(flushed_to, needed.begin);
        const Interval fresh{packed_to, max_of(packed_to, needed.end)};
        pack_ring_slots(band, m, fresh, keys);
        clear_slots(fresh, keys);
        packed_to = fresh.end;
      }
      const TileGrid tiles{step, cut.tile};
      for (Index i = 0; i < tiles.count(); ++i) {
        const QueryTile tile(band.grid, tiles.box(i), order);
        const int chunks = look_into_ring(band, m, tile, keys);
        offsets(tile, at);
        GradientState one = state(0);
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
    }
    if (!keys.empty()) {
      flush({flushed_to, packed_to}, keys, true);
      flush({packed_to, keys.axis[r].end}, keys, false);
    }
    flush_additional();
  }

  // Sums over the additional keys lie behind the shared keys.
  void flush_additional() {
    const Index numbers = p.head_dim + p.value_dim, token[kMaxRank] = {0, 0, 0};
    for (Index s = 0; s < p.additional; ++s)
      for (Index kv = band.head_begin; kv < band.head_end; ++kv) {
        const auto row = static_cast<std::size_t>((kv - band.head_begin) * p.additional + s);
        float* to = band.shared + ((band.share.count() + s) * p.kv_heads + kv) * numbers;
        leave(Role::kGradAdditionalKey, token, kv, m.more_grad_keys + row * m.k_pitch, p.head_dim, to);
        leave(Role::kGradAdditionalValue, token, kv, m.more_grad_values + row * m.v_pitch, p.value_dim,
              to + p.head_dim);
      }
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
