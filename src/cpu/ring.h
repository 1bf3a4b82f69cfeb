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
  Index align = 1;  // a packed row's number is the key's coordinate along the last axis, modulo this

  // The packed row of a key. keys: those of the whole band.
  Index row(const Box& keys, Index t, Index y, Index x) const {
    if (axis == 2) return x % slots;
    const Index first = keys.axis[2].begin / align * align, height = keys.axis[1].size(),
                width = ceil_div(keys.axis[2].end - first, align) * align;
    if (axis == 1) return y % slots * width + x - first;
    return (t % slots * height + y - keys.axis[1].begin) * width + x - first;
  }

  // Calls fn(t, y, x run, packed row) for the runs of a box that follow each other in packed memory, none with more
  // than `most` rows from an aligned one on.
  template <class Fn>
  void for_each_run(const Box& keys, const Box& box, Index most, const Fn& fn) const {
    if (box.empty()) return;
    for (Index t = box.axis[0].begin; t < box.axis[0].end; ++t)
      for (Index y = box.axis[1].begin; y < box.axis[1].end; ++y)
        for (Interval x = box.axis[2]; !x.empty();) {
          const Index aligned = most - x.begin % align;
          const Index room = axis == 2 ? min_of(slots - x.begin % slots, aligned) : aligned;
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
  m.chunks[0].clear(cut.keys_per_row());
  Ring{cut.ring_axis, cut.slots, cut.keys_per_row()}.for_each_run(
      keys, tile.hull, cut.chunk_keys, [&](Index t, Index y, Interval x, Index row) {
        if (!m.chunks[n].room_for(static_cast<int>(row), static_cast<int>(x.size()), cut.chunk_keys))
          m.chunks[++n].clear(cut.keys_per_row());
        m.chunks[n].see(tile, t, y, x, static_cast<int>(row));
      });
  const Index more = band.problem->additional;
  for (Index s = 0; s < more; s += cut.chunk_keys) {
    if (m.chunks[n].runs > 0) ++n;
    m.chunks[n].clear(cut.keys_per_row());
    m.chunks[n].see_additional(cut.lanes, static_cast<int>(s),
                               static_cast<int>(min_of(more - s, cut.chunk_keys)));
  }
  return m.chunks[n].runs > 0 ? n + 1 : n;
}

}  // namespace nearfield::cpu
