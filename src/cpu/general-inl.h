// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The general path: forward, dQ and dK/dV of any problem, one strip of lane tiles at a time.
//
//   forward   S = Q K^T      running max m and sum l per lane, P = exp(S - m)      O += P V
//   dQ        P = exp(S - lse)   dS = P (dO V^T - delta)                           dQ = scale dS K
//   dK, dV    the same with keys in the lanes and queries as rows:                 dV += P^T dO, dK += dS^T Q
//
// With a bias, S += bias first, and dQ also sums dS by relative position. With dropout, P V and dO V^T are
// weighted by 0 or 1 / (1 - p), drawn anew in every pass.
//
// Shapes, M = kLanes, N = rows of a block: lane operands [depth][M], rows [N][pitch], S [N][M],
// accumulators [M][pitch]. Scratch is O((kMaxTiles M + N) (D + Dv)), work O(hull of the tiles). Products:
// 2 forward, 3 + 4 backward (S and dO V^T are formed twice, so that no two strips write to one place:
// nothing is added in an order that depends on threads).
//
// Non-finite numbers: a masked pair has weight exactly 0, but 0 * NaN is NaN; so backward the rows that
// are not finite are left out and the lanes that do see them become NaN. (Forward, a NaN in V may spread
// within its tile, as documented.)
#if defined(NEARFIELD_CPU_GENERAL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NEARFIELD_CPU_GENERAL_INL_H_
#undef NEARFIELD_CPU_GENERAL_INL_H_
#else
#define NEARFIELD_CPU_GENERAL_INL_H_
#endif

#include <limits>
#include <vector>

#include "cpu/extras-inl.h"
#include "cpu/rows-inl.h"
#include "cpu/scratch.h"

HWY_BEFORE_NAMESPACE();
namespace nearfield::cpu::HWY_NAMESPACE {

template <class T>
inline constexpr T kInfinity = std::numeric_limits<T>::infinity();

// S = -inf where masked; then P, m, l. True if some m grew, so that O must be scaled by `factor`.
template <class T>
bool softmax(const Sight<T>& sight, T* HWY_RESTRICT scores, T* HWY_RESTRICT max, T* HWY_RESTRICT sum,
             T* HWY_RESTRICT factor) {
  const Tag<T> d;
  bool grew = false;
  for (int v = 0; v < kVectors<T>; ++v) {
    const Vector<T> old = hn::Load(d, max + v * kWidth<T>);
    Vector<T> m = old;
    for (int i = 0; i < sight.segments; ++i) {
      const Segment<T>& segment = sight.segment[i];
      T* s = scores + segment.start * kLanes + v * kWidth<T>;
      if (segment.full) {
        for (int j = 0; j < segment.count; ++j) m = hn::Max(m, hn::Load(d, s + j * kLanes));
        continue;
      }
      for (int j = 0; j < segment.count; ++j) {
        const auto mask = sees(segment, v, hn::Set(d, static_cast<T>(j)));
        const Vector<T> x = hn::IfThenElse(mask, hn::Load(d, s + j * kLanes), hn::Set(d, -kInfinity<T>));
        hn::Store(x, d, s + j * kLanes);
        m = hn::Max(m, x);
      }
    }
    Vector<T> total = hn::Zero(d);
    for (int i = 0; i < sight.segments; ++i) {
      T* s = scores + sight.segment[i].start * kLanes + v * kWidth<T>;
      for (int j = 0; j < sight.segment[i].count; ++j) {
        const Vector<T> p = exp_or_nan(hn::Sub(hn::Load(d, s + j * kLanes), m));
        total = hn::Add(total, p);
        hn::Store(p, d, s + j * kLanes);
      }
    }
    const Vector<T> shrink = exp_or_nan(hn::Sub(old, m));
    hn::Store(shrink, d, factor + v * kWidth<T>);
    hn::Store(m, d, max + v * kWidth<T>);
    hn::Store(hn::MulAdd(hn::Load(d, sum + v * kWidth<T>), shrink, total), d, sum + v * kWidth<T>);
    grew = grew || !hn::AllTrue(d, hn::Eq(shrink, hn::Set(d, T{1})));
  }
  return grew;
}

// scores := P, grads := dS; both 0 where masked. lse and delta are per lane or per row.
template <bool kPerLane, class T>
void weigh_gradients(const Sight<T>& sight, T* HWY_RESTRICT scores, T* HWY_RESTRICT grads,
                     const T* HWY_RESTRICT lse, const T* HWY_RESTRICT delta) {
  const Tag<T> d;
  for (int i = 0; i < sight.segments; ++i) {
    const Segment<T>& s = sight.segment[i];
    for (int v = 0; v < kVectors<T>; ++v)
      for (int j = 0; j < s.count; ++j) {
        const int row = s.start + j, at = row * kLanes + v * kWidth<T>;
        const Vector<T> lse_v = kPerLane ? hn::Load(d, lse + v * kWidth<T>) : hn::Set(d, lse[row]);
        const Vector<T> delta_v = kPerLane ? hn::Load(d, delta + v * kWidth<T>) : hn::Set(d, delta[row]);
        Vector<T> weight = exp_or_nan(hn::Sub(hn::Load(d, scores + at), lse_v));
        Vector<T> grad = hn::Mul(weight, hn::Sub(hn::Load(d, grads + at), delta_v));
        if (!s.full) {
          const auto mask = sees(s, v, hn::Set(d, static_cast<T>(j)));
          weight = hn::IfThenElseZero(mask, weight);
          grad = hn::IfThenElseZero(mask, grad);
        }
        hn::Store(weight, d, scores + at);
        hn::Store(grad, d, grads + at);
      }
  }
}

template <class T>
void scale_lanes(T* HWY_RESTRICT acc, std::size_t pitch, const T* HWY_RESTRICT factor) {
  const Tag<T> d;
  for (int l = 0; l < kLanes; ++l) {
    const Vector<T> f = hn::Set(d, factor[l]);
    for (std::size_t c = 0; c < pitch; c += kWidth<T>) {
      T* at = acc + static_cast<std::size_t>(l) * pitch + c;
      hn::Store(hn::Mul(hn::Load(d, at), f), d, at);
    }
  }
}

// S of the rows that a tile sees.
template <class T>
void dot_seen(const Sight<T>& sight, const T* rows, std::size_t pitch, const T* lanes, Index depth,
              T* scores) {
  const int first = sight.first_row();
  dot_rows(rows + static_cast<std::size_t>(first) * pitch, pitch, sight.end_row() - first, lanes,
           static_cast<std::size_t>(depth), scores + first * kLanes);
}

// The lane tiles of a strip, and everything that the three passes share.
template <class T>
struct Strip {
  const TileJob& job;
  const Problem& p;
  const Sequence& seq;
  Scratch<T> m;
  LaneTile* tiles;
  int count = 0;
  Box hull{{{0, 0}, {0, 0}, {0, 0}}};
  T scale;

