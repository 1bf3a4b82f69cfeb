// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Attention: multi-head attention over all tokens of a layout, without projections, as a torch::nn module.
// Steps: split heads, rotary position embedding, L2 norm of queries and keys, attention, merge heads. It
// has no parameters and no buffers.
//
//   nearfield::Attention layer(nearfield::AttentionOptions(64, 4).use_rope(true).rope_spatial_dims({16, 16}));
//   at::Tensor y = layer(query, key, value);  // [B, 16, 16, 64]
#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>

#include <memory>
#include <mutex>
#include <ostream>

#include "nearfield/torch/functional.h"
#include "nearfield/torch/neighborhood.h"
#include "nearfield/torch/rope.h"

namespace nearfield {

struct AttentionOptions {
  AttentionOptions(int64_t hidden_dim, int64_t num_heads) : hidden_dim_(hidden_dim), num_heads_(num_heads) {}

  TORCH_ARG(int64_t, hidden_dim);          // channels C
  TORCH_ARG(int64_t, num_heads);           // divides C
  TORCH_ARG(bool, apply_qk_norm) = false;  // queries and keys of length 1; the scale is then 1.0
  TORCH_ARG(bool, use_rope) = false;
  TORCH_ARG(bool, is_causal) = false;     // in raster order of the flattened layout
  TORCH_ARG(double, attn_dropout) = 0.0;  // on the attention weights while training
  TORCH_ARG(double, rope_base) = 10000.0;
  TORCH_ARG(std::vector<int64_t>, rope_spatial_dims) = {};  // the layout; needed with use_rope
  TORCH_ARG(std::optional<int64_t>, num_kv_heads) = {};     // divides num_heads; as many
  TORCH_ARG(std::string, backend) = {};
};

class AttentionImpl : public torch::nn::Cloneable<AttentionImpl> {
 public:
  AttentionImpl(int64_t hidden_dim, int64_t num_heads)
      : AttentionImpl(AttentionOptions(hidden_dim, num_heads)) {}
  explicit AttentionImpl(const AttentionOptions& given) : options(given) { reset(); }

  void reset() override {
    using namespace torch_detail;
    check_positive(kName, "hidden_dim", options.hidden_dim());
    check_positive(kName, "num_heads", options.num_heads());
    if (options.hidden_dim() % options.num_heads() != 0)
      refuse(kName,
             "hidden_dim " + std::to_string(options.hidden_dim()) + " and num_heads " +
                 std::to_string(options.num_heads()),
             "num_heads to divide it");
    num_kv_heads = checked_kv_heads(kName, options.num_heads(), options.num_kv_heads());
    head_dim = options.hidden_dim() / options.num_heads();
    check_probability(kName, "attn_dropout", options.attn_dropout());
    backend_number(kName, options.backend());
    if (!(options.rope_base() > 0 && std::isfinite(options.rope_base())))
      refuse(kName, "rope_base " + float_text(options.rope_base()), "a positive number");
    if (!options.use_rope()) return;
    const std::vector<int64_t>& layout = options.rope_spatial_dims();
    if (layout.empty()) refuse(kName, "use_rope without rope_spatial_dims", "the layout, such as (64, 64)");
    for (const int64_t n : layout)
      if (n < 0) refuse(kName, "rope_spatial_dims " + tuple_text(layout), "extents from 0 on");
    if (layout.size() > 3) refuse(kName, "rope_spatial_dims " + tuple_text(layout), "1, 2 or 3 axes");
    const auto pairs = 2 * static_cast<int64_t>(layout.size());
    if (head_dim % pairs != 0)
      refuse(kName, "head_dim " + std::to_string(head_dim), "a multiple of " + std::to_string(pairs),
             "each of " + std::to_string(layout.size()) + " axes turns pairs");
  }

  // query [B, *layout, C], key and value [B, *layout, num_kv_heads * head_dim] (without rotary embedding
  // their layout may be another) -> [B, *layout of query, C]. Additional keys and values are [B, S,
  // num_kv_heads, head_dim], seen by every query, taken as they are: without position, not normalised.
  at::Tensor forward(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const at::Tensor& additional_keys = {}, const at::Tensor& additional_values = {}) {
    return std::get<0>(forward_with_lse(query, key, value, additional_keys, additional_values));
  }

