// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "plan/tiles.h"

namespace nearfield {
namespace {

// Sum over the tiles of one axis, all dilation groups, of the length of their span on the other side.
double spans(const Axis& axis, TileSide side, Index length) {
  double sum = 0;
  Axis previous;
  double of_previous = 0;
  for (Index g = 0; g < axis.dilation; ++g) {
    const Axis own = group(axis, g);
    const bool same = g > 0 && own.queries == previous.queries && own.keys == previous.keys &&
                      own.query_extent == previous.query_extent && own.key_extent == previous.key_extent;
    if (!same) {
      of_previous = 0;
      const Interval range = side == TileSide::kQueries ? own.queries : own.keys;
      for (Index at = range.begin; at < range.end; at += length) {
        const Interval run{at, min_of(at + length, range.end)};
        of_previous += static_cast<double>(
            (side == TileSide::kQueries ? hull(own, run) : inverse_hull(own, run)).size());
      }
      previous = own;
    }
    sum += of_previous;
  }
  return sum;
}

}  // namespace

double computed_pairs(const Grid& grid, TileSide side, const TileShape& shape, Index lanes) {
  double product = static_cast<double>(lanes);
  for (int a = 0; a < kMaxRank; ++a) product *= spans(grid.axis[a], side, shape[static_cast<std::size_t>(a)]);
  return product;
}

TileShape best_tile(const Grid& grid, TileSide side, Index lanes) {
  TileShape best{1, 1, lanes};
  double fewest = -1;
  const auto longest =
      [&](int a) {  // no use in tiles longer than the axis of a group, rounded up to a power of two
        const Axis own = group(grid.axis[a], 0);
        return 2 * (side == TileSide::kQueries ? own.queries : own.keys).size() - 1;
      };
  // The span of a length is needed for many shapes: take it once.
  double of_axis[kMaxRank][8];
  for (int a = 0; a < kMaxRank; ++a) {
    int i = 0;
    for (Index n = 1; n <= lanes && i < 8; n *= 2, ++i)
      of_axis[a][i] = n <= max_of(longest(a), 1) ? spans(grid.axis[a], side, n) : -1;
  }
  int it = 0;
  for (Index t = 1; t <= lanes; t *= 2, ++it) {
    int iy = 0;
    for (Index y = 1; t * y <= lanes; y *= 2, ++iy) {
      int ix = 0;
      for (Index x = 1; t * y * x <= lanes; x *= 2, ++ix) {
        if (of_axis[0][it] < 0 || of_axis[1][iy] < 0 || of_axis[2][ix] < 0) continue;
        const double pairs = of_axis[0][it] * of_axis[1][iy] * of_axis[2][ix];
        if (fewest >= 0 && (pairs > fewest || (pairs == fewest && x < best[2]))) continue;
        fewest = pairs;
        best = {t, y, x};
      }
    }
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
