// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// What a kernel will cost: a weighted sum of counts. The counts are a pure function of one sequence of a
// problem and of how a kernel cuts it; the weights are the constants of a machine class (cost_table.h). Nothing is
// timed at run time, and neither threads nor the batch change what is chosen.
#pragma once

#include <array>
#include <string_view>

#include "cpu/band.h"
#include "cpu/machine.h"

namespace nearfield::cpu {

// What is counted, of one sequence and one batch entry. A vector is one of the SIMD target's; a channel is one
// number of one row. Every kernel and direction has its own weights, so a count may mean what is closest to it there.
enum class Count : int {
  kCall,   // 1: calls and plans have a price of their own
  kTask,   // bands, macro tiles or strips, with the dilation groups
  kTile,   // tiles of queries, once for all heads
  kPiece,  // runs of keys that tiles look up
  kHead,   // tiles x heads
  kChunk,  // chunks of keys x heads x vectors of a tile's output, which is loaded, scaled and stored
  kScore,  // vector FMAs of Q K^T (backward also dO V^T), latency counted where a run is too short to hide it
  kScoreRun,     // register tiles of these (s2: loads of shifted keys)
  kExp,          // vectors of exponentials
  kWeigh,        // vector FMAs of P V (backward dS K)
  kWeighRow,     // rows of V (K) times passes over its channels: loads
  kSpan,         // runs of these
  kSpread,       // backward: vector FMAs of P^T dO and dS^T Q
  kSpreadRow,    // backward: vectors of dK and dV loaded and stored (s2: vectors of K^T)
  kQuery,        // channels of queries and outputs
  kPack,         // channels of keys and values packed (backward, also the sums that leave), halos each time
  kRow,          // rows read or written one head at a time
  kSegment,      // runs of tokens that follow each other in memory, of tiles
  kNear,         // kQuery and kPack from beyond the L2 cache
  kNearRow,      // kRow from there
  kNearSegment,  // kSegment from there
  kFar,          // kQuery and kPack from beyond the L3 cache
  kRing,         // channels of packed keys that tiles read from beyond the L2 cache
  kRingFar,      // kRing of rings that are too large to be sure of a share of the L3 cache
  kConvert,      // channels that are not float32 in memory
  kShared,       // backward: channels of dK and dV that several bands add to
  kBias,         // vectors of bias looked up
  kDraw,         // vectors of random numbers drawn for dropout
};
inline constexpr int kCounts = static_cast<int>(Count::kDraw) + 1;

struct Counts {
  std::array<double, kCounts> of{};
  double& operator[](Count c) { return of[static_cast<std::size_t>(c)]; }
  const double& operator[](Count c) const { return of[static_cast<std::size_t>(c)]; }
};

// One sequence under a cut of a tuned kernel; on tiles of the general path (key_tile: backward only). Where the
// numbers come from is not yet known: see in_memory().
Counts counts_of(const Problem& problem, const Grid& grid, const Cut& cut, Machine machine);
Counts general_counts(const Problem& problem, const Grid& grid, const TileShape& query_tile,
                      const TileShape& key_tile, Machine machine);

// Bytes of the tensors of one sequence and batch entry.
double tensor_bytes(const Problem& problem, const Grid& grid);
// The counts of a call whose tensors have so many bytes.
Counts in_memory(const Problem& problem, Counts counts, double bytes);

// Predicted seconds of one thread. kernel: "b16", "general", ...
double seconds_of(const Counts& counts, std::string_view kernel, Direction direction, Machine machine);

}  // namespace nearfield::cpu
