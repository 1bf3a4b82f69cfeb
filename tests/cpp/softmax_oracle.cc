// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "softmax_oracle.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "axis_oracle.h"
#include "philox_oracle.h"

namespace nearfield::testing {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double unit_roundoff(DType t) {
  switch (t) {
    case DType::kFloat32: return 0x1p-24;
    case DType::kFloat64: return 0x1p-53;
    case DType::kBFloat16: return 0x1p-8;
    case DType::kFloat16: return 0x1p-11;
  }
  return 0;
}

double smallest_normal(DType t) {
  return t == DType::kFloat64 ? 0x1p-1022 : t == DType::kFloat16 ? 0x1p-14 : 0x1p-126;
}

double eps_of_arithmetic(DType t) { return t == DType::kFloat64 ? 0x1p-52 : 0x1p-23; }

bool is_gradient(Role r) {
  return r == Role::kGradQuery || r == Role::kGradKey || r == Role::kGradValue ||
         r == Role::kGradAdditionalKey || r == Role::kGradAdditionalValue || r == Role::kGradBias;
}
bool is_backward(Role r) { return r == Role::kGradOut || r == Role::kGradLse || is_gradient(r); }

// One sequence: its tokens present, and who sees whom.
struct Tokens {
  Index first_query = 0, first_key = 0;                    // in the packed tensor
  Index number = 0;                                        // in the list
  std::vector<std::array<Index, kMaxRank>> queries, keys;  // global coordinates
  std::vector<oracle::Axis> axes;

  // The keys that each query sees. Every pair of coordinates of an axis is asked about once.
  std::vector<std::vector<std::size_t>> visible() const {
    std::vector<std::vector<char>> sees(axes.size());
    for (std::size_t a = 0; a < axes.size(); ++a)
      for (Index q = 0; q < axes[a].lq; ++q)
        for (Index k = 0; k < axes[a].lk; ++k) sees[a].push_back(oracle::sees(axes[a], q, k));
    const auto all_axes_see = [&](std::size_t q, std::size_t k) {
      for (std::size_t a = 0; a < axes.size(); ++a)
        if (!sees[a][static_cast<std::size_t>(queries[q][a] * axes[a].lk + keys[k][a])]) return false;
      return true;
    };
    std::vector<std::vector<std::size_t>> all(queries.size());
    for (std::size_t q = 0; q < queries.size(); ++q)
      for (std::size_t k = 0; k < keys.size(); ++k)
        if (all_axes_see(q, k)) all[q].push_back(k);
    return all;
  }

  // Raster index in the whole layout, and the number of its keys.
  Index query_raster(std::size_t q) const {
    Index at = 0;
    for (std::size_t a = 0; a < axes.size(); ++a) at = at * axes[a].lq + queries[q][a];
    return at;
  }
  Index key_raster(std::size_t k) const {
    Index at = 0;
    for (std::size_t a = 0; a < axes.size(); ++a) at = at * axes[a].lk + keys[k][a];
    return at;
  }
  Index layout_keys() const {
    Index n = 1;
    for (const oracle::Axis& axis : axes) n *= axis.lk;
    return n;
  }
  // Where the pair looks in one head's table of 2k-1 biases per axis: how many tokens of its own dilation
  // group the key is past the query, and k-1.
  std::size_t bias_at(std::size_t q, std::size_t k) const {
    Index at = 0;
    for (std::size_t a = 0; a < axes.size(); ++a)
      at = at * (2 * axes[a].k - 1) + (keys[k][a] - queries[q][a]) / axes[a].d + axes[a].k - 1;
    return static_cast<std::size_t>(at);
  }
};

std::vector<std::array<Index, kMaxRank>> tokens_of(const std::array<Index, kMaxRank>& extent,
                                                   const std::optional<Box>& range, int rank) {
  std::vector<std::array<Index, kMaxRank>> all{{0, 0, 0}};
  for (int a = 0; a < rank; ++a) {
    std::vector<std::array<Index, kMaxRank>> longer;
    const Interval r = range ? range->axis[a] : Interval{0, extent[static_cast<std::size_t>(a)]};
    for (const auto& token : all)
      for (Index i = r.begin; i < r.end; ++i) {
        longer.push_back(token);
        longer.back()[static_cast<std::size_t>(a)] = i;
      }
    all = std::move(longer);
  }
  return all;
}

std::vector<Tokens> sequences_of(const Problem& p) {
  std::vector<Tokens> list;
  Index first_query = 0, first_key = 0;
  for (const Layout& l : p.layouts) {
    Tokens t;
    t.first_query = first_query;
    t.first_key = first_key;
    t.number = static_cast<Index>(list.size());
    t.queries = tokens_of(l.query_extent, p.query_range, p.rank);
    t.keys = tokens_of(l.extent, p.key_range, p.rank);
    first_query += static_cast<Index>(t.queries.size());
    first_key += static_cast<Index>(t.keys.size());
    for (std::size_t a = 0; a < static_cast<std::size_t>(p.rank); ++a) {
      oracle::Axis axis{l.causal[a] ? oracle::Kind::kWindowCausal : oracle::Kind::kWindow,
                        l.query_extent[a],
                        l.extent[a],
                        l.window[a],
                        l.stride[a],
                        l.dilation[a]};
      if (p.operation == Operation::kAttention)
        axis.kind = p.causal_type == CausalType::kNone      ? oracle::Kind::kDense
                    : p.causal_type == CausalType::kTopLeft ? oracle::Kind::kTopLeft
                                                            : oracle::Kind::kBottomRight;
      t.axes.push_back(axis);
    }
    list.push_back(std::move(t));
  }
  return list;
}

// Sums that become one output element, with the bound of their rounding.
template <class T>
struct Accumulators {
  std::vector<T> sum;
  std::vector<double> weighted, terms, out_terms;
  std::vector<Index> summands;

