// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// A lane tile is a small box of tokens that ride in SIMD lanes; rows are the tokens of the other side
// that pass by, one after the other. In the forward pass and for dQ the lanes are queries and the rows
// the keys that they see; for dK and dV the lanes are keys and the rows the queries that see them. Both
// are intervals per axis, so one piece of code serves the two: which rows to visit, in blocks that fit
// the L1 cache, and which lanes each row concerns.
//
// A strip is a few lane tiles in a line, along the slowest axis that has more than one: they see mostly
// the same rows, which are fetched and converted once for all of them.
#pragma once

#include <algorithm>

#include "nearfield/geometry.h"

namespace nearfield::cpu {

inline constexpr int kLanes = 16;     // tokens of a lane tile: one AVX-512 register of floats
inline constexpr int kMaxRows = 64;   // rows of a block
inline constexpr int kMaxTiles = 8;   // lane tiles of a strip
inline constexpr int kLaneGroup = 4;  // lanes that share a register tile when rows are accumulated
inline constexpr int kGroups = kLanes / kLaneGroup;

enum class Side { kQueries, kKeys };

// Rows of a block that follow each other along the fastest axis.
struct RowRun {
  Index token[kMaxRank];     // the first, in the coordinates of the undilated grid
  int start = 0, count = 0;  // rows [start, start + count) of the block
};

struct RowBlock {
  int rows = 0, runs = 0;
  RowRun run[kMaxRows];
};

// What a lane tile sees of a block: pieces of its runs.
template <class T>
struct Segment {
  int start = 0, count = 0;                      // rows [start, start + count) of the block
  int run = 0;                                   // the block's run that they belong to
  bool full = false;                             // every lane sees every row: no mask
  T begin[kLanes], end[kLanes];                  // else lane l sees rows start + [begin, end)
  int group_begin[kGroups], group_end[kGroups];  // the span of these over each group of lanes
};

template <class T>
struct Sight {
  int segments = 0;
  Segment<T> segment[kMaxRows];

  int first_row() const { return segment[0].start; }
  int end_row() const { return segment[segments - 1].start + segment[segments - 1].count; }
};

struct LaneTile {
  int count = 0;
  Index coord[kLanes][kMaxRank];    // of each lane, in its undilated grid
  Interval sees[kMaxRank][kLanes];  // rows that each lane sees, per axis
  Box hull;                         // of all of them

  // box: not empty, at most kLanes tokens.
  LaneTile(const Grid& grid, const Box& box, Side lanes_are) {
    Interval of_axis[kMaxRank][kLanes];
    for (int a = 0; a < kMaxRank; ++a) {
      const Axis& axis = grid.axis[a];
      const Interval run = box.axis[a];
      for (Index i = run.begin; i < run.end; ++i)
        of_axis[a][i - run.begin] = lanes_are == Side::kQueries ? visible(axis, i) : seen_by(axis, i);
      hull.axis[a] = {of_axis[a][0].begin, of_axis[a][run.size() - 1].end};
    }
    for (Index t = 0; t < box.axis[0].size(); ++t)
      for (Index y = 0; y < box.axis[1].size(); ++y)
        for (Index x = 0; x < box.axis[2].size(); ++x, ++count) {
          const Index at[kMaxRank] = {t, y, x};
          for (int a = 0; a < kMaxRank; ++a) {
            coord[count][a] = box.axis[a].begin + at[a];
            sees[a][count] = of_axis[a][at[a]];
          }
        }
  }

  // False if no lane sees any row of the block.
  template <class T>
  bool look(const RowBlock& block, Sight<T>& sight) const {
    sight.segments = 0;
    for (int i = 0; i < block.runs; ++i) look(block.run[i], i, sight);
    return sight.segments > 0;
  }

