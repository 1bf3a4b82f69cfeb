// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "cpu/stencil.h"

#include "cpu/stencil_scratch.h"

namespace nearfield::cpu {
namespace {

constexpr Index kVector = 16;            // queries of a vector on the widest target
constexpr Index kChunkBytes = 64 << 10;  // V of a chunk, that the queries of a tile read one after the other
constexpr Index kVectors = 4;            // of a row of a task
constexpr Index kSlabRows = 8;           // query rows of a task that sweeps over time
constexpr Index kTaskBytes = 12 << 20;   // of scratch, if there is a choice
constexpr Index kMostTaskBytes = 48 << 20;
constexpr Index kContiguous = 512;  // bytes of a token read at once, if there is a choice
constexpr Index kEnough = 1024;     // more than these are not read faster, and take cache
constexpr Index kMostWindow = 64;   // along the last axis: beyond it nothing is left to share

Index extent_of(const Axis& axis) { return max_of(ceil_div(axis.queries.size(), axis.dilation), 1); }

}  // namespace

std::optional<Cut> cut_stencil(const Problem& p, const Grid& grid) {
  const Axis& x = grid.axis[2];
  const bool windowed = x.rule == Rule::kWindow || x.rule == Rule::kWindowCausal;
  if (p.direction == Direction::kBackward || p.additional > 0 || !windowed || x.stride != 1 ||
      x.query_extent != x.key_extent || x.window > kMostWindow)
    return std::nullopt;
  Cut cut;
  cut.name = "s2";
  cut.tile = {1, kStencilRows, kVector};
  cut.stencil.emplace();
  StencilCut& s = *cut.stencil;
  s.columns = Columns(x);
  const bool sweeps_time = extent_of(grid.axis[0]) > 1 || widest_hull(grid.axis[0], 1) > 1;
  const int r = cut.ring_axis = sweeps_time ? 0 : 1;
  cut.step = sweeps_time ? 1 : kStencilRows;
  const Index rows = ceil_div(extent_of(grid.axis[1]), kStencilRows) * kStencilRows;
  const Index vectors = ceil_div(extent_of(x), kVector);
  cut.band = {extent_of(grid.axis[0]), sweeps_time ? min_of(rows, kSlabRows) : rows,
              ceil_div(vectors, ceil_div(vectors, kVectors)) * kVector};
  cut.heads = p.kv_heads;

  const auto measure = [&] {
    s.slots.t = max_of(widest_hull(grid.axis[0], 1), 1);
    s.slots.y = max_of(widest_hull(grid.axis[1], r == 0 ? cut.band[1] : Index{kStencilRows}), 1);
    s.width = ceil_div(cut.band[2] + s.columns.window - 1, kVector) * kVector;
    return static_cast<Index>(StencilScratch(p, cut, nullptr).bytes);
  };
  s.chunk_rows = max_of(
      kChunkBytes / ((kVector + s.columns.window - 1) * static_cast<Index>(pitch_of<float>(p.value_dim)) * 4),
      1);
  const auto halve_heads = [&](Index least) {
    if (cut.heads <= 1 || cut.heads / 2 * p.head_dim * 4 < least) return false;
    cut.heads = ceil_div(cut.heads, 2);
    return true;
  };
  const auto halve_width = [&] {
    if (cut.band[2] <= kVector) return false;
    cut.band[2] = ceil_div(cut.band[2] / kVector, 2) * kVector;
    return true;
  };
  const auto halve_slab = [&] {
    if (r == 1 || cut.band[1] <= kStencilRows) return false;
    cut.band[1] = kStencilRows;
    return true;
  };
  while (halve_heads(kEnough)) {}
  while (measure() > kTaskBytes &&
         (halve_heads(kContiguous) || halve_slab() || halve_width() || halve_heads(0))) {}
  if (measure() > kMostTaskBytes) return std::nullopt;
  return cut;
}

std::optional<std::string> stencil_refusal(const Problem& p, const Grid& grid) {
  const Axis& x = grid.axis[2];
  if (!stencil_kernel()) return "it is compiled for AVX-512 and AVX2 only";
  if (p.direction == Direction::kBackward) return "it runs forward";
  if (p.additional > 0) return "it takes no additional keys";
  if (x.rule != Rule::kWindow && x.rule != Rule::kWindowCausal) return "the last axis has no window";
  if (x.stride != 1) return "the window of the last axis moves by more than one key per query";
  if (x.query_extent != x.key_extent) return "the queries have a layout of their own along the last axis";
  if (x.window > kMostWindow)
    return "the window of the last axis is longer than " + std::to_string(kMostWindow);
  if (!cut_stencil(p, grid)) return "the keys of a task do not fit its memory";
  return std::nullopt;
}

double stencil_pairs(const Grid& grid, const Cut& cut) {
  double last = 0;  // of the last axis
  const Axis& x = grid.axis[2];
  for (Index g = 0; g < x.dilation; ++g)
    last += static_cast<double>(ceil_div(group(x, g).queries.size(), kVector) * kVector *
                                cut.stencil->columns.window);
  return static_cast<double>(pairs(grid.axis[0])) * static_cast<double>(pairs(grid.axis[1])) * last;
}

std::size_t stencil_scratch(const Problem& p, const Cut& cut) {
  return StencilScratch(p, cut, nullptr).bytes;
}

}  // namespace nearfield::cpu
