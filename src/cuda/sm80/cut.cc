// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/sm80/cut.h"

#include <map>
#include <numeric>
#include <tuple>

namespace nearfield::sm80 {
namespace {

// Time to load a pair of tiles and to pass its barriers, in times to compute it. An estimate.
constexpr double kLoad = 0.3;

Index volume(const TileShape& t) { return t[0] * t[1] * t[2]; }
Interval range_of(const Axis& axis, bool queries) { return queries ? axis.queries : axis.keys; }

Meetings of_run(const Axis& a, bool queries_own, Interval run, Index part, Index other) {
  const auto span = [&](Interval r) { return queries_own ? hull(a, r) : inverse_hull(a, r); };
  const Interval all = span(run);
  Meetings m;
  m.loaded = static_cast<double>(ceil_div(all.size(), other));
  for (Index begin = run.begin; begin < run.end; begin += part) {
    const Interval some = span({begin, min_of(begin + part, run.end)});
    if (some.empty()) continue;
    m.computed +=
        static_cast<double>(ceil_div(some.end - all.begin, other) - (some.begin - all.begin) / other);
  }
  return m;
}

// One group. Away from the borders of a whole axis spans repeat with the stride: one period stands for all.
Meetings of_group(const Axis& a, bool queries_own, Index own, Index part, Index other) {
  const Interval range = range_of(a, queries_own);
  const Index tiles = ceil_div(range.size(), own);
  Meetings sum;
  const auto add = [&](Index first, Index last, Index times) {
    for (Index i = first; i < last; ++i) {
      const Interval run{range.begin + i * own, min_of(range.begin + (i + 1) * own, range.end)};
      const Meetings m = of_run(a, queries_own, run, part, other);
      sum.loaded += static_cast<double>(times) * m.loaded;
      sum.computed += static_cast<double>(times) * m.computed;
    }
  };
  const bool whole = a.queries == Interval{0, a.query_extent} && a.keys == Interval{0, a.key_extent};
  const bool windowed = a.rule == Rule::kWindow || a.rule == Rule::kWindowCausal;
  const bool repeats = a.rule == Rule::kDense || (windowed && a.query_extent == a.key_extent);
  const Index edge = (a.window + a.stride) / own + 2, period = a.stride / std::gcd(a.stride, own);
  if (!whole || !repeats || tiles <= 2 * (edge + period)) {
    add(0, tiles, 1);
  } else {
    const Index periods = (tiles - 2 * edge) / period;
    add(0, edge, 1);
    add(edge, edge + period, periods);
    add(edge + periods * period, tiles, 1);
  }
  return sum;
}

// Powers of two up to the first that holds all of a group.
std::vector<Index> lengths(const Axis& axis, bool queries, Index most) {
  const Index tokens = ceil_div(range_of(axis, queries).size(), axis.dilation);
  std::vector<Index> list{1};
  while (list.back() < tokens && list.back() * 2 <= most) list.push_back(list.back() * 2);
  return list;
}

// Shapes of at most `most` tokens that no other one contains.
std::vector<TileShape> shapes(const Grid& grid, bool queries, Index most) {
  std::vector<Index> of_axis[kMaxRank];
  for (int a = 0; a < kMaxRank; ++a) of_axis[a] = lengths(grid.axis[a], queries, most);
  std::vector<TileShape> list;
  for (const Index t : of_axis[0])
    for (const Index y : of_axis[1])
      for (const Index x : of_axis[2]) {
        if (t * y * x > most) continue;
        const bool room = 2 * t * y * x <= most;
        if (room && (t < of_axis[0].back() || y < of_axis[1].back() || x < of_axis[2].back())) continue;
        list.push_back({t, y, x});
      }
  return list;
}

// The box that `rows` consecutive rows of a tile fill; the whole tile if they fill none.
TileShape part_of(const TileShape& t, Index rows) {
  TileShape part = t;
  for (std::size_t a = 0; a < kMaxRank; ++a) {
    Index behind = 1;
    for (std::size_t b = a + 1; b < kMaxRank; ++b) behind *= t[b];
    const Index n = max_of(rows / behind, 1);
    if (t[a] % n != 0 && n < t[a]) return t;
    part[a] = min_of(n, t[a]);
    if (part[a] > 1 && rows % behind != 0 && behind > 1 && rows >= behind) return t;
  }
  return part;
}

}  // namespace

Meetings meetings(const Axis& axis, bool queries_own, Index own, Index part, Index other) {
  Meetings sum, previous;
  Interval queries, keys;
  for (Index g = 0; g < axis.dilation; ++g) {
    const Axis a = group(axis, g);
    if (g == 0 || !(a.queries == queries && a.keys == keys)) {
      previous = of_group(a, queries_own, own, part, other);
      queries = a.queries;
      keys = a.keys;
    }
    sum.loaded += previous.loaded;
    sum.computed += previous.computed;
  }
  return sum;
}

Cut best_cut(const Grid& grid, const Kernel& kernel, bool queries_own, Index group,
             const PlanOptions& options) {
  const auto& own_asked = queries_own ? options.query_tile : options.key_tile;
  const auto& other_asked = queries_own ? options.key_tile : options.query_tile;
  const Index warp_rows = kernel.rows / (kernel.threads / 32);
  std::vector<TileShape> others = shapes(grid, !queries_own, kernel.columns);
  if (other_asked && volume(*other_asked) <= kernel.columns) others = {*other_asked};
  std::map<std::tuple<int, Index, Index, Index>, Meetings> known;
  const auto of_axis = [&](int a, Index own, Index part, Index other) {
    const auto [at, fresh] = known.try_emplace({a, own, part, other});
    if (fresh) at->second = meetings(grid.axis[a], queries_own, own, part, other);
    return at->second;
  };
  Cut best;
  double least = -1;
  for (Index pack = 1; pack <= (queries_own ? min_of(group, kernel.rows) : 1); ++pack) {
    if (group % pack != 0 || kernel.rows % pack != 0) continue;
    std::vector<TileShape> owns = shapes(grid, queries_own, kernel.rows / pack);
    if (own_asked && volume(*own_asked) <= kernel.rows) {
      if (volume(*own_asked) * pack > kernel.rows) continue;
      owns = {*own_asked};
    }
    for (const TileShape& own : owns) {
      const TileShape part = part_of(own, warp_rows);
      // Warps of which each owns one part of each head's tile; or several heads, and then all of it.
      const double times = volume(own) >= warp_rows
                               ? static_cast<double>(pack)
                               : static_cast<double>(ceil_div(volume(own) * pack, warp_rows));
      for (const TileShape& other : others) {
        Meetings m{1, 1};
        for (int a = 0; a < kMaxRank; ++a) {
          const auto i = static_cast<std::size_t>(a);
          const Meetings x = of_axis(a, own[i], part[i], other[i]);
          m.loaded *= x.loaded;
          m.computed *= x.computed;
        }
        const double warps = static_cast<double>(kernel.threads) / 32;
        const double computed = times * m.computed / static_cast<double>(pack),
                     loaded = m.loaded / static_cast<double>(pack);
        // A tile whose columns are not all tokens is never taken without a mask.
        const double masked = volume(other) < kernel.columns ? 1.05 : 1.0;
        const double cost = kLoad * warps * loaded + masked * computed;
        // Ties go to tiles that are long along the fastest axis, whose rows lie together.
        const bool tie = least >= 0 && cost <= least * (1 + 1e-9) && cost >= least * (1 - 1e-9);
        const auto& streamed = queries_own ? best.key : best.query;
        if (least >= 0 && !(cost < least * (1 - 1e-9)) && !(tie && other[2] > streamed[2])) continue;
        least = cost;
        best = {queries_own ? own : other, queries_own ? other : own, static_cast<int>(pack), loaded,
                computed};
      }
    }
  }
  return best;
}

}  // namespace nearfield::sm80
