// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The geometry of the stencil kernel: its columns, masks and key rows hold what visible() says, no less and no more.
#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "cpu/stencil_keys.h"
#include "random.h"

namespace nearfield::cpu {
namespace {

using testing::Rng;

// Queries in chunks of `chunk`, vectors of `lanes`.
void expect_columns(const Axis& axis, Index chunk, Index lanes) {
  const Columns columns(axis);
  const Index w = axis.window;
  std::vector<std::uint32_t> mask(static_cast<std::size_t>(w));
  for (Index begin = axis.queries.begin; begin < axis.queries.end; begin += chunk) {
    const Interval queries{begin, min_of(begin + chunk, axis.queries.end)};
    std::vector<Index> key(static_cast<std::size_t>(queries.size() + w - 1));
    columns.keys(axis, queries, key.data(), queries.size() + w - 1);
    for (Index first = queries.begin; first < queries.end; first += lanes) {
      const Interval vector{first, min_of(first + lanes, queries.end)};
      const bool some = columns.masks(axis, vector, mask.data());
      for (Index x = vector.begin; x < vector.end; ++x) {
        const Interval seen = visible(axis, x);
        std::set<Index> found;
        for (Index j = 0; j < w; ++j) {
          const Index at = key[static_cast<std::size_t>(x - queries.begin + j)];
          const bool sees = mask[static_cast<std::size_t>(j)] >> (x - first) & 1;
          EXPECT_TRUE(sees || some);
          if (!sees) continue;
          EXPECT_TRUE(seen.contains(at)) << "query " << x << " shift " << j << " key " << at;
          EXPECT_TRUE(found.insert(at).second) << "query " << x << " key " << at << " twice";
          if (seen.begin == x - columns.lead && seen.size() == w) { EXPECT_EQ(at, x - columns.lead + j); }
        }
        EXPECT_EQ(static_cast<Index>(found.size()), seen.size())
            << "query " << x << " of " << axis.query_extent;
      }
    }
  }
}

TEST(Stencil, ColumnsHoldWhatIsVisible) {
  for (const Rule rule : {Rule::kWindow, Rule::kWindowCausal})
    for (const Index n : {1, 2, 5, 13, 16, 17, 40})
      for (const Index w : {1, 2, 3, 4, 7, 12, 13, 16})
        if (w <= n) expect_columns(Axis(rule, n, n, w), 16, 8);
}

TEST(Stencil, ColumnsOfRanges) {
  Rng rng(5);
  for (int i = 0; i < 300; ++i) {
    const Index n = rng.in(1, 70);
    Axis axis(rng.chance(50) ? Rule::kWindow : Rule::kWindowCausal, n, n, rng.in(1, n), 1, rng.in(1, 3));
    if (axis.window * axis.dilation > n) axis.dilation = 1;
    const Index a = rng.in(0, n), b = rng.in(0, n), c = rng.in(0, n), d = rng.in(0, n);
    axis.queries = {min_of(a, b), max_of(a, b)};
    if (rng.chance(70)) axis.keys = {min_of(c, d), max_of(c, d)};
    for (Index g = 0; g < axis.dilation; ++g)
      expect_columns(group(axis, g), rng.pick<Index>({16, 32, 48}), 16);
  }
}

TEST(Stencil, KeyRowsHoldWhatIsVisible) {
  Rng rng(6);
  for (int i = 0; i < 300; ++i) {
    Grid grid;
    for (int a = 0; a < 2; ++a) {
      const Index n = rng.in(1, a == 0 ? 5 : 20), w = rng.in(1, n);
      grid.axis[a] = Axis(rng.chance(50) ? Rule::kWindow : Rule::kWindowCausal, n, n, w, rng.in(1, w));
      if (rng.chance(30)) grid.axis[a].keys = {n / 3, n};
    }
    const Interval all = grid.axis[1].queries;
    const RowSlots slots{hull(grid.axis[0], grid.axis[0].queries).size() + 1,
                         hull(grid.axis[1], all).size() + 1};
    for (Index t = 0; t < grid.axis[0].query_extent; ++t)
      for (Index y = 0; y < all.end; y += kStencilRows) {
        const Interval run{y, min_of(y + kStencilRows, all.end)};
        std::vector<KeyRow> rows(static_cast<std::size_t>(slots.count()));
        const int n = key_rows(grid, slots, t, run, rows.data());
        ASSERT_LE(n, slots.count());
        for (Index q = run.begin; q < run.end; ++q) {
          std::vector<std::int32_t> expected, got;
          const Interval times = visible(grid.axis[0], t), lines = visible(grid.axis[1], q);
          for (Index key_t = times.begin; key_t < times.end; ++key_t)
            for (Index key_y = lines.begin; key_y < lines.end; ++key_y)
              expected.push_back(slots.of(key_t, key_y));
          for (int k = 0; k < n; ++k)
            if (rows[static_cast<std::size_t>(k)].low <= q - y &&
                q - y < rows[static_cast<std::size_t>(k)].high)
              got.push_back(rows[static_cast<std::size_t>(k)].slot);
          EXPECT_EQ(got, expected);
          EXPECT_EQ(std::set<std::int32_t>(got.begin(), got.end()).size(), got.size());
        }
      }
  }
}

}  // namespace
}  // namespace nearfield::cpu
