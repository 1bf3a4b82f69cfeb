// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "problem_family.h"

#include <algorithm>
#include <sstream>

namespace nearfield::testing {
namespace {

constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat64, DType::kBFloat16, DType::kFloat16};

Problem with_heads(Rng& rng, Index most) {
  Problem p;
  p.direction = rng.pick({Direction::kForward, Direction::kBackward});
  p.dtype = kDTypes[rng.in(0, 3)];
  p.kv_heads = rng.in(1, 3);
  p.heads = p.kv_heads * rng.in(1, 3);
  p.head_dim = rng.in(1, most);
  p.value_dim = rng.chance(50) ? p.head_dim : rng.in(1, most);
  p.lse = rng.chance(50);
  return p;
}

Layout random_layout(Rng& rng, int rank, Index most) {
  Layout layout;
  for (std::size_t a = 0; a < static_cast<std::size_t>(rank); ++a) {
    layout.extent[a] = rng.in(1, most);
    layout.query_extent[a] = layout.extent[a];
    layout.dilation[a] = rng.chance(70) ? 1 : rng.in(1, std::min<Index>(layout.extent[a], 4));
    layout.window[a] = rng.in(1, layout.extent[a] / layout.dilation[a]);
    layout.stride[a] = rng.chance(60) ? 1 : rng.in(1, layout.window[a]);
    layout.causal[a] = rng.chance(30);
  }
  return layout;
}

Layout random_lengths(Rng& rng, Index most) {
  Layout layout;
  layout.query_extent[0] = rng.in(0, most);
  layout.extent[0] = rng.chance(40) ? layout.query_extent[0] : rng.in(0, most);
  return layout;
}

Box random_range(Rng& rng, const std::array<Index, kMaxRank>& extent, int rank) {
  Box box;
  for (int a = 0; a < rank; ++a) {
    const Index begin = rng.in(0, extent[static_cast<std::size_t>(a)]);
    box.axis[a] = {begin, rng.in(begin, extent[static_cast<std::size_t>(a)])};
  }
  return box;
}

// Strides of a tensor stored with its axes in some order and gaps between them. `broadcast` lets an
// axis have stride 0.
std::vector<Index> random_strides(Rng& rng, const std::vector<Index>& shape, bool broadcast) {
  std::vector<std::size_t> order(shape.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  if (rng.chance(50))
    for (std::size_t i = order.size() - 1; i > 0; --i)
      std::swap(order[i], order[static_cast<std::size_t>(rng.in(0, static_cast<Index>(i)))]);
  std::vector<Index> stride(shape.size());
  Index step = rng.chance(30) ? 2 : 1;
  for (std::size_t i = order.size(); i-- > 0;) {
    stride[order[i]] = step;
    step = step * std::max<Index>(shape[order[i]], 1) + (rng.chance(30) ? rng.in(1, 5) : 0);
  }
  if (broadcast && rng.chance(30))
    stride[static_cast<std::size_t>(rng.in(0, static_cast<Index>(stride.size()) - 1))] = 0;
  return stride;
}

void add_strides(Rng& rng, Problem& p) {
  for (int r = 0; r < kRoles; ++r) {
    const Role role = static_cast<Role>(r);
    const std::vector<Index> shape = shape_of(p, role);
    if (shape.empty() || !rng.chance(30) ||
        (role == Role::kLse && !p.lse && p.direction == Direction::kForward))
      continue;
    // What one of the two directions writes has memory of its own.
    const bool written = role == Role::kOut || role == Role::kLse || role >= Role::kGradQuery;
    p.strides[static_cast<std::size_t>(r)] = random_strides(rng, shape, !written);
  }
}

// Queries on a layout of their own, finer or coarser than the keys'; dilated axes keep theirs.
void add_query_layout(Rng& rng, Problem& p, Index most) {
  p.query_layout = true;
  Layout& layout = p.layouts[0];
  for (std::size_t a = 0; a < static_cast<std::size_t>(p.rank); ++a)
    if (layout.dilation[a] == 1) layout.query_extent[a] = rng.in(1, most);
}

std::vector<Layout> varlen_list(Rng& rng, const Problem& p, Index most) {
  std::vector<Layout> list;
  for (Index n = rng.in(0, 4); n > 0; --n)
    list.push_back(p.operation == Operation::kAttention ? random_lengths(rng, most)
                                                        : random_layout(rng, p.rank, most));
  return list;
}

}  // namespace

Problem random_problem(Rng& rng) {
  Problem p = with_heads(rng, 300);
  const Index most = rng.pick<Index>({3, 12, 100, 3000});
  if (rng.chance(40)) {
    p.operation = Operation::kAttention;
    p.causal_type = rng.pick({CausalType::kNone, CausalType::kTopLeft, CausalType::kBottomRight});
  } else {
    p.rank = static_cast<int>(rng.in(1, 3));
  }
  const bool attention = p.operation == Operation::kAttention;
  p.varlen = rng.chance(30);
  if (p.varlen && attention && rng.chance(30)) {
    p.offsets =
        DeviceOffsets{rng.in(0, 99), rng.in(0, 9999), rng.in(0, 9999), rng.in(0, 999), rng.in(0, 999)};
  } else if (p.varlen) {
    p.layouts = varlen_list(rng, p, most);
    if (rng.chance(30)) p.tail_query = rng.in(0, 9), p.tail_key = rng.in(0, 9);
  } else {
    p.batch = rng.in(0, 5);
    p.layouts = {attention ? random_lengths(rng, most) : random_layout(rng, p.rank, most)};
    Layout& layout = p.layouts[0];
    if (!attention && rng.chance(20)) add_query_layout(rng, p, most);
    if (rng.chance(30)) p.additional = rng.in(1, 50);
    if (rng.chance(30)) p.query_range = random_range(rng, layout.query_extent, p.rank);
    if (rng.chance(30)) p.key_range = random_range(rng, layout.extent, p.rank);
  }
  if (rng.chance(20)) p.dropout = rng.pick({0.1, 0.5, 1.0 / 3.0, 1e-300, 0.9999999999999999});
  p.bias = !attention && !p.query_layout && !p.varlen && rng.chance(20);
  p.nondeterministic = rng.chance(20);
  if (rng.chance(30)) p.scale = rng.pick({0.0, 1.0, -2.5, 1e-30, 0.1, 1.0 / 3.0, 6.02e23, 5e-324});
  p.precision = rng.pick({Precision::kFull, Precision::kFull, Precision::kTF32, Precision::kBF16});
  if (rng.chance(30)) add_strides(rng, p);
  return p;
}

Problem random_runnable_problem(Rng& rng) {
  Problem p = with_heads(rng, 12);
  p.direction = Direction::kForward;  // the harness runs both
  p.dtype = rng.pick({DType::kFloat32, DType::kFloat32, DType::kFloat32, DType::kFloat64, DType::kBFloat16,
                      DType::kFloat16});
  p.head_dim = rng.pick<Index>({1, 3, 8, 16, 17, 20, 32, 33, 64, rng.in(1, 80)});
  p.value_dim = rng.chance(60) ? p.head_dim : rng.pick<Index>({1, 4, 8, 24, 40, rng.in(1, 80)});
  p.kv_heads = rng.pick<Index>({1, 1, 2, 3});
  p.heads = p.kv_heads * rng.pick<Index>({1, 1, 2, 3});
  if (rng.chance(30)) {
    p.operation = Operation::kAttention;
    p.causal_type = rng.pick({CausalType::kNone, CausalType::kTopLeft, CausalType::kBottomRight});
  } else {
    p.rank = static_cast<int>(rng.in(1, 3));
  }
  const bool attention = p.operation == Operation::kAttention;
  const Index most = p.rank == 1 ? rng.pick<Index>({9, 40, 150}) : p.rank == 2 ? rng.pick<Index>({7, 16}) : 7;
  p.varlen = rng.chance(25);
  if (p.varlen) {
    p.layouts = varlen_list(rng, p, std::max<Index>(most / 2, 3));
    if (rng.chance(30)) p.tail_query = rng.in(0, 9), p.tail_key = rng.in(0, 9);
  } else {
    p.batch = rng.pick<Index>({0, 1, 1, 1, 1, 2, 2, 3});
    p.layouts = {attention ? random_lengths(rng, most) : random_layout(rng, p.rank, most)};
    if (!attention && rng.chance(25)) add_query_layout(rng, p, most);
    if (rng.chance(25)) p.additional = rng.in(1, 20);
    if (rng.chance(25)) p.query_range = random_range(rng, p.layouts[0].query_extent, p.rank);
    if (rng.chance(25)) p.key_range = random_range(rng, p.layouts[0].extent, p.rank);
  }
  if (rng.chance(15)) p.scale = rng.pick({0.0, 1.0, -0.3, 0.05});
  if (rng.chance(20)) p.dropout = rng.pick({0.1, 0.5, 1.0 / 3.0, 0.9});
  p.bias = !attention && !p.query_layout && !p.varlen && rng.chance(25);
  if (rng.chance(30)) {
    p.direction = rng.pick({Direction::kForward, Direction::kBackward});  // whose tensors have strides
    add_strides(rng, p);
  }
  if (rng.chance(20)) p.precision = Precision::kBF16;
  return p;
}

// -------------------------------------------------------------------------------------------------
namespace {

using Axes = std::array<Index, kMaxRank>;

std::string axes_text(const Axes& values, int rank) {
  std::ostringstream text;
  for (int a = 0; a < rank; ++a) text << (a ? "x" : "") << values[static_cast<std::size_t>(a)];
  return text.str();
}

template <class Part>
std::string list_text(const Problem& p, Rng& rng, const Part& part) {
  if (p.layouts.empty()) return part(Layout{});
  bool alike = true;
  for (const Layout& l : p.layouts) alike &= part(l) == part(p.layouts[0]);
  if (alike && (p.layouts.size() == 1 || rng.chance(50))) return part(p.layouts[0]);
  std::string text;
  for (std::size_t i = 0; i < p.layouts.size(); ++i) text += (i ? "+" : "") + part(p.layouts[i]);
  return text;
}

std::string range_text(const Box& box, int rank) {
  std::ostringstream text;
  for (int a = 0; a < rank; ++a) text << (a ? "x" : "") << box.axis[a].begin << "-" << box.axis[a].end;
  return text.str();
}

std::string float_text(double x) {
  char text[40];
  std::snprintf(text, sizeof text, "%.17g", x);  // longer than the shortest form, the same number
  return text;
}

}  // namespace

std::string spell(const Problem& p, Rng& rng) {
  const bool attention = p.operation == Operation::kAttention;
  std::ostringstream text;
  text << (attention ? "att:" : "na:") << (p.direction == Direction::kForward ? "fwd:" : "bwd:")
       << name_of(p.dtype) << ":b" << p.batch << "h" << p.heads << "kv" << p.kv_heads << "d" << p.head_dim;
  if (p.value_dim != p.head_dim || rng.chance(10)) text << "v" << p.value_dim;
  text << ":";
  if (p.offsets) {
    text << "var=" << p.offsets->sequences << "," << p.offsets->total_query << "," << p.offsets->total_key
         << "," << p.offsets->max_query << "," << p.offsets->max_key;
  } else {
    for (std::size_t i = 0; i < p.layouts.size(); ++i) {
      const Layout& l = p.layouts[i];
      text << (i ? "+" : "");
      if (attention) text << l.query_extent[0] << "," << l.extent[0];
      else text << axes_text(l.extent, p.rank);
    }
    if (p.varlen && p.layouts.size() < 2) text << "+";
  }
  std::vector<std::string> options;
  const auto add_axes = [&](const char* name, Axes Layout::*member, bool required) {
    bool ones = true;
    for (const Layout& l : p.layouts) ones &= l.*member == Axes{1, 1, 1};
    if (required || !ones || rng.chance(20))
      options.push_back(name +
                        list_text(p, rng, [&](const Layout& l) { return axes_text(l.*member, p.rank); }));
  };
  if (attention) {
    if (p.causal_type != CausalType::kNone || rng.chance(20))
      options.push_back(p.causal_type == CausalType::kNone      ? "c0"
                        : p.causal_type == CausalType::kTopLeft ? "ctl"
                                                                : "cbr");
  } else {
    text << ":k" << list_text(p, rng, [&](const Layout& l) { return axes_text(l.window, p.rank); });
    add_axes("s", &Layout::stride, false);
    add_axes("d", &Layout::dilation, false);
    bool causal = rng.chance(20);
    for (const Layout& l : p.layouts) causal |= l.causal[0] || l.causal[1] || l.causal[2];
    if (causal)
      options.push_back("c" + list_text(p, rng, [&](const Layout& l) {
                          std::string digits;
                          for (std::size_t a = 0; a < static_cast<std::size_t>(p.rank); ++a)
                            digits += l.causal[a] ? '1' : '0';
                          return digits;
                        }));
    if (p.query_layout) add_axes("qgrid=", &Layout::query_extent, true);
  }
  if (p.additional || rng.chance(5)) options.push_back("add=" + std::to_string(p.additional));
  if (p.query_range) options.push_back("q=" + range_text(*p.query_range, p.rank));
  if (p.key_range) options.push_back("kv=" + range_text(*p.key_range, p.rank));
  if (p.tail_query || p.tail_key)
    options.push_back("tail=" + std::to_string(p.tail_query) + "," + std::to_string(p.tail_key));
  if (p.dropout != 0) options.push_back("drop=" + float_text(p.dropout));
  if (p.bias) options.push_back("bias");
  if (p.lse) options.push_back("lse");
  if (p.nondeterministic) options.push_back("nondet");
  if (p.scale) options.push_back("scale=" + float_text(*p.scale));
  if (p.precision != Precision::kFull)
    options.push_back(p.precision == Precision::kTF32 ? "prec=tf32" : "prec=bf16");
  std::string strides;
  for (int r = 0; r < kRoles; ++r) {
    const std::vector<Index>& stride = p.strides[static_cast<std::size_t>(r)];
    if (stride.empty()) continue;
    strides += (strides.empty() ? "str=" : "~") + std::string(name_of(static_cast<Role>(r))) + "~";
    for (std::size_t i = 0; i < stride.size(); ++i) strides += (i ? "," : "") + std::to_string(stride[i]);
  }
  if (!strides.empty()) options.push_back(strides);
  for (std::size_t i = options.size(); i > 1; --i)
    std::swap(options[i - 1], options[static_cast<std::size_t>(rng.in(0, static_cast<Index>(i) - 1))]);
  for (const std::string& option : options) text << ":" << option;
  return text.str();
}

}  // namespace nearfield::testing
