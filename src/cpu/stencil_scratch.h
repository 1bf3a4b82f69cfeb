// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The scratch memory of a task of the stencil kernel, cut into aligned arrays. Units: floats.
//
// Pitches are odd numbers of cache lines, and heads are five lines apart beyond their size: what is read together
// does not fall into the same sets of the L1 cache.
#pragma once

#include "cpu/band.h"
#include "cpu/scratch.h"

namespace nearfield::cpu {

struct StencilScratch {
  Index heads, query_heads;             // of the task
  Index depth, k_pitch, k_row, k_head;  // K^T [head][slot][depth][pitch]; a row: of keys
  Index v_pitch, v_row, v_head;         // V [head][slot][column][pitch]
  Index q_vector;                       // Q^T [vector][query head][depth][4][lanes]
  Index lanes;                          // queries of a row of the task
  Index out_pitch;                      // O [4][query][query head * v_pitch + ..]
  Index stage_pitch;                    // tokens on their way
  Index score_pitch;                    // S [4][key row of a chunk][shift][lanes]
  float *keys, *values, *queries, *out, *scores, *stage, *line;
  float *inverse, *lse;    // [query head][4][query]
  float *max, *sum, *top;  // [4][lane], of the tile at work
  Index* column;           // [width]: keys
  std::uint32_t* mask;     // [query][shift]: of each vector
  bool* masked;            // [query]
  KeyRow* rows;
  const float** value_rows;  // of a chunk
  std::size_t bytes;

  // memory: kAlignment-aligned, or null to find out `bytes`.
  StencilScratch(const Problem& p, const Cut& cut, std::byte* memory) {
    const StencilCut& s = *cut.stencil;
    std::size_t used = 0;
    const auto take = [&](auto*& pointer, Index items) {
      pointer =
          memory ? reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(memory + used) : nullptr;
      used += rounded(static_cast<std::size_t>(items) * sizeof(*pointer), kAlignment);
    };
    const auto whole = [](Index n) { return static_cast<Index>(pitch_of<float>(n)); };
    const auto odd_lines = [&](Index n) { return (whole(n) / 16 | 1) * 16; };
    constexpr Index kApart = 5 * 16;
    heads = cut.heads;
    query_heads = heads * (p.heads / p.kv_heads);
    lanes = cut.band[2];
    depth = whole(p.head_dim);
    k_pitch = odd_lines(s.width);
    k_row = k_pitch * depth;
    k_head = k_row * s.slots.count() + kApart;
    v_pitch = whole(p.value_dim);
    v_row = s.width * v_pitch;
    v_head = v_row * s.slots.count() + kApart;
    q_vector = query_heads * depth * kStencilRows;  // times the lanes of a vector
    out_pitch = odd_lines(query_heads * v_pitch);
    stage_pitch = odd_lines(max_of(query_heads, heads) * depth);
    score_pitch = s.chunk_rows * s.columns.window * 16;
    take(keys, heads * k_head);
    take(values, heads * v_head);
    take(queries, lanes * q_vector);
    take(out, kStencilRows * lanes * out_pitch);
    take(scores, kStencilRows * score_pitch);
    take(stage, 16 * stage_pitch);
    take(line, v_pitch);
    take(inverse, query_heads * kStencilRows * lanes);
    take(lse, query_heads * kStencilRows * lanes);
    take(max, kStencilRows * 16);
    take(sum, kStencilRows * 16);
    take(top, kStencilRows * 16);
    take(column, s.width);
    take(mask, lanes * s.columns.window);
    take(masked, lanes);
    take(rows, s.slots.count());
    take(value_rows, s.chunk_rows);
    bytes = used;
  }
};

}  // namespace nearfield::cpu
