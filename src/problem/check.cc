// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The rules of a Problem (semantics, section 6). Each is stated once, here.
#include <cmath>
#include <cstdio>

#include "nearfield/problem.h"
#include "problem/message.h"

namespace nearfield {
namespace {

using std::to_string;

std::string number(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", x);
  return text;
}

void check_count(std::string_view op, const char* what, Index n, Index least) {
  if (n < least || n > kMaxExtent)
    refuse(op, std::string(what) + " " + to_string(n),
           std::string(what) + " from " + to_string(least) + " to " + to_string(kMaxExtent));
}

std::string axis_name(const Problem& p, int a, Index sequence) {
  std::string name = "axis " + to_string(a);
  if (p.varlen) name += " of sequence " + to_string(sequence);
  return name;
}

void check_window(const Problem& p, std::string_view op, const Layout& layout, int a, Index sequence) {
  const Index extent = layout.extent[a], window = layout.window[a], stride = layout.stride[a],
              dilation = layout.dilation[a];
  const std::string on = " on " + axis_name(p, a, sequence);
  const bool by_size = op.starts_with("multi_") || op.starts_with("spatio_");  // the word of that function
  const std::string kernel_size = by_size ? "window_size" : "kernel_size";
  if (dilation < 1) refuse(op, "dilation " + to_string(dilation) + on, "dilation >= 1");
  if (window < 1)
    refuse(op, kernel_size + " " + to_string(window) + on, kernel_size + " >= 1",
           "the largest legal " + kernel_size + " there is " + to_string(extent / dilation) +
               (window == -1 && !by_size ? "; multi_dimensional_attention takes -1 for the whole axis" : ""));
  if (window > extent || dilation > extent || window * dilation > extent) {
    const Index largest = extent / dilation;
    refuse(op, kernel_size + " " + to_string(window) + " with dilation " + to_string(dilation) + on,
           kernel_size + " * dilation <= " + to_string(extent) + ", the extent of that axis",
           largest >= 1  ? "the largest legal " + kernel_size + " there is " + to_string(largest)
           : extent >= 1 ? "the largest legal dilation there is " + to_string(extent)
                         : "there are no tokens on that axis");
  }
  if (stride < 1 || stride > window)
    refuse(op, "stride " + to_string(stride) + on,
           "1 <= stride <= " + kernel_size + " = " + to_string(window),
           "the largest legal stride there is " + to_string(window));
}

// Adds the tokens of layout i to `total`.
void check_layout(const Problem& p, std::string_view op, Index i, double& total) {
  const Layout& layout = p.layouts[static_cast<std::size_t>(i)];
  const bool attention = p.operation == Operation::kAttention;
  bool no_tokens = false;
  double tokens = 1;
  for (int a = 0; a < p.rank; ++a) {
    tokens *= static_cast<double>(max_of(layout.extent[a], layout.query_extent[a]));
    for (const Index extent : {layout.extent[a], layout.query_extent[a]})
      if (extent < 0 || extent > kMaxExtent)
        refuse(op, "extent " + to_string(extent) + " on " + axis_name(p, a, i),
               "extents from 0 to " + to_string(kMaxExtent));
    no_tokens = no_tokens || layout.extent[a] == 0;
  }
  total += tokens;
  if (total > 0x1p48) refuse(op, "layouts of " + number(total) + " tokens", "at most 2**48");
  if (attention) return;
  for (int a = 0; a < p.rank; ++a) {
    if (!p.query_layout && layout.query_extent[a] != layout.extent[a])
      refuse(op,
             to_string(layout.query_extent[a]) + " queries and " + to_string(layout.extent[a]) + " keys on " +
                 axis_name(p, a, i),
             "the same layout for query and key");
    if (p.query_layout && layout.dilation[a] > 1 && layout.query_extent[a] != layout.extent[a])
      refuse(op, "dilation " + to_string(layout.dilation[a]) + " on " + axis_name(p, a, i),
             "dilation 1 where queries and keys have different layouts");
    if (no_tokens && p.varlen) {  // a sequence without tokens: only the form of its window matters
      if (layout.window[a] < 1 || layout.stride[a] < 1 || layout.dilation[a] < 1 ||
          layout.stride[a] > layout.window[a])
        refuse(op, "window parameters below 1, or a stride above the window, for sequence " + to_string(i),
               "1 <= stride <= kernel_size and dilation >= 1");
    } else {
      check_window(p, op, layout, a, i);
    }
  }
}

void check_range(const Problem& p, std::string_view op, const char* name, const std::optional<Box>& range,
                 bool of_keys) {
  if (!range) return;
  const Layout& layout = p.layouts[0];
  for (int a = 0; a < p.rank; ++a) {
    const Interval r = range->axis[a];
    const Index extent = of_keys ? layout.extent[a] : layout.query_extent[a];
    if (r.begin < 0 || r.end < r.begin || r.end > extent)
      refuse(op,
             std::string(name) + " range " + to_string(r.begin) + "-" + to_string(r.end) + " on axis " +
                 to_string(a),
             "0 <= begin <= end <= " + to_string(extent));
  }
}

void check_sizes(const Problem& p, std::string_view op) {
  for (int r = 0; r < kRoles; ++r) {
    const Role role = static_cast<Role>(r);
    const std::vector<Index> shape = shape_of(p, role);
    Index bytes = size_of(dtype_of(p, role));
    bool empty = false;
    for (const Index n : shape) empty = empty || n == 0;
    for (const Index n : shape)
      if (!empty && __builtin_mul_overflow(bytes, n, &bytes))
        refuse(op, "a tensor `" + std::string(name_of(role)) + "` of shape " + shape_text(shape),
               "fewer than 2**63 bytes");
    const std::vector<Index>& stride = p.strides[static_cast<std::size_t>(r)];
    if (stride.empty()) continue;
    if (stride.size() != shape.size())
      refuse(op, to_string(stride.size()) + " strides for `" + std::string(name_of(role)) + "`",
             to_string(shape.size()) + " strides");
    for (std::size_t i = 0; i < stride.size(); ++i) {
      Index reach = 0;
      if (stride[i] < 0)
        refuse(op, "stride " + to_string(stride[i]) + " of `" + std::string(name_of(role)) + "`",
               "strides >= 0");
      if (__builtin_mul_overflow(stride[i], 8 * max_of(shape[i], 1), &reach) || reach > (Index{1} << 60))
        refuse(op, "stride " + to_string(stride[i]) + " of `" + std::string(name_of(role)) + "`",
               "a tensor within 2**60 bytes");
    }
  }
}

}  // namespace

void check(const Problem& p, std::string_view op) {
  check_count(op, "batch", p.batch, 0);
  check_count(op, "heads", p.heads, 1);
  check_count(op, "key/value heads", p.kv_heads, 1);
  check_count(op, "head_dim", p.head_dim, 1);
  check_count(op, "value head_dim", p.value_dim, 1);
  check_count(op, "additional keys", p.additional, 0);
  if (p.heads % p.kv_heads != 0)
    refuse(op, to_string(p.heads) + " query heads and " + to_string(p.kv_heads) + " key/value heads",
           "query heads to be a multiple of key/value heads");
  if (p.rank < 1 || p.rank > kMaxRank || (p.operation == Operation::kAttention && p.rank != 1))
    refuse(op, "a token layout of rank " + to_string(p.rank),
           p.operation == Operation::kAttention ? "rank 1" : "rank 1 to 3");
  if (p.operation == Operation::kNeighborhood && p.causal_type != CausalType::kNone)
    refuse(op, "a causal type", "causality per axis in neighborhood attention");
  if (p.causal_type == CausalType::kDontCare)
    refuse(op, "an unresolved causal type", "top-left or bottom-right");
  if (p.offsets) {
    if (p.operation != Operation::kAttention || !p.varlen || !p.layouts.empty())
      refuse(op, "device offsets", "them in varlen attention only, without a list of layouts");
    const DeviceOffsets& o = *p.offsets;
    for (const Index n : {o.sequences, o.total_query, o.total_key, o.max_query, o.max_key})
      check_count(op, "varlen bound", n, 0);
  } else if (!p.varlen && p.layouts.size() != 1) {
    refuse(op, to_string(p.layouts.size()) + " token layouts", "one, unless varlen");
  }
  if (p.varlen && p.batch != 1)
    refuse(op, "batch " + to_string(p.batch) + " with varlen", "batch 1",
           "pack the sequences along the token axis");
  if (p.varlen && p.additional > 0) refuse(op, "additional keys together with varlen", "one or the other");
  if (p.varlen && (p.query_range || p.key_range))
    refuse(op, "ranges together with varlen", "one or the other");
  if (!p.varlen && (p.tail_query != 0 || p.tail_key != 0))
    refuse(op, "a tail without varlen", "tails in varlen only");
  check_count(op, "tail", p.tail_query, 0);
  check_count(op, "tail", p.tail_key, 0);
  double tokens = 0;
  for (Index i = 0; i < sequences(p); ++i) check_layout(p, op, i, tokens);
  check_range(p, op, "query", p.query_range, false);
  check_range(p, op, "key", p.key_range, true);
  if (!(p.dropout >= 0.0 && p.dropout < 1.0))
    refuse(op, "dropout_p " + number(p.dropout), "0 <= dropout_p < 1");
  if (p.scale && !std::isfinite(p.dtype == DType::kFloat64 ? *p.scale : static_cast<float>(*p.scale)))
    refuse(op, "scale " + number(*p.scale),
           "a number that is finite in " + std::string(name_of(lse_dtype(p.dtype))));
  if (p.bias && p.operation == Operation::kAttention)
    refuse(op, "bias in attention", "bias in neighborhood attention only");
  if (p.bias && p.varlen) refuse(op, "bias together with varlen", "one or the other");
  for (int a = 0; p.bias && a < p.rank; ++a)
    if (p.layouts[0].query_extent[a] != p.layouts[0].extent[a])
      refuse(op,
             "bias, with " + to_string(p.layouts[0].query_extent[a]) + " queries and " +
                 to_string(p.layouts[0].extent[a]) + " keys on axis " + to_string(a),
             "the same layout for query and key", "a relative position needs one");
  check_sizes(p, op);
}

}  // namespace nearfield
