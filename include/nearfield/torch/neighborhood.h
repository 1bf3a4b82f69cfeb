// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// NeighborhoodAttention1D, 2D, 3D: neighborhood attention with its projections, as torch::nn modules.
// Parameters are those of the Python modules, and of Swin and timm: qkv.weight [3C, C], qkv.bias,
// proj.weight [C, C], proj.bias, where output channel ((which * H) + head) * D + j of qkv is channel j of
// that head's query, key or value. With fewer key/value heads: qkv.weight [(H + 2 Hkv) D, C]. Relative
// position bias is rpb [H, 2k-1, ...].
//
//   nearfield::NeighborhoodAttention2D layer(nearfield::NeighborhoodAttentionOptions(64, 4, 7).stride(2));
//   at::Tensor y = layer(x);  // [B, X, Y, 64]
#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/modules/dropout.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

#include <cmath>
#include <ostream>

#include "nearfield/torch/functional.h"

namespace nearfield {

struct NeighborhoodAttentionOptions {
  NeighborhoodAttentionOptions(int64_t embed_dim, int64_t num_heads, PerAxis<int64_t> kernel_size)
      : embed_dim_(embed_dim), num_heads_(num_heads), kernel_size_(std::move(kernel_size)) {}

  TORCH_ARG(int64_t, embed_dim);  // channels C of input and output
  TORCH_ARG(int64_t, num_heads);  // divides C
  TORCH_ARG(PerAxis<int64_t>, kernel_size);
  TORCH_ARG(PerAxis<int64_t>, stride) = 1;
  TORCH_ARG(PerAxis<int64_t>, dilation) = 1;
  TORCH_ARG(PerAxis<bool>, is_causal) = false;
  TORCH_ARG(bool, qkv_bias) = true;
  TORCH_ARG(std::optional<double>, qk_scale) = {};       // head_dim ** -0.5
  TORCH_ARG(double, proj_drop) = 0.0;                    // after the output projection
  TORCH_ARG(std::optional<int64_t>, num_kv_heads) = {};  // divides num_heads; as many
  TORCH_ARG(double, attn_drop) = 0.0;                    // on the attention weights while training
  TORCH_ARG(bool, rel_pos_bias) = false;                 // learn rpb
  TORCH_ARG(std::string, backend) = {};
};

namespace torch_detail {

inline void check_positive(const std::string& op, const char* name, int64_t value) {
  if (value < 1) refuse(op, std::string(name) + " " + std::to_string(value), "at least 1");
}

inline void check_probability(const std::string& op, const std::string& name, double value) {
  if (!(value >= 0 && value < 1)) refuse(op, name + " " + float_text(value), "0 <= " + name + " < 1");
}

inline int64_t checked_kv_heads(const std::string& op, int64_t num_heads,
                                std::optional<int64_t> num_kv_heads) {
  if (!num_kv_heads) return num_heads;
  check_positive(op, "num_kv_heads", *num_kv_heads);
  if (num_heads % *num_kv_heads != 0)
    refuse(op, "num_kv_heads " + std::to_string(*num_kv_heads),
           "a divisor of num_heads " + std::to_string(num_heads),
           "consecutive query heads share a key/value head");
  return *num_kv_heads;
}

inline const char* bool_text(bool x) { return x ? "True" : "False"; }

// What the three modules are made of; Derived is the module of that rank.
template <int Rank, class Derived>
class NeighborhoodAttentionImpl : public torch::nn::Cloneable<Derived> {
 public:
  NeighborhoodAttentionImpl(int64_t embed_dim, int64_t num_heads, PerAxis<int64_t> kernel_size)
      : NeighborhoodAttentionImpl(
            NeighborhoodAttentionOptions(embed_dim, num_heads, std::move(kernel_size))) {}
  explicit NeighborhoodAttentionImpl(const NeighborhoodAttentionOptions& given) : options(given) { reset(); }

