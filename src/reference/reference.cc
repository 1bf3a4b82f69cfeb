// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
//   s_j = scale q.k_j       p_j = exp(s_j - lse)       lse = ln sum_j exp(s_j)       o = sum_j p_j v_j
//   delta = do.o - dlse     ds_j = p_j (do.v_j - delta)
//   dq = scale sum_j ds_j k_j     dk_j = scale sum_q ds_j q     dv_j = sum_q p_j do
//
// j runs over the box of visible keys and over the additional keys. Cost: O(pairs * (D + Dv)), without
// any blocking; scratch: the scores of one query.
#include "reference/reference.h"

#include <cmath>
#include <limits>
#include <vector>

#include "plan/grid_view.h"
#include "plan/unserved.h"
#include "runtime/convert.h"

namespace nearfield {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Element {  // channel 0 of one token and head
  const GridView* view = nullptr;
  Index at = 0;
  double operator[](Index c) const { return load_element(view->data, view->dtype, at + c * view->channel); }
  void set(Index c, double x) const { store_element(view->data, view->dtype, at + c * view->channel, x); }
};

double dot(const Element& a, const Element& b, Index channels) {
  double sum = 0;
  for (Index c = 0; c < channels; ++c) sum += a[c] * b[c];
  return sum;
}

struct Token {
  Index c[kMaxRank] = {0, 0, 0};
};

template <class Fn>
void for_each_token(const Box& box, const Fn& fn) {
  Token t;
  for (t.c[0] = box.axis[0].begin; t.c[0] < box.axis[0].end; ++t.c[0])
    for (t.c[1] = box.axis[1].begin; t.c[1] < box.axis[1].end; ++t.c[1])
      for (t.c[2] = box.axis[2].begin; t.c[2] < box.axis[2].end; ++t.c[2]) fn(t);
}

// The tokens on the other side of the mask: the keys that a query sees, or the queries that see a key.
// On each axis: the interval within the token's dilation group.
template <class Fn>
void for_each_partner(const Grid& grid, const Token& token, bool of_query, const Fn& fn) {
  Box box;
  for (int a = 0; a < kMaxRank; ++a) {
    const Axis& axis = grid.axis[a];
    const Axis own = group(axis, token.c[a] % axis.dilation);
    const Index i = token.c[a] / axis.dilation;
    box.axis[a] = of_query ? visible(own, i) : seen_by(own, i);
  }
  for_each_token(box, [&](const Token& in_group) {
    Token partner;
    for (int a = 0; a < kMaxRank; ++a)
      partner.c[a] = token.c[a] % grid.axis[a].dilation + in_group.c[a] * grid.axis[a].dilation;
    fn(partner);
  });
}

// One sequence, batch entry and key/value head: the unit of work.
class Worker {
 public:
  Worker(const Problem& p, const Sequence& s, Index b, Index kv_head)
      : p_(p), s_(s), b_(b), kv_head_(kv_head), group_(p.heads / p.kv_heads), scale_(p.effective_scale()) {}

  void forward() const {
    std::vector<double> scores;
    std::vector<Element> values;
    each_query([&](const Token& token, Index head) { forward_query(token, head, scores, values); });
  }

  void backward() const {
    std::vector<double> gradient(static_cast<std::size_t>(max_of(p_.head_dim, p_.value_dim)) * 2);
    each_query([&](const Token& token, Index head) { query_gradient(token, head, gradient); });
    for_each_token(s_.grid.keys(), [&](const Token& key) {
      key_gradients(at(Role::kKey, key, kv_head_), at(Role::kValue, key, kv_head_),
                    at(Role::kGradKey, key, kv_head_), at(Role::kGradValue, key, kv_head_), gradient,
                    [&](const auto& fn) {
                      for (Index h = kv_head_ * group_; h < (kv_head_ + 1) * group_; ++h)
                        for_each_partner(s_.grid, key, false, [&](const Token& q) { fn(q, h); });
                    });
    });
    for (Token key; key.c[2] < p_.additional; ++key.c[2])
      key_gradients(at(Role::kAdditionalKey, key, kv_head_), at(Role::kAdditionalValue, key, kv_head_),
                    at(Role::kGradAdditionalKey, key, kv_head_),
                    at(Role::kGradAdditionalValue, key, kv_head_), gradient,
                    [&](const auto& fn) { each_query(fn); });
  }

 private:
  Element at(Role role, const Token& t, Index head) const { return {&s_[role], s_[role].at(b_, t.c, head)}; }

  template <class Fn>
  void each_query(const Fn& fn) const {
    for (Index h = kv_head_ * group_; h < (kv_head_ + 1) * group_; ++h)
      for_each_token(s_.grid.queries(), [&](const Token& t) { fn(t, h); });
  }

  template <class Fn>
  void each_key(const Token& query, const Fn& fn) const {
    for_each_partner(s_.grid, query, true,
                     [&](const Token& k) { fn(at(Role::kKey, k, kv_head_), at(Role::kValue, k, kv_head_)); });
    for (Token k; k.c[2] < p_.additional; ++k.c[2])
      fn(at(Role::kAdditionalKey, k, kv_head_), at(Role::kAdditionalValue, k, kv_head_));
  }

