// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/sm80/cut.h"

#include <map>
#include <tuple>

#include "plan/tiles.h"

namespace nearfield::sm80 {
namespace {

// Time to load a pair of tiles and to pass its barriers, in times to compute it. An estimate.
constexpr double kLoad = 0.3;
constexpr Index kRuns =
    512;  // of an axis whose runs do not repeat; of more, some that are evenly spread are counted

Index volume(const TileShape& t) { return t[0] * t[1] * t[2]; }
Interval range_of(const Axis& axis, bool queries) { return queries ? axis.queries : axis.keys; }

Meetings of_run(const Axis& a, TileSide side, Interval run, Interval span, Index part, Index other) {
  Meetings m;
  m.loaded = static_cast<double>(ceil_div(span.size(), other));
  for (Index begin = run.begin; begin < run.end; begin += part) {
    const Interval own{begin, min_of(begin + part, run.end)},
        some = side == TileSide::kQueries ? hull(a, own) : inverse_hull(a, own);
    if (some.empty()) continue;
    m.computed +=
        static_cast<double>(ceil_div(some.end - span.begin, other) - (some.begin - span.begin) / other);
  }
  return m;
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
  const TileSide side = queries_own ? TileSide::kQueries : TileSide::kKeys;
  Meetings sum;
  for_each_kind_of_group(axis, [&](Index g, Index alike) {
    const Axis a = group(axis, g);
    for_each_run(a, side, own, static_cast<double>(alike), kRuns,
                 [&](Interval run, Interval span, double times) {
                   const Meetings m = of_run(a, side, run, span, part, other);
                   sum.loaded += times * m.loaded;
                   sum.computed += times * m.computed;
                 });
  });
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
