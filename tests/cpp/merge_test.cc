// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// merge_attentions: attentions over disjoint keys joined again are the attention over all of them.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "conformance.h"

namespace nearfield {
namespace {

using testing::Memory;
using testing::Rng;
using Sizes = std::vector<Index>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Parts {
  std::vector<Memory> outs, lses;
  Memory out, lse;

  Parts(std::size_t n, DType dtype, const Sizes& size, std::uint64_t seed) {
    Rng rng(seed);
    const Sizes rows(size.begin(), size.end() - 1);
    for (std::size_t i = 0; i < n; ++i) {
      outs.emplace_back(dtype, size);
      outs.back().fill_normal(rng);
      lses.emplace_back(lse_dtype(dtype), rows);
      lses.back().fill_normal(rng, 3.0);
    }
    out = Memory(dtype, size, {}, true);
    lse = Memory(lse_dtype(dtype), rows, {}, true);
  }

  void merge() {
    std::vector<TensorView> o, l;
    for (const Memory& m : outs) o.push_back(m.view());
    for (const Memory& m : lses) l.push_back(m.view());
    merge_attentions(o, l, out.view(), lse.view());
  }

  // The formulas of the specification, in long double.
  void expect_merged(DType dtype) const {
    const Index channels = out.size().back();
    const double eps = dtype == DType::kBFloat16  ? 0x1p-8
                       : dtype == DType::kFloat16 ? 0x1p-11
                       : dtype == DType::kFloat32 ? 0x1p-23
                                                  : 0x1p-50;
    for (Index r = 0; r < lse.elements(); ++r) {
      long double largest = -kInfinity, total = 0;
      for (const Memory& l : lses) largest = std::max<long double>(largest, l.get(r));
      if (largest > -kInfinity)
        for (const Memory& l : lses) total += std::exp(static_cast<long double>(l.get(r)) - largest);
      const double expected = total > 0 ? static_cast<double>(largest + std::log(total)) : -kInfinity;
      if (total > 0) EXPECT_NEAR(lse.get(r), expected, testing::lse_tolerance(expected, dtype));
      else EXPECT_EQ(lse.get(r), -kInfinity);
      for (Index c = 0; c < channels; ++c) {
        long double sum = 0, size = 0;
        for (std::size_t i = 0; i < outs.size(); ++i) {
          if (total == 0 || lses[i].get(r) == -kInfinity) continue;  // weight 0: the output is not read
          const long double x = std::exp(static_cast<long double>(lses[i].get(r)) - largest) / total *
                                static_cast<long double>(outs[i].get(r * channels + c));
          sum += x;
          size += std::abs(x);
        }
        const double got = out.get(r * channels + c);
        if (total == 0) EXPECT_EQ(got, 0.0);
        else
          EXPECT_NEAR(got, static_cast<double>(sum),
                      eps * std::abs(static_cast<double>(sum)) +
                          0x1p-22 * (eps < 0x1p-40 ? 0x1p-26 : 1.0) * static_cast<double>(size) +
                          (dtype == DType::kFloat16 ? 0x1p-25 : 0.0));
      }
    }
    EXPECT_TRUE(out.guards_intact() && lse.guards_intact());
  }
};

TEST(Merge, WeightsByLse) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat64, DType::kBFloat16, DType::kFloat16})
    for (const std::size_t n : {2u, 3u, 7u})
      for (const Sizes& size :
           {Sizes{2, 5, 3, 4}, Sizes{1, 2, 3, 2, 1, 5}, Sizes{7, 1}, Sizes{2, 3, 4, 2, 8}}) {
        Parts p(n, dtype, size, n);
        p.merge();
        p.expect_merged(dtype);
      }
}

// -inf has weight 0 in any position, its output is not read; all -inf gives 0 and -inf.
TEST(Merge, NothingSeen) {
  for (const std::size_t n : {2u, 3u})
    for (unsigned which = 1; which < 1u << n; ++which) {
      Parts p(n, DType::kFloat32, {2, 3, 4}, which);
      for (std::size_t i = 0; i < n; ++i) {
        if (!(which >> i & 1u)) continue;
        for (Index r = 0; r < 6; ++r) p.lses[i].set(r, -kInfinity);
        for (Index e = 0; e < 24; ++e) p.outs[i].set(e, std::numeric_limits<double>::quiet_NaN());
      }
      p.merge();
      p.expect_merged(DType::kFloat32);
    }
}

TEST(Merge, LargeDifferences) {
  for (const double size : {1e4, 1e30, 3e38}) {
    Parts p(3, DType::kFloat32, {1, 2, 4}, 5);
    for (Index r = 0; r < 2; ++r) {
      p.lses[0].set(r, -size);
      p.lses[1].set(r, size);
      p.lses[2].set(r, r ? size : 0.0);
    }
    p.merge();
    p.expect_merged(DType::kFloat32);
  }
}

TEST(Merge, AnyStrides) {
  Parts p(2, DType::kFloat32, {2, 5, 3, 4}, 9);
  Rng rng(10);
  p.outs[0] = Memory(DType::kFloat32, {2, 5, 3, 4}, {1, 100, 2, 7});
  p.outs[1] = Memory(DType::kFloat32, {2, 5, 3, 4}, {0, 12, 0, 1});
  p.lses[0] = Memory(DType::kFloat32, {2, 5, 3}, {15, 1, 5});
  for (Memory* m : {&p.outs[0], &p.outs[1], &p.lses[0]}) m->fill_normal(rng);
  p.out = Memory(DType::kFloat32, {2, 5, 3, 4}, {5, 100, 10, 33}, true);
  p.lse = Memory(DType::kFloat32, {2, 5, 3}, {1, 2, 10}, true);
  p.merge();
  p.expect_merged(DType::kFloat32);
}

