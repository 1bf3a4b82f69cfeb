// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// A query tile of the tuned kernels: a small box of queries that ride in SIMD lanes, and the keys that
// they see, as runs of packed rows in chunks that fit the L1 cache.
//
// Lanes are in groups of four that lie close together (2x2, 1x4, ...): S = Q K^T is formed for every lane
// and every key of the tile's hull, but P V runs per group over the group's own, smaller hull.
#pragma once

#include <algorithm>
#include <cstdint>

#include "nearfield/plan.h"

namespace nearfield::cpu {

inline constexpr int kMostLanes = 32;                    // queries of a tile
inline constexpr int kPack = 4;                          // queries of a group
inline constexpr int kMostPacks = kMostLanes / kPack;    // groups of a tile
inline constexpr int kChunkKeys = 256, kChunkRuns = 64;  // the most of a chunk
inline constexpr int kTable = 64;                        // longest hull with a table of masks

// Which token of the tile's box each lane holds.
struct LaneOrder {
  int lanes = 0;
  signed char at[kMostLanes][kMaxRank];
  signed char pack_begin[kMostPacks][kMaxRank], pack_end[kMostPacks][kMaxRank];  // of each group
  std::uint32_t holding[kMaxRank][kMostLanes] = {};  // lanes at a position of the axis, a bit each

  // tile, pack: extents; pack divides tile, the volume of pack is kPack or all of the tile.
  LaneOrder(const TileShape& tile, const TileShape& pack) {
    const auto extent = [](const TileShape& s, int a) {
      return static_cast<int>(s[static_cast<std::size_t>(a)]);
    };
    const auto each = [](int t, int y, int x, const auto& fn) {
      for (int i = 0; i < t; ++i)
        for (int j = 0; j < y; ++j)
          for (int k = 0; k < x; ++k) fn(i, j, k);
    };
    const int pt = extent(pack, 0), py = extent(pack, 1), px = extent(pack, 2);
    each(extent(tile, 0) / pt, extent(tile, 1) / py, extent(tile, 2) / px, [&](int t, int y, int x) {
      each(pt, py, px, [&](int i, int j, int k) {
        const int position[kMaxRank] = {t * pt + i, y * py + j, x * px + k}, g = lanes / kPack;
        for (int a = 0; a < kMaxRank; ++a) {
          const auto p = static_cast<signed char>(position[a]);
          at[lanes][a] = p;
          holding[a][p] |= 1u << lanes;
          if (lanes % kPack == 0) pack_begin[g][a] = p;
          pack_end[g][a] = static_cast<signed char>(p + 1);
        }
        ++lanes;
      });
    });
  }
};

class QueryTile {
 public:
  Box box;                    // queries
  Box hull, core;             // keys that some query sees, and that all of them see
  Box pack_hull[kMostPacks];  // of each group; empty where it has no query
  bool live[kMostLanes];      // lanes that hold a query

  // queries: not empty, at most one tile. lane_order must outlive the tile.
  QueryTile(const Grid& grid, const Box& queries, const LaneOrder& lane_order)
      : box(queries), order_(&lane_order) {
    Interval sees[kMaxRank][kMostLanes];
    std::uint32_t alive = ~0u;
    for (int a = 0; a < kMaxRank; ++a) {
      const Interval run = box.axis[a];
      const int n = static_cast<int>(run.size());
      std::uint32_t held = 0;
      for (int i = 0; i < n; ++i) {
        sees[a][i] = visible(grid.axis[a], run.begin + i);
        held |= order_->holding[a][i];
      }
      alive &= held;
      hull.axis[a] = {sees[a][0].begin, sees[a][n - 1].end};
      core.axis[a] = {sees[a][n - 1].begin, sees[a][0].end};
      for (int i = 0; i < n; ++i) {
        begin_[a][i] = static_cast<std::int32_t>(sees[a][i].begin - hull.axis[a].begin);
        end_[a][i] = static_cast<std::int32_t>(sees[a][i].end - hull.axis[a].begin);
      }
      if (tabled(a)) fill(a, 0, static_cast<int>(hull.axis[a].size()), table_[a]);
    }
    for (int l = 0; l < order_->lanes; ++l) live[l] = (alive >> l & 1) != 0;
    for (int g = 0; g < order_->lanes / kPack; ++g)
      for (int a = 0; a < kMaxRank; ++a) {
        const int first = order_->pack_begin[g][a],
                  end = std::min<int>(order_->pack_end[g][a], static_cast<int>(box.axis[a].size()));
        pack_hull[g].axis[a] =
            first < end ? Interval{sees[a][first].begin, sees[a][end - 1].end} : Interval{0, 0};
      }
  }

  int lanes() const { return order_->lanes; }
  const LaneOrder& order() const { return *order_; }

