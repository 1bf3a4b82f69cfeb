// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// How the tuned kernels cut a sequence (Cut), and one task of them (Band).
//
// Banded: a task sweeps a box of queries along one axis, the slowest that has more than one token, a
// step at a time. The keys that a step sees are packed for all heads jointly, each once, into a ring over
// that axis, whose intervals never move backwards; tiles of the step then run head by head.
//
// Streamed: where a tile's keys outgrow the L2 cache (dense attention, very large windows) a task is one
// head and one macro tile of queries; keys are packed chunk by chunk and every tile of the macro uses
// them before the next chunk is packed.
#pragma once

#include <cstddef>
#include <optional>

#include "cpu/query_tile.h"
#include "cpu/share.h"
#include "cpu/stencil_cut.h"
#include "plan/grid_view.h"
#include "plan/tiles.h"

namespace nearfield::cpu {

struct Cut {
  const char* name = "";
  int lanes = 16;  // queries of a tile
  TileShape tile{1, 1, 16}, pack{1, 1, kPack};
  bool streamed = false;
  bool bf16 = false;  // multiplies in bf16: packed arrays hold pairs (bf16-inl.h)
  int keys_per_row() const { return bf16 ? 2 : 1; }  // of packed values
  int chunk_keys = 64;
  // Banded.
  int ring_axis = 2;
  Index step = 1;           // queries of a step along the ring's axis
  Index slots = 0;          // key coordinates in the ring
  Index rows_per_slot = 1;  // packed rows of a slot, at most
  TileShape band{1, 1, 1};  // queries of a task; forward a task may be shorter along the ring's axis
  Index heads = 1;          // key/value heads of a task
  Index chunks = 0;         // of a tile, at most; additional keys included
  // Streamed.
  TileShape macro{1, 1, 1};  // queries that use packed keys before the next ones are; forward, of a task
  std::optional<StencilCut> stencil;  // of the stencil kernel: stencil.h
};

struct Band {
  const Problem* problem = nullptr;
  const Sequence* sequence = nullptr;
  const Cut* cut = nullptr;
  Grid grid;                                                            // the dilation group
  Index residue[kMaxRank] = {0, 0, 0}, dilation[kMaxRank] = {1, 1, 1};  // token = residue + i * dilation
  Index batch = 0;
  Box queries;                         // of the task
  Index head_begin = 0, head_end = 0;  // key/value heads
  // Backward.
  Share share;  // the keys that other bands see too
  float* shared =
      nullptr;  // their dK and dV, [shared keys, then additional keys][kv_heads][head_dim + value_dim]
};

// One way to run a sequence: `b16` and `b32` are banded, `m16` and `m32` streamed, with tiles of 16 or 32 queries; `s2`
// is the stencil kernel.
struct Kind {
  const char* name;
  int lanes;
  bool streamed;
  bool stencil = false;
};
inline constexpr Kind kKinds[] = {
    {"b16", 16, false}, {"b32", 32, false}, {"m16", 16, true}, {"m32", 32, true}, {"s2", 16, false, true}};

// The cut of one sequence; a function of the sequence alone, not of the batch. Nothing if its ring would be too large.
std::optional<Cut> cut_sequence(const Problem& problem, const Grid& grid, const Kind& kind,
                                bool bf16 = false);

// The most keys that `length` consecutive queries of a dilation group span, any group.
Index widest_hull(const Axis& axis, Index length);

// Bytes of scratch memory that a task needs, alignment 64.
std::size_t band_scratch_bytes(const Problem& problem, const Cut& cut);

}  // namespace nearfield::cpu
