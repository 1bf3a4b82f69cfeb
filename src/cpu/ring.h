// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The ring of packed keys of a band: a coordinate on the ring's axis has one slot, which holds the band's keys of
// that coordinate in raster order.
#pragma once

#include "cpu/band_scratch.h"

namespace nearfield::cpu {

struct Ring {
  int axis = 2;
  Index slots = 1;

  // The packed row of a key. keys: those of the whole band.
  Index row(const Box& keys, Index t, Index y, Index x) const {
    const Index width = keys.axis[2].size(), height = keys.axis[1].size();
    if (axis == 2) return x % slots;
    if (axis == 1) return y % slots * width + x - keys.axis[2].begin;
    return (t % slots * height + y - keys.axis[1].begin) * width + x - keys.axis[2].begin;
  }

  // Calls fn(t, y, x run, packed row) for the runs of a box that follow each other in packed memory, none longer than
  // `most`.
  template <class Fn>
  void for_each_run(const Box& keys, const Box& box, Index most, const Fn& fn) const {
    if (box.empty()) return;
    for (Index t = box.axis[0].begin; t < box.axis[0].end; ++t)
      for (Index y = box.axis[1].begin; y < box.axis[1].end; ++y)
        for (Interval x = box.axis[2]; !x.empty();) {
          const Index room = axis == 2 ? min_of(slots - x.begin % slots, most) : most;
          const Interval run{x.begin, min_of(x.end, x.begin + room)};
          fn(t, y, run, row(keys, t, y, x.begin));
          x.begin = run.end;
        }
  }
};

// What a tile sees of the ring, then of the additional keys, as chunks. Returns their number.
inline int look_into_ring(const Band& band, const BandScratch& m, const QueryTile& tile, const Box& keys) {
  const Cut& cut = *band.cut;
  int n = 0;
  m.chunks[0].clear();
  Ring{cut.ring_axis, cut.slots}.for_each_run(
      keys, tile.hull, cut.chunk_keys, [&](Index t, Index y, Interval x, Index row) {
        if (!m.chunks[n].room_for(static_cast<int>(x.size()), cut.chunk_keys)) m.chunks[++n].clear();
        m.chunks[n].see(tile, t, y, x, static_cast<int>(row));
      });
  const Index more = band.problem->additional;
  for (Index s = 0; s < more; s += cut.chunk_keys) {
    if (m.chunks[n].runs > 0) ++n;
    m.chunks[n].clear();
    m.chunks[n].see_additional(cut.lanes, static_cast<int>(s),
                               static_cast<int>(min_of(more - s, cut.chunk_keys)));
  }
  return m.chunks[n].runs > 0 ? n + 1 : n;
}

}  // namespace nearfield::cpu
