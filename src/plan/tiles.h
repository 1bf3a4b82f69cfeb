// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Lane tiles: how a grid is cut into boxes of tokens, and how many pairs a cut computes.
#pragma once

#include "nearfield/plan.h"

namespace nearfield {

enum class TileSide { kQueries, kKeys };

// The boxes of a range of tokens cut in tiles, in raster order; tiles at the end are smaller.
struct TileGrid {
  Box range;
  TileShape shape{1, 1, 1};

  Index count(int a) const { return ceil_div(range.axis[a].size(), shape[static_cast<std::size_t>(a)]); }
  Index count() const { return range.empty() ? 0 : count(0) * count(1) * count(2); }
  Box box(Index i) const {
    Box b;
    for (int a = kMaxRank - 1; a >= 0; --a) {
      const Index n = count(a), begin = range.axis[a].begin + i % n * shape[static_cast<std::size_t>(a)];
      b.axis[a] = {begin, min_of(begin + shape[static_cast<std::size_t>(a)], range.axis[a].end)};
      i /= n;
    }
    return b;
  }
};

// Pairs computed if every tile works on the whole span of the other side, with `lanes` lanes busy or not.
double computed_pairs(const Grid& grid, TileSide side, const TileShape& shape, Index lanes);

// The shape of at most `lanes` tokens with the fewest computed pairs; ties go to the one that is longest
// along the fastest axis.
TileShape best_tile(const Grid& grid, TileSide side, Index lanes);

// "4x4": the axes of the problem only.
std::string tile_text(const TileShape& shape, int rank);

}  // namespace nearfield