  // Also lse [B, *layout, num_heads].
  OutAndLse forward_with_lse(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                             const at::Tensor& additional_keys = {},
                             const at::Tensor& additional_values = {}) {
    using namespace torch_detail;
    check_input("query", query, options.num_heads());
    check_input("key", key, num_kv_heads);
    check_input("value", value, num_kv_heads);
    const auto layout_of = [](const at::Tensor& x) {
      return x.sizes().slice(0, static_cast<std::size_t>(x.dim()) - 1);
    };
    if (layout_of(key) != layout_of(value))
      refuse(kName, "key " + tuple_text(key.sizes()) + " and value " + tuple_text(value.sizes()),
             "one layout");
    at::Tensor q = prepared(query, options.num_heads(), true), k = prepared(key, num_kv_heads, true),
               v = prepared(value, num_kv_heads, false);
    AttentionFuncOptions o;
    if (options.is_causal()) o.causal_type = CausalType::kTopLeft;
    o.scale = options.apply_qk_norm() ? 1.0 : std::pow(static_cast<double>(head_dim), -0.5);
    o.backend = options.backend();
    o.additional_keys = additional_keys;
    o.additional_values = additional_values;
    o.dropout_p = is_training() ? options.attn_dropout() : 0.0;
    const auto [out, lse] = attention_with_lse(q.flatten(1, -3), k.flatten(1, -3), v.flatten(1, -3), o);
    std::vector<int64_t> shape = layout_of(query).vec();
    shape.push_back(options.num_heads());
    return {out.reshape(query.sizes()), lse.reshape(shape)};
  }

  void pretty_print(std::ostream& stream) const override {
    using torch_detail::bool_text;
    using torch_detail::float_text;
    stream << "nearfield::Attention(num_heads=" << options.num_heads()
           << ", apply_qk_norm=" << bool_text(options.apply_qk_norm())
           << ", is_causal=" << bool_text(options.is_causal())
           << ", attn_dropout=" << float_text(options.attn_dropout())
           << ", use_rope=" << bool_text(options.use_rope())
           << ", rope_base=" << float_text(options.rope_base());
    if (num_kv_heads != options.num_heads()) stream << ", num_kv_heads=" << num_kv_heads;
    if (!options.backend().empty()) stream << ", backend='" << options.backend() << "'";
    stream << ")";
  }

  AttentionOptions options;
  int64_t head_dim = 0, num_kv_heads = 0;

 private:
  static constexpr const char* kName = "Attention";

  // The tables last used, for one dtype and device. A copy of the module starts without.
  class TableCache {
   public:
    TableCache() = default;
    TableCache(const TableCache&) {}
    TableCache& operator=(const TableCache&) { return *this; }

    RopeTables get(const AttentionOptions& options, int64_t head_dim, const at::TensorOptions& like) {
      const std::lock_guard lock(mutex_);
      if (tables_.empty() || tables_[0].first.dtype() != like.dtype() ||
          tables_[0].first.device() != like.device())
        tables_ = torch_detail::make_rope_tables(kName, options.rope_spatial_dims(), head_dim,
                                                 options.rope_base(), {}, like);
      return tables_;
    }

   private:
    std::mutex mutex_;
    RopeTables tables_;
  };

  // Split into heads; queries and keys also turned and brought to length 1.
  at::Tensor prepared(const at::Tensor& given, int64_t heads, bool positioned) {
    at::Tensor x = given.unflatten(-1, {heads, head_dim});
    const at::ScalarType work = torch_detail::working_dtype(x.scalar_type());
    if (positioned && options.use_rope())
      x = torch_detail::rotate(x, tables_.get(options, head_dim, x.options().dtype(work)));
    if (!positioned || !options.apply_qk_norm()) return x;
    // In float32 or float64: a square of float16 overflows. A zero vector stays zero, with finite gradients.
    const at::Tensor wide = x.to(work);
    const at::Tensor norm = at::linalg_vector_norm(wide, 2, at::IntArrayRef{-1}, /*keepdim=*/true);
    const at::Tensor safe = at::where(norm == 0, at::ones_like(norm), norm.clamp_min(1e-12));
    return (wide / safe).to(x.scalar_type());
  }

  void check_input(const char* name, const at::Tensor& x, int64_t heads) const {
    using namespace torch_detail;
    check_tensor(kName, name, x);
    const std::vector<int64_t>& layout = options.rope_spatial_dims();
    const auto axes = static_cast<int64_t>(layout.size());
    const int64_t channels = heads * head_dim, given = x.dim() - 2;
    const std::string got = std::string(name) + " of shape " + tuple_text(x.sizes());
    if (options.use_rope() ? given != axes : given < 1 || given > 3)
      refuse(kName, got,
             "[B, *layout, " + std::to_string(channels) + "] with " +
                 (options.use_rope() ? std::to_string(axes) : "1 or 2 or 3") + " axes");
    if (x.size(-1) != channels) refuse(kName, got, std::to_string(channels) + " channels, the last axis");
    const at::IntArrayRef sizes = x.sizes().slice(1, static_cast<std::size_t>(given));
    if (options.use_rope() && sizes != at::IntArrayRef(layout))
      refuse(kName, std::string(name) + " of layout " + tuple_text(sizes), tuple_text(layout),
             "that is rope_spatial_dims: make a module for each layout, they hold no parameters");
  }

  TableCache tables_;
};
TORCH_MODULE(Attention);

}  // namespace nearfield