  // Lanes that see coordinate `key` of the axis, a bit each; lanes without a query on another axis among them.
  std::uint32_t lanes_that_see(int axis, Index key) const {
    std::uint32_t mask;
    if (tabled(axis)) return table_[axis][key - hull.axis[axis].begin];
    fill(axis, static_cast<int>(key - hull.axis[axis].begin), 1, &mask);
    return mask;
  }
  // The same for the keys of a run along the last axis.
  void lanes_that_see(Interval keys, std::uint32_t* masks) const {
    const int first = static_cast<int>(keys.begin - hull.axis[2].begin), n = static_cast<int>(keys.size());
    if (tabled(2)) std::copy(table_[2] + first, table_[2] + first + n, masks);
    else fill(2, first, n, masks);
  }

 private:
  const LaneOrder* order_;
  std::int32_t begin_[kMaxRank][kMostLanes],
      end_[kMaxRank][kMostLanes];  // by position, from the hull's begin on
  std::uint32_t table_[kMaxRank][kTable];

  bool tabled(int axis) const { return hull.axis[axis].size() <= kTable; }

  // The bits of a position are toggled where its interval begins and ends: masks are the running sum.
  void fill(int axis, int first, int n, std::uint32_t* masks) const {
    std::fill(masks, masks + n, 0u);
    for (int i = 0; i < static_cast<int>(box.axis[axis].size()); ++i) {
      const int b = std::max(begin_[axis][i] - first, 0), e = std::min(end_[axis][i] - first, n);
      if (b >= e) continue;
      masks[b] ^= order_->holding[axis][i];
      if (e < n) masks[e] ^= order_->holding[axis][i];
    }
    for (int i = 1; i < n; ++i) masks[i] ^= masks[i - 1];
  }
};

// Keys that follow each other in packed memory and along the last axis.
struct PackedRun {
  std::int32_t row = 0;     // the first, in packed memory
  std::int32_t at = 0;      // its number in the chunk
  std::int32_t count = 0;   // keys
  bool full = false;        // every live lane sees every key: no masks
  std::uint32_t packs = 0;  // groups that see some of them, a bit each
};

struct Span {
  std::int32_t row = 0, at = 0, count = 0;
};

// Some of the keys that a tile sees. Its arrays of keys are numbered from 0.
struct Chunk {
  int keys = 0, runs = 0;
  int align = 1;            // a run's number in the chunk is its row, modulo this
  bool additional = false;  // the rows are those of the additional keys
  PackedRun run[kChunkRuns];
  std::uint32_t mask[kChunkKeys];  // lanes that see a key; not set in full runs
  int spans[kMostPacks];           // what each group sees
  Span span[kMostPacks][kChunkRuns];

  void clear(int to_align = 1) {
    keys = runs = 0;
    align = to_align;
    additional = false;
    std::fill(spans, spans + kMostPacks, 0);
  }
  bool room_for(int row, int more, int most_keys) const {
    return start(row) + more <= most_keys && runs < kChunkRuns;
  }

  // Keys x of row (t, y), packed from `row` on; inside the tile's hull, and there is room.
  void see(const QueryTile& tile, Index t, Index y, Interval x, int row) {
    const int n = static_cast<int>(x.size());
    PackedRun r{
        row, start(row), n,
        tile.core.axis[0].contains(t) && tile.core.axis[1].contains(y) && tile.core.axis[2].contains(x)};
    if (!r.full) {
      const std::uint32_t lanes = tile.lanes_that_see(0, t) & tile.lanes_that_see(1, y);
      if (lanes == 0) return;
      tile.lanes_that_see(x, mask + r.at);
      for (int i = 0; i < n; ++i) mask[r.at + i] &= lanes;
    }
    keys = r.at + n;
    for (int g = 0; g < tile.lanes() / kPack; ++g) {
      const Box& own = tile.pack_hull[g];
      if (!own.axis[0].contains(t) || !own.axis[1].contains(y)) continue;
      const Interval seen = intersect(own.axis[2], x);
      if (seen.empty()) continue;
      const int skip = static_cast<int>(seen.begin - x.begin);
      add_span(g, {row + skip, r.at + skip, static_cast<std::int32_t>(seen.size())});
      r.packs |= 1u << g;
    }
    run[runs++] = r;
  }

  // n additional keys from `row` on: every lane sees them.
  void see_additional(int lanes, int row, int n) {
    additional = true;
    run[runs++] = {row, keys, n, true, (1u << lanes / kPack) - 1};
    for (int g = 0; g < lanes / kPack; ++g) add_span(g, {row, keys, n});
    keys += n;
  }

 private:
  int start(int row) const { return (keys + align - 1) / align * align + row % align; }

  void add_span(int g, Span s) {
    Span* last = spans[g] > 0 ? &span[g][spans[g] - 1] : nullptr;
    if (last && last->row + last->count == s.row && last->at + last->count == s.at) last->count += s.count;
    else span[g][spans[g]++] = s;
  }
};

}  // namespace nearfield::cpu
