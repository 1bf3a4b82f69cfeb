// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Small axes of every kind for the laws of the geometry, beside the oracle that they are compared with.
#pragma once

#include <functional>
#include <string>

#include "axis_oracle.h"
#include "nearfield/geometry.h"

namespace nearfield {

inline Rule rule_of(oracle::Kind kind) {
  switch (kind) {
    case oracle::Kind::kDense: return Rule::kDense;
    case oracle::Kind::kTopLeft: return Rule::kTopLeft;
    case oracle::Kind::kBottomRight: return Rule::kBottomRight;
    case oracle::Kind::kWindow: return Rule::kWindow;
    case oracle::Kind::kWindowCausal: return Rule::kWindowCausal;
  }
  return Rule::kDense;
}

inline Axis axis_of(const oracle::Axis& o) { return {rule_of(o.kind), o.lq, o.lk, o.k, o.s, o.d}; }

inline std::string name(const oracle::Axis& o) {
  static const char* const kKinds[] = {"dense", "tl", "br", "window", "causal"};
  return std::string(kKinds[static_cast<int>(o.kind)]) + " lq" + std::to_string(o.lq) + " lk" +
         std::to_string(o.lk) + " k" + std::to_string(o.k) + " s" + std::to_string(o.s) + " d" +
         std::to_string(o.d);
}

inline constexpr oracle::Kind kWindows[] = {oracle::Kind::kWindow, oracle::Kind::kWindowCausal};
inline constexpr oracle::Kind kDenses[] = {oracle::Kind::kDense, oracle::Kind::kTopLeft,
                                           oracle::Kind::kBottomRight};

// Windows of every size and stride on extents below `limit`, undilated.
inline void for_windows(Index limit, const std::function<void(const oracle::Axis&)>& fn) {
  for (oracle::Kind kind : kWindows)
    for (Index extent = 1; extent < limit; ++extent)
      for (Index k = 1; k <= extent; ++k)
        for (Index s = 1; s <= k; ++s) fn({kind, extent, extent, k, s, 1});
}

// The same with every dilation that leaves room for the window, 1 included.
inline void for_dilated_windows(Index limit, const std::function<void(const oracle::Axis&)>& fn) {
  for (oracle::Kind kind : kWindows)
    for (Index extent = 1; extent < limit; ++extent)
      for (Index d = 1; d <= extent; ++d)
        for (Index k = 1; k * d <= extent; ++k)
          for (Index s = 1; s <= k; ++s) fn({kind, extent, extent, k, s, d});
}

// Every kind of undilated axis: windows on one layout and on two, dense of all lengths.
inline void for_axes(Index limit, const std::function<void(const oracle::Axis&)>& fn) {
  for_windows(limit, fn);
  for (oracle::Kind kind : kDenses)
    for (Index lq = 0; lq < limit; ++lq)
      for (Index lk = 0; lk < limit; ++lk) fn({kind, lq, lk, 1, 1, 1});
}

inline void for_runs(Index extent, const std::function<void(Interval)>& fn) {
  for (Index begin = 0; begin < extent; ++begin)
    for (Index end = begin + 1; end <= extent; ++end) fn({begin, end});
}

// The span and the intersection of sets of tokens, by counting.
struct Count {
  Interval span, all;
};
inline Count count(Interval run, Index others, const std::function<bool(Index, Index)>& sees) {
  Count c{{0, 0}, {0, 0}};
  for (Index j = 0; j < others; ++j) {
    Index n = 0;
    for (Index i = run.begin; i < run.end; ++i) n += sees(i, j);
    if (n > 0) c.span = {c.span.empty() ? j : c.span.begin, j + 1};
    if (n == run.size()) c.all = {c.all.empty() ? j : c.all.begin, j + 1};
  }
  return c;
}

}  // namespace nearfield
