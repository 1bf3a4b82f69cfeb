// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The shapes of the kernels and their shared memory. A block owns kRows rows (queries, or keys in one kernel of
// the backward pass) and meets the other side in tiles of kColumns. Tiles lie in shared memory as rows of kDepth
// channels; 16-byte chunk c of row r is stored at c ^ (r & 7), so that the eight rows of an ldmatrix, and the
// eight chunks that tf32 reads down a column, meet different banks.
//
//   tiles     owned: one or two, streamed: two
//   tables    of rows and columns: geometry.h's intervals and addresses (frame.h)
#pragma once

#include "cuda/sm80/arguments.h"

namespace nearfield::sm80 {

template <class E_, int Depth, int Warps, int Blocks16, int Columns, int OwnedTiles>
struct Shape {
  using E = E_;
  static constexpr int kDepth = Depth, kWarps = Warps, kThreads = 32 * Warps;
  static constexpr int kBlocks16 = Blocks16;  // blocks of 16 rows per warp
  static constexpr int kWarpRows = 16 * Blocks16, kRows = kWarpRows * Warps, kColumns = Columns;
  static constexpr int kRowBytes = Depth * E::kBytes, kChunks = kRowBytes / 16;

  // Byte offsets.
  static constexpr Word kOwned = 0;
  static constexpr Word kOwnedBytes = kRows * kRowBytes, kStreamedBytes = Columns * kRowBytes;
  static constexpr Word kStreamed = OwnedTiles * kOwnedBytes;
  static constexpr Word kTables = kStreamed + 2 * kStreamedBytes;

  static constexpr Word kRowAddress = kTables;                          // Index, kNoRow where there is none
  static constexpr Word kRowBias = kRowAddress + 8 * kRows;             // Index
  static constexpr Word kColumnAddress = kRowBias + 8 * kRows;          // 2 x Index: of both streamed tiles
  static constexpr Word kColumnBias = kColumnAddress + 16 * Columns;    // Index
  static constexpr Word kColumnStatistics = kColumnBias + 8 * Columns;  // Index: of their addresses
  static constexpr Word kStatistics =
      kColumnStatistics + 8 * Columns;                               // {lse, delta} of the columns of a tile
  static constexpr Word kRowStatistics = kStatistics + 8 * Columns;  // {lse, delta} of the rows
  static constexpr Word kRowInterval = kRowStatistics + 8 * kRows;   // 6 x int
  static constexpr Word kRowRaster = kRowInterval + 24 * kRows;      // Word
  static constexpr Word kColumnPlace = kRowRaster + 4 * kRows;       // 3 x 10 bits
  static constexpr Word kColumnRaster = kColumnPlace + 4 * Columns;  // Word
  static constexpr Word kMaskTable = kColumnRaster + 4 * Columns;    // Word, 4 per length of an axis and 0
  static constexpr Word kWarpBox = kMaskTable + 16 * (Columns + 2 + 3);  // 12 x int per warp
  static constexpr Word kFrame = kWarpBox + 48 * Warps;
  static constexpr Word kFrameBytes = 640;
  static constexpr Word kKept = kFrame + kFrameBytes;  // a thread's own: what dropout keeps of its rows
  static_assert(kFrame % 16 == 0);
  static constexpr Word kBytes = kKept + 4 * kThreads * 2 * Blocks16;
  static_assert(kBytes <= 99 << 10, "what a block may have on every device from 8.0 on");
};

// Byte offset of a chunk of a tile.
template <class S>
NF_DEVICE Word chunk_at(Word tile, int row, int chunk) {
  return tile + static_cast<Word>(row * S::kRowBytes + ((chunk ^ (row & 7)) << 4));
}

}  // namespace nearfield::sm80