 private:
  template <class T>
  void look(const RowRun& run, int number, Sight<T>& sight) const {
    const Interval here{run.token[2], run.token[2] + run.count};
    if (!hull.axis[0].contains(run.token[0]) || !hull.axis[1].contains(run.token[1]) ||
        intersect(hull.axis[2], here).empty())
      return;
    bool active[kLanes], everyone = true;
    Interval some{here.end, here.begin}, all = here;  // rows that some lane sees, and that all see
    for (int l = 0; l < count; ++l) {
      const Interval x = intersect(sees[2][l], here);
      active[l] = sees[0][l].contains(run.token[0]) && sees[1][l].contains(run.token[1]) && !x.empty();
      everyone = everyone && active[l];
      if (!active[l]) continue;
      some = {min_of(some.begin, x.begin), max_of(some.end, x.end)};
      all = intersect(all, x);
    }
    if (some.empty()) return;
    Segment<T>& s = sight.segment[sight.segments++];
    s.start = run.start + static_cast<int>(some.begin - here.begin);
    s.run = number;
    s.count = static_cast<int>(some.size());
    s.full = everyone && all.contains(some);
    if (s.full) {
      std::fill(s.group_begin, s.group_begin + kGroups, 0);
      std::fill(s.group_end, s.group_end + kGroups, s.count);
      return;
    }
    for (int g = 0; g < kGroups; ++g) s.group_begin[g] = s.count, s.group_end[g] = 0;
    for (int l = 0; l < kLanes; ++l) {
      const bool sees_it = l < count && active[l];
      const int begin = sees_it ? static_cast<int>(clamp(sees[2][l].begin - some.begin, 0, s.count)) : 0;
      const int end = sees_it ? static_cast<int>(clamp(sees[2][l].end - some.begin, 0, s.count)) : 0;
      s.begin[l] = static_cast<T>(begin);
      s.end[l] = static_cast<T>(end);
      if (begin >= end) continue;
      int& first = s.group_begin[l / kLaneGroup];
      int& last = s.group_end[l / kLaneGroup];
      first = std::min(first, begin);
      last = std::max(last, end);
    }
  }
};

// Every lane sees every row: additional keys.
template <class T>
void see_everything(const RowBlock& block, Sight<T>& sight) {
  sight.segments = 1;
  Segment<T>& s = sight.segment[0];
  s.start = s.run = 0;
  s.count = block.rows;
  s.full = true;
  std::fill(s.group_begin, s.group_begin + kGroups, 0);
  std::fill(s.group_end, s.group_end + kGroups, s.count);
}

// Walks through a box of rows, block by block, in raster order.
class RowBlocks {
 public:
  // align: a run's first row is its coordinate along the last axis, modulo this.
  RowBlocks(const Box& rows, int rows_per_block, int align = 1)
      : box_(rows), capacity_(rows_per_block), align_(align) {
    for (int a = 0; a < kMaxRank; ++a) at_[a] = rows.axis[a].begin;
    if (rows.empty()) at_[0] = rows.axis[0].end;
  }

  // False when there are no more rows.
  bool next(RowBlock& block) {
    block.rows = block.runs = 0;
    while (at_[0] < box_.axis[0].end) {
      block.rows = (block.rows + align_ - 1) / align_ * align_ + static_cast<int>(at_[2] % align_);
      if (block.rows >= capacity_) break;
      RowRun& run = block.run[block.runs++];
      std::copy(at_, at_ + kMaxRank, run.token);
      run.start = block.rows;
      run.count = static_cast<int>(min_of(capacity_ - block.rows, box_.axis[2].end - at_[2]));
      block.rows += run.count;
      at_[2] += run.count;
      for (int a = 2; a > 0 && at_[a] >= box_.axis[a].end; --a) {
        at_[a] = box_.axis[a].begin;
        ++at_[a - 1];
      }
    }
    return block.rows > 0;
  }

 private:
  Box box_;
  int capacity_, align_;
  Index at_[kMaxRank];
};

// The box that spans two.
inline Box span(const Box& a, const Box& b) {
  if (a.empty() || b.empty()) return a.empty() ? b : a;
  Box s;
  for (int i = 0; i < kMaxRank; ++i)
    s.axis[i] = {min_of(a.axis[i].begin, b.axis[i].begin), max_of(a.axis[i].end, b.axis[i].end)};
  return s;
}

}  // namespace nearfield::cpu
