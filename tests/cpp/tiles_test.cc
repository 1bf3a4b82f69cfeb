// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The planner's counts: the shortcut through the period of the stride gives what every tile adds up to, and
// the tile that is chosen computes no more than any other of its size.
#include "plan/tiles.h"

#include <gtest/gtest.h>

namespace nearfield {
namespace {

double by_hand(const Axis& axis, TileSide side, Index length) {
  double sum = 0;
  for (Index g = 0; g < axis.dilation; ++g) {
    const Axis own = group(axis, g);
    const Interval range = side == TileSide::kQueries ? own.queries : own.keys;
    for (Index at = range.begin; at < range.end; at += length) {
      const Interval run{at, min_of(at + length, range.end)};
      sum +=
          static_cast<double>((side == TileSide::kQueries ? hull(own, run) : inverse_hull(own, run)).size());
    }
  }
  return sum;
}

TEST(Tiles, ComputedPairsAreTheSumOverAllTiles) {
  for (Index extent = 1; extent < 150; extent += extent < 30 ? 1 : 11)
    for (const Rule rule : {Rule::kWindow, Rule::kWindowCausal, Rule::kDense, Rule::kTopLeft})
      for (Index window = 1; window <= min_of(extent, 21); window += window < 6 ? 1 : 5)
        for (Index stride = 1; stride <= window; ++stride)
          for (const Index dilation : {1, 3})
            for (const TileSide side : {TileSide::kQueries, TileSide::kKeys})
              for (const Index length : {1, 4, 16}) {
                if (window * dilation > extent) continue;
                Grid grid;
                grid.axis[2] = Axis(rule, extent, extent, window, stride, dilation);
                ASSERT_EQ(computed_pairs(grid, side, {1, 1, length}, 1), by_hand(grid.axis[2], side, length))
                    << "extent " << extent << " rule " << static_cast<int>(rule) << " window " << window
                    << " stride " << stride << " dilation " << dilation << " length " << length;
              }
}

// Whatever is present of the axis: every group is like the first of its kind.
TEST(Tiles, GroupsOfAKindAreAlike) {
  const auto same = [](Interval a, Interval b) { return a.begin == b.begin && a.end == b.end; };
  for (Index extent = 1; extent < 12; ++extent)
    for (Index d = 1; d <= extent; ++d)
      for (Index begin = 0; begin <= extent; ++begin)
        for (Index end = begin; end <= extent; ++end) {
          Axis axis{Rule::kWindow, extent, extent, 1, 1, d};
          (begin % 2 ? axis.queries : axis.keys) = {begin, end};
          Index next = 0, kinds = 0;
          for_each_kind_of_group(axis, [&](Index g, Index alike) {
            ASSERT_EQ(g, next);
            ASSERT_GT(alike, 0);
            const Axis first = group(axis, g);
            for (; next < g + alike; ++next) {
              const Axis own = group(axis, next);
              ASSERT_TRUE(same(own.queries, first.queries) && same(own.keys, first.keys) &&
                          own.query_extent == first.query_extent && own.key_extent == first.key_extent)
                  << "extent " << extent << " dilation " << d << " range " << begin << "-" << end;
            }
            ++kinds;
          });
          ASSERT_EQ(next, d);
          ASSERT_LE(kinds, 4);  // the extent's end, and both of one range's, each fall once
        }
}

TEST(Tiles, TheBestTileComputesTheFewestPairs) {
  for (const Index window : {1, 3, 7, 12}) {
    Grid grid;
    grid.axis[1] = Axis(Rule::kWindow, 20, 20, min_of(window, 5));
    grid.axis[2] = Axis(Rule::kWindowCausal, 33, 33, window, max_of(window / 2, 1));
    for (const TileSide side : {TileSide::kQueries, TileSide::kKeys}) {
      const double best = computed_pairs(grid, side, best_tile(grid, side, 16), 16);
      for (Index t = 1; t <= 16; t *= 2)
        for (Index y = 1; t * y <= 16; y *= 2)
          EXPECT_LE(best, computed_pairs(grid, side, {t, y, 16 / (t * y)}, 16)) << t << " " << y;
    }
  }
}

TEST(Tiles, CutsCoverEveryTokenOnce) {
  const TileGrid cut{{{{2, 7}, {0, 9}, {5, 6}}}, {2, 4, 8}};
  Index tokens = 0;
  for (Index i = 0; i < cut.count(); ++i) {
    EXPECT_TRUE(cut.range.contains(cut.box(i)));
    EXPECT_FALSE(cut.box(i).empty());
    tokens += cut.box(i).volume();
  }
  EXPECT_EQ(tokens, cut.range.volume());
  EXPECT_EQ((TileGrid{{{{0, 0}, {0, 9}, {0, 9}}}, {1, 1, 1}}.count()), 0);
}

}  // namespace
}  // namespace nearfield
