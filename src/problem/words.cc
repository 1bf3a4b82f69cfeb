// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// CallWords -> Request.
#include <array>

#include "nearfield/request.h"
#include "problem/message.h"

namespace nearfield {
namespace {

constexpr std::array<std::string_view, 7> kFunctions = {"na1d",
                                                        "na2d",
                                                        "na3d",
                                                        "attention",
                                                        "multi_dimensional_attention",
                                                        "spatio_temporal_attention",
                                                        "multi_dimensional_attention_varlen"};
constexpr Index kAttention = 3, kMultiDimensionalVarlen = 6;  // from kAttention + 1 on: lenient windows

}  // namespace

std::span<const std::string_view> function_names() { return kFunctions; }

std::string_view function_name(Index function) {
  if (function < 0 || function >= static_cast<Index>(kFunctions.size()))
    refuse("nearfield", "function number " + std::to_string(function),
           "0 to " + std::to_string(kFunctions.size() - 1));
  return kFunctions[static_cast<std::size_t>(function)];
}

void decode(const CallWords& w, Request& r) {
  r.op = function_name(w.function);
  r.operation = w.function == kAttention ? Operation::kAttention : Operation::kNeighborhood;
  const bool attention = r.operation == Operation::kAttention;
  const std::size_t rank = attention ? 1 : w.axes.size() / 4;
  if (rank < 1 || rank > kMaxRank || (attention ? !w.axes.empty() : w.axes.size() != 4 * rank))
    refuse(r.op, std::to_string(w.axes.size()) + " window numbers",
           attention ? "none" : "four per axis, for one to three axes");
  if (w.function < kAttention && rank != static_cast<std::size_t>(w.function) + 1)
    refuse(r.op, "window parameters for " + std::to_string(rank) + " axes", std::to_string(w.function + 1));
  r.rank = static_cast<int>(rank);
  for (std::size_t a = 0; !attention && a < rank; ++a) {
    r.window.push_back(w.axes[4 * a]);
    r.stride.push_back(w.axes[4 * a + 1]);
    r.dilation.push_back(w.axes[4 * a + 2]);
    r.causal.push_back(w.axes[4 * a + 3]);
  }
  if (w.causal_type < 0 || w.causal_type > static_cast<Index>(CausalType::kDontCare))
    refuse(r.op, "causal type number " + std::to_string(w.causal_type), "0 to 3");
  r.causal_type = static_cast<CausalType>(w.causal_type);
  if (w.flags < 0 || w.flags > 7) refuse(r.op, "flags " + std::to_string(w.flags), "0 to 7");
  r.nondeterministic = (w.flags & 1) != 0;
  r.precision = (w.flags & 4) ? Precision::kBF16 : (w.flags & 2) ? Precision::kTF32 : Precision::kFull;

  if (!w.ranges.empty()) {
    const std::size_t each = w.ranges.size() == 4 * rank ? 4 : 3;
    if (w.ranges.size() != each * rank)
      refuse(r.op, std::to_string(w.ranges.size()) + " range numbers", "three or four per axis");
    for (std::size_t a = 0; a < rank; ++a) {
      r.global_extent.push_back(w.ranges[each * a]);
      r.query_begin.push_back(w.ranges[each * a + 1]);
      r.key_begin.push_back(w.ranges[each * a + 2]);
      if (each == 4) r.global_query_extent.push_back(w.ranges[each * a + 3]);
    }
  }
  r.lenient_windows = w.function > kAttention;
  if (attention) {
    if (!w.grids.empty() && w.grids.size() != 2)
      refuse(r.op, std::to_string(w.grids.size()) + " numbers for lengths", "none, or max_seqlen_Q and _KV");
    if (!w.grids.empty()) r.max_query = w.grids[0], r.max_key = w.grids[1];
    return;
  }
  r.varlen = w.function == kMultiDimensionalVarlen;
  if (!r.varlen && !w.grids.empty())
    refuse(r.op, "token layouts of packed sequences", "none",
           "multi_dimensional_attention_varlen takes them");
  if (w.grids.size() % (5 * rank) != 0)
    refuse(r.op, std::to_string(w.grids.size()) + " numbers for token layouts", "five per axis and sequence");
  for (std::size_t at = 0; at < w.grids.size(); at += 5 * rank) {
    Layout layout;
    for (std::size_t a = 0; a < rank; ++a) {
      layout.extent[a] = layout.query_extent[a] = w.grids[at + a];
      layout.window[a] = w.grids[at + rank + a];
      layout.stride[a] = w.grids[at + 2 * rank + a];
      layout.dilation[a] = w.grids[at + 3 * rank + a];
      layout.causal[a] = w.grids[at + 4 * rank + a] != 0;
    }
    r.layouts.push_back(layout);
  }
}

}  // namespace nearfield
