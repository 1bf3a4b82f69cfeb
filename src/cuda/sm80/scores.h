// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// From dot products to scores: scale, bias and mask; and which weights dropout keeps. What is asked for changes
// with the call and not with the element, so each is one branch per tile.
#pragma once

#include "cuda/sm80/tiles.h"

namespace nearfield::sm80 {

inline constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

// Not a number that exp2 can confuse: masked scores.
NF_DEVICE float minus_infinity() { return -__builtin_huge_valf(); }

template <class S>
NF_DEVICE int row_of(const Block& block, int m, int i, int lane) {
  return block.warp * S::kWarpRows + 16 * m + 8 * i + (lane >> 2);
}

// Where the biases of a tile lie, for rows of queries and for rows of keys.
template <Owner kOwner, class S>
NF_DEVICE Index bias_of_tile(const Arguments& args, const Tile& t, Index head) {
  const View& view = args[Role::kBias];
  Index at = kOwner == Owner::kQueries ? 0 : head * view.head;  // of rows of queries: in their own part
  for (int a = 0; a < kMaxRank; ++a)
    at += view.axis[a] * (kOwner == Owner::kQueries ? t.origin[a] : -t.origin[a]);
  return at;
}

// Scores that no exponential follows yet: masked ones are -inf. `head` counts among the heads of a row of keys.
template <Owner kOwner, class S>
NF_DEVICE void finish_scores(Block& block, const Arguments& args, const Frame& f, const Tile& tile,
                             Index head, bool full, Accumulator (&s)[S::kBlocks16][S::kColumns / 8]) {
  using E = typename S::E;
  const bool biased = args[Role::kBias].data != nullptr && !tile.additional && !f.additional;
  NF_UNROLL
  for (int m = 0; m < S::kBlocks16; ++m) {
    NF_LANES(lane) {
      NF_UNROLL
      for (int i = 0; i < 2; ++i) {
        const int row = row_of<S>(block, m, i, ptx::fresh(lane));
        if (args.scaled_first) {
          NF_UNROLL
          for (int n = 0; n < S::kColumns / 8; ++n) NF_UNROLL
          for (int e = 0; e < 2; ++e) s[m][n].of(lane)[2 * i + e] *= args.scale;
        }
        if (full && !biased) continue;
        const Word seen = full ? 0xffffffffu : visible_columns<S>(block, f, tile, lane, row);
        if (biased && Shared<Index>{S::kRowAddress}.get(block, lane, row) != kNoRow) {
          const auto* table = static_cast<const typename E::Storage*>(args[Role::kBias].data) +
                              bias_of_tile<kOwner, S>(args, tile, head) +
                              Shared<Index>{S::kRowBias}.get(block, lane, row);
          NF_UNROLL
          for (int x = 0; x < S::kColumns / 4; ++x)
            if (seen >> x & 1)
              s[m][x / 2].of(lane)[2 * i + x % 2] += ptx::to_float(
                  E{}, block.load(table + Shared<Index>{S::kColumnBias}.get(
                                              block, lane, 8 * (x / 2) + 2 * (lane & 3) + x % 2)));
        }
        if (full) continue;
        NF_UNROLL
        for (int x = 0; x < S::kColumns / 4; ++x)
          if (!(seen >> x & 1)) s[m][x / 2].of(lane)[2 * i + x % 2] = minus_infinity();
      }
    }
  }
}

// Which weights of a tile dropout keeps: drawn while few registers are in use and kept in shared memory, one word
// per row of the thread, bits as of visible_columns(). `head`: the first query head of rows of queries, or that of
// the columns.
template <Owner kOwner, class S>
NF_DEVICE void draw(Block& block, const Arguments& args, const Frame& f, const Tile& tile, Index head) {
  constexpr bool kQueries = kOwner == Owner::kQueries;
  const Item& item = item_at(args, f.item);
  Index token[kMaxRank];
  for (int a = 0; a < kMaxRank; ++a) token[a] = f.residue[a] + f.step[a] * tile.origin[a];
  if (tile.additional) {  // numbers behind the last token
    for (int a = 0; a < kMaxRank; ++a) token[a] = item.grid.axis[a].key_extent - (a < 2 ? 1 : 0);
    token[2] += tile.origin[2];
  }
  const Word of_tile = raster_of(item, !kQueries, token),
             batch = static_cast<Word>(args.packed ? item.number : f.batch);
  const auto seed = static_cast<std::uint64_t>(block.load(args.seed));
  const int volume = kQueries ? item.query_tile[0] * item.query_tile[1] * item.query_tile[2] : S::kRows;
  NF_LANES(lane) {
    NF_NO_UNROLL
    for (int x = 0; x < 2 * S::kBlocks16; ++x) {
      const int row = row_of<S>(block, x / 2, x % 2, lane);
      const Word own = Shared<Word>{S::kRowRaster}.get(block, lane, row),
                 h = static_cast<Word>(head + row / volume);
      Word bits = 0;
      NF_NO_UNROLL
      for (int i = 0; i < S::kColumns / 4; ++i) {
        const int column = 8 * (i / 2) + 2 * (lane & 3) + i % 2;
        const Word other =
            of_tile + (tile.additional ? static_cast<Word>(column)
                                       : Shared<Word>{S::kColumnRaster}.get(block, lane, column));
        const Word number =
            kQueries ? philox(batch, h, own, other, seed) : philox(batch, h, other, own, seed);
        if (number >= args.drop_below) bits |= Word{1} << i;
      }
      Shared<Word>{S::kKept}.set(block, lane, x * S::kThreads + block.warp * ptx::kLanes + lane, bits);
    }
  }
}
template <class S>
NF_DEVICE Word kept_columns(const Block& block, int lane, int m, int i) {
  return Shared<Word>{S::kKept}.get(block, lane, (2 * m + i) * S::kThreads + block.warp * ptx::kLanes + lane);
}

}  // namespace nearfield::sm80