  explicit Accumulators(std::size_t n) : sum(n), weighted(n), terms(n), out_terms(n), summands(n) {}
  void add(std::size_t i, T x, double size, double c, double from_out = 0) {
    sum[i] += x;
    terms[i] += size;
    weighted[i] += c * size;
    out_terms[i] += from_out;
    ++summands[i];
  }
};

std::size_t product(const std::vector<Index>& shape) {
  std::size_t n = shape.empty() ? 0 : 1;
  for (const Index s : shape) n *= static_cast<std::size_t>(s);
  return n;
}

template <class T>
class Solver {
 public:
  Solver(const Problem& p, const RoleValues& in, bool backward, std::int64_t seed, bool tensor_cores)
      : p_(p), in_(in), backward_(backward), seed_(seed),
        tensor_cores_(tensor_cores && (p.dtype == DType::kBFloat16 || p.dtype == DType::kFloat16)) {
    p_.direction = backward ? Direction::kBackward : Direction::kForward;
    p_.lse = true;
    heads_ = static_cast<std::size_t>(p.heads);
    kv_heads_ = static_cast<std::size_t>(p.kv_heads);
    depth_ = static_cast<std::size_t>(p.head_dim);
    width_ = static_cast<std::size_t>(p.value_dim);
    table_ = product(shape_for(p_, Role::kBias)) / heads_;
    for (int r = 0; r < kRoles; ++r)
      sums_.emplace_back(
          backward || !is_backward(static_cast<Role>(r)) ? product(shape_for(p_, static_cast<Role>(r))) : 0);
    queries_ = kept(Role::kLse) / std::max<std::size_t>(static_cast<std::size_t>(p.batch) * heads_, 1);
    keys_ = product(shape_for(p_, Role::kKey)) /
            std::max<std::size_t>(static_cast<std::size_t>(p.batch) * kv_heads_ * depth_, 1);
  }

  Answer run() {
    std::fill(of(Role::kLse).sum.begin(), of(Role::kLse).sum.end(),
              -std::numeric_limits<T>::infinity());  // also of tails
    for (const Tokens& tokens : sequences_of(p_)) {
      const std::vector<std::vector<std::size_t>> visible = tokens.visible();
      for (std::size_t b = 0; b < static_cast<std::size_t>(p_.batch); ++b)
        for (std::size_t q = 0; q < tokens.queries.size(); ++q)
          for (std::size_t h = 0; h < heads_; ++h) one_query(tokens, b, q, h, visible[q]);
    }
    return answer();
  }

 private:
  // Allowed, so that it has to be reckoned with. Gradients never are.
  bool bf16_arithmetic() const { return p_.precision == Precision::kBF16 && p_.dtype == DType::kBFloat16; }
  // In units of the dtype's roundoff: what rounding the first factor of a product of that size may add.
  double rounded_factor(double size, T other) const {
    if (!tensor_cores_) return 0;
    return size + smallest_normal(p_.dtype) * std::abs(static_cast<double>(other));
  }
  Accumulators<T>& of(Role r) { return sums_[static_cast<std::size_t>(r)]; }
  std::size_t kept(Role r) const { return sums_[static_cast<std::size_t>(r)].sum.size(); }
  const std::vector<double>& in(Role r) const { return in_[static_cast<std::size_t>(r)]; }

