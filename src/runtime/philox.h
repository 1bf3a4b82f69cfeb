// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Which attention weights dropout keeps: Philox4x32-10, a counter-based generator, so that every backend,
// thread and shard draws the same number for one (batch, head, query, key) without storing a mask.
// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011, section 3.3).
#pragma once

#include <cstdint>

#include "nearfield/interval.h"

namespace nearfield {

// The first of the four words for a counter under a key. For host and device.
NF_HD constexpr std::uint32_t philox(std::uint32_t c0, std::uint32_t c1, std::uint32_t c2, std::uint32_t c3,
                                     std::uint64_t key) {
  auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * c0, b = std::uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<std::uint32_t>(b >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(b);
    c2 = static_cast<std::uint32_t>(a >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(a);
  }
  return c0;
}

// Dropout of one sequence, batch entry and head. query and key are raster indices in the global layout;
// additional key j is number (layout tokens + j).
struct Dropout {
  std::uint64_t seed = 0;
  std::uint32_t batch = 0, head = 0;
  std::uint32_t threshold = 0;  // floor(p 2^32)
  double scale = 1.0;           // of a kept weight, 1 / (1 - p)

  constexpr Dropout() = default;
  NF_HD constexpr Dropout(double p, std::int64_t seed_, Index batch_, Index head_)
      : seed(static_cast<std::uint64_t>(seed_)), batch(static_cast<std::uint32_t>(batch_)),
        head(static_cast<std::uint32_t>(head_)), threshold(static_cast<std::uint32_t>(p * 0x1p32)),
        scale(1.0 / (1.0 - p)) {}

  NF_HD constexpr bool kept(std::uint32_t query, std::uint32_t key) const {
    return philox(batch, head, query, key, seed) >= threshold;
  }
};

// The number of a token in raster order of its layout.
NF_HD constexpr std::uint32_t raster(const Index token[kMaxRank], const Index extent[kMaxRank]) {
  return static_cast<std::uint32_t>((token[0] * extent[1] + token[1]) * extent[2] + token[2]);
}

// The known answer of the generator's authors for digits of pi.
static_assert(philox(0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u, 0x299f31d0a4093822u) == 0xd16cfe09u);

}  // namespace nearfield