  Strip(const TileJob& j, Side side, std::byte* memory)
      : job(j), p(*j.problem), seq(*j.sequence),
        m(p.head_dim, p.value_dim, j.rows_per_block, strip_tiles(j.lanes, j.tile), memory), tiles(m.tiles),
        scale(static_cast<T>(p.effective_scale())) {
    const TileGrid cut{job.lanes, job.tile};
    for (; count < cut.count(); ++count) {
      new (tiles + count) LaneTile(job.grid, cut.box(count), side);
      hull = span(hull, tiles[count].hull);
    }
  }

  // Calls fn(tile, sight) for every block of keys, the additional ones last, once its K and V are loaded.
  // finite tells whether all K are.
  template <class Fn>
  void for_each_key_block(Index kv_head, const Fn& fn) {
    const auto visit = [&](Role key, Role value, const Index* dilation, const Index* residue,
                           bool everything) HWY_ATTR {
      const bool finite =
          load_rows(job, *m.block, seq[key], kv_head, p.head_dim, dilation, residue, m.pitch_a, m.rows_a);
      load_rows(job, *m.block, seq[value], kv_head, p.value_dim, dilation, residue, m.pitch_b, m.rows_b);
      if (!finite) mark_bad(m.rows_a, m.pitch_a, nullptr, 0);
      for (int t = 0; t < count; ++t) {
        if (everything) see_everything(*m.block, *m.sight);
        else if (!tiles[t].look(*m.block, *m.sight)) continue;
        fn(t, finite, everything);
      }
    };
    RowBlocks rows(hull, job.rows_per_block);
    while (rows.next(*m.block)) visit(Role::kKey, Role::kValue, job.dilation, job.residue, false);
    RowBlocks more(Box{{{0, 1}, {0, 1}, {0, p.additional}}}, job.rows_per_block);
    while (more.next(*m.block))
      visit(Role::kAdditionalKey, Role::kAdditionalValue, kUndilated, kNoResidue, true);
  }

  void mark_bad(const T* a, std::size_t pitch_a, const T* b, std::size_t pitch_b) {
    std::fill(m.bad, m.bad + kMaxRows, false);
    mark_bad_rows(*m.block, a, pitch_a, m.bad);
    if (b) mark_bad_rows(*m.block, b, pitch_b, m.bad);
  }

