// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "cpu/band.h"

#include "cpu/band_scratch.h"
#include "cpu/stencil.h"

namespace nearfield::cpu {
namespace {

constexpr Index kValueBytes = 24576;        // V of a chunk: with P and O it stays in a 32 KB L1 cache
constexpr Index kRingBytes = 6 << 20;       // of a task, if there is a choice
constexpr Index kMostRingBytes = 48 << 20;  // beyond it streams
constexpr Index kContiguous = 512;          // bytes of a token read at once, if there is a choice
constexpr Index kMacroQueries = 512, kBackwardMacroQueries = 1024;
constexpr Index kLeastMacro = 128, kLeastBackwardMacro = 256;
constexpr Index kMostBands = 8;              // backward, along the ring's axis
constexpr double kShared = 4;                // backward: rows that bands share, over the sequence's keys ...
constexpr double kSharedBytes = 256 << 20;   // ... if they are more than these
constexpr Index kMostCoordinates = 1 << 24;  // backward, of an axis

// The sub-box of four queries with the fewest computed pairs.
TileShape best_pack(const Grid& grid, const TileShape& tile) {
  TileShape best{1, 1, 1};
  double fewest = -1;
  for (Index t = 1; t <= min_of(kPack, tile[0]); t *= 2)
    for (Index y = 1; t * y <= kPack && y <= tile[1]; y *= 2) {
      const Index x = kPack / (t * y);
      if (x > tile[2]) continue;
      const double pairs = computed_pairs(grid, TileSide::kQueries, {t, y, x}, kPack);
      if (fewest >= 0 && (pairs > fewest || (pairs == fewest && x < best[2]))) continue;
      fewest = pairs;
      best = {t, y, x};
    }
  return best;
}

// A tile of exactly `lanes` queries: best_tile() may be smaller where the grid is.
TileShape full_tile(const Grid& grid, Index lanes) {
  TileShape tile = best_tile(grid, TileSide::kQueries, lanes);
  tile[2] *= lanes / (tile[0] * tile[1] * tile[2]);
  return tile;
}

}  // namespace

Index widest_hull(const Axis& axis, Index length) {
  const Axis own = group(axis, 0);
  const Index all = ceil_div(axis.keys.size(), axis.dilation);
  if (axis.rule != Rule::kWindow && axis.rule != Rule::kWindowCausal) return all;
  if (own.query_extent == own.key_extent) return min_of(all, own.window + length + own.stride - 2);
  Index most = 0;  // one group: a query layout of its own admits no dilation here, but may on other axes
  for (Index g = 0; g < axis.dilation; ++g) {
    const Axis one = group(axis, g);
    for (Index q = one.queries.begin; q < one.queries.end; q += length)
      most = max_of(most, hull(one, {q, min_of(q + length, one.queries.end)}).size());
  }
  return most;
}

std::optional<Cut> cut_sequence(const Problem& p, const Grid& grid, const Kind& kind, bool bf16) {
  if (kind.stencil) return cut_stencil(p, grid);
  const int lanes = kind.lanes;
  Cut cut;
  cut.name = kind.name;
  cut.streamed = kind.streamed;
  cut.bf16 = bf16;
  cut.lanes = lanes;
  cut.tile = full_tile(grid, lanes);
  cut.pack = best_pack(grid, cut.tile);
  const auto k_pitch = static_cast<Index>(bf16 ? pair_pitch(p.head_dim) : packed_pitch(p.head_dim)),
             v_pitch = static_cast<Index>(packed_pitch(p.value_dim));
  const bool backward = p.direction == Direction::kBackward;
  for (const Axis& axis : grid.axis)  // each coordinate of an axis stands in a table of the bands that see it
    if (backward && axis.keys.size() > kMostCoordinates) return std::nullopt;
  const Index align = cut.keys_per_row();
  const Index row_bytes = (k_pitch * 4 + v_pitch * 4 / align) * (backward ? 2 : 1), value_bytes = kValueBytes;
  cut.chunk_keys = static_cast<int>(clamp(value_bytes / (v_pitch * 4) / 16 * 16, 32, kChunkKeys));

  Index extent[kMaxRank], tile_hull[kMaxRank];
  for (int a = 0; a < kMaxRank; ++a) {
    extent[a] = max_of(ceil_div(grid.axis[a].queries.size(), grid.axis[a].dilation), 1);
    tile_hull[a] = widest_hull(grid.axis[a], min_of(cut.tile[static_cast<std::size_t>(a)], extent[a]));
  }

  // Banded: whole axes across the ring's, halved until the ring is small enough.
  const int r = cut.ring_axis = extent[0] > 1 || tile_hull[0] > 1   ? 0
                                : extent[1] > 1 || tile_hull[1] > 1 ? 1
                                                                    : 2;
  const auto at = [](int a) { return static_cast<std::size_t>(a); };
  cut.step = cut.tile[at(r)];
  cut.slots = max_of(widest_hull(grid.axis[r], min_of(cut.step, extent[r])), 1);
  if (r == 2) cut.slots = ceil_div(cut.slots, align) * align;
  for (int a = 0; a < kMaxRank; ++a) cut.band[at(a)] = ceil_div(extent[a], cut.tile[at(a)]) * cut.tile[at(a)];
  if (backward) {
    // As few bands as keep a handful of tasks: bands share the keys that both see, and each packs them.
    const Index reach = widest_hull(grid.axis[r], 1) - 1;
    const bool dense = 2 * reach >= extent[r];
    const Index bands = dense ? clamp(kMostBands / p.kv_heads, 1, max_of(extent[r] / (r == 2 ? 256 : 4), 1))
                              : clamp(extent[r] / max_of(4 * reach, 1), 1, kMostBands);
    const Index whole = r == 2 ? ceil_div(256, lanes) * lanes : cut.step;
    cut.band[at(r)] = ceil_div(ceil_div(extent[r], bands), whole) * whole;
  }
  cut.heads = p.kv_heads;
  // The most rows that n keys along axis a take.
  const auto aligned_most = [&](int a, Index n) {
    return a == 2 && align > 1 ? ceil_div(n + align - 1, align) * align : n;
  };
  const auto measure = [&] {
    cut.rows_per_slot = 1;
    for (int a = r + 1; a < kMaxRank; ++a)
      cut.rows_per_slot *=
          aligned_most(a, max_of(widest_hull(grid.axis[a], min_of(cut.band[at(a)], extent[a])), 1));
    return (cut.slots * cut.rows_per_slot + p.additional) * row_bytes * cut.heads;
  };
  const auto halve_band = [&](bool to_tile) {
    for (int a = r + 1; a < kMaxRank; ++a) {
      const Index tile = cut.tile[at(a)], tiles = cut.band[at(a)] / tile;
      const Index least = to_tile ? 1 : ceil_div(2 * tile_hull[a], tile);
      if (tiles <= 1 || ceil_div(tiles, 2) < least) continue;
      cut.band[at(a)] = ceil_div(tiles, 2) * tile;
      return true;
    }
    return false;
  };
  const auto halve_heads = [&](Index least) {
    if (cut.heads <= 1 || cut.heads / 2 * k_pitch * 4 < least) return false;
    cut.heads = ceil_div(cut.heads, 2);
    return true;
  };
  // A streamed cut has no ring to fit, and backward every band has sums of all the keys that it sees.
  while (measure() > kRingBytes * (backward ? 2 : 1) && !cut.streamed &&
         (halve_band(false) || halve_heads(kContiguous) || halve_band(true) || halve_heads(0))) {}
  const Index runs = tile_hull[0] * tile_hull[1] * (ceil_div(tile_hull[2], cut.chunk_keys) + 1);
  const Index tile_keys = tile_hull[0] * tile_hull[1] * aligned_most(2, tile_hull[2]);
  cut.chunks = 2 * ceil_div(tile_keys, cut.chunk_keys) + runs / kChunkRuns + 3 +
               ceil_div(p.additional, cut.chunk_keys);
  if (!cut.streamed) {
    if (measure() > kMostRingBytes) return std::nullopt;
    if (!backward) return cut;
    const double rows = computed_pairs(grid, TileSide::kQueries, cut.band, 1),  // of sums, all bands together
        row = static_cast<double>(p.kv_heads * (p.head_dim + p.value_dim) * 4);
    if (rows > kShared * static_cast<double>(grid.keys().volume()) && rows * row > kSharedBytes)
      return std::nullopt;
    return cut;
  }

  cut.heads = 1;
  cut.chunk_keys = std::min(cut.chunk_keys, kMaxRows);
  // With few heads smaller ones, for a handful of tasks.
  const Index all = extent[0] * extent[1] * extent[2] * p.kv_heads / kMostBands;
  Index queries = backward ? kBackwardMacroQueries : kMacroQueries;
  while (queries > all && queries > (backward ? kLeastBackwardMacro : kLeastMacro)) queries /= 2;
  const TileShape macro = best_tile(grid, TileSide::kQueries, queries);
  for (int a = 0; a < kMaxRank; ++a) {
    cut.macro[at(a)] = max_of(macro[at(a)], cut.tile[at(a)]);
    cut.band[at(a)] = ceil_div(cut.band[at(a)], cut.macro[at(a)]) * cut.macro[at(a)];
  }
  return cut;
}

std::size_t band_scratch_bytes(const Problem& p, const Cut& cut) {
  return cut.stencil ? stencil_scratch(p, cut) : BandScratch(p, cut, nullptr).bytes;
}

}  // namespace nearfield::cpu