  struct Key {  // where its rows are, among the keys or the additional keys
    Role key, value, grad_key, grad_value;
    std::size_t k, v;
    Index raster;                     // counts the draws of dropout
    std::optional<std::size_t> bias;  // additional keys have none
  };

  std::vector<Key> keys_seen(const Tokens& tokens, std::size_t b, std::size_t q, std::size_t h,
                             const std::vector<std::size_t>& visible) const {
    const std::size_t kv = h / (heads_ / kv_heads_);
    std::vector<Key> keys;
    for (const std::size_t j : visible) {
      const std::size_t at = (b * keys_ + static_cast<std::size_t>(tokens.first_key) + j) * kv_heads_ + kv;
      keys.push_back({Role::kKey, Role::kValue, Role::kGradKey, Role::kGradValue, at * depth_, at * width_,
                      tokens.key_raster(j), std::nullopt});
      if (p_.bias) keys.back().bias = h * table_ + tokens.bias_at(q, j);
    }
    for (std::size_t j = 0; j < static_cast<std::size_t>(p_.additional); ++j) {
      const std::size_t at = (b * static_cast<std::size_t>(p_.additional) + j) * kv_heads_ + kv;
      keys.push_back({Role::kAdditionalKey, Role::kAdditionalValue, Role::kGradAdditionalKey,
                      Role::kGradAdditionalValue, at * depth_, at * width_,
                      tokens.layout_keys() + static_cast<Index>(j), std::nullopt});
    }
    return keys;
  }

  // What dropout multiplies a weight by.
  std::vector<T> factors(const std::vector<Key>& keys, Index batch, std::size_t head, Index query) const {
    std::vector<T> factor(keys.size(), T{1});
    if (p_.dropout > 0)
      for (std::size_t j = 0; j < keys.size(); ++j)
        factor[j] = oracle::kept(seed_, static_cast<std::uint32_t>(batch), static_cast<std::uint32_t>(head),
                                 static_cast<std::uint32_t>(query),
                                 static_cast<std::uint32_t>(keys[j].raster), p_.dropout)
                        ? T{1} / (T{1} - static_cast<T>(p_.dropout))
                        : T{0};
    return factor;
  }

  void one_query(const Tokens& tokens, std::size_t b, std::size_t q, std::size_t h,
                 const std::vector<std::size_t>& visible) {
    const std::size_t row = (b * queries_ + static_cast<std::size_t>(tokens.first_query) + q) * heads_ + h;
    const std::vector<Key> keys = keys_seen(tokens, b, q, h, visible);
    if (keys.empty()) return;  // out 0, lse -inf, zero gradients

    const T scale = p_.scale ? static_cast<T>(*p_.scale) : T{1} / std::sqrt(static_cast<T>(p_.head_dim));
    std::vector<T> weight(keys.size());
    T largest = -std::numeric_limits<T>::infinity(), total = 0;
    double magnitude = 0;  // of the scores' own terms
    double flushed = 0;    // ... of those with a subnormal factor, which bf16 arithmetic may take as 0
    for (std::size_t j = 0; j < keys.size(); ++j) {
      T dot = 0, size = 0;
      double small = static_cast<double>(depth_) * smallest_normal(p_.dtype);  // so may sums
      for (std::size_t c = 0; c < depth_; ++c) {
        const double q = in(Role::kQuery)[row * depth_ + c], k = in(keys[j].key)[keys[j].k + c];
        const T x = static_cast<T>(q) * static_cast<T>(k);
        dot += x;
        size += std::abs(x);
        if (std::min(std::abs(q), std::abs(k)) < smallest_normal(p_.dtype)) small += std::abs(q * k);
      }
      if (bf16_arithmetic()) flushed = std::max(flushed, std::abs(static_cast<double>(scale)) * small);
      const T bias = keys[j].bias ? static_cast<T>(in(Role::kBias)[*keys[j].bias]) : T{0};
      weight[j] = scale * dot + bias;
      largest = std::max(largest, weight[j]);
      magnitude = std::max(magnitude, static_cast<double>(std::abs(scale) * size + std::abs(bias)));
    }
    for (T& w : weight) total += w = std::exp(w - largest);
    for (T& w : weight) w /= total;
    const T lse = largest + std::log(total);
    of(Role::kLse).sum[row] = lse;
    // Rounding the terms of a score moves it by some eps of their sum, and P relatively by as much.
    const double more = std::log2(static_cast<double>(keys.size())) + 2 * magnitude, c = 4 + more;
    of(Role::kLse).terms[row] = more + flushed / eps_of_arithmetic(p_.dtype);

    const Index batch = p_.varlen ? tokens.number : static_cast<Index>(b);
    const std::vector<T> factor = factors(keys, batch, h, tokens.query_raster(q));
    for (std::size_t j = 0; j < keys.size(); ++j)
      for (std::size_t i = 0; i < width_; ++i) {
        const double v = in(keys[j].value)[keys[j].v + i];
        const T x = factor[j] * weight[j] * static_cast<T>(v);
        const auto size = static_cast<double>(std::abs(x));
        // In bf16 arithmetic the weight is rounded to bf16, and products and subnormal factors may be flushed.
        const double rounded =
            bf16_arithmetic()
                ? size + (size * std::expm1(2 * flushed) + smallest_normal(p_.dtype) * (1 + std::abs(v))) /
                             unit_roundoff(p_.dtype)
                : 0.0;
        of(Role::kOut).add(row * width_ + i, x, size, c, std::max(rounded, rounded_factor(size, v)));
      }
    if (backward_) one_gradient(row, keys, weight, factor, scale, c);
  }

