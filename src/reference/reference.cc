// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
//   s_j = scale q.k_j + bias_j        p_j = exp(s_j - lse)       lse = ln sum_j exp(s_j)
//   o = sum_j m_j p_j v_j             m_j = 1 without dropout; with it 0 or 1 / (1 - p)
//   delta = do.o - dlse               ds_j = p_j (m_j do.v_j - delta)
//   dq = scale sum_j ds_j k_j         dk_j = scale sum_q ds_j q       dv_j = sum_q m_j p_j do
//   dbias = sum of ds_j over the pairs of one relative position
//
// j runs over the box of visible keys and over the additional keys (without bias). Cost: O(pairs * (D + Dv)),
// without any blocking; scratch: the scores of one query.
#include "reference/reference.h"

#include <cmath>
#include <limits>
#include <vector>

#include "plan/bf16_note.h"
#include "plan/grid_view.h"
#include "plan/unserved.h"
#include "runtime/convert.h"
#include "runtime/philox.h"

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

// A key: one of the layout, or number token.c[2] of the additional ones.
struct Key {
  Token token;
  bool additional = false;
};

// One sequence, batch entry and key/value head: the unit of work.
class Worker {
 public:
  Worker(const Problem& p, const Sequence& s, Index b, Index kv_head, std::int64_t seed)
      : p_(p), s_(s), b_(b), kv_head_(kv_head), group_(p.heads / p.kv_heads), seed_(seed),
        scale_(p.effective_scale()) {}

  void forward() const {
    std::vector<double> scores;
    std::vector<Key> keys;
    each_query([&](const Token& token, Index head) { forward_query(token, head, scores, keys); });
  }

  void backward() const {
    std::vector<double> gradient(static_cast<std::size_t>(max_of(p_.head_dim, p_.value_dim)) * 2);
    each_query([&](const Token& token, Index head) { query_gradient(token, head, gradient); });
    for_each_token(s_.grid.keys(), [&](const Token& token) {
      key_gradients({token, false}, gradient, [&](const auto& fn) {
        for (Index h = kv_head_ * group_; h < (kv_head_ + 1) * group_; ++h)
          for_each_partner(s_.grid, token, false, [&](const Token& q) { fn(q, h); });
      });
    });
    for (Token token; token.c[2] < p_.additional; ++token.c[2])
      key_gradients({token, true}, gradient, [&](const auto& fn) { each_query(fn); });
  }

  // Adds to sums[relative position], for one query head.
  void bias_gradient(Index head, std::vector<double>& sums) const {
    for_each_token(s_.grid.queries(), [&](const Token& q) {
      const double delta_q = delta(q, head);
      for_each_partner(s_.grid, q, true, [&](const Token& k) {
        Index position[kMaxRank], at = 0;
        relative(q, k, position);
        for (int a = 0; a < kMaxRank; ++a) at = at * (2 * s_.grid.axis[a].window - 1) + position[a];
        sums[static_cast<std::size_t>(at)] += pair(q, {k, false}, head, delta_q).score_gradient;
      });
    });
  }

 private:
  Element at(Role role, const Token& t, Index head) const { return {&s_[role], s_[role].at(b_, t.c, head)}; }
  Element of_key(Role role, Role additional, const Key& k) const {
    return at(k.additional ? additional : role, k.token, kv_head_);
  }

  template <class Fn>
  void each_query(const Fn& fn) const {
    for (Index h = kv_head_ * group_; h < (kv_head_ + 1) * group_; ++h)
      for_each_token(s_.grid.queries(), [&](const Token& t) { fn(t, h); });
  }

  template <class Fn>
  void each_key(const Token& query, const Fn& fn) const {
    for_each_partner(s_.grid, query, true, [&](const Token& k) { fn(Key{k, false}); });
    for (Token k; k.c[2] < p_.additional; ++k.c[2]) fn(Key{k, true});
  }