  void forward_query(const Token& token, Index head, std::vector<double>& scores,
                     std::vector<Element>& values) const {
    const Element q = at(Role::kQuery, token, head), o = at(Role::kOut, token, head);
    scores.clear();
    values.clear();
    double largest = -std::numeric_limits<double>::max(), sum = 0;
    each_key(token, [&](const Element& k, const Element& v) {
      scores.push_back(scale_ * dot(q, k, p_.head_dim));
      values.push_back(v);
      largest = std::fmax(largest, scores.back());
    });
    for (double& s : scores) sum += s = std::exp(s - largest);
    for (Index c = 0; c < p_.value_dim; ++c) {
      double x = 0;
      for (std::size_t j = 0; j < scores.size(); ++j) x += scores[j] * values[j][c];
      o.set(c, sum == 0 ? 0.0 : x / sum);
    }
    if (s_[Role::kLse].data)
      at(Role::kLse, token, head).set(0, sum == 0 ? -kInfinity : largest + std::log(sum));
  }

  // p and ds of one pair.
  struct Pair {
    double weight, score_gradient;
  };
  Pair pair(const Element& q, const Element& k, const Element& v, const Element& grad_out, double lse,
            double delta) const {
    if (lse == -kInfinity) return {0, 0};
    const double weight = std::exp(scale_ * dot(q, k, p_.head_dim) - lse);
    return {weight, weight * (dot(grad_out, v, p_.value_dim) - delta)};
  }

  double delta(const Token& token, Index head) const {
    const double from_out = dot(at(Role::kGradOut, token, head), at(Role::kOut, token, head), p_.value_dim);
    return s_[Role::kGradLse].data ? from_out - at(Role::kGradLse, token, head)[0] : from_out;
  }

  void query_gradient(const Token& token, Index head, std::vector<double>& gradient) const {
    const Element q = at(Role::kQuery, token, head), grad_out = at(Role::kGradOut, token, head);
    const double lse = at(Role::kLse, token, head)[0], delta_q = delta(token, head);
    gradient.assign(gradient.size(), 0.0);
    each_key(token, [&](const Element& k, const Element& v) {
      const Pair x = pair(q, k, v, grad_out, lse, delta_q);
      for (Index c = 0; c < p_.head_dim; ++c)
        gradient[static_cast<std::size_t>(c)] += x.score_gradient * k[c];
    });
    const Element out = at(Role::kGradQuery, token, head);
    for (Index c = 0; c < p_.head_dim; ++c) out.set(c, scale_ * gradient[static_cast<std::size_t>(c)]);
  }

  template <class Queries>
  void key_gradients(const Element& k, const Element& v, const Element& grad_k, const Element& grad_v,
                     std::vector<double>& gradient, const Queries& queries) const {
    double* dk = gradient.data();
    double* dv = dk + max_of(p_.head_dim, p_.value_dim);
    gradient.assign(gradient.size(), 0.0);
    queries([&](const Token& token, Index head) {
      const Element q = at(Role::kQuery, token, head), grad_out = at(Role::kGradOut, token, head);
      const Pair x = pair(q, k, v, grad_out, at(Role::kLse, token, head)[0], delta(token, head));
      if (at(Role::kLse, token, head)[0] == -kInfinity) return;
      for (Index c = 0; c < p_.head_dim; ++c) dk[c] += x.score_gradient * q[c];
      for (Index c = 0; c < p_.value_dim; ++c) dv[c] += x.weight * grad_out[c];
    });
    for (Index c = 0; c < p_.head_dim; ++c) grad_k.set(c, scale_ * dk[c]);
    for (Index c = 0; c < p_.value_dim; ++c) grad_v.set(c, dv[c]);
  }

  const Problem& p_;
  const Sequence& s_;
  Index b_, kv_head_, group_;
  double scale_;
};

class Reference final : public Backend {
 public:
  std::string_view name() const override { return "reference"; }
  Device device() const override { return Device::kCpu; }

  std::optional<std::string> refusal(const Problem& p, const PlanOptions& options) const override {
    if (options.query_tile || options.key_tile) return "it has no tiles; leave the tile shapes out";
    return unserved(p);
  }

  Plan plan(const Problem&, const PlanOptions&) const override {
    Plan plan;
    plan.backend = name();
    plan.kernel = "plain loops, float64 inside";
    return plan;
  }

  void run(const Problem& p, const Plan&, const Tensors& tensors, Executor& executor,
           std::byte*) const override {
    const std::vector<Sequence> list = sequences_of(p, tensors);
    const Index per_sequence = p.batch * p.kv_heads;
    executor.run(static_cast<Index>(list.size()) * per_sequence, [&](Index task, int) {
      const Worker worker(p, list[static_cast<std::size_t>(task / per_sequence)],
                          task % per_sequence / p.kv_heads, task % p.kv_heads);
      if (p.direction == Direction::kForward) worker.forward();
      else worker.backward();
    });
    fill_tails(p, tensors);
  }
};

}  // namespace

const Backend& reference_backend() {
  static const Reference backend;
  return backend;
}

}  // namespace nearfield
