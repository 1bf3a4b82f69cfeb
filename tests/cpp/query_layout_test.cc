// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Laws of queries on another layout than the keys (specification, section 2). A query takes the window
// of the key under its centre; finer and coarser layouts, bi-directional and causal, every stride.
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "axis_oracle.h"
#include "nearfield/geometry.h"

namespace nearfield {
namespace {

std::string name(const Axis& a) {
  return std::string(a.rule == Rule::kWindow ? "window" : "causal") + " lq" + std::to_string(a.query_extent) +
         " lk" + std::to_string(a.key_extent) + " k" + std::to_string(a.window) + " s" +
         std::to_string(a.stride);
}

// The same axis for the oracle.
oracle::Axis oracle_of(const Axis& a) {
  return {a.rule == Rule::kWindow ? oracle::Kind::kWindow : oracle::Kind::kWindowCausal,
          a.query_extent,
          a.key_extent,
          a.window,
          a.stride,
          1};
}

void for_layouts(Index most_queries, Index most_keys, const std::function<void(const Axis&)>& fn) {
  for (const Rule rule : {Rule::kWindow, Rule::kWindowCausal})
    for (Index lq = 1; lq <= most_queries; ++lq)
      for (Index lk = 1; lk <= most_keys; ++lk)
        for (Index k = 1; k <= lk; ++k)
          for (Index s = 1; s <= k; ++s) fn(Axis(rule, lq, lk, k, s));
}

TEST(QueryLayout, PlacesAreThoseOfTheCentres) {
  for (Index lk = 1; lk < 60; ++lk)
    for (Index lq = 1; lq < 60; ++lq) {
      const Axis a(Rule::kWindow, lq, lk, 1);
      Index last = 0;
      for (Index q = 0; q < lq; ++q) {
        const Index c = place(a, q);
        ASSERT_TRUE(0 <= c && c < lk && c >= last) << lq << " queries on " << lk << " keys, q " << q;
        // The centre (q + 1/2) / lq lies in key c, which is [c, c + 1) / lk: without division.
        ASSERT_TRUE(2 * c * lq <= (2 * q + 1) * lk && (2 * q + 1) * lk < 2 * (c + 1) * lq);
        ASSERT_TRUE(lq != lk || c == q);
        // A finer layout leaves no key out, a coarser one meets none twice.
        ASSERT_TRUE(lq < lk || (q == 0 ? c == 0 : c - last <= 1));
        ASSERT_TRUE(lq > lk || q == 0 || c > last);
        last = c;
      }
      ASSERT_TRUE(lq < lk || last == lk - 1);
    }
}

TEST(QueryLayout, RefinementByAWholeNumber) {
  for (Index lk = 1; lk < 20; ++lk)
    for (Index times = 1; times < 8; ++times) {
      const Axis fine(Rule::kWindow, lk * times, lk, 1), coarse(Rule::kWindow, lk, lk * times, 1);
      for (Index q = 0; q < lk * times; ++q) ASSERT_EQ(place(fine, q), q / times);        // its parent
      for (Index q = 0; q < lk; ++q) ASSERT_EQ(place(coarse, q), q * times + times / 2);  // its middle child
    }
}

// Twice as many queries as keys: the two children of a token see what it saw, stride and causality
// included, and bi-directional windows of odd size are symmetric under reversal of the axis.
TEST(QueryLayout, ChildrenSeeWhatTheirParentSaw) {
  for_layouts(1, 24, [](const Axis& any) {
    const Axis parent(any.rule, any.key_extent, any.key_extent, any.window, any.stride);
    const Axis child(any.rule, 2 * any.key_extent, any.key_extent, any.window, any.stride);
    for (Index q = 0; q < child.query_extent; ++q)
      ASSERT_EQ(visible(child, q), visible(parent, q / 2)) << name(child);
    ASSERT_EQ(pairs(child), 2 * pairs(parent)) << name(child);
    if (any.rule == Rule::kWindow && any.window % 2 == 1 && any.stride == 1)
      for (Index q = 0; q < child.query_extent; ++q) {
        const Interval here = visible(child, q), there = visible(child, child.query_extent - 1 - q);
        ASSERT_EQ(here, (Interval{child.key_extent - there.end, child.key_extent - there.begin}))
            << name(child);
      }
  });
}

TEST(QueryLayout, WindowsHaveTheirWidthAndTheirPlace) {
  for_layouts(26, 12, [](const Axis& a) {
    const oracle::Axis o = oracle_of(a);
    bool ok = true;
    Index total = 0;
    Interval last{0, 0};
    for (Index q = 0; q < a.query_extent; ++q) {
      const Interval v = visible(a, q);
      ok &= v.contains(place(a, q));
      ok &= v.begin >= last.begin && v.end >= last.end;
      ok &= a.rule == Rule::kWindow ? v.size() == a.window : v.end == place(a, q) + 1 && v.size() <= a.window;
      if (a.window == a.key_extent)
        ok &= v == Interval{0, a.rule == Rule::kWindow ? a.key_extent : place(a, q) + 1};
      last = v;
      for (Index j = 0; j < a.key_extent; ++j) {
        const bool sees = oracle::sees(o, q, j);
        ok &= v.contains(j) == sees && seen_by(a, j).contains(q) == sees;
        total += sees;
      }
    }
    ok &= pairs(a) == total;
    ASSERT_TRUE(ok) << name(a);
  });
}

// Shards of such a layout: the ranges cut windows, queries are counted by their own extent.
TEST(QueryLayout, PairsOfRanges) {
  for_layouts(9, 6, [](const Axis& whole) {
    const oracle::Axis o = oracle_of(whole);
    for (Index qb = 0; qb <= whole.query_extent; qb += 2)
      for (Index qe = qb; qe <= whole.query_extent; ++qe)
        for (Index kb = 0; kb <= whole.key_extent; ++kb)
          for (Index ke = kb; ke <= whole.key_extent; ke += 2) {
            Axis a = whole;
            a.queries = {qb, qe};
            a.keys = {kb, ke};
            Index total = 0;
            for (Index q = qb; q < qe; ++q)
              for (Index j = kb; j < ke; ++j) total += oracle::sees(o, q, j);
            ASSERT_EQ(pairs(a), total) << name(a) << " q=" << qb << "-" << qe << " kv=" << kb << "-" << ke;
          }
  });
}

// Some keys of a coarse layout are seen by nobody, so hull and inverse hull may be wider than the sets
// that they span, never narrower; the cores are exact.
TEST(QueryLayout, HullsAndCores) {
  for_layouts(13, 7, [](const Axis& a) {
    const oracle::Axis o = oracle_of(a);
    bool ok = true;
    for (Index begin = 0; begin < a.query_extent; ++begin)
      for (Index end = begin + 1; end <= a.query_extent; ++end)
        for (Index j = 0; j < a.key_extent; ++j) {
          Index n = 0;
          for (Index q = begin; q < end; ++q) n += oracle::sees(o, q, j);
          ok &= n == 0 || (hull(a, {begin, end}).contains(j) && needed_keys(a, {begin, end}).contains(j));
          ok &= core(a, {begin, end}).contains(j) == (n == end - begin);
        }
    for (Index begin = 0; begin < a.key_extent; ++begin)
      for (Index end = begin + 1; end <= a.key_extent; ++end)
        for (Index q = 0; q < a.query_extent; ++q) {
          Index n = 0;
          for (Index j = begin; j < end; ++j) n += oracle::sees(o, q, j);
          ok &= n == 0 || inverse_hull(a, {begin, end}).contains(q);
          ok &= inverse_core(a, {begin, end}).contains(q) == (n == end - begin);
        }
    ASSERT_TRUE(ok) << name(a);
  });
}

}  // namespace
}  // namespace nearfield