  // Key minus query in steps of the dilation, plus window - 1.
  void relative(const Token& q, const Token& k, Index position[kMaxRank]) const {
    for (int a = 0; a < kMaxRank; ++a)
      position[a] = (k.c[a] - q.c[a]) / s_.grid.axis[a].dilation + s_.grid.axis[a].window - 1;
  }

  double score(const Token& q, const Key& k, Index head) const {
    const double s =
        scale_ * dot(at(Role::kQuery, q, head), of_key(Role::kKey, Role::kAdditionalKey, k), p_.head_dim);
    if (!p_.bias || k.additional) return s;
    Index position[kMaxRank];
    relative(q, k.token, position);
    return s + Element{&s_[Role::kBias], s_[Role::kBias].at(0, position, head)}[0];
  }

  // What dropout makes of the weight 1.
  double kept(const Token& q, const Key& k, Index head) const {
    if (p_.dropout == 0) return 1;
    Index queries[kMaxRank], keys[kMaxRank];
    for (int a = 0; a < kMaxRank; ++a)
      queries[a] = s_.grid.axis[a].query_extent, keys[a] = s_.grid.axis[a].key_extent;
    const std::uint32_t key = k.additional
                                  ? static_cast<std::uint32_t>(keys[0] * keys[1] * keys[2] + k.token.c[2])
                                  : raster(k.token.c, keys);
    const Dropout dropout(p_.dropout, seed_, p_.varlen ? s_.number : b_, head);
    return dropout.kept(raster(q.c, queries), key) ? dropout.scale : 0;
  }

  void forward_query(const Token& token, Index head, std::vector<double>& scores,
                     std::vector<Key>& keys) const {
    const Element o = at(Role::kOut, token, head);
    scores.clear();
    keys.clear();
    double largest = -std::numeric_limits<double>::max(), sum = 0;
    each_key(token, [&](const Key& k) {
      scores.push_back(score(token, k, head));
      keys.push_back(k);
      largest = std::fmax(largest, scores.back());
    });
    for (double& s : scores) sum += s = std::exp(s - largest);
    if (s_[Role::kLse].data)
      at(Role::kLse, token, head).set(0, sum == 0 ? -kInfinity : largest + std::log(sum));
    for (std::size_t j = 0; p_.dropout > 0 && j < keys.size(); ++j) scores[j] *= kept(token, keys[j], head);
    for (Index c = 0; c < p_.value_dim; ++c) {
      double x = 0;
      for (std::size_t j = 0; j < scores.size(); ++j)
        x += scores[j] * of_key(Role::kValue, Role::kAdditionalValue, keys[j])[c];
      o.set(c, sum == 0 ? 0.0 : x / sum);
    }
  }

  // m p and ds of one pair.
  struct Pair {
    double weight, score_gradient;
  };
  Pair pair(const Token& q, const Key& k, Index head, double delta_q) const {
    const double lse = at(Role::kLse, q, head)[0];
    if (lse == -kInfinity) return {0, 0};
    const double p = std::exp(score(q, k, head) - lse), m = kept(q, k, head);
    const double from_value =
        dot(at(Role::kGradOut, q, head), of_key(Role::kValue, Role::kAdditionalValue, k), p_.value_dim);
    return {m * p, p * (m * from_value - delta_q)};
  }

  double delta(const Token& token, Index head) const {
    const double from_out = dot(at(Role::kGradOut, token, head), at(Role::kOut, token, head), p_.value_dim);
    return s_[Role::kGradLse].data ? from_out - at(Role::kGradLse, token, head)[0] : from_out;
  }

  void query_gradient(const Token& token, Index head, std::vector<double>& gradient) const {
    const double delta_q = delta(token, head);
    gradient.assign(gradient.size(), 0.0);
    each_key(token, [&](const Key& key) {
      const Pair x = pair(token, key, head, delta_q);
      const Element k = of_key(Role::kKey, Role::kAdditionalKey, key);
      for (Index c = 0; c < p_.head_dim; ++c)
        gradient[static_cast<std::size_t>(c)] += x.score_gradient * k[c];
    });
    const Element out = at(Role::kGradQuery, token, head);
    for (Index c = 0; c < p_.head_dim; ++c) out.set(c, scale_ * gradient[static_cast<std::size_t>(c)]);
  }