  void reset() override {
    const std::string op = name();
    check_positive(op, "embed_dim", options.embed_dim());
    check_positive(op, "num_heads", options.num_heads());
    if (options.embed_dim() % options.num_heads() != 0)
      refuse(op,
             "embed_dim " + std::to_string(options.embed_dim()) + " and num_heads " +
                 std::to_string(options.num_heads()),
             "num_heads to divide it");
    num_kv_heads = checked_kv_heads(op, options.num_heads(), options.num_kv_heads());
    head_dim = options.embed_dim() / options.num_heads();
    kernel_size_ = options.kernel_size().expand(op, "kernel_size", Rank);
    check_probability(op, "attn_drop", options.attn_drop());
    check_window();
    const int64_t width = (options.num_heads() + 2 * num_kv_heads) * head_dim;
    qkv = this->register_module(
        "qkv",
        torch::nn::Linear(torch::nn::LinearOptions(options.embed_dim(), width).bias(options.qkv_bias())));
    proj = this->register_module("proj", torch::nn::Linear(options.embed_dim(), options.embed_dim()));
    proj_drop = this->register_module("proj_drop", torch::nn::Dropout(options.proj_drop()));
    if (options.rel_pos_bias()) {
      std::vector<int64_t> shape = {options.num_heads()};
      for (const int64_t k : kernel_size_) shape.push_back(2 * k - 1);
      rpb = this->register_parameter("rpb", at::empty(shape, c10::get_default_dtype()));
      reset_bias();
    }
  }

  // Fresh weights: PyTorch's for the projections, a truncated normal (0.02) for the bias table.
  void reset_parameters() {
    qkv->reset_parameters();
    proj->reset_parameters();
    if (rpb.defined()) reset_bias();
  }

  // x [B, *layout, embed_dim] -> the same shape.
  at::Tensor forward(const at::Tensor& x) { return std::get<0>(forward_with_lse(x)); }

  // Also lse [B, *layout, num_heads]. Additional keys and values [B, S, num_kv_heads, head_dim],
  // projected already, are seen by every query in the same softmax.
  OutAndLse forward_with_lse(const at::Tensor& x, const at::Tensor& additional_keys = {},
                             const at::Tensor& additional_values = {}) {
    const std::string op = name();
    check_tensor(op, "x", x);
    if (x.dim() != Rank + 2 || x.size(-1) != options.embed_dim())
      refuse(op, "x of shape " + tuple_text(x.sizes()),
             "[B, *layout, " + std::to_string(options.embed_dim()) + "] of rank " + std::to_string(Rank + 2));
    const int64_t heads = options.num_heads();
    const std::array<int64_t, 3> counts = {heads, num_kv_heads, num_kv_heads};
    const at::Tensor all = qkv(x);
    std::array<at::Tensor, 3> parts;
    int64_t begin = 0;
    for (std::size_t i = 0; i < 3; ++i) {
      parts[i] = all.narrow(-1, begin, counts[i] * head_dim).unflatten(-1, {counts[i], head_dim});
      begin += counts[i] * head_dim;
    }
    NeighborhoodFuncOptions o;
    o.stride = options.stride();
    o.dilation = options.dilation();
    o.is_causal = options.is_causal();
    o.scale = options.qk_scale().value_or(std::pow(static_cast<double>(head_dim), -0.5));
    o.additional_keys = additional_keys;
    o.additional_values = additional_values;
    if (rpb.defined()) o.bias = rpb.to(parts[0].scalar_type());
    o.dropout_p = this->is_training() ? options.attn_drop() : 0.0;
    o.backend = options.backend();
    const auto [out, lse] = neighborhood(kFunction, parts[0], parts[1], parts[2], options.kernel_size(), o);
    return {proj_drop(proj(out.flatten(-2))), lse};
  }

