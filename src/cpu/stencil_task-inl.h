// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// A task of the stencil kernel without its arithmetic: what goes in and out, and what will be needed next.
#if defined(NEARFIELD_CPU_STENCIL_TASK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NEARFIELD_CPU_STENCIL_TASK_INL_H_
#undef NEARFIELD_CPU_STENCIL_TASK_INL_H_
#else
#define NEARFIELD_CPU_STENCIL_TASK_INL_H_
#endif

#include "cpu/feed.h"
#include "cpu/stencil_pack-inl.h"
#include "cpu/stencil_scratch.h"

HWY_BEFORE_NAMESPACE();
namespace nearfield::cpu::HWY_NAMESPACE {

struct StencilTask {
  const Band& band;
  const Problem& p;
  const StencilCut& cut;
  const Sequence& seq;
  StencilScratch m;
  const Axis &axis_y, &axis_x;
  Interval x;            // queries of the task along x
  Index vectors;         // of a query row
  Index per_kv, window;  // query heads of a key/value head, keys of a row that a query sees
  bool by_time;          // sweeps along the first axis, not the second
  Feed feed;

  StencilTask(const Band& b, std::byte* memory)
      : band(b), p(*b.problem), cut(*b.cut->stencil), seq(*b.sequence), m(p, *b.cut, memory),
        axis_y(b.grid.axis[1]), axis_x(b.grid.axis[2]), x(b.queries.axis[2]),
        vectors(ceil_div(x.size(), kFloats)), per_kv(p.heads / p.kv_heads), window(cut.columns.window),
        by_time(b.cut->ring_axis == 0) {
    m.heads = b.head_end - b.head_begin;  // the arrays have room for those of the cut
    m.query_heads = m.heads * per_kv;
    m.q_vector = m.query_heads * m.depth * kStencilRows;
    cut.columns.keys(axis_x, x, m.column, cut.width);
    for (Index v = 0; v < vectors; ++v)
      m.masked[v] = cut.columns.masks(axis_x, vector(v), m.mask + v * window);
  }

  Interval vector(Index v) const {
    return {x.begin + v * kFloats, min_of(x.begin + (v + 1) * kFloats, x.end)};
  }

  // Element of head `head` of token (t, y, 0) of the dilation group, and what a step along x adds.
  Index row_at(const GridView& view, Index t, Index y, Index head) const {
    const Index coord[kMaxRank] = {t, y, 0};
    Index token[kMaxRank];
    token_at(coord, band.dilation, band.residue, token);
    return view.at(band.batch, token, head);
  }
  Index step_of(const GridView& view) const { return view.axis[2] * band.dilation[2]; }

  // K^T and V of a key row, all heads.
  void pack_keys(Index t, Index y) {
    const GridView &k = seq[Role::kKey], &v = seq[Role::kValue];
    const HeadRun k_heads(k, m.heads, p.head_dim), v_heads(v, m.heads, p.value_dim);
    const Index k_at = row_at(k, t, y, band.head_begin), v_at = row_at(v, t, y, band.head_begin);
    const Index k_step = step_of(k), v_step = step_of(v), slot = cut.slots.of(t, y);
    const Index columns = rounded_up(vectors * kFloats + window - 1);
    for (Index c = 0; c < columns; c += kStaged) {
      for (Index i = 0; i < kStaged; ++i) {
        float* row = m.stage + i * m.stage_pitch;
        const Index key = m.column[c + i];
        if (key >= 0) k_heads.stage(k_at + key * k_step, row);
        else std::fill(row, row + m.stage_pitch, 0.0f);
      }
      float* to = m.keys + slot * m.k_row + c;
      for (Index h = 0; h < m.heads; ++h, to += m.k_head)
        for (Index d = 0; d < m.depth; d += 16)
          for (Index i = 0; i < kStaged; i += kFloats)
            transpose_tokens(m.stage + i * m.stage_pitch + h * k_heads.step + d, m.stage_pitch, 1.0f,
                             to + d * m.k_pitch + i, m.k_pitch);
      float* row = m.values + slot * m.v_row + c * m.v_pitch;
      for (Index i = 0; i < kStaged; ++i, row += m.v_pitch) {
        const Index key = m.column[c + i];
        if (key >= 0) v_heads.scatter(v_at + key * v_step, row, m.v_head);
        else
          for (Index h = 0; h < m.heads; ++h)
            std::fill(row + h * m.v_head, row + h * m.v_head + m.v_pitch, 0.0f);
      }
    }
  }
  static Index rounded_up(Index n) { return ceil_div(n, kStaged) * kStaged; }

