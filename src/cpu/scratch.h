// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The scratch memory of a worker, cut into aligned arrays.
#pragma once

#include <cstddef>
#include <type_traits>

#include "cpu/lane_tile.h"
#include "plan/tiles.h"

namespace nearfield::cpu {

inline constexpr std::size_t kAlignment = 64;

inline std::size_t rounded(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

inline int strip_tiles(const Box& lanes, const TileShape& tile) {
  return static_cast<int>(TileGrid{lanes, tile}.count());
}

// Channels of a packed row: rounded up to a full vector of the widest target, the rest zeros.
template <class T>
std::size_t pitch_of(Index channels) {
  return rounded(static_cast<std::size_t>(channels), kAlignment / sizeof(T));
}

template <class T>
struct Scratch {
  std::size_t pitch_a, pitch_b, lane_size_a, lane_size_b;
  T *rows_a, *rows_b;        // [N][pitch]: K and V, or Q and dO
  T *scores, *grads, *kept;  // [N][M]; kept: what dropout makes of the weight 1
  T *row_lse, *row_delta;    // [N]
  T *factor, *line;          // [M], one row of channels
  bool* bad;                 // [N]: rows that are not finite
  RowBlock* block;
  Sight<T>*sight, *pieces;
  LaneTile* tiles;
  std::size_t bytes;

  // Arrays of rows have room for 3 more: dot_rows() works on groups of 4, wherever they begin.
  // memory: kAlignment-aligned, or null to find out `bytes`.
  Scratch(Index head_dim, Index value_dim, int rows, int tile_count, std::byte* memory) {
    const std::size_t a = static_cast<std::size_t>(head_dim), b = static_cast<std::size_t>(value_dim),
                      n = static_cast<std::size_t>(rows) + 3, count = static_cast<std::size_t>(tile_count);
    std::size_t used = 0;
    const auto take = [&](auto*& pointer, std::size_t items) {
      pointer =
          memory ? reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(memory + used) : nullptr;
      used += rounded(items * sizeof(*pointer), kAlignment);
    };
    pitch_a = pitch_of<T>(head_dim);
    pitch_b = pitch_of<T>(value_dim);
    lane_size_a = a * kLanes;
    lane_size_b = b * kLanes;
    take(rows_a, n * pitch_a);
    take(rows_b, n * pitch_b);
    take(scores, n * kLanes);
    take(grads, n * kLanes);
    take(kept, n * kLanes);
    take(row_lse, n);
    take(row_delta, n);
    take(factor, kLanes);
    take(line, pitch_a > pitch_b ? pitch_a : pitch_b);
    take(bad, kMaxRows);
    take(block, 1);
    take(sight, 1);
    take(pieces, 1);
    take(tiles, count);
    take(lanes_a_, count * lane_size_a);
    take(lanes_b_, count * lane_size_b);
    take(acc_a_, count * kLanes * pitch_a);
    take(acc_b_, count * kLanes * pitch_b);
    take(stat_a_, count * kLanes);
    take(stat_b_, count * kLanes);
    bytes = used;
  }

  // Of tile t.
  T* lanes_a(int t) const { return lanes_a_ + static_cast<std::size_t>(t) * lane_size_a; }   // [head_dim][M]
  T* lanes_b(int t) const { return lanes_b_ + static_cast<std::size_t>(t) * lane_size_b; }   // [value_dim][M]
  T* acc_a(int t) const { return acc_a_ + static_cast<std::size_t>(t) * kLanes * pitch_a; }  // [M][pitch_a]
  T* acc_b(int t) const { return acc_b_ + static_cast<std::size_t>(t) * kLanes * pitch_b; }  // [M][pitch_b]
  T* stat_a(int t) const { return stat_a_ + t * kLanes; }  // [M]: running max, then lse
  T* stat_b(int t) const { return stat_b_ + t * kLanes; }  // [M]: running sum; backward delta

 private:
  T *lanes_a_, *lanes_b_, *acc_a_, *acc_b_, *stat_a_, *stat_b_;
};

}  // namespace nearfield::cpu