  void pretty_print(std::ostream& stream) const override {
    const std::string op = name();
    const auto bools = options.is_causal().expand(op, "is_causal", Rank);
    std::string causal = "(";
    for (std::size_t i = 0; i < bools.size(); ++i)
      causal += (i ? ", " : "") + std::string(bool_text(bools[i]));
    causal += bools.size() == 1 ? ",)" : ")";
    stream << "nearfield::" << op << "(head_dim=" << head_dim << ", num_heads=" << options.num_heads()
           << ", kernel_size=" << tuple_text(kernel_size_)
           << ", stride=" << tuple_text(options.stride().expand(op, "stride", Rank))
           << ", dilation=" << tuple_text(options.dilation().expand(op, "dilation", Rank))
           << ", is_causal=" << causal;
    if (num_kv_heads != options.num_heads()) stream << ", num_kv_heads=" << num_kv_heads;
    if (options.attn_drop() > 0) stream << ", attn_drop=" << float_text(options.attn_drop());
    if (rpb.defined()) stream << ", rel_pos_bias=True";
    if (!options.backend().empty()) stream << ", backend='" << options.backend() << "'";
    stream << ")";
  }

  NeighborhoodAttentionOptions options;
  int64_t head_dim = 0, num_kv_heads = 0;
  torch::nn::Linear qkv{nullptr}, proj{nullptr};
  torch::nn::Dropout proj_drop{nullptr};
  at::Tensor rpb;

 private:
  static constexpr Function kFunction = static_cast<Function>(Rank - 1);

  static std::string name() { return "NeighborhoodAttention" + std::to_string(Rank) + "D"; }

  // The rules on the window that hold for every layout, and the backend's name: asked of the operator,
  // with no batch on a layout that fits, now instead of at the first forward.
  void check_window() {
    const auto dilation = options.dilation().expand(name(), "dilation", Rank);
    std::vector<int64_t> shape = {0};
    for (std::size_t a = 0; a < Rank; ++a) {
      int64_t extent = 0;
      const int64_t most = int64_t{1} << (60 / Rank);  // keeps the number of tokens within 64 bits
      if (__builtin_mul_overflow(kernel_size_[a], dilation[a], &extent)) extent = most;
      shape.push_back(std::clamp(extent, int64_t{1}, most));
    }
    shape.insert(shape.end(), {1, 1});
    const at::Tensor x = at::empty(shape, at::kFloat);
    NeighborhoodFuncOptions o;
    o.stride = options.stride();
    o.dilation = options.dilation();
    o.is_causal = options.is_causal();
    try {
      neighborhood(kFunction, x, x, x, options.kernel_size(), o);
    } catch (const std::invalid_argument& error) {  // said in the module's name
      std::string text = error.what();
      const std::string operation = "[na" + std::to_string(Rank) + "d]";
      if (text.rfind(operation, 0) == 0) text.replace(0, operation.size(), "[" + name() + "]");
      throw std::invalid_argument(text);
    }
    backend_number(name(), options.backend());
  }

  // 0.02 as in Swin and NAT.
  void reset_bias() {
    const at::NoGradGuard no_grad;
    rpb.normal_(0, 0.02).clamp_(-2, 2);
  }

  std::vector<int64_t> kernel_size_;
};

}  // namespace torch_detail

// [B, L, C]
class NeighborhoodAttention1DImpl
    : public torch_detail::NeighborhoodAttentionImpl<1, NeighborhoodAttention1DImpl> {
 public:
  using NeighborhoodAttentionImpl::NeighborhoodAttentionImpl;
};
TORCH_MODULE(NeighborhoodAttention1D);

// [B, X, Y, C]
class NeighborhoodAttention2DImpl
    : public torch_detail::NeighborhoodAttentionImpl<2, NeighborhoodAttention2DImpl> {
 public:
  using NeighborhoodAttentionImpl::NeighborhoodAttentionImpl;
};
TORCH_MODULE(NeighborhoodAttention2D);

// [B, X, Y, Z, C]
class NeighborhoodAttention3DImpl
    : public torch_detail::NeighborhoodAttentionImpl<3, NeighborhoodAttention3DImpl> {
 public:
  using NeighborhoodAttentionImpl::NeighborhoodAttentionImpl;
};
TORCH_MODULE(NeighborhoodAttention3D);

}  // namespace nearfield
