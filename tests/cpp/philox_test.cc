// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The oracle's own generator, against the known answers that Random123 ships for it.
#include <gtest/gtest.h>

#include <cmath>

#include "philox_oracle.h"

namespace oracle {
namespace {

TEST(Philox, KnownAnswers) {
  constexpr std::uint32_t kOnes = 0xffffffffu;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Words4{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (Words4{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),  // pi
            (Words4{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, ShareKept) {
  for (const double p : {0.0, 0.1, 0.5, 0.9, 1.0 / 3.0}) {
    constexpr std::uint32_t kTokens = 150;
    int count = 0;
    for (std::uint32_t q = 0; q < kTokens; ++q)
      for (std::uint32_t k = 0; k < kTokens; ++k) count += kept(-5, 1, 2, q, k, p);
    constexpr double kDraws = kTokens * kTokens;
    EXPECT_NEAR(count / kDraws, 1 - p, 4 * std::sqrt(p * (1 - p) / kDraws)) << p;
  }
}

// A step in any word of the counter or of the seed gives other draws: none of them is left out.
TEST(Philox, EveryWordCounts) {
  int same[6] = {};
  constexpr int kDraws = 2000;
  for (std::uint32_t i = 0; i < kDraws; ++i) {
    const bool first = kept(7, 1, 2, i, 3 * i, 0.5);
    same[0] += first == kept(8, 1, 2, i, 3 * i, 0.5);
    same[1] += first == kept(7 + (std::int64_t{1} << 32), 1, 2, i, 3 * i, 0.5);
    same[2] += first == kept(7, 2, 2, i, 3 * i, 0.5);
    same[3] += first == kept(7, 1, 3, i, 3 * i, 0.5);
    same[4] += first == kept(7, 1, 2, i + 1, 3 * i, 0.5);
    same[5] += first == kept(7, 1, 2, i, 3 * i + 1, 0.5);
  }
  for (const int n : same) EXPECT_NEAR(n, kDraws / 2, 4 * std::sqrt(kDraws / 4.0));
}

}  // namespace
}  // namespace oracle
