// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Lane tiles: how a grid is cut into boxes of tokens, and how many pairs a cut computes.
#pragma once

#include <numeric>
#include <vector>

#include "nearfield/plan.h"

namespace nearfield {

enum class TileSide { kQueries, kKeys };

// The boxes of a range of tokens cut in tiles, in raster order; tiles at the end are smaller.
struct TileGrid {
  Box range;
  TileShape shape{1, 1, 1};

  Index count(int a) const { return ceil_div(range.axis[a].size(), shape[static_cast<std::size_t>(a)]); }
  Index count() const { return range.empty() ? 0 : count(0) * count(1) * count(2); }
  Box box(Index i) const {
    Box b;
    for (int a = kMaxRank - 1; a >= 0; --a) {
      const Index n = count(a), begin = range.axis[a].begin + i % n * shape[static_cast<std::size_t>(a)];
      b.axis[a] = {begin, min_of(begin + shape[static_cast<std::size_t>(a)], range.axis[a].end)};
      i /= n;
    }
    return b;
  }
};

// Calls fn(run, span, times) for the tiles of one undilated axis: `span` is what a run of tokens spans on the other
// side, and `times` tiles are like this one. Away from the borders of a whole axis the spans repeat with the stride:
// one period stands for all; where they do not, every tile is visited, or about `most` of them, evenly spread.
template <class Fn>
void for_each_run(const Axis& own, TileSide side, Index length, double times, Index most, const Fn& fn) {
  const Interval range = side == TileSide::kQueries ? own.queries : own.keys;
  const Index tiles = ceil_div(range.size(), length);
  const auto visit = [&](Index first, Index last, double n, Index step = 1) {
    for (Index i = first; i < last; i += step) {
      const Interval run{range.begin + i * length, min_of(range.begin + (i + 1) * length, range.end)};
      fn(run, side == TileSide::kQueries ? hull(own, run) : inverse_hull(own, run), n);
    }
  };
  const bool whole = own.queries == Interval{0, own.query_extent} && own.keys == Interval{0, own.key_extent};
  const bool windowed = own.rule == Rule::kWindow || own.rule == Rule::kWindowCausal;
  const bool repeats = own.rule == Rule::kDense || (windowed && own.query_extent == own.key_extent);
  const Index edge = (own.window + own.stride) / length + 2,
              period = own.stride / std::gcd(own.stride, length);
  if (!whole || !repeats || tiles <= 2 * (edge + period)) {
    const Index step = most > 0 ? max_of(tiles / most, 1) : 1, last = (tiles - 1) / step * step;
    if (step == 1) return visit(0, tiles, times);
    const double share = static_cast<double>(tiles) / static_cast<double>(last / step);
    return visit(step / 2, last, times * share, step);
  }
  const Index inner = tiles - 2 * edge, periods = inner / period;
  visit(0, edge, times);
  visit(edge, edge + period, times * static_cast<double>(periods));
  visit(edge + periods * period, tiles, times);
}

// Calls fn(g, alike) for the dilation groups of an axis: `alike` of them, from the g-th on, are like the g-th. The four
// ends of a group's ranges, and its extents, each fall by one once at most, so there are few kinds, however many groups.
template <class Fn>
void for_each_kind_of_group(const Axis& axis, const Fn& fn) {
  const auto same = [](Interval a, Interval b) { return a.begin == b.begin && a.end == b.end; };
  for (Index g = 0, next; g < axis.dilation; g = next) {
    const Axis own = group(axis, g);
    Index high = axis.dilation;
    for (next = g + 1; next < high;) {  // the first group that is not like this one
      const Index mid = next + (high - next) / 2;
      const Axis other = group(axis, mid);
      if (same(other.queries, own.queries) && same(other.keys, own.keys) &&
          other.query_extent == own.query_extent && other.key_extent == own.key_extent)
        next = mid + 1;
      else high = mid;
    }
    fn(g, next - g);
  }
}

// for_each_run() of one axis with all its dilation groups; those that are alike are visited once.
template <class Fn>
void for_each_run_of_groups(const Axis& axis, TileSide side, Index length, Index most, const Fn& fn) {
  for_each_kind_of_group(axis, [&](Index g, Index alike) {
    for_each_run(group(axis, g), side, length, static_cast<double>(alike), most, fn);
  });
}

// Grids of which this is equal are cut alike.
std::vector<Index> numbers_of(const Grid& grid);

// Pairs computed if every tile works on the whole span of the other side, with `lanes` lanes busy or not.
double computed_pairs(const Grid& grid, TileSide side, const TileShape& shape, Index lanes);

// The shape of at most `lanes` tokens with the fewest computed pairs; ties go to the one that is longest
// along the fastest axis.
TileShape best_tile(const Grid& grid, TileSide side, Index lanes);

// "4x4": the axes of the problem only.
std::string tile_text(const TileShape& shape, int rank);

}  // namespace nearfield