TEST(Merge, OutputsMayBeEmpty) {
  Parts p(2, DType::kFloat32, {0, 3, 4}, 1);
  EXPECT_NO_THROW(p.merge());
}

// Keys cut in two or three: the parts, merged, are the whole.
TEST(Merge, PartsOfTheKeysMakeTheWhole) {
  for (const char* text : {"na:fwd:f32:b1h2kv1d16:40:k9:lse", "att:fwd:f32:b1h2kv1d16:40,40:cbr:lse",
                           "na:fwd:f64:b1h2kv1d16:40:k5:s2:d3:c1:lse"})
    for (const std::string& backend : testing::backends_under_test()) {
      testing::Case whole(text);
      const Problem& p = whole.problem();
      std::vector<Memory> outs, lses;
      for (const Interval cut : {Interval{0, 11}, Interval{11, 12}, Interval{12, 40}}) {
        Problem part = p;
        part.key_range = Box{};
        part.key_range->axis[0] = cut;
        testing::Case c(to_string(part));
        const Index heads_dim[] = {p.kv_heads * p.head_dim, p.kv_heads * p.value_dim};
        for (Index i = 0; i < c.input(Role::kQuery).elements(); ++i)
          c.input(Role::kQuery).set(i, whole.input(Role::kQuery).get(i));
        for (Index i = 0; i < c.input(Role::kKey).elements(); ++i)
          c.input(Role::kKey).set(i, whole.input(Role::kKey).get(cut.begin * heads_dim[0] + i));
        for (Index i = 0; i < c.input(Role::kValue).elements(); ++i)
          c.input(Role::kValue).set(i, whole.input(Role::kValue).get(cut.begin * heads_dim[1] + i));
        testing::Outputs o = c.run(Direction::kForward, backend);
        outs.push_back(o.at(Role::kOut));
        lses.push_back(o.at(Role::kLse));
      }
      testing::Outputs merged;
      merged[Role::kOut] = Memory(p.dtype, outs[0].size(), {}, true);
      merged[Role::kLse] = Memory(lse_dtype(p.dtype), lses[0].size(), {}, true);
      const TensorView o[] = {outs[0].view(), outs[1].view(), outs[2].view()},
                       l[] = {lses[0].view(), lses[1].view(), lses[2].view()};
      merge_attentions(o, l, merged[Role::kOut].view(), merged[Role::kLse].view());
      EXPECT_TRUE(whole.agrees(merged, backend)) << text;
    }
}

TEST(Merge, BadInputIsRefused) {
  const auto error = [](const auto& damage) -> std::string {
    Parts p(2, DType::kFloat32, {2, 3, 4}, 1);
    std::vector<TensorView> o{p.outs[0].view(), p.outs[1].view()}, l{p.lses[0].view(), p.lses[1].view()};
    TensorView out = p.out.view(), lse = p.lse.view();
    damage(o, l, out, lse);
    try {
      merge_attentions(o, l, out, lse);
    } catch (const std::invalid_argument& e) {
      EXPECT_TRUE(std::isnan(p.out.get(0)) && std::isnan(p.lse.get(0))) << "written before the refusal";
      return e.what();
    }
    return "";
  };
  using Views = std::vector<TensorView>;
  const float spare[64] = {};
  const auto has_form = [](const std::string& message) {
    return message.rfind("[merge_attentions] got ", 0) == 0 &&
           message.find(", expected ") != std::string::npos;
  };
  EXPECT_EQ(error([](Views&, Views&, TensorView&, TensorView&) {}), "");
  EXPECT_TRUE(has_form(error([](Views& o, Views& l, TensorView&, TensorView&) {
    o.pop_back();
    l.pop_back();
  })));
  EXPECT_TRUE(has_form(error([](Views& o, Views& l, TensorView&, TensorView&) {
    o.clear();
    l.clear();
  })));
  EXPECT_TRUE(has_form(error([](Views& o, Views&, TensorView&, TensorView&) { o.pop_back(); })));
  EXPECT_TRUE(has_form(error([&](Views& o, Views&, TensorView&, TensorView&) {
    o[1] = TensorView(spare, DType::kFloat32, {2, 3, 5});
  })));
  EXPECT_TRUE(has_form(error([&](Views& o, Views&, TensorView&, TensorView&) {
    o[1] = TensorView(spare, DType::kFloat16, {2, 3, 4});
  })));
  EXPECT_TRUE(has_form(error([&](Views&, Views& l, TensorView&, TensorView&) {
    l[0] = TensorView(spare, DType::kFloat32, {2, 4});
  })));
  EXPECT_TRUE(has_form(error([&](Views&, Views& l, TensorView&, TensorView&) {
    l[0] = TensorView(spare, DType::kFloat64, {2, 3});
  })));
  EXPECT_TRUE(has_form(error([](Views&, Views&, TensorView& out, TensorView&) { out = {}; })));
  EXPECT_TRUE(has_form(error([](Views&, Views&, TensorView&, TensorView& lse) { lse = {}; })));
  EXPECT_TRUE(has_form(error([](Views& o, Views&, TensorView&, TensorView&) { o[0] = {}; })));
  EXPECT_TRUE(has_form(error([](Views& o, Views&, TensorView&, TensorView&) { o[0].data = nullptr; })));
  EXPECT_TRUE(has_form(error([](Views&, Views&, TensorView& out, TensorView&) { out.stride[1] = 0; })));
}

}  // namespace
}  // namespace nearfield
