// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The operations. Tensors are heads-last views of the caller's memory:
//
//   query [B, *layout, H, D]     key [B, *layout, Hkv, D]     value [B, *layout, Hkv, Dv]
//   out   [B, *layout, H, Dv]    lse [B, *layout, H] (float32; float64 for float64 inputs)
//
//   out = softmax(scale q k^T over the visible keys) v          lse = ln sum exp(scale q k^T)
//
// A query that sees nothing gives out 0 and lse -inf. Inputs may alias each other, have any strides
// and are never written; outputs may have any strides but must not overlap anything.
//
//   using namespace nearfield;
//   na2d({q, DType::kFloat32, {1, 64, 64, 8, 32}}, {k, ...}, {v, ...}, {out, ...}, {7, 7});
//
// Errors: status.h. Source: Hassani et al., CVPR 2023; gradients as in Dao, FlashAttention-2 (2023,
// section 3.1.2), extended by the gradient of lse.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nearfield/plan.h"
#include "nearfield/request.h"

namespace nearfield {

NF_API std::string_view version();  // "0.1.0"

// The table of backends, fastest first, reference last.
NF_API std::span<const Backend* const> backends();

// choose() and explain() of plan.h on that table. A call is `PROBLEM[@BACKEND[,qTILE[,kvTILE]]]`.
NF_API Choice make_plan(const Problem& problem, const PlanOptions& options = {},
                        Device device = Device::kCpu);
NF_API std::string explain(std::string_view call, Device device = Device::kCpu);

// Runs a problem on tensors that match it (Problem::direction says which way). The workspace has
// choice.plan->workspace_bytes(executor.workers()) bytes; without one, it is allocated here.
// Forward reads q, k, v (ak, av) and writes o, lse. Backward reads those and do (dlse), writes dq, dk,
// dv (dak, dav, dbias). With dropout, tensors.seed points to the seed. lse may be absent in forward.
NF_API void run(const Problem& problem, const Choice& choice, const Tensors& tensors, Executor& executor,
                std::byte* workspace = nullptr);

// Everything else about a call; every member has the default of the Python functions.
struct Options {
  std::optional<double> scale;                  // head_dim ** -0.5
  TensorView additional_key, additional_value;  // [B, S, Hkv, D | Dv]
  TensorView bias;                              // [H, 2k-1, ...], neighborhoods only
  double dropout = 0.0;                         // probability that a weight is dropped ...
  std::int64_t seed = 0;                        // ... by these random numbers
  TensorView lse;                               // written if present
  bool bf16_arithmetic = false;                 // allowed for bf16 inputs: problem.h, Precision
  PlanOptions plan;
  Executor* executor = nullptr;  // null: a process-wide pool
};

// Neighborhood attention over 1, 2 or 3 axes: window, stride, dilation and causality per axis.
template <int Rank>
struct Window {
  std::array<Index, Rank> size{};
  std::array<Index, Rank> stride = filled<Index>(1), dilation = filled<Index>(1);
  std::array<bool, Rank> causal{};

