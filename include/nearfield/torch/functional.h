// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The functions of the Python package on at::Tensor, differentiable: same names, same defaults, same
// layouts, query [B, *layout, H, D], key [B, *layout, Hkv, D], value [B, *layout, Hkv, Dv]. Each comes
// twice: f(...) returns out [B, *layout, H, Dv], f_with_lse(...) returns (out, lse [B, *layout, H]).
//
//   at::Tensor out = nearfield::na2d(q, k, v, {7, 13}, {.dilation = {2, 1}, .is_causal = {true, false}});
//   auto [out, lse] = nearfield::attention_with_lse(q, k, v, {.causal_type = CausalType::kBottomRight});
//
// Options are aggregates: name the ones that you set. An undefined tensor is one that is not there, an
// empty backend is the best one. Gradients are exact, for out and for lse; second derivatives and
// forward mode are refused.
#pragma once

#include <ATen/ops/randint.h>

#include <limits>

#include "nearfield/problem.h"  // CausalType
#include "nearfield/torch/operators.h"
#include "nearfield/torch/varlen.h"

namespace nearfield {

using OutAndLse = std::tuple<at::Tensor, at::Tensor>;

// Of na1d, na2d, na3d.
struct NeighborhoodFuncOptions {
  PerAxis<int64_t> stride = 1;    // 1 to kernel_size: queries s*i .. s*i + s-1 share a window
  PerAxis<int64_t> dilation = 1;  // distance between the tokens of a window
  PerAxis<bool> is_causal = false;
  std::optional<double> scale = {};   // D ** -0.5
  at::Tensor additional_keys = {};    // [B, S, Hkv, D], seen by every query in the same softmax
  at::Tensor additional_values = {};  // [B, S, Hkv, Dv]
  at::Tensor bias = {};               // [H, 2 * kernel_size - 1, ...], of the dtype of query
  double dropout_p = 0.0;             // on the attention weights; 0 <= dropout_p < 1
  std::string backend = {};
  PerAxis<int64_t> q_tile_shape = {}, kv_tile_shape = {};  // honoured or refused
  PerAxis<int64_t> backward_q_tile_shape = {}, backward_kv_tile_shape = {};
};

// Of attention. Packed sequences, tensors [1, total, heads, channels]: lengths [n] in seqlens_*, or
// offsets [n + 1] in cumulative_seqlen_* (int32 or int64), with the longest sequences in max_seqlen_*.
struct AttentionFuncOptions {
  CausalType causal_type = CausalType::kNone;  // kTopLeft, kBottomRight, kDontCare: causal
  std::optional<double> scale = {};
  at::Tensor additional_keys = {}, additional_values = {};  // as for na1d; not with packed sequences
  at::Tensor seqlens_Q = {}, seqlens_KV = {};
  at::Tensor cumulative_seqlen_Q = {}, cumulative_seqlen_KV = {};
  std::optional<int64_t> max_seqlen_Q = {}, max_seqlen_KV = {};
  double dropout_p = 0.0;
  std::string backend = {};
  std::optional<int64_t> q_tile_size = {}, kv_tile_size = {};
  std::optional<int64_t> backward_q_tile_size = {}, backward_kv_tile_size = {};
};

// Of multi_dimensional_attention. A window of -1 is the whole axis; on axes of extent 1 all are ignored.
struct MultiDimensionalFuncOptions {
  PerAxis<int64_t> window_size = -1, stride = 1, dilation = 1;
  PerAxis<bool> is_causal = false;
  std::optional<double> scale = {};
  std::string backend = {};
};

// Of spatio_temporal_attention: the same, causal along the first of three axes.
struct SpatioTemporalFuncOptions {
  PerAxis<int64_t> window_size = -1, stride = 1, dilation = 1;
  std::optional<double> scale = {};
  std::string backend = {};
};

// Of multi_dimensional_attention_varlen.
struct VarlenFuncOptions {
  std::optional<double> scale = {};
  std::string backend = {};
};

namespace torch_detail {

// Drawn from PyTorch's generator of the device, as in Python: manual_seed repeats the mask.
inline MaybeTensor dropout_seed(double dropout_p, const at::Tensor& query) {
  if (dropout_p == 0 || !query.defined()) return std::nullopt;
  using Limits = std::numeric_limits<int64_t>;
  return at::randint(Limits::min(), Limits::max(), {1},
                     query.options().dtype(at::kLong).layout(at::kStrided));
}

inline std::vector<int64_t> axes_of(const std::string& op, std::size_t rank, const char* window_name,
                                    const PerAxis<int64_t>& window, const PerAxis<int64_t>& stride,
                                    const PerAxis<int64_t>& dilation, const PerAxis<bool>& is_causal) {
  const auto w = window.expand(op, window_name, rank), s = stride.expand(op, "stride", rank),
             d = dilation.expand(op, "dilation", rank);
  const auto c = is_causal.expand(op, "is_causal", rank);
  std::vector<int64_t> axes;
  for (std::size_t a = 0; a < rank; ++a) axes.insert(axes.end(), {w[a], s[a], d[a], c[a] ? 1 : 0});
  return axes;
}

// Query and key tiles, forward and then backward, three axes each; nothing where none is given.
inline std::vector<int64_t> tiles_of(const std::string& op, std::size_t rank, const std::string& word,
                                     const std::array<PerAxis<int64_t>, 4>& tiles) {
  static constexpr std::array<const char*, 4> kNames = {"q_tile_", "kv_tile_", "backward_q_tile_",
                                                        "backward_kv_tile_"};
  std::vector<int64_t> numbers;
  bool any = false;
  for (std::size_t i = 0; i < 4; ++i) {
    std::vector<int64_t> tile(3, 0);
    if (tiles[i].given()) {
      any = true;
      const std::string name = kNames[i] + word;
      const auto given = tiles[i].expand(op, name, rank);
      for (const int64_t n : given)
        if (n < 1 || n >= int64_t{1} << 31)
          refuse(op, name + " " + tuple_text(given), std::to_string(rank) + " numbers from 1 on",
                 "one whole number per axis");
      std::fill(tile.begin(), tile.end(), 1);
      std::copy(given.begin(), given.end(), tile.end() - static_cast<std::ptrdiff_t>(rank));
    }
    numbers.insert(numbers.end(), tile.begin(), tile.end());
  }
  return any ? numbers : std::vector<int64_t>();
}

inline CallPointer new_call(Function function, const std::optional<double>& scale,
                            const std::string& backend) {
  auto call = c10::make_intrusive<Call>();
  call->function = function;
  call->scale = scale;
  call->backend = backend_number(call->op(), backend);
  call->flags = (AllowNondeterministic::allowed() ? 1 : 0) + (AllowBf16Arithmetic::allowed() ? 4 : 0);
  return call;
}

inline OutAndLse neighborhood(Function function, const at::Tensor& query, const at::Tensor& key,
                              const at::Tensor& value, const PerAxis<int64_t>& kernel_size,
                              const NeighborhoodFuncOptions& o) {
  const CallPointer call = new_call(function, o.scale, o.backend);
  const std::size_t rank = static_cast<std::size_t>(function) + 1;
  call->axes = axes_of(call->op(), rank, "kernel_size", kernel_size, o.stride, o.dilation, o.is_causal);
  call->tiles =
      tiles_of(call->op(), rank, "shape",
               {o.q_tile_shape, o.kv_tile_shape, o.backward_q_tile_shape, o.backward_kv_tile_shape});
  call->dropout_p = o.dropout_p;
  call->seed = dropout_seed(o.dropout_p, query);
  return attend(
      {query, key, value, if_defined(o.additional_keys), if_defined(o.additional_values), if_defined(o.bias)},
      call);
}

inline OutAndLse multi_dimensional(Function function, const at::Tensor& query, const at::Tensor& key,
                                   const at::Tensor& value, const MultiDimensionalFuncOptions& o) {
  const CallPointer call = new_call(function, o.scale, o.backend);
  const std::string op = call->op();
  check_tensor(op, "query", query);
  const int64_t rank = function == kSpatioTemporal ? 3 : query.dim() - 3;
  if (rank < 1 || rank > 3)
    refuse(op, "query of rank " + std::to_string(query.dim()) + ", shape " + tuple_text(query.sizes()),
           "rank 4 to 6, [B, *layout, heads, head_dim]");
  call->axes = axes_of(op, static_cast<std::size_t>(rank), "window_size", o.window_size, o.stride, o.dilation,
                       o.is_causal);
  return attend({query, key, value, {}, {}, {}}, call);
}

}  // namespace torch_detail

// ---- Neighborhood attention over one, two and three axes: every query sees kernel_size tokens per axis.

inline OutAndLse na1d_with_lse(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                               const PerAxis<int64_t>& kernel_size,
                               const NeighborhoodFuncOptions& options = {}) {
  return torch_detail::neighborhood(torch_detail::kNa1d, query, key, value, kernel_size, options);
}
inline at::Tensor na1d(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                       const PerAxis<int64_t>& kernel_size, const NeighborhoodFuncOptions& options = {}) {
  return std::get<0>(na1d_with_lse(query, key, value, kernel_size, options));
}

inline OutAndLse na2d_with_lse(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                               const PerAxis<int64_t>& kernel_size,
                               const NeighborhoodFuncOptions& options = {}) {
  return torch_detail::neighborhood(torch_detail::kNa2d, query, key, value, kernel_size, options);
}
inline at::Tensor na2d(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                       const PerAxis<int64_t>& kernel_size, const NeighborhoodFuncOptions& options = {}) {
  return std::get<0>(na2d_with_lse(query, key, value, kernel_size, options));
}

inline OutAndLse na3d_with_lse(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                               const PerAxis<int64_t>& kernel_size,
                               const NeighborhoodFuncOptions& options = {}) {
  return torch_detail::neighborhood(torch_detail::kNa3d, query, key, value, kernel_size, options);
}
inline at::Tensor na3d(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                       const PerAxis<int64_t>& kernel_size, const NeighborhoodFuncOptions& options = {}) {
  return std::get<0>(na3d_with_lse(query, key, value, kernel_size, options));
}

// ---- Dense attention: query [B, Lq, H, D], key [B, Lkv, Hkv, D], value [B, Lkv, Hkv, Dv].

inline OutAndLse attention_with_lse(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                                    const AttentionFuncOptions& options = {}) {
  using namespace torch_detail;
  const AttentionFuncOptions& o = options;
  const CallPointer call = new_call(kAttention, o.scale, o.backend);
  const PackedLengths lengths{o.seqlens_Q,    o.seqlens_KV,   o.cumulative_seqlen_Q, o.cumulative_seqlen_KV,
                              o.max_seqlen_Q, o.max_seqlen_KV};
  add_packing(lengths, query, key, *call);
  call->causal_type = static_cast<int64_t>(o.causal_type);
  const auto tile = [](const std::optional<int64_t>& size) {
    return size ? PerAxis<int64_t>(*size) : PerAxis<int64_t>();
  };

  call->tiles = tiles_of(call->op(), 1, "size",
                         {tile(o.q_tile_size), tile(o.kv_tile_size), tile(o.backward_q_tile_size),
                          tile(o.backward_kv_tile_size)});
  call->dropout_p = o.dropout_p;
  call->seed = dropout_seed(o.dropout_p, query);
  return attend({query, key, value, if_defined(o.additional_keys), if_defined(o.additional_values), {}},
                call);
}
inline at::Tensor attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                            const AttentionFuncOptions& options = {}) {
  return std::get<0>(attention_with_lse(query, key, value, options));
}

