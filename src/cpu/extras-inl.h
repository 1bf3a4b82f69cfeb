// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// What some problems add to a block of scores: relative position bias, and dropout of the weights.
#if defined(NEARFIELD_CPU_EXTRAS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NEARFIELD_CPU_EXTRAS_INL_H_
#undef NEARFIELD_CPU_EXTRAS_INL_H_
#else
#define NEARFIELD_CPU_EXTRAS_INL_H_
#endif

#include "cpu/rows-inl.h"
#include "runtime/philox.h"

HWY_BEFORE_NAMESPACE();
namespace nearfield::cpu::HWY_NAMESPACE {

// Calls fn(lane, first row, rows, position of the first, step) for the rows that each lane sees. position
// is key minus query plus window - 1 per axis; from row to row its last axis moves by step, 1 or -1.
template <class T, class Fn>
void for_each_position(const TileJob& job, Side lanes_are, const LaneTile& tile, const RowBlock& block,
                       const Sight<T>& sight, const Fn& fn) {
  const Index sign = lanes_are == Side::kQueries ? 1 : -1;
  for (int i = 0; i < sight.segments; ++i) {
    const Segment<T>& s = sight.segment[i];
    const RowRun& run = block.run[s.run];
    for (int l = 0; l < tile.count; ++l) {
      const int begin = s.full ? 0 : static_cast<int>(s.begin[l]),
                end = s.full ? s.count : static_cast<int>(s.end[l]);
      if (begin >= end) continue;
      Index position[kMaxRank];
      for (int a = 0; a < kMaxRank; ++a) {
        const Index row = run.token[a] + (a == kMaxRank - 1 ? s.start + begin - run.start : 0);
        position[a] = sign * (row - tile.coord[l][a]) + job.grid.axis[a].window - 1;
      }
      fn(l, s.start + begin, end - begin, position, sign);
    }
  }
}

// S += bias, where a lane sees a row.
template <class T>
void add_bias(const TileJob& job, Side lanes_are, const LaneTile& tile, const RowBlock& block,
              const Sight<T>& sight, Index head, T* HWY_RESTRICT scores) {
  const GridView& bias = (*job.sequence)[Role::kBias];
  constexpr DType kOwn = sizeof(T) == 8 ? DType::kFloat64 : DType::kFloat32;
  for_each_position(job, lanes_are, tile, block, sight,
                    [&](int lane, int row, int rows, const Index* position, Index step) {
                      const Index at = bias.at(0, position, head), by = step * bias.axis[kMaxRank - 1];
                      T* s = scores + row * kLanes + lane;
                      if (bias.dtype == kOwn) {
                        const T* b = static_cast<const T*>(bias.data) + at;
                        for (int j = 0; j < rows; ++j) s[j * kLanes] += b[j * by];
                      } else {
                        for (int j = 0; j < rows; ++j)
                          s[j * kLanes] += static_cast<T>(load_element(bias.data, bias.dtype, at + j * by));
                      }
                    });
}

// job.bias_sums += dS.
template <class T>
void sum_bias_gradient(const TileJob& job, const LaneTile& tile, const RowBlock& block, const Sight<T>& sight,
                       Index head, const T* HWY_RESTRICT grads) {
  const auto width = [&](int a) { return 2 * job.grid.axis[a].window - 1; };
  for_each_position(job, Side::kQueries, tile, block, sight,
                    [&](int lane, int row, int rows, const Index* position, Index step) {
                      const Index at =
                          ((head * width(0) + position[0]) * width(1) + position[1]) * width(2) + position[2];
                      double* sums = job.bias_sums + at;
                      const T* g = grads + row * kLanes + lane;
                      for (int j = 0; j < rows; ++j) sums[j * step] += static_cast<double>(g[j * kLanes]);
                    });
}

// The raster numbers by which dropout counts tokens.
struct TokenNumbers {
  Index queries[kMaxRank], keys[kMaxRank];  // extents of the global layouts

  explicit TokenNumbers(const Grid& grid) {
    for (int a = 0; a < kMaxRank; ++a)
      queries[a] = grid.axis[a].query_extent, keys[a] = grid.axis[a].key_extent;
  }
  std::uint32_t query(const Index token[kMaxRank]) const { return raster(token, queries); }
  std::uint32_t key(const Index token[kMaxRank]) const { return raster(token, keys); }
  std::uint32_t additional(Index j) const {
    return static_cast<std::uint32_t>(keys[0] * keys[1] * keys[2] + j);
  }
};

// kept[row][lane] = 0 or 1 / (1 - p), for the rows that the tile sees. additional: the keys are those.
template <class T>
void draw(const TileJob& job, Side lanes_are, bool additional, const LaneTile& tile, const RowBlock& block,
          const Sight<T>& sight, Index head, T* HWY_RESTRICT kept) {
  const TokenNumbers number(job.sequence->grid);
  const Dropout dropout(job.problem->dropout, job.seed,
                        job.problem->varlen ? job.sequence->number : job.batch, head);
  const T scale = static_cast<T>(dropout.scale);
  const auto number_of = [&](const Index* coord, bool is_query) {
    if (!is_query && additional) return number.additional(coord[kMaxRank - 1]);
    Index token[kMaxRank];
    token_at(coord, job.dilation, job.residue, token);
    return is_query ? number.query(token) : number.key(token);
  };
  const bool queries = lanes_are == Side::kQueries;
  std::uint32_t lane[kLanes] = {};
  for (int l = 0; l < tile.count; ++l) lane[l] = number_of(tile.coord[l], queries);
  for (int i = 0; i < sight.segments; ++i) {
    const Segment<T>& s = sight.segment[i];
    for (int j = s.start, run = s.run; j < s.start + s.count; ++j) {
      while (j >= block.run[run].start + block.run[run].count) ++run;  // additional keys: one segment for all
      Index coord[kMaxRank];
      std::copy(block.run[run].token, block.run[run].token + kMaxRank, coord);
      coord[kMaxRank - 1] += j - block.run[run].start;
      const std::uint32_t row = number_of(coord, !queries);
      T* HWY_RESTRICT out = kept + j * kLanes;
      if (queries)
        for (int l = 0; l < kLanes; ++l) out[l] = dropout.kept(lane[l], row) ? scale : T{0};
      else
        for (int l = 0; l < kLanes; ++l) out[l] = dropout.kept(row, lane[l]) ? scale : T{0};
    }
  }
}

template <class T>
void multiply(const Sight<T>& sight, const T* HWY_RESTRICT kept, T* HWY_RESTRICT values) {
  for (int i = 0; i < sight.segments; ++i) {
    const int begin = sight.segment[i].start * kLanes, end = begin + sight.segment[i].count * kLanes;
    for (int x = begin; x < end; ++x) values[x] *= kept[x];
  }
}

}  // namespace nearfield::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
