// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "plan/tiles.h"

#include <map>

namespace nearfield {
namespace {

constexpr Index kCounted = 1 << 15;  // tiles of an axis; of more, some that are evenly spread stand for all

// Sum over the tiles of one axis, all dilation groups, of the length of their span on the other side.
double spans(const Axis& axis, TileSide side, Index length) {
  double sum = 0;
  for_each_run_of_groups(axis, side, length, kCounted, [&](Interval, Interval span, double times) {
    sum += static_cast<double>(span.size()) * times;
  });
  return sum;
}

}  // namespace

std::vector<Index> numbers_of(const Grid& grid) {
  std::vector<Index> list;
  for (const Axis& a : grid.axis)
    list.insert(list.end(), {static_cast<Index>(a.rule), a.query_extent, a.key_extent, a.window, a.stride,
                             a.dilation, a.queries.begin, a.queries.end, a.keys.begin, a.keys.end});
  return list;
}

double computed_pairs(const Grid& grid, TileSide side, const TileShape& shape, Index lanes) {
  double product = static_cast<double>(lanes);
  for (int a = 0; a < kMaxRank; ++a) product *= spans(grid.axis[a], side, shape[static_cast<std::size_t>(a)]);
  return product;
}

TileShape best_tile(const Grid& grid, TileSide side, Index lanes) {
  Index longest[kMaxRank];  // no use in tiles longer than the axis of a group, rounded up to a power of two
  std::map<Index, double> known[kMaxRank];
  for (int a = 0; a < kMaxRank; ++a) {
    const Axis own = group(grid.axis[a], 0);
    longest[a] = max_of(2 * (side == TileSide::kQueries ? own.queries : own.keys).size() - 1, 1);
  }
  const auto spans_of = [&](int a, Index length) {
    const auto [at, fresh] = known[a].try_emplace(length, 0.0);
    if (fresh) at->second = spans(grid.axis[a], side, length);
    return at->second;
  };
  TileShape best{1, 1, lanes};
  double fewest = -1;
  for (Index t = 1; t <= min_of(lanes, longest[0]); t *= 2)
    for (Index y = 1; t * y <= lanes && y <= longest[1]; y *= 2)
      for (Index x = 1; t * y * x <= lanes && x <= longest[2]; x *= 2) {
        const bool room = 2 * t * y * x <= lanes;  // a larger tile never computes more
        if (room && (2 * t <= longest[0] || 2 * y <= longest[1] || 2 * x <= longest[2])) continue;
        const double pairs = spans_of(0, t) * spans_of(1, y) * spans_of(2, x);
        if (fewest >= 0 && (pairs > fewest || (pairs == fewest && x < best[2]))) continue;
        fewest = pairs;
        best = {t, y, x};
      }
  return best;
}

std::string tile_text(const TileShape& shape, int rank) {
  std::string text;
  for (int a = kMaxRank - rank; a < kMaxRank; ++a)
    text += (text.empty() ? "" : "x") + std::to_string(shape[static_cast<std::size_t>(a)]);
  return text;
}

}  // namespace nearfield
