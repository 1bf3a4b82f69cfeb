// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Which keys a query sees on one axis, written down a second time straight from the specification:
// slow, one token pair at a time, sharing nothing with nearfield/geometry.h. Every test that needs to
// know the right answer asks here.
#pragma once

#include <cstdint>
#include <vector>

namespace oracle {

using Int = std::int64_t;

enum class Kind { kDense, kTopLeft, kBottomRight, kWindow, kWindowCausal };

// One axis: lq queries, lk keys, window k, stride s, dilation d.
struct Axis {
  Kind kind = Kind::kDense;
  Int lq = 1, lk = 1, k = 1, s = 1, d = 1;
};

// The place of query q among the keys where the two layouts differ: the key under the query's centre.
inline Int centre(Int q, Int lq, Int lk) { return (2 * q + 1) * lk / (2 * lq); }

// First key of a window of k keys, as near to the wish as the axis allows: pushed inwards step by step.
inline Int shift_inwards(Int wish, Int k, Int extent) {
  while (wish < 0) ++wish;
  while (wish > 0 && wish + k > extent) --wish;
  return wish;
}

// An undilated axis of `extent` keys, query at place c.
inline bool window_sees(const Axis& a, Int extent, Int c, Int key) {
  const Int group_start = c - c % a.s;  // the queries of a stride group share one leader
  if (a.kind == Kind::kWindow) {
    Int leader = group_start + a.s / 2;
    if (leader > extent - 1) leader = extent - 1;
    const Int begin = shift_inwards(leader - a.k / 2, a.k, extent);
    return begin <= key && key < begin + a.k;
  }
  Int leader = group_start + a.s - 1;
  if (leader > extent - 1) leader = extent - 1;
  return key <= c && leader - key < a.k;  // causal: cut at both ends, never shifted
}

inline bool sees(const Axis& a, Int q, Int key) {
  switch (a.kind) {
    case Kind::kDense: return true;
    case Kind::kTopLeft: return key <= q;
    case Kind::kBottomRight: return key - a.lk <= q - a.lq;  // the last query sees the last key
    default: break;
  }
  if (a.d == 1) return window_sees(a, a.lk, centre(q, a.lq, a.lk), key);
  if (q % a.d != key % a.d) return false;
  Int extent = 0;  // tokens of this residue class
  for (Int t = q % a.d; t < a.lk; t += a.d) ++extent;
  return window_sees(a, extent, q / a.d, key / a.d);
}

// All keys of the axis that q sees, ascending.
inline std::vector<Int> keys_of(const Axis& a, Int q) {
  std::vector<Int> keys;
  for (Int j = 0; j < a.lk; ++j)
    if (sees(a, q, j)) keys.push_back(j);
  return keys;
}

}  // namespace oracle