  template <class Queries>
  void key_gradients(const Key& key, std::vector<double>& gradient, const Queries& queries) const {
    double* dk = gradient.data();
    double* dv = dk + max_of(p_.head_dim, p_.value_dim);
    gradient.assign(gradient.size(), 0.0);
    queries([&](const Token& token, Index head) {
      if (at(Role::kLse, token, head)[0] == -kInfinity) return;
      const Element q = at(Role::kQuery, token, head), grad_out = at(Role::kGradOut, token, head);
      const Pair x = pair(token, key, head, delta(token, head));
      for (Index c = 0; c < p_.head_dim; ++c) dk[c] += x.score_gradient * q[c];
      for (Index c = 0; c < p_.value_dim; ++c) dv[c] += x.weight * grad_out[c];
    });
    const Element grad_k = of_key(Role::kGradKey, Role::kGradAdditionalKey, key),
                  grad_v = of_key(Role::kGradValue, Role::kGradAdditionalValue, key);
    for (Index c = 0; c < p_.head_dim; ++c) grad_k.set(c, scale_ * dk[c]);
    for (Index c = 0; c < p_.value_dim; ++c) grad_v.set(c, dv[c]);
  }

  const Problem& p_;
  const Sequence& s_;
  Index b_, kv_head_, group_;
  std::int64_t seed_;
  double scale_;
};

// Summed over the batch, a query head at a time.
void bias_gradient(const Problem& p, const Sequence& s, std::int64_t seed, Index head) {
  Index positions = 1;
  for (const Axis& axis : s.grid.axis) positions *= 2 * axis.window - 1;
  std::vector<double> sums(static_cast<std::size_t>(positions));
  for (Index b = 0; b < p.batch; ++b)
    Worker(p, s, b, head / (p.heads / p.kv_heads), seed).bias_gradient(head, sums);
  Box box;
  for (int a = 0; a < kMaxRank; ++a) box.axis[a] = {0, 2 * s.grid.axis[a].window - 1};
  const GridView& out = s[Role::kGradBias];
  std::size_t i = 0;
  for_each_token(box, [&](const Token& t) { Element{&out, out.at(0, t.c, head)}.set(0, sums[i++]); });
}

class Reference final : public Backend {
 public:
  std::string_view name() const override { return "reference"; }
  Device device() const override { return Device::kCpu; }

  std::optional<std::string> refusal(const Problem& p, const PlanOptions& options) const override {
    if (!options.kernel.empty()) return "it has one kernel; leave `/" + options.kernel + "` out";
    if (options.query_tile || options.key_tile) return "it has no tiles; leave the tile shapes out";
    return unserved(p);
  }

  Plan plan(const Problem& p, const PlanOptions&) const override {
    Plan plan;
    plan.backend = name();
    plan.kernel = "plain loops, float64 inside";
    plan.note = bf16_note(p, "it multiplies in float64");
    return plan;
  }

  void run(const Problem& p, const Plan&, const Tensors& tensors, Executor& executor,
           std::byte*) const override {
    const std::vector<Sequence> list = sequences_of(p, tensors);
    const Index per_sequence = p.batch * p.kv_heads;
    const std::int64_t seed = p.dropout > 0 ? *tensors.seed : 0;
    executor.run(static_cast<Index>(list.size()) * per_sequence, [&](Index task, int) {
      const Worker worker(p, list[static_cast<std::size_t>(task / per_sequence)],
                          task % per_sequence / p.kv_heads, task % p.kv_heads, seed);
      if (p.direction == Direction::kForward) worker.forward();
      else worker.backward();
    });
    if (p.bias && p.direction == Direction::kBackward)
      executor.run(p.heads, [&](Index head, int) { bias_gradient(p, list[0], seed, head); });
    fill_tails(p, tensors);
  }
};

}  // namespace

const Backend& reference_backend() {
  static const Reference backend;
  return backend;
}

}  // namespace nearfield
