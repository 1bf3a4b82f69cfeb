// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The geometry of multi-dimensional attention, written once.
//
// On every axis the keys that a query sees form ONE interval [begin, end), and neither end moves
// backwards as the query moves forward. The keys that a query sees are the product of its axis
// intervals: a box. Everything else follows from these two monotone functions: what a run of
// queries sees, which queries see a key, whether a tile pair can be skipped, how much work there is.
//
//   Axis a{Rule::kWindow, 10, 10, 3};        // ten tokens, a window of three
//   visible(a, 0);                            // {0, 3}: shifted inwards at the border, never cut
//   visible(a, 5);                            // {4, 7}
//   seen_by(a, 1);                            // {0, 3}: queries 0, 1 and 2 see key 1
//
// Unit: tokens of the whole (global) axis. Every function is constexpr, for host and CUDA device; extents
// up to kMaxExtent, so that no product overflows. Source: Hassani et al., "Neighborhood Attention
// Transformer" (CVPR 2023, section 3.1: windows shifted inwards); "Generalized Neighborhood Attention"
// (2025, section 3: stride).
#pragma once

#include "nearfield/interval.h"

namespace nearfield {

// One axis.

enum class Rule : int {
  kDense,         // every key
  kTopLeft,       // keys 0..q
  kBottomRight,   // keys 0..q + keys - queries (may be none)
  kWindow,        // `window` keys around the query, shifted inwards at the borders
  kWindowCausal,  // the last `window` keys up to the query
};

// What one axis asks for. `queries` and `keys` are the ranges of the axis that are present (a shard
// with its halo); a query sees its window of the whole axis intersected with `keys`.
// With dilation d > 1 the axis is d interleaved axes of their own: take them out with group().
struct Axis {
  Rule rule = Rule::kDense;
  Index query_extent = 1;
  Index key_extent = 1;  // == query_extent unless the rule is dense or the layouts differ
  Index window = 1;
  Index stride = 1;
  Index dilation = 1;
  Interval queries = {0, 1};
  Interval keys = {0, 1};

  constexpr Axis() = default;
  // The whole axis.
  NF_HD constexpr Axis(Rule r, Index query_extent_, Index key_extent_, Index window_ = 1, Index stride_ = 1,
                       Index dilation_ = 1)
      : rule(r), query_extent(query_extent_), key_extent(key_extent_), window(window_), stride(stride_),
        dilation(dilation_), queries{0, query_extent_}, keys{0, key_extent_} {}
};

// Tokens of range that belong to residue class g modulo d, as positions within that class.
NF_HD constexpr Interval group_range(Interval range, Index g, Index d) {
  return {max_of(ceil_div(range.begin - g, d), 0), max_of(ceil_div(range.end - g, d), 0)};
}

// The g-th of the axis's `dilation` independent undilated axes: tokens g, g + d, g + 2d, ...
NF_HD constexpr Axis group(const Axis& a, Index g) {
  if (a.dilation == 1) return a;
  Axis r = a;
  r.dilation = 1;
  r.query_extent = max_of(ceil_div(a.query_extent - g, a.dilation), 0);
  r.key_extent = max_of(ceil_div(a.key_extent - g, a.dilation), 0);
  r.queries = group_range(a.queries, g, a.dilation);
  r.keys = group_range(a.keys, g, a.dilation);
  return r;
}

// The place of query q among the keys: q itself, unless the two layouts differ.
NF_HD constexpr Index place(const Axis& a, Index q) {
  return a.query_extent == a.key_extent ? q : (2 * q + 1) * a.key_extent / (2 * a.query_extent);
}

// The window of query q on the whole undilated axis (semantics: section 2).
NF_HD constexpr Interval window_of(const Axis& a, Index q) {
  switch (a.rule) {
    case Rule::kTopLeft: return {0, min_of(q + 1, a.key_extent)};
    case Rule::kBottomRight: return {0, clamp(q + 1 + a.key_extent - a.query_extent, 0, a.key_extent)};
    case Rule::kWindow: {
      const Index c = place(a, q);
      const Index leader = min_of(c / a.stride * a.stride + a.stride / 2, a.key_extent - 1);
      const Index begin = clamp(leader - a.window / 2, 0, a.key_extent - a.window);
      return {begin, begin + a.window};
    }
    case Rule::kWindowCausal: {
      const Index c = place(a, q);
      const Index leader = min_of(c / a.stride * a.stride + a.stride - 1, a.key_extent - 1);
      return {max_of(leader - (a.window - 1), 0), c + 1};
    }
    case Rule::kDense: break;
  }
  return {0, a.key_extent};
}

// The keys present that query q sees. Both ends are monotone in q, also where the interval is empty.
NF_HD constexpr Interval visible(const Axis& a, Index q) {
  const Interval w = window_of(a, q);
  return {clamp(w.begin, a.keys.begin, a.keys.end), clamp(w.end, a.keys.begin, a.keys.end)};
}

// The keys seen by at least one query of a non-empty run (its span), and by all of them.
NF_HD constexpr Interval hull(const Axis& a, Interval run) {
  return {visible(a, run.begin).begin, visible(a, run.end - 1).end};
}
NF_HD constexpr Interval core(const Axis& a, Interval run) {
  return {visible(a, run.end - 1).begin, visible(a, run.begin).end};
}

// The queries present that see `key`: an interval, by bisection over the two monotone ends.
NF_HD constexpr Interval seen_by(const Axis& a, Index key) {
  Index low = a.queries.begin, high = max_of(a.queries.end, low);
  while (low < high) {  // first query whose window ends behind the key
    const Index mid = low + (high - low) / 2;
    if (visible(a, mid).end > key) high = mid;
    else low = mid + 1;
  }
  const Index begin = low;
  high = max_of(a.queries.end, low);
  while (low < high) {  // first query whose window begins behind the key
    const Index mid = low + (high - low) / 2;
    if (visible(a, mid).begin > key) high = mid;
    else low = mid + 1;
  }
  return {begin, low};
}

// The queries that see at least one key of a non-empty run (their span), and all of its keys.
NF_HD constexpr Interval inverse_hull(const Axis& a, Interval run) {
  return {seen_by(a, run.begin).begin, seen_by(a, run.end - 1).end};
}
NF_HD constexpr Interval inverse_core(const Axis& a, Interval run) {
  return {seen_by(a, run.end - 1).begin, seen_by(a, run.begin).end};
}

// Tile pairs.

enum class Cover : int {
  kSkip,     // no query of the run sees a key of the run
  kPartial,  // some pairs may be masked
  kFull,     // every query sees every key: no mask is needed
};

// One axis of a tile pair; both runs are not empty.
NF_HD constexpr Cover cover(const Axis& a, Interval query_run, Interval key_run) {
  if (intersect(hull(a, query_run), key_run).empty()) return Cover::kSkip;
  return core(a, query_run).contains(key_run) ? Cover::kFull : Cover::kPartial;
}

// Three axes: one token layout (a grid). Lower ranks have leading axes of extent 1.

struct Grid {
  Axis axis[kMaxRank];

