// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Laws of the parts of a layout: queries and keys that are present, the keys that a shard needs, the queries that
// need no others. Every small axis is compared with axis_oracle.h.
#include <gtest/gtest.h>

#include "axis_cases.h"

namespace nearfield {
namespace {

TEST(Geometry, RangesPresentIncludingEmptyOnes) {
  for_axes(7, [](const oracle::Axis& o) {
    for (Index qb = 0; qb <= o.lq; ++qb)
      for (Index qe = qb; qe <= o.lq; ++qe)
        for (Index kb = 0; kb <= o.lk; ++kb)
          for (Index ke = kb; ke <= o.lk; ++ke) {
            Axis a = axis_of(o);
            a.queries = {qb, qe};
            a.keys = {kb, ke};
            const auto sees = [&](Index q, Index j) {
              return kb <= j && j < ke && qb <= q && q < qe && oracle::sees(o, q, j);
            };
            bool ok = true;
            Index total = 0;
            Interval last{0, 0};
            for (Index q = qb; q < qe; ++q) {
              const Interval v = visible(a, q);
              for (Index j = 0; j < o.lk; ++j) ok &= v.contains(j) == sees(q, j), total += sees(q, j);
              ok &= v.begin >= last.begin && v.end >= last.end;  // monotone even where empty
              last = v;
              ok &= hull(a, {qb, q + 1}) ==
                    count({qb, q + 1}, o.lk, [&](Index i, Index j) { return sees(i, j); }).span;
            }
            for (Index j = kb; j < ke; ++j)
              for (Index q = 0; q < o.lq; ++q) ok &= seen_by(a, j).contains(q) == sees(q, j);
            for_runs(o.lk, [&](Interval run) {
              run = intersect(run, a.keys);
              if (run.empty()) return;
              const Count c = count(run, o.lq, [&](Index j, Index q) { return sees(q, j); });
              ok &= inverse_hull(a, run) == c.span && inverse_core(a, run) == c.all;
            });
            ok &= pairs(a) == total;
            ASSERT_TRUE(ok) << name(o) << " q=" << qb << "-" << qe << " kv=" << kb << "-" << ke;
          }
  });
}

TEST(Geometry, PairsOfRangesOfDilatedAxes) {
  for_dilated_windows(9, [](const oracle::Axis& o) {
    for_runs(o.lk, [&](Interval queries) {
      for_runs(o.lk, [&](Interval keys) {
        Axis a = axis_of(o);
        a.queries = queries;
        a.keys = keys;
        Index total = 0;
        for (Index q = queries.begin; q < queries.end; ++q)
          for (Index j = keys.begin; j < keys.end; ++j) total += oracle::sees(o, q, j);
        ASSERT_EQ(pairs(a), total) << name(o) << " q=" << queries.begin << "-" << queries.end
                                   << " kv=" << keys.begin << "-" << keys.end;
      });
    });
  });
}

TEST(Geometry, NeededKeysOfEveryShard) {
  for_dilated_windows(15, [](const oracle::Axis& o) {
    const Axis a = axis_of(o);
    bool ok = needed_keys(a, {0, 0}).empty() && needed_keys(a, {o.lk, o.lk}).empty();
    for_runs(o.lk, [&](Interval run) {
      const Count c = count(run, o.lk, [&](Index q, Index j) { return oracle::sees(o, q, j); });
      ok &= needed_keys(a, run) == c.span;
    });
    ASSERT_TRUE(ok) << name(o);
  });
}

// The queries of a shard that need no keys but those of `keys`: all of them, where the axis is not dilated.
TEST(Geometry, InnerQueriesOfEveryShard) {
  for_dilated_windows(11, [](const oracle::Axis& o) {
    const Axis a = axis_of(o);
    bool ok = true;
    for_runs(o.lk, [&](Interval run) {
      for_runs(o.lk, [&](Interval keys) {
        const Interval inner = inner_queries(a, run, keys);
        for (Index q = run.begin; q < run.end; ++q) {
          bool served = true;
          for (Index j = 0; j < o.lk; ++j) served &= keys.contains(j) || !oracle::sees(o, q, j);
          ok &= served || !inner.contains(q);
          ok &= !served || o.d > 1 || inner.contains(q);
        }
        ok &= inner.empty() || run.contains(inner);
      });
    });
    ASSERT_TRUE(ok) << name(o);
  });
}

}  // namespace
}  // namespace nearfield
