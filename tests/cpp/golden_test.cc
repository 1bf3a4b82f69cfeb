// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The golden vectors of the specification (section 2), copied as they stand there, and compared with
// both the product's geometry and the tests' own oracle: so neither can drift.
#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "axis_oracle.h"
#include "nearfield/geometry.h"

namespace nearfield {
namespace {

struct Golden {
  Index extent, window, stride, dilation;
  bool causal;
  std::vector<std::vector<Index>> keys;  // per query: first and last key, or the whole set if dilated
};

std::vector<std::vector<Index>> repeat(std::vector<std::pair<int, std::vector<Index>>> runs) {
  std::vector<std::vector<Index>> all;
  for (const auto& [n, keys] : runs) all.insert(all.end(), static_cast<std::size_t>(n), keys);
  return all;
}

std::vector<Golden> goldens() {
  return {
      {10, 3, 1, 1, false, {{0, 2}, {0, 2}, {1, 3}, {2, 4}, {3, 5}, {4, 6}, {5, 7}, {6, 8}, {7, 9}, {7, 9}}},
      {10, 2, 1, 1, false, {{0, 1}, {0, 1}, {1, 2}, {2, 3}, {3, 4}, {4, 5}, {5, 6}, {6, 7}, {7, 8}, {8, 9}}},
      {10, 4, 1, 1, false, {{0, 3}, {0, 3}, {0, 3}, {1, 4}, {2, 5}, {3, 6}, {4, 7}, {5, 8}, {6, 9}, {6, 9}}},
      {10, 5, 2, 1, false, {{0, 4}, {0, 4}, {1, 5}, {1, 5}, {3, 7}, {3, 7}, {5, 9}, {5, 9}, {5, 9}, {5, 9}}},
      {10, 4, 3, 1, false, repeat({{3, {0, 3}}, {3, {2, 5}}, {3, {5, 8}}, {1, {6, 9}}})},
      {12, 5, 5, 1, false, repeat({{5, {0, 4}}, {5, {5, 9}}, {2, {7, 11}}})},
      {11, 4, 4, 1, false, repeat({{4, {0, 3}}, {4, {4, 7}}, {3, {7, 10}}})},
      {10, 3, 1, 1, true, {{0, 0}, {0, 1}, {0, 2}, {1, 3}, {2, 4}, {3, 5}, {4, 6}, {5, 7}, {6, 8}, {7, 9}}},
      {10, 5, 2, 1, true, {{0, 0}, {0, 1}, {0, 2}, {0, 3}, {1, 4}, {1, 5}, {3, 6}, {3, 7}, {5, 8}, {5, 9}}},
      {10, 4, 4, 1, true, {{0, 0}, {0, 1}, {0, 2}, {0, 3}, {4, 4}, {4, 5}, {4, 6}, {4, 7}, {6, 8}, {6, 9}}},
      {10, 4, 3, 1, true, {{0, 0}, {0, 1}, {0, 2}, {2, 3}, {2, 4}, {2, 5}, {5, 6}, {5, 7}, {5, 8}, {6, 9}}},
      {10,
       3,
       1,
       3,
       false,
       {{0, 3, 6},
        {1, 4, 7},
        {2, 5, 8},
        {0, 3, 6},
        {1, 4, 7},
        {2, 5, 8},
        {3, 6, 9},
        {1, 4, 7},
        {2, 5, 8},
        {3, 6, 9}}},
      {10, 2, 1, 4, false, {{0, 4}, {1, 5}, {2, 6}, {3, 7}, {0, 4}, {1, 5}, {2, 6}, {3, 7}, {4, 8}, {5, 9}}},
      {7, 2, 2, 3, true, {{0}, {1}, {2}, {0, 3}, {1, 4}, {2, 5}, {3, 6}}},
  };
}

TEST(Golden, VectorsOfTheSpecification) {
  for (const Golden& g : goldens()) {
    SCOPED_TRACE(::testing::Message() << "L" << g.extent << " k" << g.window << " s" << g.stride << " d"
                                      << g.dilation << " causal " << g.causal);
    ASSERT_EQ(static_cast<Index>(g.keys.size()), g.extent);
    const Axis axis{
        g.causal ? Rule::kWindowCausal : Rule::kWindow, g.extent, g.extent, g.window, g.stride, g.dilation};
    const oracle::Axis plain{g.causal ? oracle::Kind::kWindowCausal : oracle::Kind::kWindow,
                             g.extent,
                             g.extent,
                             g.window,
                             g.stride,
                             g.dilation};
    for (Index q = 0; q < g.extent; ++q) {
      const std::vector<Index>& row = g.keys[static_cast<std::size_t>(q)];
      std::set<Index> want(row.begin(), row.end());
      if (g.dilation == 1)
        for (Index j = row.front(); j <= row.back(); ++j) want.insert(j);
      std::set<Index> got;
      const Interval v = visible(group(axis, q % g.dilation), q / g.dilation);
      for (Index j = v.begin; j < v.end; ++j) got.insert(q % g.dilation + j * g.dilation);
      EXPECT_EQ(got, want) << "query " << q;
      const std::vector<Index> slow = oracle::keys_of(plain, q);
      EXPECT_EQ(std::set<Index>(slow.begin(), slow.end()), want) << "the oracle, query " << q;
    }
  }
}

}  // namespace
}  // namespace nearfield
