// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "plan/grid_view.h"

#include <limits>

#include "runtime/convert.h"

namespace nearfield {
namespace {

enum class Side { kQueries, kKeys, kAdditional };

Side side_of(Role role) {
  switch (role) {
    case Role::kKey:
    case Role::kValue:
    case Role::kGradKey:
    case Role::kGradValue: return Side::kKeys;
    case Role::kAdditionalKey:
    case Role::kAdditionalValue:
    case Role::kGradAdditionalKey:
    case Role::kGradAdditionalValue: return Side::kAdditional;
    default: return Side::kQueries;
  }
}

bool is_lse(Role role) { return role == Role::kLse || role == Role::kGradLse; }

}  // namespace

GridView grid_view(const Problem& p, const TensorView& t, Role role, Index i, Index first_token) {
  GridView v;
  if (!t.present()) return v;
  v.data = t.data;
  v.dtype = t.dtype;
  if (role == Role::kBias || role == Role::kGradBias) {  // token: relative position
    v.head = t.stride[0];
    for (int a = 0; a < p.rank; ++a)
      v.axis[kMaxRank - p.rank + a] = t.stride[static_cast<std::size_t>(a) + 1];
    return v;
  }
  v.batch = t.stride[0];
  const int heads = is_lse(role) ? t.rank - 1 : t.rank - 2;
  v.head = t.stride[static_cast<std::size_t>(heads)];
  v.channel = is_lse(role) ? 0 : t.stride[static_cast<std::size_t>(heads) + 1];
  const Side side = side_of(role);
  if (side == Side::kAdditional) {
    v.axis[kMaxRank - 1] = t.stride[1];
    return v;
  }
  const Grid grid = grid_of(p, i);
  const Box present = side == Side::kKeys ? grid.keys() : grid.queries();
  if (p.varlen) {  // raster order behind first_token
    v.axis[2] = t.stride[1];
    v.axis[1] = v.axis[2] * present.axis[2].size();
    v.axis[0] = v.axis[1] * present.axis[1].size();
    v.origin = first_token * t.stride[1];
    return v;
  }
  for (int a = 0; a < p.rank; ++a) {
    const int axis = kMaxRank - p.rank + a;
    v.axis[axis] = t.stride[static_cast<std::size_t>(a) + 1];
    v.origin -= present.axis[axis].begin * v.axis[axis];
  }
  return v;
}

std::vector<Sequence> sequences_of(const Problem& p, const Tensors& tensors) {
  std::vector<Sequence> list(p.layouts.size());
  Index first_query = 0, first_key = 0;
  for (Index i = 0; i < sequences(p); ++i) {
    Sequence& s = list[static_cast<std::size_t>(i)];
    s.number = i;
    s.grid = grid_of(p, i);
    for (int r = 0; r < kRoles; ++r) {
      const Role role = static_cast<Role>(r);
      s.view[static_cast<std::size_t>(r)] =
          grid_view(p, tensors[role], role, i, side_of(role) == Side::kKeys ? first_key : first_query);
    }
    if (p.varlen) {
      first_query += query_tokens(p, i);
      first_key += key_tokens(p, i);
    }
  }
  return list;
}

void fill_tails(const Problem& p, const Tensors& tensors) {
  if (p.tail_query == 0 && p.tail_key == 0) return;
  const bool backward = p.direction == Direction::kBackward;
  for (int r = 0; r < kRoles; ++r) {
    const Role role = static_cast<Role>(r);
    const bool written = backward ? role >= Role::kGradQuery : role == Role::kOut || role == Role::kLse;
    const TensorView& t = tensors[role];
    if (!written || !t.present()) continue;
    const double fill = is_lse(role) ? -std::numeric_limits<double>::infinity() : 0.0;
    const Index tail = side_of(role) == Side::kKeys ? p.tail_key : p.tail_query;
    const Index channels = is_lse(role) ? 1 : t.size[3], channel = is_lse(role) ? 0 : t.stride[3];
    for (Index token = t.size[1] - tail; token < t.size[1]; ++token)
      for (Index h = 0; h < t.size[2]; ++h)
        for (Index c = 0; c < channels; ++c)
          store_element(t.data, t.dtype, token * t.stride[1] + h * t.stride[2] + c * channel, fill);
  }
}

}  // namespace nearfield
