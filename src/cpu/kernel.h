// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// What the backend asks of a SIMD target: three passes over one strip of lane tiles. The host side (which tiles,
// which thread, which memory) is in backend.cc and knows nothing of vectors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "cpu/lane_tile.h"
#include "plan/grid_view.h"

namespace nearfield::cpu {

// One strip of lane tiles of one sequence, batch entry and dilation group, for a run of heads.
struct TileJob {
  const Problem* problem = nullptr;
  const Sequence* sequence = nullptr;
  GridView delta;  // rowsum(dO * O) - dlse of every query, written by query_gradient
  Grid grid;       // the dilation group
  Index residue[kMaxRank] = {0, 0, 0}, dilation[kMaxRank] = {1, 1, 1};  // token = residue + i * dilation
  Index batch = 0;
  Box lanes;                           // the strip
  TileShape tile{1, 1, 1};             // its lane tiles; more than one along one axis only
  Index head_begin = 0, head_end = 0;  // query heads; key/value heads in key_gradient
  bool additional = false;             // key_gradient: the lanes are additional keys
  std::int64_t seed = 0;               // of dropout
  double* bias_sums = nullptr;  // query_gradient: the bias's gradient is added here, [heads, 2k-1, ...]
  int rows_per_block = kMaxRows;
};

struct Kernels {
  const char* target;
  // Scratch bytes of a worker; alignment 64.
  std::size_t (*scratch_bytes)(Index head_dim, Index value_dim, int rows_per_block, int tiles);
  void (*forward)(const TileJob& job, std::byte* scratch);
  void (*query_gradient)(const TileJob& job, std::byte* scratch);  // dQ, and delta
  void (*key_gradient)(const TileJob& job, std::byte* scratch);    // dK and dV
};

// The kernels of the chosen target, in float (float32 and 16-bit storage) or double.
const Kernels& kernels(DType dtype);

// The targets that this machine has, the chosen one first. NEARFIELD_CPU_TARGET forces one; throws
// Unsupported if that is none of them.
std::vector<std::string> targets();

}  // namespace nearfield::cpu
