// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Request -> Problem: what tensors must look like (semantics, section 6). Rules on the values that a
// Problem holds are in check.cc.
#include "nearfield/request.h"

#include <algorithm>
#include <utility>

#include "problem/message.h"
#include "runtime/environment.h"

namespace nearfield {
namespace {

using std::to_string;

struct Named {
  const char* name;
  const TensorInfo& info;
};

std::string heads_last(const Request& r, const char* channels) {
  static constexpr const char* kAxes[] = {"[B, L, ", "[B, X, Y, ", "[B, X, Y, Z, "};
  return std::string(kAxes[r.rank - 1]) + "heads, " + channels + "]";
}

DType dtype_named(const Request& r, const Named& t) {
  if (t.info.dtype == "float32") return DType::kFloat32;
  if (t.info.dtype == "float64") return DType::kFloat64;
  if (t.info.dtype == "bfloat16") return DType::kBFloat16;
  if (t.info.dtype == "float16") return DType::kFloat16;
  refuse(r.op, std::string(t.name) + " of dtype " + t.info.dtype, "float32, float64, bfloat16 or float16",
         "convert it, for instance with .float()");
}

void check_kind(const Request& r, const Named& t) {
  if (t.info.dtype != r.query.dtype)
    refuse(r.op, std::string(t.name) + " of dtype " + t.info.dtype,
           "dtype " + r.query.dtype + ", that of query", "all tensors of a call have one dtype");
  if (t.info.device != r.query.device)
    refuse(r.op, std::string(t.name) + " on " + t.info.device, "device " + r.query.device + ", that of query",
           "move them to one device");
}

void check_present(const Request& r, const Named& t, std::size_t rank, const std::string& form) {
  if (!t.info.present) refuse(r.op, std::string("no ") + t.name, "a tensor " + form);
  if (t.info.size.size() != rank)
    refuse(r.op,
           std::string(t.name) + " of rank " + to_string(t.info.size.size()) + ", shape " +
               shape_text(t.info.size),
           "rank " + to_string(rank) + ", " + form);
  for (const Index n : t.info.size)
    if (n < 0 || n > (Index{1} << 48))
      refuse(r.op, std::string(t.name) + " of shape " + shape_text(t.info.size), "sizes from 0 to 2**48");
}

void check_same(const Request& r, const Named& t, std::size_t axis, Index expected, const char* what,
                const char* of, const char* hint = "") {
  if (t.info.size[axis] != expected)
    refuse(r.op,
           std::string(t.name) + " with " + what + " " + to_string(t.info.size[axis]) + ", shape " +
               shape_text(t.info.size),
           std::string(what) + " " + to_string(expected) + ", that of " + of, hint);
}

void check_exact(const Request& r, const Named& t, const std::vector<Index>& shape, const std::string& dtype,
                 const char* hint = "") {
  if (!t.info.present) refuse(r.op, std::string("no ") + t.name, "a tensor of shape " + shape_text(shape));
  if (t.info.size != shape)
    refuse(r.op, std::string(t.name) + " of shape " + shape_text(t.info.size), "shape " + shape_text(shape),
           hint);
  if (t.info.dtype != dtype)
    refuse(r.op, std::string(t.name) + " of dtype " + t.info.dtype, "dtype " + dtype);
  if (t.info.device != r.query.device)
    refuse(r.op, std::string(t.name) + " on " + t.info.device,
           "device " + r.query.device + ", that of query");
}

void check_tensors(const Request& r) {
  const std::size_t rank = static_cast<std::size_t>(r.rank) + 3, heads = rank - 2, channels = rank - 1;
  const Named query{"query", r.query}, key{"key", r.key}, value{"value", r.value};
  check_present(r, query, rank, heads_last(r, "head_dim"));
  check_present(r, key, rank, heads_last(r, "head_dim"));
  check_present(r, value, rank, heads_last(r, "value head_dim"));
  dtype_named(r, query);
  check_kind(r, key);
  check_kind(r, value);
  check_same(r, key, 0, r.query.size[0], "batch", "query");
  check_same(r, value, 0, r.query.size[0], "batch", "query");
  for (std::size_t a = 1; a < heads; ++a) {
    const std::string what = "extent of axis " + to_string(a - 1);
    check_same(r, value, a, r.key.size[a], what.c_str(), "key");
  }
  check_same(r, value, heads, r.key.size[heads], "heads", "key");
  check_same(r, key, channels, r.query.size[channels], "head_dim", "query");

  if (r.additional_key.present != r.additional_value.present)
    refuse(r.op,
           r.additional_key.present ? "additional_keys without additional_values"
                                    : "additional_values without additional_keys",
           "both or neither");
  if (!r.additional_key.present) return;
  const Named more_keys{"additional_keys", r.additional_key},
      more_values{"additional_values", r.additional_value};
  check_present(r, more_keys, 4, "[B, S, heads, head_dim]");
  check_present(r, more_values, 4, "[B, S, heads, value head_dim]");
  for (const Named& t : {more_keys, more_values}) {
    check_kind(r, t);
    check_same(r, t, 0, r.query.size[0], "batch", "query");
    check_same(r, t, 2, r.key.size[heads], "heads", "key",
               "additional keys have the heads of key, not of query");
  }
  check_same(r, more_values, 1, r.additional_key.size[1], "length", "additional_keys");
  check_same(r, more_keys, 3, r.key.size[channels], "head_dim", "key");
  check_same(r, more_values, 3, r.value.size[channels], "head_dim", "value");
}

std::array<Index, kMaxRank> per_axis(const Request& r, const std::vector<Index>& values, const char* name) {
  if (values.size() != static_cast<std::size_t>(r.rank))
    refuse(r.op, std::string(name) + " of length " + to_string(values.size()),
           "one number, or " + to_string(r.rank) + " (one per axis)");
  std::array<Index, kMaxRank> array{1, 1, 1};
  std::copy(values.begin(), values.end(), array.begin());
  return array;
}

// The tensor of cumulative offsets itself.
void check_offsets(const Request& r, const Named& t) {
  if (t.info.dtype != "int32" && t.info.dtype != "int64")
    refuse(r.op, std::string(t.name) + " of dtype " + t.info.dtype, "int32 or int64");
  if (t.info.size.size() != 1 || t.info.size[0] < 1)
    refuse(r.op, std::string(t.name) + " of shape " + shape_text(t.info.size),
           "a tensor [sequences + 1] of offsets that start at 0");
  if (t.info.device != r.query.device)
    refuse(r.op, std::string(t.name) + " on " + t.info.device, "device " + r.query.device + ", that of query",
           "move them to one device");
}

void check_offset_values(const Request& r, const char* name, const std::vector<Index>& o, Index total) {
  if (o.empty() || o[0] != 0)
    refuse(r.op,
           o.empty() ? std::string(name) + " without entries"
                     : std::string(name) + " that starts at " + to_string(o[0]),
           "offsets that start at 0");
  for (std::size_t i = 1; i < o.size(); ++i)
    if (o[i] < o[i - 1])
      refuse(r.op, std::string(name) + " that falls from " + to_string(o[i - 1]) + " to " + to_string(o[i]),
             "offsets that never decrease");
  if (o.back() > total)
    refuse(r.op, std::string(name) + " that ends at " + to_string(o.back()),
           "an end at or before " + to_string(total) + ", the packed total");
}

void check_maximum(const Request& r, const char* name, std::optional<Index> given,
                   const std::vector<Index>& offsets) {
  for (std::size_t i = 1; given && i < offsets.size(); ++i)
    if (offsets[i] - offsets[i - 1] > *given)
      refuse(r.op, std::string(name) + " " + to_string(*given),
             "at least " + to_string(offsets[i] - offsets[i - 1]) + ", the length of sequence " +
                 to_string(i - 1));
}

void add_varlen_attention(const Request& r, Problem& p) {
  static constexpr const char* kNames[] = {"cumulative_seqlen_Q", "cumulative_seqlen_KV"};
  const Index total[] = {r.query.size[1], r.key.size[1]};
  if (r.cumulative_query.present != r.cumulative_key.present)
    refuse(r.op,
           std::string(kNames[r.cumulative_query.present ? 0 : 1]) + " without " +
               kNames[r.cumulative_query.present ? 1 : 0],
           "both or neither");
  for (const Named& t : {Named{kNames[0], r.cumulative_query}, Named{kNames[1], r.cumulative_key}})
    if (t.info.present) check_offsets(r, t);
  const auto sequences_differ = [&](Index q, Index k) {
    if (q != k)
      refuse(r.op, to_string(q - 1) + " query sequences and " + to_string(k - 1) + " key sequences",
             "as many of both");
  };
  if (r.cumulative_query.present) sequences_differ(r.cumulative_query.size[0], r.cumulative_key.size[0]);
  for (const auto& [name, n] :
       {std::pair("max_seqlen_Q", r.max_query), std::pair("max_seqlen_KV", r.max_key)})
    if (n && (*n < 0 || *n > kMaxExtent))
      refuse(r.op, std::string(name) + " " + to_string(*n), "0 to " + to_string(kMaxExtent));
  const std::vector<Index>&q = r.query_offsets, &k = r.key_offsets;
  if (q.empty() && k.empty()) {  // only the device can read them
    if (!r.cumulative_query.present) refuse(r.op, "varlen without offsets", "cumulative_seqlen_Q and _KV");
    p.offsets = DeviceOffsets{r.cumulative_query.size[0] - 1, total[0], total[1],
                              r.max_query.value_or(total[0]), r.max_key.value_or(total[1])};
    return;
  }
  check_offset_values(r, kNames[0], q, total[0]);
  check_offset_values(r, kNames[1], k, total[1]);
  sequences_differ(static_cast<Index>(q.size()), static_cast<Index>(k.size()));
  check_maximum(r, "max_seqlen_Q", r.max_query, q);
  check_maximum(r, "max_seqlen_KV", r.max_key, k);
  for (std::size_t i = 1; i < q.size(); ++i) {
    Layout layout;
    layout.query_extent[0] = q[i] - q[i - 1];
    layout.extent[0] = k[i] - k[i - 1];
    p.layouts.push_back(layout);
  }
  p.tail_query = total[0] - q.back();
  p.tail_key = total[1] - k.back();
}

// Request::lenient_windows.
void resolve_windows(const Request& r, Layout& layout, const std::string& of_sequence) {
  for (std::size_t a = 0; r.lenient_windows && a < static_cast<std::size_t>(r.rank); ++a) {
    if (layout.extent[a] == 1) {
      layout.window[a] = layout.stride[a] = layout.dilation[a] = 1;
      layout.causal[a] = false;
    } else if (layout.window[a] == -1) {
      if (layout.dilation[a] > 1)
        refuse(r.op,
               "window_size -1 with dilation " + to_string(layout.dilation[a]) + " on axis " + to_string(a) +
                   of_sequence,
               "dilation 1 where the window is the whole axis");
      layout.window[a] = max_of(layout.extent[a], 1);
    }
  }
}

void add_varlen_layouts(const Request& r, Problem& p) {
  Index total = 0;
  for (const Layout& given : r.layouts) {
    Layout layout;  // entries past the rank keep their defaults
    for (std::size_t a = 0; a < static_cast<std::size_t>(p.rank); ++a) {
      layout.extent[a] = given.extent[a];
      layout.query_extent[a] = given.query_extent[a];
      layout.window[a] = given.window[a];
      layout.stride[a] = given.stride[a];
      layout.dilation[a] = given.dilation[a];
      layout.causal[a] = given.causal[a];
    }
    resolve_windows(r, layout, " of sequence " + to_string(p.layouts.size()));
    p.layouts.push_back(layout);
  }
  for (const Layout& layout : r.layouts) {
    Index tokens = 1;
    for (int a = 0; a < p.rank; ++a)
      if (layout.extent[static_cast<std::size_t>(a)] < 0 ||
          __builtin_mul_overflow(tokens, layout.extent[static_cast<std::size_t>(a)], &tokens))
        refuse(r.op, "a token layout with extent " + to_string(layout.extent[static_cast<std::size_t>(a)]),
               "extents from 0 to " + to_string(kMaxExtent));
    if (__builtin_add_overflow(total, tokens, &total))
      refuse(r.op, "token layouts of more than 2**63 tokens", "layouts that fit in memory");
  }
  for (const Named& t : {Named{"query", r.query}, Named{"key", r.key}})
    if (total > t.info.size[1])
      refuse(r.op, "token layouts of " + to_string(total) + " tokens",
             "at most " + to_string(t.info.size[1]) + ", the packed total of " + t.name);
  p.tail_query = r.query.size[1] - total;
  p.tail_key = r.key.size[1] - total;
}

void add_layout(const Request& r, Problem& p) {
  Layout layout;
  for (int a = 0; a < r.rank; ++a) {
    layout.query_extent[a] = r.query.size[static_cast<std::size_t>(a) + 1];
    layout.extent[a] = r.key.size[static_cast<std::size_t>(a) + 1];
  }
  if (r.global_extent.empty() && (!r.query_begin.empty() || !r.key_begin.empty()))
    refuse(r.op, "the begin of a range without the global layout", "both or neither");
  if (!r.global_extent.empty()) {
    const auto extent = per_axis(r, r.global_extent, "the global layout"),
               q = per_axis(r, r.query_begin, "the query range"),
               k = per_axis(r, r.key_begin, "the key range"),
               own = r.global_query_extent.empty() ? extent
                                                   : per_axis(r, r.global_query_extent, "the global layout");
    Box queries, keys;
    for (int a = 0; a < r.rank; ++a) {
      for (const Index n : {extent[a], own[a], q[a], k[a]})
        if (n < 0 || n > kMaxExtent)
          refuse(r.op,
                 "a range at " + to_string(q[a]) + " / " + to_string(k[a]) + " of extent " +
                     to_string(own[a]) + " / " + to_string(extent[a]),
                 "positions from 0 to " + to_string(kMaxExtent));
      queries.axis[a] = {q[a], q[a] + layout.query_extent[a]};
      keys.axis[a] = {k[a], k[a] + layout.extent[a]};
      layout.query_extent[a] = own[a];
      layout.extent[a] = extent[a];
    }
    p.query_range = queries;
    p.key_range = keys;
  }
  if (r.operation == Operation::kNeighborhood) {
    layout.window = per_axis(r, r.window, "kernel_size");
    layout.stride = per_axis(r, r.stride, "stride");
    layout.dilation = per_axis(r, r.dilation, "dilation");
    const auto causal = per_axis(r, r.causal, "is_causal");
    for (int a = 0; a < r.rank; ++a) {
      if (causal[a] != 0 && causal[a] != 1)
        refuse(r.op, "is_causal " + to_string(causal[a]), "true or false");
      layout.causal[a] = causal[a] == 1;
    }
    resolve_windows(r, layout, "");
    for (int a = 0; a < r.rank; ++a)
      p.query_layout = p.query_layout || layout.query_extent[a] != layout.extent[a];
  }
  p.layouts = {layout};
}

bool dense(const TensorInfo& info) {
  Index expected = 1;
  for (std::size_t i = info.size.size(); i-- > 0;) {
    if (info.size[i] == 0) return true;
  }
  for (std::size_t i = info.size.size(); i-- > 0;) {
    if (info.size[i] != 1 && info.stride[i] != expected) return false;
    expected *= info.size[i];
  }
  return true;
}

void add_strides(Problem& p, Role role, const TensorInfo& info) {
  if (!info.present || info.stride.empty() || dense(info)) return;
  p.strides[static_cast<std::size_t>(role)] = info.stride;
}

void resolve_dont_care(const Request& r, Problem& p) {
  if (p.causal_type != CausalType::kDontCare) return;
  for (const Layout& layout : p.layouts)
    if (layout.query_extent[0] != layout.extent[0])
      refuse(r.op,
             "CausalType.DontCare with " + to_string(layout.query_extent[0]) + " queries and " +
                 to_string(layout.extent[0]) + " keys",
             "equal lengths", "choose CausalType.TopLeft or CausalType.BottomRight");
  p.causal_type = CausalType::kTopLeft;
}

// bf16 arithmetic is allowed by the call or by the environment, and means nothing but to bf16 inputs.
Precision precision_of(const Request& r, DType dtype) {
  static const bool always = environment_switch("NEARFIELD_BF16_ARITHMETIC");
  const Precision precision = always ? Precision::kBF16 : r.precision;
  return precision == Precision::kBF16 && dtype != DType::kBFloat16 ? Precision::kFull : precision;
}

}  // namespace

void check_lengths(std::string_view op, std::string_view name, std::span<const Index> lengths, Index total,
                   std::string_view packed) {
  Index sum = 0;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    if (lengths[i] < 0)
      refuse(op,
             std::string(name) + " with length " + to_string(lengths[i]) + " for sequence " + to_string(i),
             "lengths from 0 on");
    if (__builtin_add_overflow(sum, lengths[i], &sum))
      refuse(op, std::string(name) + " that add up to 2**63 or more",
             to_string(total) + ", the packed total of " + std::string(packed));
  }
  if (sum != total)
    refuse(op, std::string(name) + " that add up to " + to_string(sum),
           to_string(total) + ", the packed total of " + std::string(packed),
           "give cumulative_seqlen_* where a tail of tokens belongs to no sequence");
}

