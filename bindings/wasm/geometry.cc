// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// geometry.h for the page docs/explorer.md: one grid, set axis by axis, and what can be asked of it. Freestanding,
// compiled for wasm32 by tools/docs.sh; JavaScript passes numbers in and out and knows no rule of its own.
//
// Axes are numbered 0 to 2, slowest first; a layout of a lower rank has leading axes of extent 1. Queries, keys and
// intervals are in tokens of the whole axis: query q sees begin, begin + dilation, ... below end. Tiles are runs of
// positions within a dilation group. Extents are those of a page, so that every number fits in 32 bits; counts
// that multiply over axes are doubles.
#include "nearfield/geometry.h"

namespace {

using namespace nearfield;

enum Side : int { kQueries, kKeys };

Grid grid;
Index tile[2][kMaxRank] = {{1, 1, 1}, {1, 1, 1}};  // of queries and of keys, per axis

int as_int(Index i) { return static_cast<int>(i); }

// The dilation group of a token, as an axis of its own.
struct Member {
  Index residue, position;
  Axis axis;
};
Member member_of(int a, Index token) {
  const Axis& axis = grid.axis[a];
  const Index g = token % axis.dilation;
  return {g, token / axis.dilation, group(axis, g)};
}

Interval in_tokens(const Member& m, Index dilation, Interval i) {
  return i.empty() ? Interval{0, 0}
                   : Interval{m.residue + i.begin * dilation, m.residue + (i.end - 1) * dilation + 1};
}

Interval keys_of(int a, Index query) {
  const Member m = member_of(a, query);
  return in_tokens(m, grid.axis[a].dilation, visible(m.axis, m.position));
}
Interval queries_of(int a, Index key) {
  const Member m = member_of(a, key);
  return in_tokens(m, grid.axis[a].dilation, seen_by(m.axis, m.position));
}

Interval run(Side side, int a, Index i, Index extent) {
  return {i * tile[side][a], min_of((i + 1) * tile[side][a], extent)};
}

// What tiles of one axis amount to, all its dilation groups together.
struct TileWork {
  double pairs[3] = {0, 0, 0};     // tile pairs by Cover
  double computed[3] = {0, 0, 0};  // token pairs in them
  double hulls = 0;  // token pairs if a tile of queries gathers the keys that it spans and no others
};
TileWork work(int a) {
  TileWork w;
  for (Index g = 0; g < grid.axis[a].dilation; ++g) {
    const Axis axis = group(grid.axis[a], g);
    const Index extent = axis.key_extent;
    for (Index i = 0; i * tile[kQueries][a] < extent; ++i) {
      const Interval queries = run(kQueries, a, i, extent);
      w.hulls += static_cast<double>(queries.size() * hull(axis, queries).size());
      for (Index j = 0; j * tile[kKeys][a] < extent; ++j) {
        const Interval keys = run(kKeys, a, j, extent);
        const int c = static_cast<int>(cover(axis, queries, keys));
        w.pairs[c] += 1;
        w.computed[c] += static_cast<double>(queries.size() * keys.size());
      }
    }
  }
  return w;
}

}  // namespace

#define NF_EXPORT extern "C" __attribute__((visibility("default")))

// The largest window of an axis (the rule that every call is checked by: semantics, "1 <= k, k d <= extent").
NF_EXPORT int largest_window(int extent, int dilation) { return extent / dilation; }

NF_EXPORT void set_axis(int a, int extent, int window, int stride, int dilation, int causal) {
  grid.axis[a] =
      Axis(causal != 0 ? Rule::kWindowCausal : Rule::kWindow, extent, extent, window, stride, dilation);
}
NF_EXPORT void set_tile(int side, int a, int length) { tile[side][a] = length; }

NF_EXPORT int keys_begin(int a, int query) { return as_int(keys_of(a, query).begin); }
NF_EXPORT int keys_end(int a, int query) { return as_int(keys_of(a, query).end); }
NF_EXPORT int queries_begin(int a, int key) { return as_int(queries_of(a, key).begin); }
NF_EXPORT int queries_end(int a, int key) { return as_int(queries_of(a, key).end); }
NF_EXPORT int sees(int a, int query, int key) {
  const Member q = member_of(a, query), k = member_of(a, key);
  return q.residue == k.residue && visible(q.axis, q.position).contains(k.position) ? 1 : 0;
}

NF_EXPORT double visible_pairs() { return pairs(grid); }

// Tiles of one dilation group of an axis: how many, and which tokens are the first, or behind the last, of tile i.
NF_EXPORT int tiles(int side, int a, int g) {
  return as_int(ceil_div(group(grid.axis[a], g).key_extent, tile[side][a]));
}
NF_EXPORT int tile_begin(int side, int a, int g, int i) {
  return as_int(g + i * tile[side][a] * grid.axis[a].dilation);
}
NF_EXPORT int tile_size(int side, int a, int g, int i) {
  return as_int(run(static_cast<Side>(side), a, i, group(grid.axis[a], g).key_extent).size());
}
// Cover of tile i of the queries and tile j of the keys of group g of an axis: 0 skipped, 1 partial, 2 full.
NF_EXPORT int tile_cover(int a, int g, int i, int j) {
  const Axis axis = group(grid.axis[a], g);
  return static_cast<int>(
      cover(axis, run(kQueries, a, i, axis.key_extent), run(kKeys, a, j, axis.key_extent)));
}

// Tile pairs of the grid by Cover. Axes are independent: a pair is skipped if it is on any axis, full if on all.
NF_EXPORT double tile_pairs(int which) {
  double all = 1, seen = 1, full = 1;
  for (int a = 0; a < kMaxRank; ++a) {
    const TileWork w = work(a);
    all *= w.pairs[0] + w.pairs[1] + w.pairs[2];
    seen *= w.pairs[1] + w.pairs[2];
    full *= w.pairs[2];
  }
  return which == 0 ? all - seen : which == 1 ? seen - full : full;
}
// Token pairs computed: of all tile pairs that are not skipped, and if tiles gather their hulls.
NF_EXPORT double tile_computed() {
  double product = 1;
  for (int a = 0; a < kMaxRank; ++a) {
    const TileWork w = work(a);
    product *= w.computed[1] + w.computed[2];
  }
  return product;
}
NF_EXPORT double hull_computed() {
  double product = 1;
  for (int a = 0; a < kMaxRank; ++a) product *= work(a).hulls;
  return product;
}
