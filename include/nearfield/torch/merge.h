// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Joining attentions of the same queries over disjoint keys: a composition of PyTorch's operations, so
// every derivative is there.
#pragma once

#include <ATen/ATen.h>

#include <limits>
#include <tuple>

#include "nearfield/torch/arguments.h"

namespace nearfield {

namespace torch_detail {

inline void check_parts(const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& lse_tensors) {
  const std::string op = "merge_attentions";
  for (const at::Tensor& t : outputs) check_tensor(op, "an entry of outputs", t);
  for (const at::Tensor& t : lse_tensors) check_tensor(op, "an entry of lse_tensors", t);
  if (outputs.size() < 2 || outputs.size() != lse_tensors.size())
    refuse(op,
           std::to_string(outputs.size()) + " outputs and " + std::to_string(lse_tensors.size()) +
               " lse tensors",
           "two or more, as many of both");
  const auto kind = [](const at::Tensor& t) {
    return tuple_text(t.sizes()) + ", torch." + dtype_text(t.scalar_type()) + " on " + t.device().str();
  };
  const at::Tensor& first = outputs[0];
  if (!first.is_floating_point() || first.dim() < 2)
    refuse(op,
           "an output of dtype torch." + dtype_text(first.scalar_type()) + " and rank " +
               std::to_string(first.dim()),
           "a floating one, [..., heads, value head_dim]");
  for (const at::Tensor& t : outputs)
    if (t.sizes() != first.sizes() || t.scalar_type() != first.scalar_type() || t.device() != first.device())
      refuse(op, "outputs of shape " + kind(first) + " and " + kind(t), "them to be alike");
  const at::IntArrayRef shape = first.sizes().slice(0, static_cast<std::size_t>(first.dim()) - 1);
  for (const at::Tensor& t : lse_tensors)
    if (t.sizes() != shape || !t.is_floating_point() || t.device() != first.device())
      refuse(op, "an lse of shape " + kind(t), tuple_text(shape) + ", floating, on " + first.device().str(),
             "an lse has the shape of its output without the last axis");
}

}  // namespace torch_detail

// outputs: two or more tensors [B, *layout, H, Dv]; lse_tensors: as many, [B, *layout, H]. Returns
// lse = logsumexp_i lse_i and out = sum_i exp(lse_i - lse) out_i. An lse of -inf has weight 0, and its
// output is not read; where all are, the result is 0 and -inf.
inline std::tuple<at::Tensor, at::Tensor> merge_attentions(const std::vector<at::Tensor>& outputs,
                                                           const std::vector<at::Tensor>& lse_tensors) {
  torch_detail::check_parts(outputs, lse_tensors);
  const at::ScalarType dtype = outputs[0].scalar_type(), work = torch_detail::working_dtype(dtype);
  std::vector<at::Tensor> wide;
  for (const at::Tensor& t : lse_tensors) wide.push_back(t.to(work));
  const at::Tensor lses = at::stack(wide);
  at::Tensor largest = lses.detach().amax(0);
  largest = largest.masked_fill(largest.isneginf(), 0);
  const at::Tensor weights = (lses - largest).exp();
  at::Tensor total = weights.sum(0);
  const at::Tensor empty = total == 0;
  total = total.masked_fill(empty, 1);
  at::Tensor out = at::zeros_like(outputs[0], outputs[0].options().dtype(work));
  const std::vector<at::Tensor> shares = (weights / total).unbind(0);
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const at::Tensor weight = shares[i].unsqueeze(-1);
    const at::Tensor part = outputs[i].to(work);
    out = out + weight * at::where(weight > 0, part, at::zeros_like(part));
  }
  const at::Tensor lse = (largest + total.log()).masked_fill(empty, -std::numeric_limits<double>::infinity());
  return {out.to(dtype), lse};
}

}  // namespace nearfield