  // After S = scale Q K^T of tile t is formed: what else belongs to it.
  void finish_scores(int t, Side lanes_are, bool additional, Index head) {
    if (p.bias && !additional) add_bias(job, lanes_are, tiles[t], *m.block, *m.sight, head, m.scores);
    if (p.dropout > 0) draw(job, lanes_are, additional, tiles[t], *m.block, *m.sight, head, m.kept);
  }
  void drop(T* values) {
    if (p.dropout > 0) multiply(*m.sight, m.kept, values);
  }

  void accumulate(bool finite, const T* weights, const T* rows, std::size_t pitch, T* acc) {
    if (finite) accumulate_rows(*m.sight, weights, rows, pitch, acc);
    else accumulate_around(*m.sight, m.bad, weights, rows, pitch, acc, *m.pieces);
  }

  // P of an empty row must be 0: exp(S - inf).
  static void mend_empty(T* lse, int n) {
    for (int i = 0; i < n; ++i)
      if (lse[i] == -kInfinity<T>) lse[i] = kInfinity<T>;
  }

  void store_scaled(int t, const GridView& view, Index head, Index channels, T* acc, std::size_t pitch,
                    T by) {
    std::fill(m.factor, m.factor + kLanes, by);
    scale_lanes(acc, pitch, m.factor);
    store_lanes(job, tiles[t], view, head, channels, acc, pitch);
  }
};

template <class T>
void forward(const TileJob& job, std::byte* memory) {
  const Tag<T> d;
  Strip<T> strip(job, Side::kQueries, memory);
  Scratch<T>& m = strip.m;
  const Problem& p = strip.p;
  for (Index h = job.head_begin; h < job.head_end; ++h) {
    for (int t = 0; t < strip.count; ++t) {
      load_lanes(job, strip.tiles[t], strip.seq[Role::kQuery], h, p.head_dim, strip.scale, m.line,
                 m.lanes_a(t));
      std::fill(m.acc_b(t), m.acc_b(t) + kLanes * m.pitch_b, T{0});
      std::fill(m.stat_a(t), m.stat_a(t) + kLanes, std::numeric_limits<T>::lowest());
      std::fill(m.stat_b(t), m.stat_b(t) + kLanes, T{0});
    }
    strip.for_each_key_block(h / (p.heads / p.kv_heads), [&](int t, bool, bool additional) HWY_ATTR {
      dot_seen(*m.sight, m.rows_a, m.pitch_a, m.lanes_a(t), p.head_dim, m.scores);
      strip.finish_scores(t, Side::kQueries, additional, h);
      if (softmax(*m.sight, m.scores, m.stat_a(t), m.stat_b(t), m.factor))
        scale_lanes(m.acc_b(t), m.pitch_b, m.factor);
      strip.drop(m.scores);
      accumulate_rows(*m.sight, m.scores, m.rows_b, m.pitch_b, m.acc_b(t));
    });
    for (int t = 0; t < strip.count; ++t) {
      for (int v = 0; v < kVectors<T>; ++v) {  // lse, and 1 / l with 0 where nothing was seen
        T *max = m.stat_a(t) + v * kWidth<T>, *sum = m.stat_b(t) + v * kWidth<T>;
        const Vector<T> l = hn::Load(d, sum);
        const auto none = hn::Eq(l, hn::Zero(d));
        const Vector<T> lse = hn::Add(hn::Load(d, max), log_or_nan(l));
        hn::Store(hn::IfThenElse(none, hn::Set(d, -kInfinity<T>), lse), d, max);
        hn::Store(hn::IfThenZeroElse(none, hn::Div(hn::Set(d, T{1}), l)), d, m.factor + v * kWidth<T>);
      }
      scale_lanes(m.acc_b(t), m.pitch_b, m.factor);
      store_lanes(job, strip.tiles[t], strip.seq[Role::kOut], h, p.value_dim, m.acc_b(t), m.pitch_b);
      if (strip.seq[Role::kLse].data)
        store_lane_scalars(job, strip.tiles[t], strip.seq[Role::kLse], h, m.stat_a(t));
    }
  }
}

template <class T>
void query_gradient(const TileJob& job, std::byte* memory) {
  Strip<T> strip(job, Side::kQueries, memory);
  Scratch<T>& m = strip.m;
  const Problem& p = strip.p;
  for (Index h = job.head_begin; h < job.head_end; ++h) {
    for (int t = 0; t < strip.count; ++t) {
      const LaneTile& tile = strip.tiles[t];
      load_lanes(job, tile, strip.seq[Role::kQuery], h, p.head_dim, strip.scale, m.line, m.lanes_a(t));
      load_lanes(job, tile, strip.seq[Role::kGradOut], h, p.value_dim, T{1}, m.line, m.lanes_b(t));
      load_lane_scalars(job, tile, strip.seq[Role::kLse], h, m.stat_a(t));
      strip.mend_empty(m.stat_a(t), kLanes);
      lane_deltas(job, tile, h, m.lanes_b(t), m.line, m.stat_b(t));
      store_lane_scalars(job, tile, job.delta, h, m.stat_b(t));
      std::fill(m.acc_a(t), m.acc_a(t) + kLanes * m.pitch_a, T{0});
    }
    strip.for_each_key_block(h / (p.heads / p.kv_heads), [&](int t, bool finite, bool additional) HWY_ATTR {
      dot_seen(*m.sight, m.rows_a, m.pitch_a, m.lanes_a(t), p.head_dim, m.scores);
      dot_seen(*m.sight, m.rows_b, m.pitch_b, m.lanes_b(t), p.value_dim, m.grads);
      strip.finish_scores(t, Side::kQueries, additional, h);
      strip.drop(m.grads);
      weigh_gradients<true>(*m.sight, m.scores, m.grads, m.stat_a(t), m.stat_b(t));
      if (job.bias_sums && !additional)
        sum_bias_gradient(job, strip.tiles[t], *m.block, *m.sight, h, m.grads);
      strip.accumulate(finite, m.grads, m.rows_a, m.pitch_a, m.acc_a(t));
    });
    for (int t = 0; t < strip.count; ++t)
      strip.store_scaled(t, strip.seq[Role::kGradQuery], h, p.head_dim, m.acc_a(t), m.pitch_a, strip.scale);
  }
}

template <class T>
void key_gradient(const TileJob& job, std::byte* memory) {
  Strip<T> strip(job, Side::kKeys, memory);
  Scratch<T>& m = strip.m;
  const Problem& p = strip.p;
  const Sequence& seq = strip.seq;
  const Index heads_per_kv = p.heads / p.kv_heads;
  const auto role = [&](Role plain, Role additional) -> const GridView& {
    return seq[job.additional ? additional : plain];
  };

  for (Index kv = job.head_begin; kv < job.head_end; ++kv) {
    for (int t = 0; t < strip.count; ++t) {
      load_lanes(job, strip.tiles[t], role(Role::kKey, Role::kAdditionalKey), kv, p.head_dim, strip.scale,
                 m.line, m.lanes_a(t));
      load_lanes(job, strip.tiles[t], role(Role::kValue, Role::kAdditionalValue), kv, p.value_dim, T{1},
                 m.line, m.lanes_b(t));
      std::fill(m.acc_a(t), m.acc_a(t) + kLanes * m.pitch_a, T{0});
      std::fill(m.acc_b(t), m.acc_b(t) + kLanes * m.pitch_b, T{0});
    }
    for (Index h = kv * heads_per_kv; h < (kv + 1) * heads_per_kv; ++h) {
      RowBlocks rows(strip.hull, job.rows_per_block);
      while (rows.next(*m.block)) {
        bool finite = load_rows(job, *m.block, seq[Role::kQuery], h, p.head_dim, job.dilation, job.residue,
                                m.pitch_a, m.rows_a);
        finite &= load_rows(job, *m.block, seq[Role::kGradOut], h, p.value_dim, job.dilation, job.residue,
                            m.pitch_b, m.rows_b);
        load_row_scalars(job, *m.block, seq[Role::kLse], h, m.row_lse);
        load_row_scalars(job, *m.block, job.delta, h, m.row_delta);
        strip.mend_empty(m.row_lse, m.block->rows);
        if (!finite) strip.mark_bad(m.rows_a, m.pitch_a, m.rows_b, m.pitch_b);
        for (int t = 0; t < strip.count; ++t) {
          if (!strip.tiles[t].look(*m.block, *m.sight)) continue;
          dot_seen(*m.sight, m.rows_a, m.pitch_a, m.lanes_a(t), p.head_dim, m.scores);
          dot_seen(*m.sight, m.rows_b, m.pitch_b, m.lanes_b(t), p.value_dim, m.grads);
          strip.finish_scores(t, Side::kKeys, job.additional, h);
          strip.drop(m.grads);
          weigh_gradients<false>(*m.sight, m.scores, m.grads, m.row_lse, m.row_delta);
          strip.drop(m.scores);
          strip.accumulate(finite, m.scores, m.rows_b, m.pitch_b, m.acc_b(t));
          strip.accumulate(finite, m.grads, m.rows_a, m.pitch_a, m.acc_a(t));
        }
      }
    }
    for (int t = 0; t < strip.count; ++t) {
      strip.store_scaled(t, role(Role::kGradKey, Role::kGradAdditionalKey), kv, p.head_dim, m.acc_a(t),
                         m.pitch_a, strip.scale);
      strip.store_scaled(t, role(Role::kGradValue, Role::kGradAdditionalValue), kv, p.value_dim, m.acc_b(t),
                         m.pitch_b, T{1});
    }
  }
}

}  // namespace nearfield::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
