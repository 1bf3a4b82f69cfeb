// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The forward pass of the stencil kernel: see stencil.h for how the work is cut, stencil_keys.h for its geometry.
//
// Per step (four query rows of a time): the key rows that are new are packed for all heads, Q of all heads is
// transposed, then tile by tile S of a chunk of key rows, its weights, and O += P V; O of all heads is written at the
// end. The maximum that the weights are relative to moves only where it has grown by more than 2^16: to
// rescale is rare, and weights and sums have room for such a factor.
#if defined(NEARFIELD_CPU_STENCIL_FORWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NEARFIELD_CPU_STENCIL_FORWARD_INL_H_
#undef NEARFIELD_CPU_STENCIL_FORWARD_INL_H_
#else
#define NEARFIELD_CPU_STENCIL_FORWARD_INL_H_
#endif

#include "cpu/stencil-inl.h"
#include "cpu/stencil_task-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nearfield::cpu::HWY_NAMESPACE {

inline constexpr float kLazyGrowth = 11.090355f;  // log 2^16

struct StencilForward : StencilTask {
  using StencilTask::StencilTask;

  // One tile: vector v of `rows` query rows and one head, over n key rows.
  struct Tile {
    Index v, head;
    int rows, n;
    float* out;
  };

  // S of key rows [begin, end); m.top: the maxima, m.max included.
  void score(Tile& tile, int begin, int end) {
    const Index head = tile.head / per_kv;
    const float* keys = m.keys + head * m.k_head + tile.v * kFloats;
    const float* queries = query_vector(tile.v, tile.head);
    std::copy(m.max, m.max + kStencilRows * kFloats, m.top);
    for (int i = begin; i < end; ++i) {
      const KeyRow& row = m.rows[i];
      const int active = row.high - row.low, most = most_shifts(active);
      float* to = scores_of(row.low, i - begin);
      const float* k = keys + row.slot * m.k_row;
      int left = static_cast<int>(window);
      for (int tiles = (left + most - 1) / most; tiles > 0; --tiles) {
        const int shifts = (left + tiles - 1) / tiles;
        std::size_t step;
        const char* next = feed.take(static_cast<std::size_t>(p.head_dim), k, step);
        stencil_score_for(active, shifts)(queries + row.low * kFloats, k, m.k_pitch, p.head_dim, to,
                                          m.score_pitch, m.top + row.low * kFloats, next, step);
        k += shifts;
        to += shifts * kFloats;
        left -= shifts;
      }
    }
    if (m.masked[tile.v]) mask(tile, begin, end);
  }
  float* scores_of(int r, int row) const { return m.scores + r * m.score_pitch + row * window * kFloats; }

  void mask(Tile& tile, int begin, int end) {
    const FloatTag d;
    const Floats nothing = hn::Set(d, -std::numeric_limits<float>::infinity());
    const std::uint32_t* masks = m.mask + tile.v * window;
    for (int r = 0; r < tile.rows; ++r) {
      Floats top = hn::Load(d, m.max + r * kFloats);
      for (int i = begin; i < end; ++i) {
        if (r < m.rows[i].low || r >= m.rows[i].high) continue;
        float* s = scores_of(r, i - begin);
        for (Index j = 0; j < window; ++j, s += kFloats) {
          const Floats seen = hn::IfThenElse(lane_mask(masks[j], 0), hn::Load(d, s), nothing);
          hn::Store(seen, d, s);
          top = hn::Max(top, seen);
        }
      }
      hn::Store(top, d, m.top + r * kFloats);
    }
  }

  // S to weights; moves the maximum, the sum and O where they must.
  void weights(Tile& tile, int begin, int end) {
    const FloatTag d;
    for (int r = 0; r < tile.rows; ++r) {
      Floats max = hn::Load(d, m.max + r * kFloats), sum = hn::Load(d, m.sum + r * kFloats);
      const Floats top = hn::Load(d, m.top + r * kFloats);
      const auto grew = hn::Gt(top, hn::Add(max, hn::Set(d, kLazyGrowth)));
      if (!hn::AllFalse(d, grew)) {
        const Floats f =
            hn::IfThenElse(grew, exp2(hn::Mul(hn::Sub(max, top), hn::Set(d, kLog2e))), hn::Set(d, 1.0f));
        max = hn::IfThenElse(grew, top, max);
        sum = hn::Mul(sum, f);
        hn::Store(max, d, m.max + r * kFloats);
        if (begin > 0) rescale(tile.out + r * m.lanes * m.out_pitch, f);
      }
      for (int i = begin; i < end;) {  // runs of key rows that this query row sees
        const auto sees = [&](int k) { return m.rows[k].low <= r && r < m.rows[k].high; };
        int last = i;
        while (last < end && sees(last)) ++last;
        if (last > i) sum = stencil_exp(scores_of(r, i - begin), (last - i) * window, max, sum);
        i = last + 1;
      }
      hn::Store(sum, d, m.sum + r * kFloats);
    }
  }
  void rescale(float* out, Floats factor) const {
    const FloatTag d;
    HWY_ALIGN float f[kFloats];
    hn::Store(factor, d, f);
    for (int l = 0; l < kFloats; ++l, out += m.out_pitch)
      for (Index c = 0; c < m.v_pitch; c += kFloats)
        hn::Store(hn::Mul(hn::Load(d, out + c), hn::Set(d, f[l])), d, out + c);
  }

