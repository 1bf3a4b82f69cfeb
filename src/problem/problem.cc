// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// What a Problem implies: geometry, shapes, amounts of work.
#include "nearfield/problem.h"

#include <cmath>

namespace nearfield {

std::string_view name_of(Role role) {
  static constexpr std::string_view kNames[kRoles] = {"q",  "k",    "v",  "ak", "av", "bias", "o",   "lse",
                                                      "do", "dlse", "dq", "dk", "dv", "dak",  "dav", "dbias"};
  return kNames[static_cast<int>(role)];
}

double Problem::effective_scale() const {
  return scale ? *scale : 1.0 / std::sqrt(static_cast<double>(head_dim));
}

Grid grid_of(const Problem& p, Index i) {
  const Layout& layout = p.layouts[static_cast<std::size_t>(i)];
  Grid grid;
  if (p.operation == Operation::kAttention) {
    const Rule rule = p.causal_type == CausalType::kNone      ? Rule::kDense
                      : p.causal_type == CausalType::kTopLeft ? Rule::kTopLeft
                                                              : Rule::kBottomRight;
    grid.axis[kMaxRank - 1] = Axis(rule, layout.query_extent[0], layout.extent[0]);
  } else {
    for (int a = 0; a < p.rank; ++a)
      grid.axis[kMaxRank - p.rank + a] =
          Axis(layout.causal[a] ? Rule::kWindowCausal : Rule::kWindow, layout.query_extent[a],
               layout.extent[a], layout.window[a], layout.stride[a], layout.dilation[a]);
  }
  for (int a = 0; a < p.rank; ++a) {
    Axis& axis = grid.axis[kMaxRank - p.rank + a];
    if (p.query_range) axis.queries = p.query_range->axis[a];
    if (p.key_range) axis.keys = p.key_range->axis[a];
  }
  return grid;
}

Index query_tokens(const Problem& p, Index i) { return grid_of(p, i).queries().volume(); }
Index key_tokens(const Problem& p, Index i) { return grid_of(p, i).keys().volume(); }

std::vector<Index> shape_of(const Problem& p, Role role) {
  const bool backward = p.direction == Direction::kBackward;
  const bool of_keys =
      role == Role::kKey || role == Role::kValue || role == Role::kGradKey || role == Role::kGradValue;
  const bool additional = role == Role::kAdditionalKey || role == Role::kAdditionalValue ||
                          role == Role::kGradAdditionalKey || role == Role::kGradAdditionalValue;
  if (role >= Role::kGradOut && !backward) return {};
  if (role == Role::kGradLse && !p.lse) return {};
  if (additional && p.additional == 0) return {};
  if (role == Role::kBias || role == Role::kGradBias) {
    if (!p.bias || p.layouts.size() != 1) return {};
    std::vector<Index> shape{p.heads};
    for (int a = 0; a < p.rank; ++a) shape.push_back(2 * p.layouts[0].window[a] - 1);
    return shape;
  }

  std::vector<Index> shape{p.batch};
  if (additional) {
    shape.push_back(p.additional);
  } else if (p.offsets) {
    shape.push_back(of_keys ? p.offsets->total_key : p.offsets->total_query);
  } else if (p.varlen) {
    Index total = of_keys ? p.tail_key : p.tail_query;
    for (Index i = 0; i < sequences(p); ++i) total += of_keys ? key_tokens(p, i) : query_tokens(p, i);
    shape.push_back(total);
  } else {
    const Grid grid = grid_of(p, 0);
    const Box present = of_keys ? grid.keys() : grid.queries();
    for (int a = kMaxRank - p.rank; a < kMaxRank; ++a) shape.push_back(present.axis[a].size());
  }
  shape.push_back(of_keys || additional ? p.kv_heads : p.heads);
  switch (role) {
    case Role::kLse:
    case Role::kGradLse: break;
    case Role::kValue:
    case Role::kGradValue:
    case Role::kAdditionalValue:
    case Role::kGradAdditionalValue:
    case Role::kOut:
    case Role::kGradOut: shape.push_back(p.value_dim); break;
    default: shape.push_back(p.head_dim);
  }
  return shape;
}

double visible_pairs(const Problem& p) {
  double sum = 0;
  for (Index i = 0; i < sequences(p); ++i)
    sum += pairs(grid_of(p, i)) + static_cast<double>(p.additional) * static_cast<double>(query_tokens(p, i));
  return sum * static_cast<double>(p.batch);
}

double useful_flops(const Problem& p) {
  const double forward =
      2.0 * static_cast<double>(p.head_dim + p.value_dim) * static_cast<double>(p.heads) * visible_pairs(p);
  return p.direction == Direction::kForward ? forward : 2.5 * forward;
}

double sparsity(const Problem& p) {
  double dense = 0;
  for (Index i = 0; i < sequences(p); ++i)
    dense += static_cast<double>(query_tokens(p, i)) * static_cast<double>(key_tokens(p, i) + p.additional);
  const double useful = visible_pairs(p);
  return useful > 0 ? dense * static_cast<double>(p.batch) / useful : 1.0;
}

}  // namespace nearfield
