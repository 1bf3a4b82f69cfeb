// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Backward: which keys a band shares with others. Intervals of bands along an axis are monotone like those of
// queries, so the bands that see a coordinate follow each other, and a band's own coordinates are an interval.
#pragma once

#include <vector>

#include "nearfield/geometry.h"
#include "plan/tiles.h"

namespace nearfield::cpu {

// Keys of one band: `own` of them (a box inside hull, perhaps empty) no other band sees; the others are shared and
// numbered in raster order.
struct Share {
  Box hull, own;

  Index count() const { return hull.volume() - own.volume(); }
  // The number of a shared key of the hull; -1 for an own one.
  Index number(Index t, Index y, Index x) const {
    const Interval &ot = own.axis[0], &oy = own.axis[1], &ox = own.axis[2];
    const Index height = hull.axis[1].size(), width = hull.axis[2].size();
    const Index before =
        ((t - hull.axis[0].begin) * height + y - hull.axis[1].begin) * width + x - hull.axis[2].begin;
    if (own.empty()) return before;
    Index skipped = clamp(t - ot.begin, 0, ot.size()) * oy.size() * ox.size();
    if (ot.contains(t)) {
      skipped += clamp(y - oy.begin, 0, oy.size()) * ox.size();
      if (oy.contains(y)) {
        if (ox.contains(x)) return -1;
        skipped += clamp(x - ox.begin, 0, ox.size());
      }
    }
    return before - skipped;
  }
};

// The bands of one dilation group.
struct GroupBands {
  Index residue[kMaxRank];  // of the group; set with its grid
  Grid grid;
  TileGrid boxes;                          // of queries
  std::vector<Interval> hull[kMaxRank];    // keys of each band, per axis
  std::vector<Interval> covers[kMaxRank];  // bands that see a coordinate, from the first key present on
  bool all_shared;
  std::vector<Index> first;  // shared keys of the bands before; one entry more than bands

  // more: keys that every band shares, behind its own (the additional ones).
  GroupBands(const Grid& whole, Index group_number, const TileShape& band, bool all_shared_, Index more)
      : grid(group(whole, group_number, residue)), boxes{grid.queries(), band}, all_shared(all_shared_) {
    for (int a = 0; a < kMaxRank; ++a) {
      const Interval keys = grid.axis[a].keys, queries = grid.axis[a].queries;
      covers[a].assign(static_cast<std::size_t>(keys.size()), {0, 0});
      if (queries.empty()) continue;
      for (Index i = 0; i < boxes.count(a); ++i) {
        const Index begin = queries.begin + i * band[static_cast<std::size_t>(a)];
        const Interval h = nearfield::hull(
            grid.axis[a], {begin, min_of(begin + band[static_cast<std::size_t>(a)], queries.end)});
        hull[a].push_back(h);
        for (Index c = h.begin; c < h.end; ++c) {
          Interval& who = covers[a][static_cast<std::size_t>(c - keys.begin)];
          who = who.empty() ? Interval{i, i + 1} : Interval{who.begin, i + 1};
        }
      }
    }
    first.push_back(0);
    for (Index i = 0; i < boxes.count(); ++i) first.push_back(first.back() + share(i).count() + more);
  }

  Index bands() const { return boxes.count(); }
  Index shared_keys() const { return first.back(); }

  Share share(Index band) const {
    Index at[kMaxRank];
    for (int a = kMaxRank - 1; a >= 0; --a) {
      at[a] = band % boxes.count(a);
      band /= boxes.count(a);
    }
    Share s;
    for (int a = 0; a < kMaxRank; ++a) {
      const auto i = static_cast<std::size_t>(at[a]);
      s.hull.axis[a] = s.own.axis[a] = hull[a][i];
      if (i > 0) s.own.axis[a].begin = max_of(s.own.axis[a].begin, hull[a][i - 1].end);
      if (i + 1 < hull[a].size()) s.own.axis[a].end = min_of(s.own.axis[a].end, hull[a][i + 1].begin);
    }
    if (s.own.empty() || all_shared) s.own = Box{{{0, 0}, {0, 0}, {0, 0}}};
    return s;
  }
};

}  // namespace nearfield::cpu
