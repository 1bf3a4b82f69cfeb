// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Half-open intervals of tokens and boxes of them, for host and CUDA device, constexpr.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define NF_HD __host__ __device__
#else
#define NF_HD
#endif

namespace nearfield {

using Index = std::int64_t;

inline constexpr Index kMaxExtent = (Index{1} << 31) - 1;  // of one axis
inline constexpr int kMaxRank = 3;

NF_HD constexpr Index min_of(Index a, Index b) { return a < b ? a : b; }
NF_HD constexpr Index max_of(Index a, Index b) { return a < b ? b : a; }
NF_HD constexpr Index clamp(Index x, Index low, Index high) { return min_of(max_of(x, low), high); }
NF_HD constexpr Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

// Half-open: begin is in it, end is not. Empty when end <= begin.
struct Interval {
  Index begin = 0, end = 0;

  NF_HD constexpr Index size() const { return end > begin ? end - begin : 0; }
  NF_HD constexpr bool empty() const { return end <= begin; }
  NF_HD constexpr bool contains(Index i) const { return begin <= i && i < end; }
  NF_HD constexpr bool contains(Interval o) const { return o.empty() || (begin <= o.begin && o.end <= end); }
  friend NF_HD constexpr bool operator==(Interval a, Interval b) {
    return (a.empty() && b.empty()) || (a.begin == b.begin && a.end == b.end);
  }
};

NF_HD constexpr Interval intersect(Interval a, Interval b) {
  return {max_of(a.begin, b.begin), min_of(a.end, b.end)};
}

// One interval per axis, slowest axis first. A box of a lower rank has leading intervals {0, 1}.
struct Box {
  Interval axis[kMaxRank] = {{0, 1}, {0, 1}, {0, 1}};

  NF_HD constexpr Index volume() const { return axis[0].size() * axis[1].size() * axis[2].size(); }
  NF_HD constexpr bool empty() const { return axis[0].empty() || axis[1].empty() || axis[2].empty(); }
  NF_HD constexpr bool contains(const Box& o) const {
    return o.empty() ||
           (axis[0].contains(o.axis[0]) && axis[1].contains(o.axis[1]) && axis[2].contains(o.axis[2]));
  }
  friend NF_HD constexpr bool operator==(const Box& a, const Box& b) {
    return a.axis[0] == b.axis[0] && a.axis[1] == b.axis[1] && a.axis[2] == b.axis[2];
  }
};

}  // namespace nearfield
