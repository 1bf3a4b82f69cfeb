// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The geometry as laws: every small axis is compared with axis_oracle.h, token pair by token pair, and
// the facts of the specification are checked one by one. Golden vectors are in golden_test.cc.
#include "nearfield/geometry.h"

#include <gtest/gtest.h>

#include <vector>

#include "axis_cases.h"

namespace nearfield {
namespace {

// --- constexpr: the header is usable at compile time --------------------------------------------
constexpr Axis kTen{Rule::kWindow, 10, 10, 3};
static_assert(visible(kTen, 0) == Interval{0, 3} && visible(kTen, 5) == Interval{4, 7});
static_assert(visible(kTen, 9) == Interval{7, 10} && seen_by(kTen, 1) == Interval{0, 3});
static_assert(hull(kTen, {4, 6}) == Interval{3, 7} && core(kTen, {4, 6}) == Interval{4, 6});
static_assert(cover(kTen, {4, 6}, {4, 6}) == Cover::kFull && cover(kTen, {4, 6}, {3, 6}) == Cover::kPartial);
static_assert(cover(kTen, {4, 6}, {7, 10}) == Cover::kSkip && pairs(kTen) == 30);
static_assert(inverse_hull(kTen, {0, 2}) == Interval{0, 3} && inverse_core(kTen, {0, 2}) == Interval{0, 2});
static_assert(needed_keys(Axis{Rule::kWindow, 10, 10, 3, 1, 3}, {4, 5}) == Interval{1, 8});
static_assert(group(Axis{Rule::kWindow, 10, 10, 3, 1, 3}, 1).key_extent == 3);
static_assert(place(Axis{Rule::kWindow, 5, 10, 3}, 2) == 5);
static_assert([] {
  Grid g;
  g.axis[1] = g.axis[2] = kTen;
  return pairs(g) == 900.0 && g.groups() == 1 && hull(g, g.queries()) == g.keys() &&
         inverse_hull(g, g.keys()) == g.queries() && cover(g, g.queries(), g.keys()) == Cover::kPartial &&
         g.keys().volume() == 100 && core(g, g.queries()).empty();
}());

// --- the interval itself ------------------------------------------------------------------------
TEST(Geometry, EveryWindowBelowForty) {
  for_windows(40, [](const oracle::Axis& o) {
    const Axis a = axis_of(o);
    bool ok = true;
    Index covered = 0;  // keys [0, covered) have been seen
    Interval last{0, 0};
    for (Index q = 0; q < o.lq; ++q) {
      const Interval v = visible(a, q);
      // The oracle's set is [v.begin, v.end): its ends are in it, its neighbours are not.
      ok &= v.begin >= 0 && v.end <= o.lk && v.begin < v.end;
      ok &= oracle::sees(o, q, v.begin) && oracle::sees(o, q, v.end - 1);
      ok &= v.begin == 0 || !oracle::sees(o, q, v.begin - 1);
      ok &= v.end == o.lk || !oracle::sees(o, q, v.end);
      ok &= v.contains(q);                                             // itself among them
      ok &= v.begin >= last.begin && v.end >= last.end;                // monotone
      ok &= o.kind == oracle::Kind::kWindowCausal || v.size() == o.k;  // never cut
      ok &= o.kind == oracle::Kind::kWindow || (v.size() <= o.k && v.end == q + 1);
      ok &= v.begin <= covered;
      covered = v.end;
      if (o.k == o.lk) ok &= v == (o.kind == oracle::Kind::kWindow ? Interval{0, o.lk} : Interval{0, q + 1});
      last = v;
    }
    ok &= covered == o.lk;  // every key is seen by some query
    ASSERT_TRUE(ok) << name(o);
  });
}

TEST(Geometry, WindowIsExactlyTheOraclesSet) {
  for_axes(17, [](const oracle::Axis& o) {
    const Axis a = axis_of(o);
    bool ok = true;
    for (Index q = 0; q < o.lq; ++q)
      for (Index j = 0; j < o.lk; ++j) ok &= visible(a, q).contains(j) == oracle::sees(o, q, j);
    ASSERT_TRUE(ok) << name(o);
  });
}

TEST(Geometry, StrideEqualToWindowIsBlockedAttention) {
  for (Index extent = 1; extent < 40; ++extent)
    for (Index k = 1; k <= extent; ++k)
      for (Index q = 0; q < extent; ++q) {
        const Index block = q / k * k;
        const Interval v = visible({Rule::kWindow, extent, extent, k, k}, q);
        if (block + k <= extent) {
          ASSERT_EQ(v, (Interval{block, block + k})) << extent << " k" << k << " q" << q;
        } else {  // the last block is shifted back
          ASSERT_EQ(v, (Interval{extent - k, extent})) << extent << " k" << k << " q" << q;
        }
      }
}

TEST(Geometry, EvenWindowsLeanLeft) {
  for (Index k = 2; k < 20; k += 2) {
    const Interval v = visible({Rule::kWindow, 100, 100, k}, 50);
    EXPECT_EQ(50 - v.begin, k / 2);
    EXPECT_EQ(v.end - 1 - 50, k / 2 - 1);
  }
}

TEST(Geometry, BottomRightWithMoreQueriesThanKeysStartsEmpty) {
  const Axis a{Rule::kBottomRight, 7, 3};
  for (Index q = 0; q < 7; ++q) EXPECT_EQ(visible(a, q).size(), q < 4 ? 0 : q - 3);
  EXPECT_EQ(pairs(a), 6);
  EXPECT_EQ(seen_by(a, 0), (Interval{4, 7}));
  EXPECT_EQ(cover(a, {0, 4}, {0, 3}), Cover::kSkip);
  EXPECT_TRUE(needed_keys(a, {0, 4}).empty());
  EXPECT_EQ(visible({Rule::kBottomRight, 4, 0}, 2).size(), 0);
}

// --- inverse, hull, core, cover -----------------------------------------------------------------
TEST(Geometry, InverseLaw) {
  for_axes(14, [](const oracle::Axis& o) {
    const Axis a = axis_of(o);
    bool ok = true;
    for (Index j = 0; j < o.lk; ++j)
      for (Index q = 0; q < o.lq; ++q) ok &= seen_by(a, j).contains(q) == oracle::sees(o, q, j);
    ASSERT_TRUE(ok) << name(o);
  });
}

TEST(Geometry, HullAndCoreOfEveryRun) {
  for_axes(11, [](const oracle::Axis& o) {
    const Axis a = axis_of(o);
    bool ok = true;
    for_runs(o.lq, [&](Interval run) {
      const Count c = count(run, o.lk, [&](Index q, Index j) { return oracle::sees(o, q, j); });
      ok &= hull(a, run) == c.span && core(a, run) == c.all;
    });
    for_runs(o.lk, [&](Interval run) {
      const Count c = count(run, o.lq, [&](Index j, Index q) { return oracle::sees(o, q, j); });
      ok &= inverse_hull(a, run) == c.span && inverse_core(a, run) == c.all;
    });
    ASSERT_TRUE(ok) << name(o);
  });
}

TEST(Geometry, CoverOfEveryTilePair) {
  for_axes(9, [](const oracle::Axis& o) {
    const Axis a = axis_of(o);
    for_runs(o.lq, [&](Interval qs) {
      for_runs(o.lk, [&](Interval ks) {
        Index n = 0;
        for (Index q = qs.begin; q < qs.end; ++q)
          for (Index j = ks.begin; j < ks.end; ++j) n += oracle::sees(o, q, j);
        const Cover want = n == 0                       ? Cover::kSkip
                           : n == qs.size() * ks.size() ? Cover::kFull
                                                        : Cover::kPartial;
        ASSERT_EQ(cover(a, qs, ks), want)
            << name(o) << " q " << qs.begin << "-" << qs.end << " k " << ks.begin << "-" << ks.end;
      });
    });
  });
}

bool meet(const Box& a, const Box& b) {
  for (int i = 0; i < kMaxRank; ++i)
    if (intersect(a.axis[i], b.axis[i]).empty()) return false;
  return true;
}

TEST(Geometry, CoverOfAGridIsThatOfItsAxes) {
  Grid g;
  g.axis[0] = {Rule::kWindowCausal, 4, 4, 2};
  g.axis[1] = {Rule::kWindow, 5, 5, 3, 2};
  g.axis[2] = {Rule::kWindow, 3, 3, 1};
  const auto sees = [&](int a, Index q, Index j) { return visible(g.axis[a], q).contains(j); };
  for_runs(4, [&](Interval q0) {
    for_runs(4, [&](Interval k0) {
      for_runs(5, [&](Interval q1) {
        for_runs(5, [&](Interval k1) {
          for_runs(3, [&](Interval q2) {
            for_runs(3, [&](Interval k2) {
              const Interval q[] = {q0, q1, q2}, k[] = {k0, k1, k2};
              bool none = false, all = true;
              for (int a = 0; a < 3; ++a) {
                Index n = 0;
                for (Index i = q[a].begin; i < q[a].end; ++i)
                  for (Index j = k[a].begin; j < k[a].end; ++j) n += sees(a, i, j);
                none |= n == 0;
                all &= n == q[a].size() * k[a].size();
              }
              const Box qs{{q0, q1, q2}}, ks{{k0, k1, k2}};
              ASSERT_EQ(cover(g, qs, ks), none ? Cover::kSkip : all ? Cover::kFull : Cover::kPartial);
              ASSERT_EQ(cover(g, qs, ks) == Cover::kSkip, !meet(hull(g, qs), ks));
              ASSERT_EQ(cover(g, qs, ks) == Cover::kFull, core(g, qs).contains(ks));
            });
          });
        });
      });
    });
  });
}

// --- dilation, pairs ----------------------------------------------------------------------------
TEST(Geometry, DilationGroupsPartitionTheAxis) {
  for_dilated_windows(20, [](const oracle::Axis& o) {
    const Axis a = axis_of(o);
    std::vector<int> met(static_cast<std::size_t>(o.lk));
    bool ok = true;
    Index total = 0;
    for (Index g = 0; g < o.d; ++g) {
      const Axis r = group(a, g);
      ok &= r.dilation == 1 && r.query_extent == r.key_extent && r.keys == Interval{0, r.key_extent};
      for (Index i = 0; i < r.query_extent; ++i) {
        const Index q = g + i * o.d;
        ok &= q < o.lk && ++met[static_cast<std::size_t>(q)] == 1;
        for (Index j = 0; j < o.lk; ++j)
          ok &= oracle::sees(o, q, j) == (j % o.d == g && visible(r, i).contains(j / o.d));
      }
    }
    for (Index q = 0; q < o.lk; ++q)
      for (Index j = 0; j < o.lk; ++j) total += oracle::sees(o, q, j);
    for (int n : met) ok &= n == 1;
    ok &= pairs(a) == total;
    ASSERT_TRUE(ok) << name(o);
  });
}

TEST(Geometry, GroupsOfRangesAndGrids) {
  for (Index d = 1; d < 6; ++d)
    for (Index begin = 0; begin < 14; ++begin)
      for (Index end = begin; end < 14; ++end)
        for (Index g = 0; g < d; ++g) {
          const Interval r = group_range({begin, end}, g, d);
          for (Index i = 0; i < 14; ++i) ASSERT_EQ(r.contains(i), begin <= g + i * d && g + i * d < end);
        }
  Grid grid;
  grid.axis[1] = {Rule::kWindow, 7, 7, 2, 1, 3};
  grid.axis[2] = {Rule::kWindow, 5, 5, 2, 1, 2};
  std::vector<int> met(35);
  ASSERT_EQ(grid.groups(), 6);
  for (Index g = 0; g < grid.groups(); ++g) {
    Index residue[kMaxRank] = {-1, -1, -1};
    const Grid r = group(grid, g, residue);
    ASSERT_EQ(residue[0], 0);
    for (Index y = 0; y < r.axis[1].query_extent; ++y)
      for (Index x = 0; x < r.axis[2].query_extent; ++x) {
        const Index token = (residue[1] + 3 * y) * 5 + residue[2] + 2 * x;
        ASSERT_LT(token, 35);
        ++met[static_cast<std::size_t>(token)];
      }
  }
  for (int n : met) ASSERT_EQ(n, 1);
}

TEST(Geometry, PairsOfEveryAxis) {
  for_axes(15, [](const oracle::Axis& o) {
    Index total = 0;
    for (Index q = 0; q < o.lq; ++q)
      for (Index j = 0; j < o.lk; ++j) total += oracle::sees(o, q, j);
    ASSERT_EQ(pairs(axis_of(o)), total) << name(o);
  });
}

// --- queries on another layout than the keys ----------------------------------------------------
TEST(Geometry, SeparateQueryLayouts) {
  for (Index lk = 1; lk < 14; ++lk)
    for (Index lq = 1; lq < 30; ++lq)
      for (oracle::Kind kind : kWindows)
        for (Index k = 1; k <= lk; ++k)
          for (Index s = 1; s <= k; ++s) {
            const oracle::Axis o{kind, lq, lk, k, s, 1};
            const Axis a = axis_of(o);
            bool ok = true;
            Interval last{0, 0};
            for (Index q = 0; q < lq; ++q) {
              const Index c = place(a, q);
              ok &= 0 <= c && c < lk && (q == 0 || c >= place(a, q - 1)) && (lq != lk || c == q);
              const Interval v = visible(a, q);
              ok &= v.begin >= last.begin && v.end >= last.end && v.contains(c);
              last = v;
              for (Index j = 0; j < lk; ++j) {
                ok &= v.contains(j) == oracle::sees(o, q, j);
                ok &= seen_by(a, j).contains(q) == oracle::sees(o, q, j);
              }
            }
            ASSERT_TRUE(ok) << name(o);
          }
}

// A coarse query layout leaves keys that nobody sees, so hull and cover may be wider than needed there:
// safe, never wrong.
TEST(Geometry, SeparateQueryLayoutsAreCoveredSafely) {
  for (Index lq = 1; lq < 12; ++lq)
    for (Index k = 1; k <= 6; ++k) {
      const oracle::Axis o{oracle::Kind::kWindow, lq, 9, k, 1, 1};
      for_runs(lq, [&](Interval qs) {
        for_runs(9, [&](Interval ks) {
          Index n = 0;
          for (Index q = qs.begin; q < qs.end; ++q)
            for (Index j = ks.begin; j < ks.end; ++j) n += oracle::sees(o, q, j);
          const Cover c = cover(axis_of(o), qs, ks);
          ASSERT_TRUE(c != Cover::kSkip || n == 0) << name(o);
          ASSERT_EQ(c == Cover::kFull, n == qs.size() * ks.size()) << name(o);
        });
      });
    }
}

// --- extents at the limit: nothing overflows (the undefined-behaviour sanitizer reads this) -------
TEST(Geometry, LargestExtents) {
  constexpr Index kMax = kMaxExtent;
  for (Index k : {Index{1}, Index{7}, kMax - 1, kMax})
    for (Index s : {Index{1}, (k + 1) / 2, k})
      for (Rule rule : {Rule::kWindow, Rule::kWindowCausal, Rule::kDense, Rule::kTopLeft, Rule::kBottomRight})
        for (Index lq : {Index{1}, kMax - 1, kMax}) {
          const Axis a{rule, lq, kMax, k, s};
          Interval last{0, 0};
          for (Index q : {Index{0}, lq / 2, lq - 1}) {
            const Interval v = visible(a, q);
            ASSERT_TRUE(v.begin >= last.begin && v.end >= last.end && v.begin >= 0 && v.end <= kMax);
            last = v;
            const Interval by = seen_by(a, v.end - 1);
            ASSERT_TRUE(v.empty() || by.contains(q));
            ASSERT_TRUE(hull(a, {0, q + 1}).contains(v) && (v.empty() || inverse_hull(a, v).contains(q)));
          }
          if (rule == Rule::kDense) {
            ASSERT_EQ(pairs(a), lq * kMax);
          } else if (rule == Rule::kWindow && lq == kMax) {
            ASSERT_EQ(pairs(a), lq * k);
          } else if (rule == Rule::kTopLeft && lq == kMax) {
            ASSERT_EQ(pairs(a), kMax / 2 * kMax + kMax);  // n (n + 1) / 2 of an odd n
          } else if (rule == Rule::kWindowCausal && lq == kMax && s == 1) {
            ASSERT_EQ(pairs(a), k * kMax - (k % 2 ? (k - 1) / 2 * k : k / 2 * (k - 1)));
          }
        }
  const Axis dilated{Rule::kWindow, kMax, kMax, 3, 1, kMax / 3};
  const Axis r = group(dilated, kMax / 3 - 1);
  EXPECT_EQ(r.key_extent, 3);
  EXPECT_EQ(visible(r, 2), (Interval{0, 3}));
  EXPECT_EQ(group_range({kMax - 1, kMax}, 5, 7).size(), (kMax - 1) % 7 == 5);
  EXPECT_EQ(place({Rule::kWindow, kMax, kMax - 1, 1}, kMax - 1), kMax - 2);
  Grid g;
  for (Axis& a : g.axis) a = {Rule::kDense, kMax, kMax};
  EXPECT_GT(pairs(g), 0.0);  // a double: the product of six extents passes 2**63
}

TEST(Geometry, IntervalsAndBoxes) {
  EXPECT_EQ((Interval{3, 3}), (Interval{7, 2}));
  EXPECT_EQ((Interval{7, 2}.size()), 0);
  EXPECT_TRUE((Interval{2, 5}.contains(Interval{9, 9})));
  EXPECT_FALSE((Interval{2, 5}.contains(Interval{2, 6})));
  EXPECT_FALSE((Interval{2, 5}.contains(5)));
  EXPECT_EQ(intersect(Interval{2, 5}, Interval{4, 9}), (Interval{4, 5}));
  EXPECT_TRUE(intersect(Interval{2, 4}, Interval{4, 9}).empty());
  const Box box{{{0, 1}, {2, 5}, {1, 4}}};
  EXPECT_EQ(box.volume(), 9);
  EXPECT_TRUE(box.contains(Box{{{0, 1}, {3, 3}, {9, 12}}}));  // an empty box is in every box
  EXPECT_FALSE(box.contains(Box{{{0, 2}, {2, 5}, {1, 4}}}));
  EXPECT_FALSE(box == Box{});
  EXPECT_EQ(ceil_div(7, 3), 3);
  EXPECT_EQ(clamp(5, 0, 3), 3);
}

}  // namespace
}  // namespace nearfield