TensorInfo info_of(const TensorView& view) {
  static constexpr const char* kNames[] = {"float32", "float64", "bfloat16", "float16"};
  const auto rank = static_cast<std::size_t>(view.rank);
  TensorInfo info;
  info.present = view.present();
  info.dtype = kNames[static_cast<int>(view.dtype)];
  info.size.assign(view.size.begin(), view.size.begin() + static_cast<std::ptrdiff_t>(rank));
  info.stride.assign(view.stride.begin(), view.stride.begin() + static_cast<std::ptrdiff_t>(rank));
  return info;
}

Problem make_problem(const Request& r) {
  const bool attention = r.operation == Operation::kAttention;
  if (r.rank < 1 || r.rank > kMaxRank || (attention && r.rank != 1))
    refuse(r.op, "a token layout of rank " + to_string(r.rank), attention ? "rank 1" : "rank 1 to 3");
  Request packed;  // varlen tensors have one token axis, whatever the rank of the layouts
  if (r.varlen && r.rank > 1) {
    packed = r;
    packed.rank = 1;
  }
  check_tensors(r.varlen && r.rank > 1 ? packed : r);
  for (const TensorInfo* t : {&r.query, &r.key, &r.value, &r.additional_key, &r.additional_value, &r.bias,
                              &r.out, &r.lse, &r.grad_out, &r.grad_lse})
    if (t->present && !t->stride.empty() && t->stride.size() != t->size.size())
      refuse(r.op, to_string(t->stride.size()) + " strides for a tensor of shape " + shape_text(t->size),
             "one stride per axis");

  Problem p;
  p.operation = r.operation;
  p.direction = r.direction;
  p.dtype = dtype_named(r, {"query", r.query});
  p.rank = r.rank;
  p.batch = r.query.size.front();
  const std::size_t n = r.query.size.size();
  p.heads = r.query.size[n - 2];
  p.kv_heads = r.key.size[n - 2];
  p.head_dim = r.query.size[n - 1];
  p.value_dim = r.value.size[n - 1];
  p.causal_type = r.causal_type;
  p.varlen = r.varlen;
  p.additional = r.additional_key.present ? r.additional_key.size[1] : 0;
  p.scale = r.scale;
  p.dropout = r.dropout;
  p.nondeterministic = r.nondeterministic;
  p.bias = r.bias.present;
  p.precision = precision_of(r, p.dtype);
  p.lse = r.direction == Direction::kBackward ? r.grad_lse.present : r.lse_wanted;
  if (r.varlen && p.batch != 1)
    refuse(r.op, "batch " + to_string(p.batch) + " with varlen", "batch 1",
           "pack the sequences along the token axis");
  if (!r.varlen) add_layout(r, p);
  else if (attention) add_varlen_attention(r, p);
  else add_varlen_layouts(r, p);
  resolve_dont_care(r, p);
  check(p, r.op);
  if (p.bias)
    check_exact(r, {"bias", r.bias}, shape_of(p, Role::kBias), r.query.dtype,
                "[heads, 2 * kernel_size - 1 per axis]");

  if (r.direction == Direction::kBackward) {
    const std::string lse_type = p.dtype == DType::kFloat64 ? "float64" : "float32";
    check_exact(r, {"out", r.out}, shape_of(p, Role::kOut), r.query.dtype);
    check_exact(r, {"lse", r.lse}, shape_of(p, Role::kLse), lse_type);
    check_exact(r, {"grad_out", r.grad_out}, shape_of(p, Role::kOut), r.query.dtype);
    if (r.grad_lse.present) check_exact(r, {"grad_lse", r.grad_lse}, shape_of(p, Role::kLse), lse_type);
  }
  add_strides(p, Role::kQuery, r.query);
  add_strides(p, Role::kKey, r.key);
  add_strides(p, Role::kValue, r.value);
  if (p.additional > 0) {
    add_strides(p, Role::kAdditionalKey, r.additional_key);
    add_strides(p, Role::kAdditionalValue, r.additional_value);
  }
  if (p.bias) add_strides(p, Role::kBias, r.bias);
  if (r.direction == Direction::kBackward) {
    add_strides(p, Role::kOut, r.out);
    add_strides(p, Role::kLse, r.lse);
    add_strides(p, Role::kGradOut, r.grad_out);
    if (p.lse) add_strides(p, Role::kGradLse, r.grad_lse);
  }
  check(p, r.op);  // the strides
  static const bool log = verbose("check");
  if (log) log_row("check", {r.op, to_string(p)});
  return p;
}

}  // namespace nearfield