  void one_gradient(std::size_t row, const std::vector<Key>& keys, const std::vector<T>& weight,
                    const std::vector<T>& factor, T scale, double c) {
    const double* grad_out = in(Role::kGradOut).data() + row * width_;
    T delta = 0;
    double delta_size = 0, rounded = 0;  // |dO| |O|; below the normal numbers O is rounded to a fixed step
    for (std::size_t i = 0; i < width_; ++i) {
      const T x = static_cast<T>(grad_out[i]) * of(Role::kOut).sum[row * width_ + i];
      delta += x;
      delta_size += static_cast<double>(std::abs(x));
      rounded +=
          std::max(static_cast<double>(std::abs(x)), std::abs(grad_out[i]) * smallest_normal(p_.dtype));
    }
    const T grad_lse = in(Role::kGradLse).empty() ? T{0} : static_cast<T>(in(Role::kGradLse)[row]);
    delta -= grad_lse;
    for (std::size_t j = 0; j < keys.size(); ++j) {
      T from_value = 0;
      double size = delta_size + static_cast<double>(std::abs(grad_lse));
      for (std::size_t i = 0; i < width_; ++i) {
        const T x =
            factor[j] * static_cast<T>(grad_out[i]) * static_cast<T>(in(keys[j].value)[keys[j].v + i]);
        from_value += x;
        size += static_cast<double>(std::abs(x));
        const T y = factor[j] * weight[j] * static_cast<T>(grad_out[i]);
        const auto y_size = static_cast<double>(std::abs(y));
        of(keys[j].grad_value).add(keys[j].v + i, y, y_size, c, rounded_factor(y_size, grad_out[i]));
      }
      const T grad_score = weight[j] * (from_value - delta), score = scale * grad_score;
      const auto p = static_cast<double>(weight[j]), scaled = std::abs(static_cast<double>(scale)) * p;
      if (keys[j].bias) of(Role::kGradBias).add(*keys[j].bias, grad_score, p * size, c, p * rounded);
      for (std::size_t i = 0; i < depth_; ++i) {
        const double k = in(keys[j].key)[keys[j].k + i], q = in(Role::kQuery)[row * depth_ + i];
        of(Role::kGradQuery)
            .add(row * depth_ + i, score * static_cast<T>(k), scaled * size * std::abs(k), c,
                 scaled * rounded * std::abs(k) + rounded_factor(scaled * size * std::abs(k), scale * k));
        of(keys[j].grad_key)
            .add(keys[j].k + i, score * static_cast<T>(q), scaled * size * std::abs(q), c,
                 scaled * rounded * std::abs(q) + rounded_factor(scaled * size * std::abs(q), scale * q));
      }
    }
  }

