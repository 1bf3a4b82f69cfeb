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
// have tokens of `compared`; of all of them without it.
double compare(const Problem& p, const Tensors& tensors, const Box* queries, const Box* keys,
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
    const bool partial = (queries && kind_of(role) != Kind::kQuery) || (keys && kind_of(role) != Kind::kKey);
    if (partial) continue;
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

}  // namespace

Error error_of(const Problem& p, const Tensors& tensors, Executor& executor) {
  Error error;
  if (p.varlen || useful_flops(p) <= kWhole) {
    error.largest = compare(p, tensors, nullptr, nullptr, executor);
    error.of = "all";
    return error;
  }
  for (int i = 0; i < kQueries; ++i) {
    const Box box = token(whole(p, true), p.rank, i, kQueries);
    error.largest = std::max(error.largest, compare(p, tensors, &box, nullptr, executor));
  }
  error.of = std::to_string(kQueries) + " queries";
  if (p.direction == Direction::kForward) return error;
  for (int i = 0; i < kKeys; ++i) {
    const Box box = token(whole(p, false), p.rank, i, kKeys);
    error.largest = std::max(error.largest, compare(p, tensors, nullptr, &box, executor));
  }
  error.of += ", " + std::to_string(kKeys) + " keys";
  return error;
}

}  // namespace nearfield::bench
