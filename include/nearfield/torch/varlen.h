// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Descriptions of packed sequences: several lengths, or several token layouts, packed along the token
// axis of tensors [1, total, heads, channels]. Tokens behind the last sequence belong to none: their
// output is 0, their lse -inf.
#pragma once

#include <ATen/ops/zeros.h>

#include "nearfield/torch/operators.h"

namespace nearfield {

// What `attention` takes as cumulative_seqlen_* and max_seqlen_*.
struct VarlenParameters {
  at::Tensor cumulative_seqlen_Q, cumulative_seqlen_KV;  // [n + 1], int32 (int64 from 2**31 tokens on)
  int64_t max_seqlen_Q = 0, max_seqlen_KV = 0;
};

// What `multi_dimensional_attention_varlen` takes: numbers, which serve every layer, dtype and device.
struct VarlenMetadata {
  int64_t rank = 1;
  std::vector<int64_t> grids;  // per sequence: extents, windows, strides, dilations, causals
};

namespace torch_detail {

struct PackedLengths {
  at::Tensor seqlens_Q, seqlens_KV, cumulative_seqlen_Q, cumulative_seqlen_KV;
  std::optional<int64_t> max_seqlen_Q, max_seqlen_KV;
};

// Both are given (true), or neither.
inline bool check_pair(const std::string& op, const std::string& first, bool has_first,
                       const std::string& second, bool has_second) {
  if (has_first != has_second)
    refuse(op, (has_first ? first : second) + " alone",
           "both of " + first + " and " + second + ", or neither");
  return has_first;
}

// Lengths or offsets: int32 or int64, 1-D, where the packed tensors are.
inline void check_offsets(const std::string& op, const std::string& name, const at::Tensor& tensor,
                          const at::Tensor& query) {
  check_tensor(op, name, tensor);
  if (tensor.scalar_type() != at::kInt && tensor.scalar_type() != at::kLong)
    refuse(op, name + " of dtype " + dtype_text(tensor.scalar_type()), "int32 or int64");
  if (tensor.dim() != 1)
    refuse(op, name + " of rank " + std::to_string(tensor.dim()), "rank 1, one entry per sequence");
  if (tensor.device() != query.device())
    refuse(op, name + " on " + tensor.device().str(), query.device().str() + ", the device of query",
           "move it there");
}

// Offsets and the largest of lengths that add up to the tokens of `packed`.
inline std::pair<at::Tensor, int64_t> offsets_of_lengths(const std::string& op, const std::string& name,
                                                         const at::Tensor& lengths, const char* packed_name,
                                                         const at::Tensor& packed, const at::Tensor& query) {
  check_offsets(op, name, lengths, query);
  if (packed.dim() < 2)
    refuse(op, std::string(packed_name) + " of rank " + std::to_string(packed.dim()),
           "rank 4, [1, total, heads, channels]");
  const at::Tensor host = lengths.cpu().to(at::kLong).contiguous();
  const int64_t total = packed.size(1);
  const int64_t* begin = host.const_data_ptr<int64_t>();
  if (const char* error =
          nf_torch_check_lengths(op.c_str(), name.c_str(), begin, host.numel(), total, packed_name))
    throw std::invalid_argument(error);
  const int64_t most = host.numel() == 0 ? 0 : *std::max_element(begin, begin + host.numel());
  const auto options = lengths.options().dtype(total >= int64_t{1} << 31 ? at::kLong : at::kInt);
  at::Tensor offsets = at::zeros({lengths.numel() + 1}, options);
  offsets.narrow(0, 1, lengths.numel()).copy_(lengths.cumsum(0));
  return {offsets, most};
}

inline VarlenParameters parameters_of_lengths(const std::string& op, const at::Tensor& query,
                                              const at::Tensor& key, const at::Tensor& seqlens_Q,
                                              const at::Tensor& seqlens_KV) {
  const auto [offsets_q, most_q] = offsets_of_lengths(op, "seqlens_Q", seqlens_Q, "query", query, query);
  const auto [offsets_kv, most_kv] = offsets_of_lengths(op, "seqlens_KV", seqlens_KV, "key", key, query);
  if (seqlens_Q.numel() != seqlens_KV.numel())
    refuse(op,
           std::to_string(seqlens_Q.numel()) + " lengths in seqlens_Q and " +
               std::to_string(seqlens_KV.numel()) + " in seqlens_KV",
           "as many of both", "a sequence without tokens has length 0");
  return {offsets_q, offsets_kv, most_q, most_kv};
}

// The part of a call of `attention` that says which sequences are packed.
inline void add_packing(const PackedLengths& p, const at::Tensor& query, const at::Tensor& key, Call& call) {
  const std::string op = call.op();
  check_tensor(op, "query", query);
  check_tensor(op, "key", key);
  const bool lengths =
      check_pair(op, "seqlens_Q", p.seqlens_Q.defined(), "seqlens_KV", p.seqlens_KV.defined());
  const bool offsets = check_pair(op, "cumulative_seqlen_Q", p.cumulative_seqlen_Q.defined(),
                                  "cumulative_seqlen_KV", p.cumulative_seqlen_KV.defined());
  if (lengths) {
    for (const auto& [name, given] :
         {std::pair("cumulative_seqlen_Q", offsets), std::pair("max_seqlen_Q", p.max_seqlen_Q.has_value()),
          std::pair("max_seqlen_KV", p.max_seqlen_KV.has_value())})
      if (given)
        refuse(op, std::string("seqlens_Q and seqlens_KV together with ") + name, "one or the other");
    const VarlenParameters made = parameters_of_lengths(op, query, key, p.seqlens_Q, p.seqlens_KV);
    call.offsets_query = made.cumulative_seqlen_Q;
    call.offsets_key = made.cumulative_seqlen_KV;
    call.grids = {made.max_seqlen_Q, made.max_seqlen_KV};
    return;
  }
  if (!offsets) {
    for (const auto& [name, most] :
         {std::pair("max_seqlen_Q", p.max_seqlen_Q), std::pair("max_seqlen_KV", p.max_seqlen_KV)})
      if (most.value_or(0) != 0)  // 0 is what generate_varlen_parameters gives where nothing is packed
        refuse(op, std::string(name) + " without cumulative_seqlen_Q and cumulative_seqlen_KV", "them too",
               "a maximum alone packs nothing");
    return;
  }
  check_offsets(op, "cumulative_seqlen_Q", p.cumulative_seqlen_Q, query);
  check_offsets(op, "cumulative_seqlen_KV", p.cumulative_seqlen_KV, query);
  call.offsets_query = p.cumulative_seqlen_Q;
  call.offsets_key = p.cumulative_seqlen_KV;
  if (check_pair(op, "max_seqlen_Q", p.max_seqlen_Q.has_value(), "max_seqlen_KV",
                 p.max_seqlen_KV.has_value()))
    call.grids = {*p.max_seqlen_Q, *p.max_seqlen_KV};
}

}  // namespace torch_detail

// Offsets and longest sequences from lengths [n], int32 or int64, which add up to the packed totals. Reads
// the lengths, so it synchronises with a GPU. Without lengths: undefined tensors and 0.
inline VarlenParameters generate_varlen_parameters(const at::Tensor& query, const at::Tensor& key,
                                                   const at::Tensor& value, const at::Tensor& seqlens_Q = {},
                                                   const at::Tensor& seqlens_KV = {}) {
  using namespace torch_detail;
  const std::string op = "generate_varlen_parameters";
  for (const auto& [name, tensor] :
       {std::pair("query", query), std::pair("key", key), std::pair("value", value)})
    check_tensor(op, name, tensor);
  if (!check_pair(op, "seqlens_Q", seqlens_Q.defined(), "seqlens_KV", seqlens_KV.defined())) return {};
  for (const auto& [name, tensor] :
       {std::pair("query", query), std::pair("key", key), std::pair("value", value)})
    if (tensor.dim() != 4 || tensor.size(0) != 1)
      refuse(op, std::string(name) + " of shape " + tuple_text(tensor.sizes()), "[1, total, heads, channels]",
             "pack the sequences along the token axis");
  if (key.size(1) != value.size(1))
    refuse(op, std::to_string(key.size(1)) + " keys and " + std::to_string(value.size(1)) + " values",
           "as many of both");
  return parameters_of_lengths(op, query, key, seqlens_Q, seqlens_KV);
}

// Token layouts of packed sequences, all of one rank, with windows (-1: the whole axis), strides and
// dilations of their own; an empty list is the default for all. The operator checks the numbers.
inline VarlenMetadata generate_multi_dim_varlen_parameters(
    const std::vector<std::vector<int64_t>>& token_layout_list,
    const std::vector<PerAxis<int64_t>>& window_size_list = {},
    const std::vector<PerAxis<int64_t>>& stride_list = {},
    const std::vector<PerAxis<int64_t>>& dilation_list = {}, const PerAxis<bool>& is_causal = false) {
  using namespace torch_detail;
  const std::string op = "generate_multi_dim_varlen_parameters";
  const std::size_t n = token_layout_list.size(), rank = n == 0 ? 1 : token_layout_list[0].size();
  if (rank < 1 || rank > 3)
    refuse(op, "token_layout_list[0] " + tuple_text(token_layout_list[0]), "a tuple of 1 to 3 ints");
  const auto check_length = [&](const char* name, const std::vector<PerAxis<int64_t>>& list) {
    if (!list.empty() && list.size() != n)
      refuse(op, std::string(name) + " of length " + std::to_string(list.size()),
             std::to_string(n) + ", one entry per sequence");
  };
  check_length("window_size_list", window_size_list);
  check_length("stride_list", stride_list);
  check_length("dilation_list", dilation_list);
  const std::vector<bool> causal = is_causal.expand(op, "is_causal", rank);
  VarlenMetadata metadata{static_cast<int64_t>(rank), {}};
  const auto add = [&](const char* name, std::size_t i, const PerAxis<int64_t>& numbers) {
    const auto each = numbers.expand(op, std::string(name) + "[" + std::to_string(i) + "]", rank);
    metadata.grids.insert(metadata.grids.end(), each.begin(), each.end());
    return each;
  };
  for (std::size_t i = 0; i < n; ++i) {
    for (const int64_t extent : add("token_layout_list", i, token_layout_list[i]))
      if (extent < 0)
        refuse(op, "token_layout_list[" + std::to_string(i) + "] " + tuple_text(token_layout_list[i]),
               "extents from 0 on");
    add("window_size_list", i, window_size_list.empty() ? PerAxis<int64_t>(-1) : window_size_list[i]);
    add("stride_list", i, stride_list.empty() ? PerAxis<int64_t>(1) : stride_list[i]);
    add("dilation_list", i, dilation_list.empty() ? PerAxis<int64_t>(1) : dilation_list[i]);
    metadata.grids.insert(metadata.grids.end(), causal.begin(), causal.end());
  }
  return metadata;
}

}  // namespace nearfield