  NF_HD constexpr Box queries() const { return {{axis[0].queries, axis[1].queries, axis[2].queries}}; }
  NF_HD constexpr Box keys() const { return {{axis[0].keys, axis[1].keys, axis[2].keys}}; }
  NF_HD constexpr Index groups() const { return axis[0].dilation * axis[1].dilation * axis[2].dilation; }
};

// The g-th of the grid's independent undilated grids; residue[a] = first token of the group.
NF_HD constexpr Grid group(const Grid& grid, Index g, Index residue[kMaxRank]) {
  Grid r;
  for (int a = kMaxRank - 1; a >= 0; --a) {
    residue[a] = g % grid.axis[a].dilation;
    g /= grid.axis[a].dilation;
    r.axis[a] = group(grid.axis[a], residue[a]);
  }
  return r;
}

// hull, core and inverse_hull of a box of tokens, axis by axis.
NF_HD constexpr Box per_axis(const Grid& g, const Box& b, Interval (*of)(const Axis&, Interval)) {
  return {{of(g.axis[0], b.axis[0]), of(g.axis[1], b.axis[1]), of(g.axis[2], b.axis[2])}};
}
NF_HD constexpr Box hull(const Grid& g, const Box& queries) { return per_axis(g, queries, hull); }
NF_HD constexpr Box core(const Grid& g, const Box& queries) { return per_axis(g, queries, core); }
NF_HD constexpr Box inverse_hull(const Grid& g, const Box& keys) { return per_axis(g, keys, inverse_hull); }
NF_HD constexpr Cover cover(const Grid& g, const Box& queries, const Box& keys) {
  Cover all = Cover::kFull;
  for (int a = 0; a < kMaxRank; ++a) {
    const Cover c = cover(g.axis[a], queries.axis[a], keys.axis[a]);
    if (c == Cover::kSkip) return c;
    if (c == Cover::kPartial) all = c;
  }
  return all;
}

// Exact amounts of work.

// sum over q in the run of clamp(floor(q / step) * step + offset, low, high), in constant time.
NF_HD constexpr Index clamped_sum(Interval run, Index step, Index offset, Index low, Index high) {
  if (run.empty()) return 0;
  const auto first_at_least = [&](Index x) {  // first q of the run whose unclamped value is >= x
    return clamp(x <= offset ? 0 : ceil_div(x - offset, step) * step, run.begin, run.end);
  };
  const auto steps_below = [&](Index n) {  // sum over q < n of floor(q / step) * step
    const Index whole = n / step;
    return step * (step * (whole * (whole - 1) / 2) + whole * (n % step));
  };
  const Index a = first_at_least(low), b = max_of(first_at_least(high), a);
  return (a - run.begin) * low + steps_below(b) - steps_below(a) + (b - a) * offset + (run.end - b) * high;
}

// Visible (query, key) pairs of one undilated axis.
NF_HD constexpr Index group_pairs(const Axis& a) {
  const bool windowed = a.rule == Rule::kWindow || a.rule == Rule::kWindowCausal;
  const auto in = [&a](Index key) { return clamp(key, a.keys.begin, a.keys.end); };
  if (windowed && a.query_extent != a.key_extent) {
    Index sum = 0;
    for (Index q = a.queries.begin; q < a.queries.end; ++q) sum += visible(a, q).size();
    return sum;
  }
  const Index shift = a.rule == Rule::kBottomRight ? a.key_extent - a.query_extent : 0;
  const Index last = a.key_extent - a.window, whole = in(a.key_extent), none = in(0);
  if (a.rule == Rule::kDense) return a.queries.size() * (whole - none);
  if (!windowed || a.rule == Rule::kWindowCausal) {  // the end is q + 1, the begin 0 or that of the window
    const Index ends = clamped_sum(a.queries, 1, 1 + shift, none, whole);
    return ends - (windowed ? clamped_sum(a.queries, a.stride, a.stride - a.window, none, in(last))
                            : a.queries.size() * none);
  }
  const Index offset = a.stride / 2 - a.window / 2;
  return clamped_sum(a.queries, a.stride, offset + a.window, in(a.window), whole) -
         clamped_sum(a.queries, a.stride, offset, none, in(last));
}

// Visible (query, key) pairs of one axis, all dilation groups together. Whole axes have groups of two
// lengths at most; so counting takes constant time unless ranges and a dilation come together.
NF_HD constexpr Index pairs(const Axis& a) {
  const bool whole = a.keys == Interval{0, a.key_extent} && a.queries == Interval{0, a.query_extent};
  if (whole && a.dilation > 1) {
    const Index longer = a.key_extent % a.dilation;
    return longer * group_pairs(group(a, 0)) + (a.dilation - longer) * group_pairs(group(a, a.dilation - 1));
  }
  Index sum = 0;
  for (Index g = 0; g < a.dilation; ++g) sum += group_pairs(group(a, g));
  return sum;
}

// Visible pairs of the grid: the axes are independent, so their counts multiply.
NF_HD constexpr double pairs(const Grid& g) {
  return static_cast<double>(pairs(g.axis[0])) * static_cast<double>(pairs(g.axis[1])) *
         static_cast<double>(pairs(g.axis[2]));
}

// The keys of the whole axis that a shard of queries needs (tokens, dilation included): the halo is
// what of it lies outside the shard. Empty for an empty shard.
NF_HD constexpr Interval needed_keys(const Axis& a, Interval shard) {
  Interval all{0, 0};
  for (Index g = 0; g < a.dilation; ++g) {
    const Axis r = group(a, g);
    const Interval run = intersect(group_range(shard, g, a.dilation), r.queries);
    if (run.empty()) continue;
    const Interval h = hull(r, run);
    if (h.empty()) continue;
    const Interval tokens{g + h.begin * a.dilation, g + (h.end - 1) * a.dilation + 1};
    all = all.empty() ? tokens : Interval{min_of(all.begin, tokens.begin), max_of(all.end, tokens.end)};
  }
  return all;
}

// The queries of a shard whose windows lie within `keys` (tokens): they need nobody else's. Of a dilated axis
// the tokens around which every group does; empty where some group with queries in the shard has none.
NF_HD constexpr Interval inner_queries(const Axis& a, Interval shard, Interval keys) {
  Interval inner = shard;
  for (Index g = 0; g < a.dilation; ++g) {
    const Axis r = group(a, g);
    const Interval run = group_range(shard, g, a.dilation), own = group_range(keys, g, a.dilation);
    if (run.empty()) continue;
    Index low = run.begin, high = run.end;
    while (low < high) {  // first query whose window begins at or behind own.begin
      const Index mid = low + (high - low) / 2;
      if (window_of(r, mid).begin >= own.begin) high = mid;
      else low = mid + 1;
    }
    const Index first = low;
    high = run.end;
    while (low < high) {  // first query whose window ends behind own.end
      const Index mid = low + (high - low) / 2;
      if (window_of(r, mid).end > own.end) high = mid;
      else low = mid + 1;
    }
    if (first == low) return {shard.begin, shard.begin};
    if (first > run.begin) inner.begin = max_of(inner.begin, g + (first - 1) * a.dilation + 1);
    if (low < run.end) inner.end = min_of(inner.end, g + low * a.dilation);
  }
  return inner.empty() ? Interval{shard.begin, shard.begin} : inner;
}

}  // namespace nearfield
