// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Which weights dropout keeps, a second time straight from the specification (section 3): Philox4x32 with
// ten rounds, keyed by the seed, counting (batch, query head, query, key). Source: Salmon, Moraes, Dror and
// Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), section 3.3. Shares nothing with the library.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

namespace oracle {

using Words4 = std::array<std::uint32_t, 4>;
using Words2 = std::array<std::uint32_t, 2>;

// A product of two words as (high, low).
inline Words2 wide_product(std::uint32_t a, std::uint32_t b) {
  const std::uint64_t product = std::uint64_t{a} * b;
  return {static_cast<std::uint32_t>(product >> 32), static_cast<std::uint32_t>(product)};
}

inline Words4 philox4x32(Words4 counter, Words2 key, int rounds = 10) {
  for (int round = 0; round < rounds; ++round) {
    const Words2 left = wide_product(0xD2511F53u, counter[0]), right = wide_product(0xCD9E8D57u, counter[2]);
    counter = {right[0] ^ counter[1] ^ key[0], right[1], left[0] ^ counter[3] ^ key[1], left[1]};
    key[0] += 0x9E3779B9u;  // the golden ratio
    key[1] += 0xBB67AE85u;  // the square root of 3, less 1
  }
  return counter;
}

// Whether the weight of a query for a key survives dropout with probability p of losing it.
inline bool kept(std::int64_t seed, std::uint32_t batch, std::uint32_t head, std::uint32_t query,
                 std::uint32_t key, double p) {
  const auto bits = static_cast<std::uint64_t>(seed);
  const Words2 words{static_cast<std::uint32_t>(bits & 0xffffffffu), static_cast<std::uint32_t>(bits >> 32)};
  const double threshold = std::floor(p * 4294967296.0);
  return static_cast<double>(philox4x32({batch, head, query, key}, words)[0]) >= threshold;
}

}  // namespace oracle