 private:
  template <class T>
  static constexpr std::array<T, Rank> filled(T x) {
    std::array<T, Rank> a{};
    for (T& e : a) e = x;
    return a;
  }
};

NF_API void na1d(const TensorView& query, const TensorView& key, const TensorView& value,
                 const TensorView& out, const Window<1>& window, const Options& options = {});
NF_API void na2d(const TensorView& query, const TensorView& key, const TensorView& value,
                 const TensorView& out, const Window<2>& window, const Options& options = {});
NF_API void na3d(const TensorView& query, const TensorView& key, const TensorView& value,
                 const TensorView& out, const Window<3>& window, const Options& options = {});
// Dense attention; query and key may differ in length.
NF_API void attention(const TensorView& query, const TensorView& key, const TensorView& value,
                      const TensorView& out, CausalType causal = CausalType::kNone,
                      const Options& options = {});

// The same with the rank taken from the tensors; one number or one per axis. A window of -1 is the whole
// axis; on axes of one token all four are ignored.
struct Windows {
  std::vector<Index> size = {-1}, stride = {1}, dilation = {1}, causal = {0};
};
NF_API void multi_dimensional_attention(const TensorView& query, const TensorView& key,
                                        const TensorView& value, const TensorView& out,
                                        const Windows& windows = {}, const Options& options = {});
// The same on [B, T, H, W, heads, channels], causal in time; windows.causal is not read.
NF_API void spatio_temporal_attention(const TensorView& query, const TensorView& key, const TensorView& value,
                                      const TensorView& out, const Windows& windows = {},
                                      const Options& options = {});

// Packed sequences [1, total, heads, channels]: sequence i is tokens [offsets[i], offsets[i + 1]), or the next
// token layout in raster order. Tokens behind the last one get out 0 and lse -inf.
NF_API void attention_varlen(const TensorView& query, const TensorView& key, const TensorView& value,
                             const TensorView& out, std::span<const Index> query_offsets,
                             std::span<const Index> key_offsets, CausalType causal = CausalType::kNone,
                             const Options& options = {});
// Layouts: extents, windows, strides, dilations and causality of every sequence, in the first `rank` entries.
NF_API void multi_dimensional_attention_varlen(const TensorView& query, const TensorView& key,
                                               const TensorView& value, const TensorView& out, int rank,
                                               std::span<const Layout> layouts, const Options& options = {});

// Gradients of any of them, with the same arguments; out and lse are those of
// the forward call; grad_lse may be absent (zero).
struct Gradients {
  TensorView grad_out, grad_lse;                                           // in
  TensorView query, key, value, additional_key, additional_value, bias{};  // out
};
NF_API void na1d_backward(const TensorView& query, const TensorView& key, const TensorView& value,
                          const TensorView& out, const TensorView& lse, const Gradients& gradients,
                          const Window<1>& window, const Options& options = {});
NF_API void na2d_backward(const TensorView& query, const TensorView& key, const TensorView& value,
                          const TensorView& out, const TensorView& lse, const Gradients& gradients,
                          const Window<2>& window, const Options& options = {});
NF_API void na3d_backward(const TensorView& query, const TensorView& key, const TensorView& value,
                          const TensorView& out, const TensorView& lse, const Gradients& gradients,
                          const Window<3>& window, const Options& options = {});
NF_API void attention_backward(const TensorView& query, const TensorView& key, const TensorView& value,
                               const TensorView& out, const TensorView& lse, const Gradients& gradients,
                               CausalType causal = CausalType::kNone, const Options& options = {});

NF_API void multi_dimensional_attention_backward(const TensorView& query, const TensorView& key,
                                                 const TensorView& value, const TensorView& out,
                                                 const TensorView& lse, const Gradients& gradients,
                                                 const Windows& windows = {}, const Options& options = {});
NF_API void spatio_temporal_attention_backward(const TensorView& query, const TensorView& key,
                                               const TensorView& value, const TensorView& out,
                                               const TensorView& lse, const Gradients& gradients,
                                               const Windows& windows = {}, const Options& options = {});
NF_API void attention_varlen_backward(const TensorView& query, const TensorView& key, const TensorView& value,
                                      const TensorView& out, const TensorView& lse,
                                      const Gradients& gradients, std::span<const Index> query_offsets,
                                      std::span<const Index> key_offsets,
                                      CausalType causal = CausalType::kNone, const Options& options = {});
NF_API void multi_dimensional_attention_varlen_backward(const TensorView& query, const TensorView& key,
                                                        const TensorView& value, const TensorView& out,
                                                        const TensorView& lse, const Gradients& gradients,
                                                        int rank, std::span<const Layout> layouts,
                                                        const Options& options = {});

// Joins N >= 2 attentions of the same queries over disjoint keys: out = sum_i exp(lse_i - lse) out_i,
// lse = logsumexp_i lse_i. An lse of -inf has weight 0, and its output is not read.
NF_API void merge_attentions(std::span<const TensorView> outs, std::span<const TensorView> lses,
                             const TensorView& out, const TensorView& lse);

}  // namespace nearfield