// ---- Layouts of any rank, whole axes by default. Key and value may have another layout than query.

inline OutAndLse multi_dimensional_attention_with_lse(const at::Tensor& query, const at::Tensor& key,
                                                      const at::Tensor& value,
                                                      const MultiDimensionalFuncOptions& options = {}) {
  return torch_detail::multi_dimensional(torch_detail::kMultiDimensional, query, key, value, options);
}
inline at::Tensor multi_dimensional_attention(const at::Tensor& query, const at::Tensor& key,
                                              const at::Tensor& value,
                                              const MultiDimensionalFuncOptions& options = {}) {
  return std::get<0>(multi_dimensional_attention_with_lse(query, key, value, options));
}

// Video, [B, T, X, Y, heads, channels]: causal in time.
inline OutAndLse spatio_temporal_attention_with_lse(const at::Tensor& query, const at::Tensor& key,
                                                    const at::Tensor& value,
                                                    const SpatioTemporalFuncOptions& options = {}) {
  const auto& o = options;
  return torch_detail::multi_dimensional(
      torch_detail::kSpatioTemporal, query, key, value,
      {o.window_size, o.stride, o.dilation, {true, false, false}, o.scale, o.backend});
}
inline at::Tensor spatio_temporal_attention(const at::Tensor& query, const at::Tensor& key,
                                            const at::Tensor& value,
                                            const SpatioTemporalFuncOptions& options = {}) {
  return std::get<0>(spatio_temporal_attention_with_lse(query, key, value, options));
}

// Packed sequences [1, total, heads, channels], each with the layout and windows that `metadata` gives it.
inline OutAndLse multi_dimensional_attention_varlen_with_lse(const at::Tensor& query, const at::Tensor& key,
                                                             const at::Tensor& value,
                                                             const VarlenMetadata& metadata,
                                                             const VarlenFuncOptions& options = {}) {
  using namespace torch_detail;
  const CallPointer call = new_call(kVarlen, options.scale, options.backend);
  for (int64_t a = 0; a < metadata.rank; ++a) call->axes.insert(call->axes.end(), {1, 1, 1, 0});
  call->grids = metadata.grids;
  return attend({query, key, value, {}, {}, {}}, call);
}
inline at::Tensor multi_dimensional_attention_varlen(const at::Tensor& query, const at::Tensor& key,
                                                     const at::Tensor& value, const VarlenMetadata& metadata,
                                                     const VarlenFuncOptions& options = {}) {
  return std::get<0>(multi_dimensional_attention_varlen_with_lse(query, key, value, metadata, options));
}

}  // namespace nearfield
