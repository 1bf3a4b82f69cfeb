// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Problem -> canonical string (grammar: problem.h).
#include <charconv>

#include "nearfield/problem.h"
#include "problem/message.h"

namespace nearfield {
namespace {

using std::to_string;

std::string shortest(double x) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, x).ptr;
  return {text, end};
}

// Joins `part(layout)` of all layouts by `+`, or says it once where all are alike.
template <class Part>
std::string per_layout(const Problem& p, const Part& part) {
  std::string text;
  bool alike = true;
  for (const Layout& layout : p.layouts) alike = alike && part(layout) == part(p.layouts[0]);
  if (alike) return p.layouts.empty() ? part(Layout{}) : part(p.layouts[0]);
  for (std::size_t i = 0; i < p.layouts.size(); ++i) text += (i ? "+" : "") + part(p.layouts[i]);
  return text;
}

std::string grids_text(const Problem& p) {
  if (p.offsets)
    return "var=" + to_string(p.offsets->sequences) + "," + to_string(p.offsets->total_query) + "," +
           to_string(p.offsets->total_key) + "," + to_string(p.offsets->max_query) + "," +
           to_string(p.offsets->max_key);
  std::string text;
  for (std::size_t i = 0; i < p.layouts.size(); ++i) {
    const Layout& layout = p.layouts[i];
    if (i) text += "+";
    text += p.operation == Operation::kAttention
                ? to_string(layout.query_extent[0]) + "," + to_string(layout.extent[0])
                : joined(layout.extent, static_cast<std::size_t>(p.rank), "x");
  }
  if (p.varlen && p.layouts.size() < 2) text += "+";  // a list of one or none
  return text;
}

std::string range_text(const Problem& p, const Box& box) {
  std::string text;
  for (int a = 0; a < p.rank; ++a)
    text += (a ? "x" : "") + to_string(box.axis[a].begin) + "-" + to_string(box.axis[a].end);
  return text;
}

void print_window(const Problem& p, std::string& text) {
  const auto axes = [&p](const std::array<Index, kMaxRank>& values) {
    return joined(values, static_cast<std::size_t>(p.rank), "x");
  };
  const std::string ones = axes({1, 1, 1});
  text += ":k" + per_layout(p, [&](const Layout& l) { return axes(l.window); });
  const std::string stride = per_layout(p, [&](const Layout& l) { return axes(l.stride); });
  if (stride != ones) text += ":s" + stride;
  const std::string dilation = per_layout(p, [&](const Layout& l) { return axes(l.dilation); });
  if (dilation != ones) text += ":d" + dilation;
  const std::string causal =
      per_layout(p, [&](const Layout& l) { return joined(l.causal, static_cast<std::size_t>(p.rank), ""); });
  if (causal.find('1') != std::string::npos) text += ":c" + causal;
  if (p.query_layout)
    text += ":qgrid=" + per_layout(p, [&](const Layout& l) { return axes(l.query_extent); });
}

}  // namespace

std::string to_string(const Problem& p) {
  std::string text = p.operation == Operation::kAttention ? "att:" : "na:";
  text += p.direction == Direction::kForward ? "fwd:" : "bwd:";
  text += name_of(p.dtype);
  text += ":b" + to_string(p.batch) + "h" + to_string(p.heads) + "kv" + to_string(p.kv_heads) + "d" +
          to_string(p.head_dim);
  if (p.value_dim != p.head_dim) text += "v" + to_string(p.value_dim);
  text += ":" + grids_text(p);
  if (p.operation == Operation::kNeighborhood) print_window(p, text);
  if (p.causal_type == CausalType::kTopLeft) text += ":ctl";
  if (p.causal_type == CausalType::kBottomRight) text += ":cbr";
  if (p.additional) text += ":add=" + to_string(p.additional);
  if (p.query_range) text += ":q=" + range_text(p, *p.query_range);
  if (p.key_range) text += ":kv=" + range_text(p, *p.key_range);
  if (p.tail_query || p.tail_key) text += ":tail=" + to_string(p.tail_query) + "," + to_string(p.tail_key);
  if (p.dropout != 0.0) text += ":drop=" + shortest(p.dropout);
  if (p.bias) text += ":bias";
  if (p.lse) text += ":lse";
  if (p.nondeterministic) text += ":nondet";
  if (p.scale) text += ":scale=" + shortest(*p.scale);
  if (p.precision != Precision::kFull) text += p.precision == Precision::kTF32 ? ":prec=tf32" : ":prec=bf16";
  bool first = true;
  for (int r = 0; r < kRoles; ++r) {
    const std::vector<Index>& stride = p.strides[static_cast<std::size_t>(r)];
    if (stride.empty()) continue;
    text += (first ? ":str=" : "~") + std::string(name_of(static_cast<Role>(r))) + "~" +
            joined(stride, stride.size(), ",");
    first = false;
  }
  return text;
}

}  // namespace nearfield
