// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Rotary position embedding over token layouts of one, two or three axes. The channels of a head are cut
// into one slice of n = D / axes channels per axis, in the layout's order. Within a slice, channels j and
// j + n/2 are turned by the angle p * theta_j, p being the token's position on that axis and
//
//   theta_m = base ** (-2m / n),  m = 0 .. n/2 - 1.
//
// A true rotation; angles, cosines and sines are computed in float64 and rounded once.
//
//   at::Tensor q = nearfield::rope(x);                                // x [B, *layout, heads, D]
//   q = nearfield::rope(x, 10000.0, {.offset = {64, 0}});             // a shard, or a step of decoding
//
// Sources: Su et al., RoFormer (2021); Chen et al., Positional Interpolation (2023); NTK-aware bases.
#pragma once

#include <ATen/ATen.h>

#include <cmath>

#include "nearfield/torch/arguments.h"

namespace nearfield {

struct RopeOptions {
  std::vector<double> offset = {0.0};  // position of the first token: one for all axes, or one per axis
  std::vector<double> factor = {1.0};  // new extent over the one trained on: likewise
  std::string scaling = "linear";      // positions are divided by factor; "ntk": the base grows
};

// One (cos, sin) per axis, each [extent, n]; column j holds the angle of channel j.
using RopeTables = std::vector<std::pair<at::Tensor, at::Tensor>>;

namespace torch_detail {

inline void check_rope_dim(const std::string& op, int64_t dim, int64_t axes) {
  if (dim < 1 || dim % (2 * axes) != 0)
    refuse(op, "head_dim " + std::to_string(dim), "a multiple of " + std::to_string(2 * axes),
           "each of " + std::to_string(axes) + " axes turns pairs");
}

inline void check_rope_input(const std::string& op, const at::Tensor& x) {
  check_tensor(op, "x", x);
  if (!x.is_floating_point()) refuse(op, "x of dtype torch." + dtype_text(x.scalar_type()), "a floating one");
  if (x.dim() < 4 || x.dim() > 6)
    refuse(op, "x of rank " + std::to_string(x.dim()), "4 to 6: [B, *layout, heads, head_dim]");
}

inline std::vector<double> expand_numbers(const std::string& op, const char* name,
                                          const std::vector<double>& numbers, std::size_t axes) {
  if (numbers.size() == 1) return std::vector<double>(axes, numbers[0]);
  if (numbers.size() != axes)
    refuse(op, std::string(name) + " of length " + std::to_string(numbers.size()), std::to_string(axes),
           "give one number, or one per axis");
  return numbers;
}

inline RopeTables make_rope_tables(const std::string& op, at::IntArrayRef layout, int64_t dim, double base,
                                   const RopeOptions& o, const at::TensorOptions& like) {
  if (!(base > 0) || !std::isfinite(base)) refuse(op, "base " + float_text(base), "a positive number");
  const auto offsets = expand_numbers(op, "offset", o.offset, layout.size()),
             factors = expand_numbers(op, "factor", o.factor, layout.size());
  const bool ntk = o.scaling == "ntk";
  if (!ntk && o.scaling != "linear") refuse(op, "scaling '" + o.scaling + "'", "one of linear, ntk");
  const auto wide = like.dtype(at::kDouble);
  const int64_t n = dim / static_cast<int64_t>(layout.size());
  const at::Tensor exponents = at::arange(0, n, 2, wide) / -static_cast<double>(n);
  RopeTables tables;
  for (std::size_t a = 0; a < layout.size(); ++a) {
    if (!std::isfinite(offsets[a])) refuse(op, "offset " + float_text(offsets[a]), "finite numbers");
    if (!(factors[a] > 0) || !std::isfinite(factors[a]))
      refuse(op, "factor " + float_text(factors[a]), "positive numbers", "it is new extent over old");
    const double power = static_cast<double>(n) / static_cast<double>(n - 2);
    const at::Tensor theta = at::pow(ntk && n > 2 ? base * std::pow(factors[a], power) : base, exponents);
    at::Tensor positions = at::arange(layout[a], wide) + offsets[a];
    if (!ntk) positions = positions / factors[a];
    const at::Tensor angles = (positions.unsqueeze(1) * theta).repeat({1, 2});
    tables.emplace_back(angles.cos().to(like.dtype()), angles.sin().to(like.dtype()));
  }
  return tables;
}

// The rotation in the working dtype, rounded to x's dtype at the end.
inline at::Tensor rotate(const at::Tensor& x, const RopeTables& tables) {
  const at::ScalarType work = working_dtype(x.scalar_type());
  const auto axes = static_cast<int64_t>(tables.size());
  const std::vector<at::Tensor> slices = x.to(work).chunk(axes, -1);
  std::vector<at::Tensor> parts;
  for (int64_t a = 0; a < axes; ++a) {
    const at::Tensor& slice = slices[static_cast<std::size_t>(a)];
    const int64_t half = slice.size(-1) / 2;
    const auto shaped = [&](const at::Tensor& table, int64_t begin) {
      std::vector<int64_t> shape(static_cast<std::size_t>(axes - a) + 2, 1);  // later axes and the heads
      shape.front() = table.size(0);
      shape.back() = half;
      return table.to(work).narrow(1, begin, half).reshape(shape);
    };
    const auto& [cos, sin] = tables[static_cast<std::size_t>(a)];
    const at::Tensor first = slice.narrow(-1, 0, half), second = slice.narrow(-1, half, half);
    parts.push_back(first * shaped(cos, 0) - second * shaped(sin, 0));
    parts.push_back(second * shaped(cos, half) + first * shaped(sin, half));
  }
  return at::cat(parts, -1).to(x.scalar_type());
}

inline void check_rope_axes(const std::string& op, at::IntArrayRef layout) {
  if (layout.empty() || layout.size() > 3) refuse(op, "layout " + tuple_text(layout), "1, 2 or 3 axes");
  for (const int64_t n : layout)
    if (n < 0) refuse(op, "layout " + tuple_text(layout), "extents from 0 on");
}

}  // namespace torch_detail

// Cosines and sines for a token layout, for many calls of apply_rope. `like` gives dtype and device.
inline RopeTables rope_tables(at::IntArrayRef layout, int64_t head_dim, double base = 10000.0,
                              const RopeOptions& options = {}, const at::TensorOptions& like = at::kFloat) {
  torch_detail::check_rope_axes("rope_tables", layout);
  torch_detail::check_rope_dim("rope_tables", head_dim, static_cast<int64_t>(layout.size()));
  return torch_detail::make_rope_tables("rope_tables", layout, head_dim, base, options, like);
}

// x [B, *layout, heads, D] turned by tables of its layout; a new tensor of x's dtype.
inline at::Tensor apply_rope(const at::Tensor& x, const RopeTables& tables) {
  using namespace torch_detail;
  const std::string op = "apply_rope";
  check_rope_input(op, x);
  const at::IntArrayRef layout = x.sizes().slice(1, static_cast<std::size_t>(x.dim()) - 3);
  if (tables.size() != layout.size())
    refuse(op, std::to_string(tables.size()) + " tables", "one per axis of " + tuple_text(layout));
  check_rope_dim(op, x.size(-1), static_cast<int64_t>(layout.size()));
  for (std::size_t a = 0; a < layout.size(); ++a) {
    const std::array<int64_t, 2> shape = {layout[a], x.size(-1) / static_cast<int64_t>(layout.size())};
    for (const auto& [name, table] :
         {std::pair("cos", tables[a].first), std::pair("sin", tables[a].second)}) {
      check_tensor(op, name, table);
      if (table.sizes() != at::IntArrayRef(shape))
        refuse(op,
               std::string("a ") + name + " table of shape " + tuple_text(table.sizes()) + " for x " +
                   tuple_text(x.sizes()),
               tuple_text(shape), "rope_tables(layout, head_dim) makes it");
      if (table.device() != x.device())
        refuse(op, "a table on " + table.device().str(), x.device().str() + ", as x");
    }
  }
  return rotate(x, tables);
}

// x [B, *layout, heads, D] with every token turned by its position; a new tensor of x's dtype.
inline at::Tensor rope(const at::Tensor& x, double base = 10000.0, const RopeOptions& options = {}) {
  using namespace torch_detail;
  check_rope_input("rope", x);
  const at::IntArrayRef layout = x.sizes().slice(1, static_cast<std::size_t>(x.dim()) - 3);
  check_rope_dim("rope", x.size(-1), static_cast<int64_t>(layout.size()));
  const auto like = at::TensorOptions(x.device()).dtype(working_dtype(x.scalar_type()));
  return rotate(x, make_rope_tables("rope", layout, x.size(-1), base, options, like));
}

}  // namespace nearfield