  // O += P V, two query rows and two lanes at a time; key rows in runs that the same of the two rows see.
  void weigh(Tile& tile, int begin, int end) {
    const float* values = m.values + tile.head / per_kv * m.v_head + tile.v * kFloats * m.v_pitch;
    for (int i = begin; i < end; ++i) m.value_rows[i - begin] = values + m.rows[i].slot * m.v_row;
    const int live = static_cast<int>(vector(tile.v).size()),
              vectors_of_v = static_cast<int>(ceil_div(p.value_dim, kFloats));
    for (int r = 0; r < tile.rows; r += 2) {
      const auto low = [&](int i) { return std::max<int>(r, m.rows[i].low); };
      const auto high = [&](int i) { return std::min<int>(std::min(r + 2, tile.rows), m.rows[i].high); };
      for (int i = begin, last; i < end; i = last) {
        const int a = low(i), b = high(i);
        for (last = i + 1; last < end && low(last) == a && high(last) == b;) ++last;
        if (b <= a) continue;
        const float* p0 = scores_of(a, i - begin);
        float* out = tile.out + a * m.lanes * m.out_pitch;
        for (int l = 0; l < live; l += 2)
          for (int c = 0, passes = (vectors_of_v + kStencilChannels - 1) / kStencilChannels; passes > 0;
               --passes) {
            const int n = (vectors_of_v - c + passes - 1) / passes;
            stencil_weigh_for(b - a, n)(last - i, static_cast<int>(window), p0 + l, m.score_pitch,
                                        m.value_rows + (i - begin), l * m.v_pitch + c * kFloats, m.v_pitch,
                                        out + l * m.out_pitch + c * kFloats, m.out_pitch,
                                        m.lanes * m.out_pitch);
            c += n;
          }
      }
    }
  }

  void attend(Tile& tile) {
    const FloatTag d;
    for (int r = 0; r < tile.rows; ++r) {
      float* out = tile.out + r * m.lanes * m.out_pitch;
      for (int l = 0; l < kFloats; ++l, out += m.out_pitch)
        for (Index c = 0; c < m.v_pitch; c += kFloats) hn::Store(hn::Zero(d), d, out + c);
      hn::Store(hn::Set(d, std::numeric_limits<float>::lowest()), d, m.max + r * kFloats);
      hn::Store(hn::Zero(d), d, m.sum + r * kFloats);
    }
    for (int i = 0; i < tile.n; i += static_cast<int>(cut.chunk_rows)) {
      const int end = std::min(tile.n, i + static_cast<int>(cut.chunk_rows));
      score(tile, i, end);
      weights(tile, i, end);
      weigh(tile, i, end);
    }
    for (int r = 0; r < tile.rows; ++r) {  // 1 / l, 0 where nothing was seen
      const Index at = (tile.head * kStencilRows + r) * m.lanes + tile.v * kFloats;
      const Floats l = hn::Load(d, m.sum + r * kFloats);
      const auto none = hn::Eq(l, hn::Zero(d));
      hn::Store(hn::IfThenZeroElse(none, hn::Div(hn::Set(d, 1.0f), l)), d, m.inverse + at);
      const Floats lse = hn::Add(hn::Load(d, m.max + r * kFloats), log_or_nan(l));
      hn::Store(hn::IfThenElse(none, hn::Set(d, -std::numeric_limits<float>::infinity()), lse), d,
                m.lse + at);
    }
  }

  // Iterations of the inner loops over key rows m.rows[0, n), all heads and vectors.
  std::size_t iterations(int n) const {
    Index calls = 0;
    for (int i = 0; i < n; ++i) calls += ceil_div(window, most_shifts(m.rows[i].high - m.rows[i].low));
    return static_cast<std::size_t>(calls * vectors * m.query_heads * p.head_dim);
  }

  void run() {
    const Box keys = hull(band.grid, band.queries);
    const Interval all_y = band.queries.axis[1];
    Interval packed = keys.axis[by_time ? 0 : 1];
    packed.end = packed.begin;
    const auto scale = static_cast<float>(p.effective_scale());
    for (Index t = band.queries.axis[0].begin; t < band.queries.axis[0].end; ++t)
      for (Interval y{all_y.begin, 0}; y.begin < all_y.end; y.begin = y.end) {
        y.end = min_of(y.begin + kStencilRows, all_y.end);
        const Interval needed = by_time ? visible(band.grid.axis[0], t) : hull(axis_y, y);
        for (Index s = max_of(packed.end, needed.begin); s < needed.end; ++s) {
          const Interval across = by_time ? keys.axis[1] : visible(band.grid.axis[0], t);
          for (Index i = across.begin; i < across.end; ++i) pack_keys(by_time ? s : i, by_time ? i : s);
        }
        packed.end = max_of(packed.end, needed.end);
        const int n = key_rows(band.grid, cut.slots, t, y, m.rows);
        if (!by_time || y.begin == all_y.begin)
          plan_feed(
              t, y, packed, keys,
              iterations(n) * static_cast<std::size_t>(by_time ? ceil_div(all_y.size(), kStencilRows) : 1));
        pack_queries(t, y, scale);
        Tile tile;
        tile.rows = static_cast<int>(y.size());
        tile.n = n;
        for (tile.head = 0; tile.head < m.query_heads; ++tile.head)
          for (tile.v = 0; tile.v < vectors; ++tile.v) {
            tile.out = m.out + tile.v * kFloats * m.out_pitch + tile.head * m.v_pitch;
            attend(tile);
          }
        write_out(t, y);
      }
  }
};

inline void run_stencil(const Band& band, std::byte* memory) { StencilForward(band, memory).run(); }

}  // namespace nearfield::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