  Answer answer() {
    Answer all;
    for (int r = 0; r < kRoles; ++r) {
      const Role role = static_cast<Role>(r);
      if (role != Role::kOut && role != Role::kLse && !is_gradient(role)) continue;
      const Accumulators<T>& sums = of(role);
      auto& exact = all.exact[static_cast<std::size_t>(r)];
      auto& bound = all.tolerance[static_cast<std::size_t>(r)];
      // Sums over the queries; the others are sums over the keys, which c counts.
      const bool over_queries = is_gradient(role) && role != Role::kGradQuery;
      for (std::size_t i = 0; i < sums.sum.size(); ++i) {
        exact.push_back(static_cast<double>(sums.sum[i]));
        bound.push_back(role == Role::kLse
                            ? lse_tolerance(exact[i], p_.dtype) + eps_of_arithmetic(p_.dtype) * sums.terms[i]
                            : tolerance({exact[i], sums.weighted[i], sums.terms[i], sums.out_terms[i]},
                                        over_queries ? sums.summands[i] : 0, p_.dtype));
      }
    }
    return all;
  }

  Problem p_;
  const RoleValues& in_;
  bool backward_;
  std::int64_t seed_;
  bool tensor_cores_;
  std::size_t heads_, kv_heads_, depth_, width_, queries_, keys_, table_;
  std::vector<Accumulators<T>> sums_;
};

}  // namespace

std::vector<Index> shape_for(const Problem& p, Role role) {
  const bool of_keys =
      role == Role::kKey || role == Role::kValue || role == Role::kGradKey || role == Role::kGradValue;
  const bool additional = role == Role::kAdditionalKey || role == Role::kAdditionalValue ||
                          role == Role::kGradAdditionalKey || role == Role::kGradAdditionalValue;
  const bool values = role == Role::kValue || role == Role::kGradValue || role == Role::kAdditionalValue ||
                      role == Role::kGradAdditionalValue || role == Role::kOut || role == Role::kGradOut;
  const bool lse = role == Role::kLse || role == Role::kGradLse;
  if (is_backward(role) && p.direction == Direction::kForward) return {};
  if (role == Role::kLse && p.direction == Direction::kForward && !p.lse) return {};
  if (role == Role::kGradLse && !p.lse) return {};
  if (additional && p.additional == 0) return {};
  if (role == Role::kBias || role == Role::kGradBias) {
    if (!p.bias) return {};
    std::vector<Index> table{p.heads};
    for (std::size_t a = 0; a < static_cast<std::size_t>(p.rank); ++a)
      table.push_back(2 * p.layouts[0].window[a] - 1);
    return table;
  }
  std::vector<Index> shape{p.batch};
  if (additional) {
    shape.push_back(p.additional);
  } else if (p.varlen) {
    Index total = of_keys ? p.tail_key : p.tail_query;
    for (const Layout& l : p.layouts) {
      Index tokens = 1;
      for (std::size_t a = 0; a < static_cast<std::size_t>(p.rank); ++a)
        tokens *= of_keys ? l.extent[a] : l.query_extent[a];
      total += tokens;
    }
    shape.push_back(total);
  } else {
    for (int a = 0; a < p.rank; ++a) {
      const std::optional<Box>& range = of_keys ? p.key_range : p.query_range;
      const Layout& l = p.layouts[0];
      shape.push_back(range ? range->axis[a].size()
                            : (of_keys ? l.extent : l.query_extent)[static_cast<std::size_t>(a)]);
    }
  }
  shape.push_back(of_keys || additional ? p.kv_heads : p.heads);
  if (!lse) shape.push_back(values ? p.value_dim : p.head_dim);
  return shape;
}

double tolerance(const Bound& b, Index summands, DType dtype) {
  // Numbers below the smallest normal one are rounded to a fixed step.
  const double smallest = dtype == DType::kFloat16 ? 0x1p-25 : dtype == DType::kFloat64 ? 1e-300 : 1e-37;
  const double additions = std::log2(1.0 + static_cast<double>(summands));
  return unit_roundoff(dtype) * (std::abs(b.exact) + b.out_terms) +
         eps_of_arithmetic(dtype) * (b.weighted + additions * b.terms) + smallest;
}

double lse_tolerance(double lse, DType dtype) {
  return lse == -kInfinity ? 0.0 : eps_of_arithmetic(dtype) * (8 + std::abs(lse));
}

Answer solve(const Problem& problem, const RoleValues& inputs, bool backward, std::int64_t seed,
             bool tensor_cores) {
  if (problem.dtype == DType::kFloat64)
    return Solver<long double>(problem, inputs, backward, seed, tensor_cores).run();
  return Solver<double>(problem, inputs, backward, seed, tensor_cores).run();
}

}  // namespace nearfield::testing
