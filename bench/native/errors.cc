// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "errors.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace nearfield::bench {
namespace {

constexpr double kWhole = 1e8;  // useful FLOPs up to which everything is compared
constexpr int kQueries = 24, kKeys = 6;

enum class Kind { kQuery, kKey, kOther };  // whose tokens a tensor has

Kind kind_of(Role role) {
  switch (role) {
    case Role::kQuery:
    case Role::kOut:
    case Role::kLse:
    case Role::kGradOut:
    case Role::kGradLse:
    case Role::kGradQuery: return Kind::kQuery;
    case Role::kKey:
    case Role::kValue:
    case Role::kGradKey:
    case Role::kGradValue: return Kind::kKey;
    default: return Kind::kOther;
  }
}

bool is_output(Role role, Direction direction) {
  return direction == Direction::kForward ? role == Role::kOut || role == Role::kLse
                                          : role >= Role::kGradQuery;
}

Box whole(const Problem& p, bool of_query) {
  const auto& given = of_query ? p.query_range : p.key_range;
  if (given) return *given;
  Box box;
  for (int a = 0; a < p.rank; ++a)
    box.axis[a] = {0, of_query ? p.layouts[0].query_extent[static_cast<std::size_t>(a)]
                               : p.layouts[0].extent[static_cast<std::size_t>(a)]};
  return box;
}

// Runs the reference on the queries and keys of two boxes and returns the largest error of the outputs that
// have tokens of that kind: of the others the boxes give parts of sums. Without boxes: of all outputs.
double compare(const Problem& p, const Tensors& tensors, const Box* queries, const Box* keys, Kind compared,
               Executor& executor) {
  Problem exact = p;
  exact.dtype = DType::kFloat64;
  for (auto& strides : exact.strides) strides.clear();
  if (queries) exact.query_range = *queries;
  if (keys) exact.key_range = *keys;
  Tensors views;
  views.seed = tensors.seed;
  std::array<Tensor, kRoles> memory;
  const auto first = [&](Role role) {
    std::vector<Index> begin(static_cast<std::size_t>(p.varlen ? 0 : p.rank), 0);
    const Box* box = kind_of(role) == Kind::kQuery ? queries : kind_of(role) == Kind::kKey ? keys : nullptr;
    if (!box) return begin;
    const Box all = whole(p, kind_of(role) == Kind::kQuery);
    for (std::size_t a = 0; a < begin.size(); ++a) begin[a] = box->axis[a].begin - all.axis[a].begin;
    return begin;
  };
  for (int r = 0; r < kRoles; ++r) {
    const Role role = static_cast<Role>(r);
    const std::vector<Index> shape = shape_of(exact, role);
    if (shape.empty() || !tensors[role].present()) continue;
    const auto at = static_cast<std::size_t>(r);
    memory[at] = is_output(role, p.direction) ? make_tensor(exact, role, false)
                                              : copy_box(tensors[role], first(role), shape);
    views[role] = memory[at].view;
  }
  PlanOptions options;
  options.backend = "reference";
  run(exact, make_plan(exact, options), views, executor);

  double largest = 0;
  for (int r = 0; r < kRoles; ++r) {
    const Role role = static_cast<Role>(r);
    if (!is_output(role, p.direction) || !views[role].present()) continue;
    if (queries && kind_of(role) != compared) continue;
    const std::vector<Index> shape = shape_of(exact, role);
    const Tensor got = copy_box(tensors[role], first(role), shape);
    const double *a = static_cast<const double*>(got.view.data),
                 *b = static_cast<const double*>(views[role].data);
    for (Index i = 0; i < got.view.elements(); ++i) {
      if (a[i] == b[i]) continue;  // infinities too
      const double error = std::abs(a[i] - b[i]);
      largest = std::isnan(error) ? std::numeric_limits<double>::infinity() : std::max(largest, error);
    }
  }
  return largest;
}

// Token i of `count` tokens spread over a box, the first and the last among them.
Box token(const Box& box, int rank, int i, int count) {
  Box one = box;
  for (int a = 0; a < rank; ++a) {
    const Index n = box.axis[a].size();
    const Index spread = i == 0 ? 0 : i == count - 1 ? n - 1 : (7919 * (i + 1) * (a + 1) + 104729 * i) % n;
    one.axis[a] = {box.axis[a].begin + spread, box.axis[a].begin + spread + 1};
  }
  return one;
}

// The box of the keys that a query sees, or of the queries that see a key, with what lies between them if
// there is dilation; one token that does not matter where there are none.
Box partners(const Problem& p, const Box& one, bool of_query) {
  Box box = whole(p, !of_query);
  const Grid grid = grid_of(p, 0);
  for (int a = 0; a < p.rank; ++a) {
    const Axis& axis = grid.axis[kMaxRank - p.rank + a];
    const Index at = one.axis[a].begin, residue = at % axis.dilation;
    const Axis own = group(axis, residue);
    const Interval in_group = of_query ? visible(own, at / axis.dilation) : seen_by(own, at / axis.dilation);
    box.axis[a] = in_group.empty() ? Interval{box.axis[a].begin, box.axis[a].begin + 1}
                                   : Interval{residue + in_group.begin * axis.dilation,
                                              residue + (in_group.end - 1) * axis.dilation + 1};
  }
  return box;
}

}  // namespace

Error error_of(const Problem& p, const Tensors& tensors, Executor& executor) {
  Error error;
  if (p.varlen || useful_flops(p) <= kWhole) {
    error.largest = compare(p, tensors, nullptr, nullptr, Kind::kOther, executor);
    error.of = "all";
    return error;
  }
  const auto sample = [&](int count, bool of_query) {
    for (int i = 0; i < count; ++i) {
      const Box one = token(whole(p, of_query), p.rank, i, count), others = partners(p, one, of_query);
      error.largest =
          std::max(error.largest, compare(p, tensors, of_query ? &one : &others, of_query ? &others : &one,
                                          of_query ? Kind::kQuery : Kind::kKey, executor));
    }
  };
  sample(kQueries, true);
  error.of = std::to_string(kQueries) + " queries";
  if (p.direction == Direction::kForward) return error;
  sample(kKeys, false);
  error.of += ", " + std::to_string(kKeys) + " keys";
  return error;
}

}  // namespace nearfield::bench
