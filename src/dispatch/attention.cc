// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The conveniences of attention.h: views -> Request -> Problem -> plan -> run.
#include "nearfield/attention.h"

#include "problem/message.h"

namespace nearfield {
namespace {

// A pool made at first use and kept for the life of the process.
Executor& shared_executor() {
  static const std::unique_ptr<Executor> pool = make_executor();
  return *pool;
}

template <int Rank>
Request request_of(const char* op, const Window<Rank>& window) {
  Request r;
  r.op = op;
  r.rank = Rank;
  r.window.assign(window.size.begin(), window.size.end());
  r.stride.assign(window.stride.begin(), window.stride.end());
  r.dilation.assign(window.dilation.begin(), window.dilation.end());
  r.causal.assign(window.causal.begin(), window.causal.end());
  return r;
}

Request request_of(const char* op, CausalType causal) {
  Request r;
  r.op = op;
  r.operation = Operation::kAttention;
  r.causal_type = causal;
  return r;
}

Request request_of(const char* op, const TensorView& query, const Windows& windows) {
  Request r;
  r.op = op;
  r.rank = query.rank - 3;
  r.lenient_windows = true;
  const auto per_axis = [&](const std::vector<Index>& given) {
    return given.size() == 1 && r.rank > 0 ? std::vector<Index>(static_cast<std::size_t>(r.rank), given[0])
                                           : given;
  };
  r.window = per_axis(windows.size);
  r.stride = per_axis(windows.stride);
  r.dilation = per_axis(windows.dilation);
  r.causal = per_axis(windows.causal);
  return r;
}

Request request_of_time_and_space(const char* op, const TensorView& query, const Windows& windows) {
  Request r = request_of(op, query, windows);
  if (query.rank != 6)
    refuse(op, "query of rank " + std::to_string(query.rank), "rank 6, [B, T, H, W, heads, head_dim]");
  r.causal = {1, 0, 0};
  return r;
}

Request request_of(const char* op, std::span<const Index> query_offsets, std::span<const Index> key_offsets,
                   CausalType causal) {
  Request r = request_of(op, causal);
  r.varlen = true;
  r.query_offsets.assign(query_offsets.begin(), query_offsets.end());
  r.key_offsets.assign(key_offsets.begin(), key_offsets.end());
  return r;
}

Request request_of(const char* op, int rank, std::span<const Layout> layouts) {
  Request r;
  r.op = op;
  r.rank = rank;
  r.varlen = r.lenient_windows = true;
  r.layouts.assign(layouts.begin(), layouts.end());
  for (Layout& layout : r.layouts) layout.query_extent = layout.extent;
  return r;
}

void fill(Request& r, Tensors& tensors, const TensorView& q, const TensorView& k, const TensorView& v,
          const Options& options) {
  tensors[Role::kQuery] = q;
  tensors[Role::kKey] = k;
  tensors[Role::kValue] = v;
  tensors[Role::kAdditionalKey] = options.additional_key;
  tensors[Role::kAdditionalValue] = options.additional_value;
  r.query = info_of(q);
  r.key = info_of(k);
  r.value = info_of(v);
  r.additional_key = info_of(options.additional_key);
  r.additional_value = info_of(options.additional_value);
  tensors[Role::kBias] = options.bias;
  tensors.seed = &options.seed;
  r.bias = info_of(options.bias);
  r.dropout = options.dropout;
  r.scale = options.scale;
  if (options.bf16_arithmetic) r.precision = Precision::kBF16;
}

void plan_and_run(const Request& r, const Tensors& tensors, const Options& options) {
  const Problem problem = make_problem(r);
  PlanOptions plan = options.plan;
  plan.op = r.op;
  run(problem, make_plan(problem, plan), tensors, options.executor ? *options.executor : shared_executor());
}

void forward(Request r, const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& out,
             const Options& options) {
  Tensors tensors;
  fill(r, tensors, q, k, v, options);
  tensors[Role::kOut] = out;
  tensors[Role::kLse] = options.lse;
  r.lse_wanted = options.lse.present();
  plan_and_run(r, tensors, options);
}

void backward(Request r, const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& out,
              const TensorView& lse, const Gradients& g, const Options& options) {
  Tensors tensors;
  fill(r, tensors, q, k, v, options);
  tensors[Role::kOut] = out;
  tensors[Role::kLse] = lse;
  tensors[Role::kGradOut] = g.grad_out;
  tensors[Role::kGradLse] = g.grad_lse;
  tensors[Role::kGradQuery] = g.query;
  tensors[Role::kGradKey] = g.key;
  tensors[Role::kGradValue] = g.value;
  tensors[Role::kGradAdditionalKey] = g.additional_key;
  tensors[Role::kGradAdditionalValue] = g.additional_value;
  tensors[Role::kGradBias] = g.bias;
  r.direction = Direction::kBackward;
  r.out = info_of(out);
  r.lse = info_of(lse);
  r.grad_out = info_of(g.grad_out);
  r.grad_lse = info_of(g.grad_lse);
  plan_and_run(r, tensors, options);
}

}  // namespace

void na1d(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& out,
          const Window<1>& window, const Options& options) {
  forward(request_of("na1d", window), q, k, v, out, options);
}
void na2d(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& out,
          const Window<2>& window, const Options& options) {
  forward(request_of("na2d", window), q, k, v, out, options);
}
void na3d(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& out,
          const Window<3>& window, const Options& options) {
  forward(request_of("na3d", window), q, k, v, out, options);
}
void attention(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& out,
               CausalType causal, const Options& options) {
  forward(request_of("attention", causal), q, k, v, out, options);
}

void na1d_backward(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& out,
                   const TensorView& lse, const Gradients& gradients, const Window<1>& window,
                   const Options& options) {
  backward(request_of("na1d_backward", window), q, k, v, out, lse, gradients, options);
}
void na2d_backward(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& out,
                   const TensorView& lse, const Gradients& gradients, const Window<2>& window,
                   const Options& options) {
  backward(request_of("na2d_backward", window), q, k, v, out, lse, gradients, options);
}
void na3d_backward(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& out,
                   const TensorView& lse, const Gradients& gradients, const Window<3>& window,
                   const Options& options) {
  backward(request_of("na3d_backward", window), q, k, v, out, lse, gradients, options);
}
void attention_backward(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& out,
                        const TensorView& lse, const Gradients& gradients, CausalType causal,
                        const Options& options) {
  backward(request_of("attention_backward", causal), q, k, v, out, lse, gradients, options);
}

void multi_dimensional_attention(const TensorView& q, const TensorView& k, const TensorView& v,
                                 const TensorView& out, const Windows& windows, const Options& options) {
  forward(request_of("multi_dimensional_attention", q, windows), q, k, v, out, options);
}
void spatio_temporal_attention(const TensorView& q, const TensorView& k, const TensorView& v,
                               const TensorView& out, const Windows& windows, const Options& options) {
  forward(request_of_time_and_space("spatio_temporal_attention", q, windows), q, k, v, out, options);
}
void attention_varlen(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& out,
                      std::span<const Index> query_offsets, std::span<const Index> key_offsets,
                      CausalType causal, const Options& options) {
  forward(request_of("attention_varlen", query_offsets, key_offsets, causal), q, k, v, out, options);
}
void multi_dimensional_attention_varlen(const TensorView& q, const TensorView& k, const TensorView& v,
                                        const TensorView& out, int rank, std::span<const Layout> layouts,
                                        const Options& options) {
  forward(request_of("multi_dimensional_attention_varlen", rank, layouts), q, k, v, out, options);
}

void multi_dimensional_attention_backward(const TensorView& q, const TensorView& k, const TensorView& v,
                                          const TensorView& out, const TensorView& lse,
                                          const Gradients& gradients, const Windows& windows,
                                          const Options& options) {
  backward(request_of("multi_dimensional_attention_backward", q, windows), q, k, v, out, lse, gradients,
           options);
}
void spatio_temporal_attention_backward(const TensorView& q, const TensorView& k, const TensorView& v,
                                        const TensorView& out, const TensorView& lse,
                                        const Gradients& gradients, const Windows& windows,
                                        const Options& options) {
  backward(request_of_time_and_space("spatio_temporal_attention_backward", q, windows), q, k, v, out, lse,
           gradients, options);
}
void attention_varlen_backward(const TensorView& q, const TensorView& k, const TensorView& v,
                               const TensorView& out, const TensorView& lse, const Gradients& gradients,
                               std::span<const Index> query_offsets, std::span<const Index> key_offsets,
                               CausalType causal, const Options& options) {
  backward(request_of("attention_varlen_backward", query_offsets, key_offsets, causal), q, k, v, out, lse,
           gradients, options);
}
void multi_dimensional_attention_varlen_backward(const TensorView& q, const TensorView& k,
                                                 const TensorView& v, const TensorView& out,
                                                 const TensorView& lse, const Gradients& gradients, int rank,
                                                 std::span<const Layout> layouts, const Options& options) {
  backward(request_of("multi_dimensional_attention_varlen_backward", rank, layouts), q, k, v, out, lse,
           gradients, options);
}

}  // namespace nearfield
