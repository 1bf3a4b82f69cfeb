// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The tiles of a band in the order of work, each with the keys that the ring must take up before it. These come in
// small pieces, just before their first use, while they are sure to be in the caches:
//
//   for (Sweep sweep(band); sweep.next();) pack(sweep.fresh), work_on(sweep.tile);
//
// Backward the keys that no tile from here on sees leave in the same pieces: each before the fresh ones that may take
// its place.
#pragma once

#include "cpu/band.h"

namespace nearfield::cpu {

class Sweep {
 public:
  explicit Sweep(const Band& band)
      : keys(hull(band.grid, band.queries)), grid_(band.grid), queries_(band.queries), cut_(*band.cut),
        r_(cut_.ring_axis), step_(queries_.axis[r_].begin),
        slot_end_(keys.axis[r_].begin), done_{slot_end_, slot_end_} {}

  const Box keys;   // of the band
  Box tile;         // queries
  Box fresh;        // keys that no tile before has seen; may be empty
  Box done;         // keys that this tile and the later ones do not see, and have not left; may be empty
  Index taken = 0;  // keys of `done` from here on along the ring's axis were never fresh

  // False if there are no more.
  bool next() {
    if (number_ == tiles_.count() && !next_step()) return false;
    tile = tiles_.box(number_++);
    fresh = done = keys;
    fresh.axis[r_] = slots_;
    done.axis[r_] = done_;
    if (r_ == 0) {
      if (tile.axis[1].begin != line_ || number_ == 1) {  // a new line of tiles
        line_ = tile.axis[1].begin;
        rows_ = {rows_.end, max_of(rows_.end, hull(grid_.axis[1], tile.axis[1]).end)};
        column_end_ = keys.axis[2].begin;
      }
      fresh.axis[1] = done.axis[1] = rows_;
    }
    if (r_ < 2) {
      const Index end = max_of(column_end_, hull(grid_.axis[2], tile.axis[2]).end);
      fresh.axis[2] = done.axis[2] = {column_end_, end};
      column_end_ = end;
    }
    return true;
  }

  // After the last tile: `done` is what is left.
  void end() {
    done = keys;
    done.axis[r_].begin = done_.end;
    taken = slot_end_;
  }

 private:
  const Grid& grid_;
  const Box& queries_;
  const Cut& cut_;
  int r_;
  Index step_;  // the next one begins here
  TileGrid tiles_{{{{0, 0}, {0, 0}, {0, 0}}}, {1, 1, 1}};
  Index number_ = 0;      // of the next tile in the step
  Index slot_end_;        // on the ring's axis everything before it has been packed
  Interval slots_{0, 0};  // that this step adds
  Interval done_;         // that left before it
  Index line_ = 0;        // where the tile begins on axis 1
  Interval rows_{0, 0};   // of the fresh slots, that this line of tiles adds
  Index column_end_ = 0;  // of the fresh rows, everything before it has been packed

  bool next_step() {
    if (step_ >= queries_.axis[r_].end) return false;
    Box step = queries_;
    step.axis[r_] = {step_, min_of(step_ + cut_.step, queries_.axis[r_].end)};
    step_ = step.axis[r_].end;
    const Interval needed = hull(grid_.axis[r_], step.axis[r_]);
    taken = slot_end_;
    done_ = {done_.end, needed.empty() ? done_.end : max_of(done_.end, needed.begin)};
    slots_ = {max_of(slot_end_, needed.begin), max_of(slot_end_, needed.end)};
    slot_end_ = slots_.end;
    tiles_ = {step, cut_.tile};
    number_ = 0;
    rows_ = {0, keys.axis[1].begin};
    column_end_ = keys.axis[2].begin;
    return tiles_.count() > 0;
  }
};

}  // namespace nearfield::cpu
