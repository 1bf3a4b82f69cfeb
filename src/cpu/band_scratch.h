// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The scratch memory of a task of the tuned kernels, cut into aligned arrays. Units: floats.
#pragma once

#include "cpu/band.h"
#include "cpu/scratch.h"

namespace nearfield::cpu {

// Floats between packed rows of n channels: known at compile time up to 256 (score-inl.h), else whole vectors.
inline std::size_t packed_pitch(Index n) {
  for (Index p : {32, 64, 128, 256})
    if (n <= p) return static_cast<std::size_t>(p);
  return pitch_of<float>(n);
}

// Between packed rows of n channels in pairs.
inline std::size_t pair_pitch(Index n) {
  for (Index p : {16, 32, 64, 128})
    if (n <= 2 * p) return static_cast<std::size_t>(p);
  return pitch_of<float>(ceil_div(n, 2));
}

struct BandScratch {
  std::size_t k_pitch, v_pitch;
  std::size_t rows, more_rows;  // packed keys of a head, and additional ones
  float *keys, *values;         // [heads][rows][pitch]; pairs of bf16 are [heads][rows / 2][pitch] in values
  float *more_keys, *more_values;  // the additional ones
  std::size_t queries_size, out_size;
  float *queries, *out, *max, *sum;  // of each tile in flight
  bool* started;
  // Backward: dK and dV beside the packed keys, rows of Q and dO, dO transposed, dS.
  float *grad_keys, *grad_values, *more_grad_keys, *more_grad_values;
  std::size_t grads_size;
  float *query_rows, *grad_rows, *grads_t, *grads;
  float *scores, *factor, *line;
  Chunk* chunks;
  QueryTile* tiles;
  RowBlock* block;
  std::size_t bytes;

  // memory: kAlignment-aligned, or null to find out `bytes`.
  BandScratch(const Problem& p, const Cut& cut, std::byte* memory)
      : k_pitch(cut.bf16 ? pair_pitch(p.head_dim) : packed_pitch(p.head_dim)),
        v_pitch(packed_pitch(p.value_dim)) {
    std::size_t used = 0;
    const auto take = [&](auto*& pointer, std::size_t items) {
      pointer =
          memory ? reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(memory + used) : nullptr;
      used += rounded(items * sizeof(*pointer), kAlignment);
    };
    const auto lanes = static_cast<std::size_t>(cut.lanes), heads = static_cast<std::size_t>(cut.heads);
    std::size_t in_flight = 1;
    if (cut.streamed)
      for (std::size_t a = 0; a < kMaxRank; ++a)
        in_flight *= static_cast<std::size_t>(ceil_div(cut.macro[a], cut.tile[a]));
    rows = static_cast<std::size_t>(cut.streamed ? cut.chunk_keys : cut.slots * cut.rows_per_slot);
    const auto per_row = static_cast<std::size_t>(cut.keys_per_row());
    more_rows = cut.streamed ? 0 : rounded(static_cast<std::size_t>(p.additional), per_row);
    take(keys, heads * rows * k_pitch);
    take(values, heads * rows / per_row * v_pitch);
    take(more_keys, heads * more_rows * k_pitch);
    take(more_values, heads * more_rows / per_row * v_pitch);
    queries_size =
        (cut.bf16 ? pitch_of<float>(ceil_div(p.head_dim, 2)) : static_cast<std::size_t>(p.head_dim)) * lanes;
    const bool backward = p.direction == Direction::kBackward;
    const std::size_t kept = backward ? heads * rows : 0, more_kept = backward ? heads * more_rows : 0;
    out_size = lanes * (backward ? k_pitch : v_pitch);
    grads_size = static_cast<std::size_t>(p.value_dim) * lanes;
    take(grad_keys, kept * k_pitch);
    take(grad_values, kept * v_pitch);
    take(more_grad_keys, more_kept * k_pitch);
    take(more_grad_values, more_kept * v_pitch);
    take(query_rows, backward ? in_flight * lanes * k_pitch : 0);
    take(grad_rows, backward ? in_flight * lanes * v_pitch : 0);
    take(grads_t, backward ? in_flight * grads_size : 0);
    take(grads, backward ? static_cast<std::size_t>(kChunkKeys) * lanes : 0);
    take(queries, in_flight * queries_size);
    take(out, in_flight * out_size);
    take(max, in_flight * lanes);
    take(sum, in_flight * lanes);
    take(started, in_flight);
    take(scores, static_cast<std::size_t>(kChunkKeys) * lanes);
    take(factor, 2 * lanes);
    take(line, 16 * (k_pitch > v_pitch ? k_pitch : v_pitch));
    take(chunks, static_cast<std::size_t>(cut.streamed ? 1 : cut.chunks));
    take(tiles, cut.streamed ? in_flight : 0);
    take(block, 1);
    bytes = used;
  }
};

}  // namespace nearfield::cpu
