// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// What the queries of a stencil see, as key rows and columns of them. Everything is read off visible().
//
// Along the last axis the window of `window` keys moves by one key per query or, at a border, stands still. Query x
// has the columns x - lead .. x - lead + window - 1, one per key, and of the keys that it sees the one congruent to a
// column modulo `window` lies there. Where the window moves it takes one key in and gives up the congruent one, so
// that all queries of a column see the same key in it: inside the axis key x lies in column x, and a window that
// stands still finds its keys in the columns in another order. So every vector of queries reads its keys at shifts of
// one row, also at the borders. Columns whose key nobody sees (causal axes, ranges of keys) are empty.
#pragma once

#include <algorithm>
#include <cstdint>

#include "nearfield/geometry.h"

namespace nearfield::cpu {

struct Columns {
  Index window = 1, lead = 0;

  Columns() = default;
  // The axis has a window and stride 1. The lead is that of a query far from the borders.
  explicit Columns(const Axis& axis) : window(axis.window) {
    const Axis wide(axis.rule, 2 * window + 1, 2 * window + 1, window);
    lead = window - visible(wide, window).begin;
  }

  // The place of a key that query x sees in the query's window.
  Index shift(Index x, Index key) const {
    const Index rest = (key - (x - lead)) % window;
    return rest < 0 ? rest + window : rest;
  }

  // key[c], c < n: the key in column queries.begin - lead + c, or -1.
  void keys(const Axis& axis, Interval queries, Index* key, Index n) const {
    std::fill(key, key + n, Index{-1});
    for (Index x = queries.begin; x < queries.end; ++x) {
      const Interval seen = visible(axis, x);
      if (seen.empty()) continue;
      Index at = shift(x, seen.begin);
      for (Index k = seen.begin; k < seen.end; ++k, at = at + 1 == window ? 0 : at + 1)
        key[x - queries.begin + at] = k;
    }
  }

  // mask[j]: which of the queries see the key at shift j, a bit each. False if all see all.
  bool masks(const Axis& axis, Interval queries, std::uint32_t* mask) const {
    bool some = false;
    std::fill(mask, mask + window, 0u);
    for (Index x = queries.begin; x < queries.end; ++x) {
      const Interval seen = visible(axis, x);
      some = some || seen.size() < window;
      for (Index k = seen.begin; k < seen.end; ++k) mask[shift(x, k)] |= 1u << (x - queries.begin);
    }
    return some;
  }
};

inline constexpr int kStencilRows = 4;  // query rows of a tile

// A row of keys that query rows [low, high) of a tile see.
struct KeyRow {
  std::int32_t slot;
  std::int16_t low, high;
};

// Where a row of keys (t, y) is kept: the rows of a task have different slots.
struct RowSlots {
  Index t = 1, y = 1;
  std::int32_t of(Index key_t, Index key_y) const {
    return static_cast<std::int32_t>(key_t % t * y + key_y % y);
  }
  Index count() const { return t * y; }
};

// The key rows of queries (t, y), y a run of at most kStencilRows, in raster order. Returns their number.
inline int key_rows(const Grid& grid, const RowSlots& slots, Index t, Interval y, KeyRow* row) {
  Interval seen[kStencilRows];
  const auto rows = static_cast<std::int16_t>(y.size());
  for (int r = 0; r < rows; ++r) seen[r] = visible(grid.axis[1], y.begin + r);
  const Interval times = visible(grid.axis[0], t), all = hull(grid.axis[1], y);
  int n = 0;
  for (Index key_t = times.begin; key_t < times.end; ++key_t)
    for (Index key_y = all.begin; key_y < all.end; ++key_y) {
      std::int16_t low = 0, high = rows;
      while (low < high && seen[low].end <= key_y) ++low;
      while (high > low && seen[high - 1].begin > key_y) --high;
      if (low < high) row[n++] = {slots.of(key_t, key_y), low, high};
    }
  return n;
}

}  // namespace nearfield::cpu