  // Q^T of the step, times the scale; lanes without a query repeat the last.
  void pack_queries(Index t, Interval y, float scale) {
    const GridView& q = seq[Role::kQuery];
    const HeadRun heads(q, m.query_heads, p.head_dim);
    const Index step = step_of(q);
    for (Index r = 0; r < y.size(); ++r) {
      const Index at = row_at(q, t, y.begin + r, band.head_begin * per_kv);
      for (Index v = 0; v < vectors; ++v) {
        for (Index i = 0; i < kFloats; ++i)
          heads.stage(at + min_of(x.begin + v * kFloats + i, x.end - 1) * step, m.stage + i * m.stage_pitch);
        for (Index h = 0; h < m.query_heads; ++h) {
          float* to = query_vector(v, h) + r * kFloats;
          for (Index d = 0; d < m.depth; d += 16)
            transpose_tokens(m.stage + h * heads.step + d, m.stage_pitch, scale,
                             to + d * kStencilRows * kFloats, kStencilRows * kFloats);
        }
      }
    }
  }
  float* query_vector(Index v, Index head) const {
    return m.queries + (v * m.q_vector + head * m.depth * kStencilRows) * kFloats;
  }

  void write_out(Index t, Interval y) {
    const GridView &out = seq[Role::kOut], &lse = seq[Role::kLse];
    const Index first = band.head_begin * per_kv;
    for (Index r = 0; r < y.size(); ++r) {
      Index at = row_at(out, t, y.begin + r, first) + x.begin * step_of(out);
      const float* from = m.out + r * m.lanes * m.out_pitch;
      for (Index i = 0; i < x.size(); ++i, at += step_of(out), from += m.out_pitch)
        for (Index h = 0; h < m.query_heads; ++h)
          store_scaled(out, at + h * out.head, p.value_dim, from + h * m.v_pitch,
                       m.inverse[(h * kStencilRows + r) * m.lanes + i], m.line);
      if (!lse.data) continue;
      Index lse_at = row_at(lse, t, y.begin + r, first) + x.begin * step_of(lse);
      for (Index i = 0; i < x.size(); ++i, lse_at += step_of(lse))
        for (Index h = 0; h < m.query_heads; ++h)
          static_cast<float*>(lse.data)[lse_at + h * lse.head] = m.lse[(h * kStencilRows + r) * m.lanes + i];
    }
  }

  // Rows of a tensor that the task will touch, where they are one run of memory.
  void add_row(const GridView& view, Index heads, Index channels, Index t, Index y, Interval tokens,
               Index head) {
    const Index step = step_of(view);
    if (view.channel != 1 || view.head != channels || step != heads * channels || tokens.empty()) return;
    const Index size = size_of(view.dtype), at = row_at(view, t, y, head) + tokens.begin * step;
    feed.add(static_cast<const char*>(view.data) + at * size,
             static_cast<std::size_t>(tokens.size() * step * size));
  }
  // What comes after query rows y of time t: the next step, or the next time.
  void plan_feed(Index t, Interval y, Interval packed, const Box& keys, std::size_t iterations) {
    feed.clear();
    const Interval next_t =
        by_time ? Interval{t + 1, min_of(t + 2, band.queries.axis[0].end)} : Interval{t, t + 1};
    const Interval next_y = by_time ? band.queries.axis[1]
                                    : Interval{y.end, min_of(y.end + kStencilRows, band.queries.axis[1].end)};
    if (next_t.empty() || next_y.empty()) return;
    const Index first = band.head_begin * per_kv;
    for (Index i = next_y.begin; i < next_y.end; ++i) {
      add_row(seq[Role::kQuery], m.query_heads, p.head_dim, next_t.begin, i, x, first);
      add_row(seq[Role::kOut], m.query_heads, p.value_dim, next_t.begin, i, x, first);
    }
    const Interval seen_t = by_time ? visible(band.grid.axis[0], t + 1) : keys.axis[0];
    const Interval seen_y = by_time ? keys.axis[1] : hull(axis_y, next_y);
    const Interval fresh_t = by_time ? Interval{max_of(packed.end, seen_t.begin), seen_t.end} : seen_t;
    const Interval fresh_y = by_time ? seen_y : Interval{max_of(packed.end, seen_y.begin), seen_y.end};
    for (Index i = fresh_t.begin; i < fresh_t.end; ++i)
      for (Index j = fresh_y.begin; j < fresh_y.end; ++j) {
        add_row(seq[Role::kKey], m.heads, p.head_dim, i, j, keys.axis[2], band.head_begin);
        add_row(seq[Role::kValue], m.heads, p.value_dim, i, j, keys.axis[2], band.head_begin);
      }
    feed.spread(iterations);
  }
};

}  // namespace nearfield::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
