// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// attention.h as a user calls it: the four conveniences and their gradients against the oracle, and
// everything wrong with a view, refused before a byte is written.
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "conformance.h"

namespace nearfield {
namespace {

using testing::Case;
using testing::Memory;
using testing::Outputs;

struct Views {
  TensorView q, k, v;
  Options options;
};

Views views_of(Case& c) {
  Views views{c.input(Role::kQuery).view(), c.input(Role::kKey).view(), c.input(Role::kValue).view(), {}};
  views.options.additional_key = c.input(Role::kAdditionalKey).view();
  views.options.additional_value = c.input(Role::kAdditionalValue).view();
  views.options.bias = c.input(Role::kBias).view();
  views.options.scale = c.problem().scale;
  views.options.dropout = c.problem().dropout;
  views.options.seed = c.seed();
  views.options.bf16_arithmetic = c.problem().precision == Precision::kBF16;
  return views;
}

template <int Rank>
Window<Rank> window_of(const Problem& p) {
  Window<Rank> w;
  const Layout& l = p.layouts[0];
  for (std::size_t a = 0; a < static_cast<std::size_t>(Rank); ++a) {
    w.size[a] = l.window[a];
    w.stride[a] = l.stride[a];
    w.dilation[a] = l.dilation[a];
    w.causal[a] = l.causal[a];
  }
  return w;
}

void forward(const Problem& p, const Views& x, const TensorView& out) {
  if (p.operation == Operation::kAttention) attention(x.q, x.k, x.v, out, p.causal_type, x.options);
  else if (p.rank == 1) na1d(x.q, x.k, x.v, out, window_of<1>(p), x.options);
  else if (p.rank == 2) na2d(x.q, x.k, x.v, out, window_of<2>(p), x.options);
  else na3d(x.q, x.k, x.v, out, window_of<3>(p), x.options);
}

void backward(const Problem& p, const Views& x, const TensorView& out, const TensorView& lse,
              const Gradients& g) {
  if (p.operation == Operation::kAttention)
    attention_backward(x.q, x.k, x.v, out, lse, g, p.causal_type, x.options);
  else if (p.rank == 1) na1d_backward(x.q, x.k, x.v, out, lse, g, window_of<1>(p), x.options);
  else if (p.rank == 2) na2d_backward(x.q, x.k, x.v, out, lse, g, window_of<2>(p), x.options);
  else na3d_backward(x.q, x.k, x.v, out, lse, g, window_of<3>(p), x.options);
}

TEST(Api, ConveniencesForwardAndBackward) {
  for (const char* text :
       {"na:fwd:f32:b2h4kv2d16v8:30:k7:s2:d3:c1:lse",
        "na:fwd:f32:b1h2kv2d24:9x8:k3x5:s1x2:d2x1:c01:add=4:lse:scale=0.3",
        "na:fwd:bf16:b1h2kv1d8:5x6x7:k3x3x3:c100:prec=bf16:lse", "att:fwd:f64:b2h2kv1d8:13,20:cbr:lse",
        "att:fwd:f32:b2h2kv1d8:20,13:ctl:add=3:lse", "att:fwd:f16:b1h3kv3d20:13,13:lse",
        "na:fwd:f32:b2h2kv1d8:30:k7:d3:c1:bias:drop=0.3:lse",
        "na:fwd:f16:b1h2kv1d8:5x6x7:k3x3x3:c100:add=2:bias:lse",
        "att:fwd:f32:b2h2kv1d8:20,13:ctl:add=3:drop=0.3:lse",
        "na:fwd:f32:b1h2kv2d24:9x8:k3x5:s1x2:c01:qgrid=4x20:add=4:drop=0.3:lse"}) {
    Case c(text);
    const Problem& p = c.problem();
    c.answer();
    for (const char* backend : {"", "reference", "cpu"}) {
      Views views = views_of(c);
      views.options.plan.backend = backend;
      Outputs outputs;
      outputs[Role::kOut] = Memory(p.dtype, testing::shape_for(p, Role::kOut), {}, true);
      outputs[Role::kLse] = Memory(lse_dtype(p.dtype), testing::shape_for(p, Role::kLse), {}, true);
      views.options.lse = outputs[Role::kLse].view();
      ASSERT_NO_THROW(forward(p, views, outputs[Role::kOut].view())) << text;
      EXPECT_TRUE(c.agrees(outputs, "api"));

      // The gradients of what the forward pass itself gave.
      const Problem b = c.direction(Direction::kBackward);
      Outputs gradients;
      for (const Role r : {Role::kGradQuery, Role::kGradKey, Role::kGradValue, Role::kGradAdditionalKey,
                           Role::kGradAdditionalValue, Role::kGradBias})
        if (!testing::shape_for(b, r).empty())
          gradients[r] = Memory(p.dtype, testing::shape_for(b, r), {}, true);
      Gradients g;
      g.grad_out = c.input(Role::kGradOut).view();
      g.grad_lse = c.input(Role::kGradLse).view();
      g.query = gradients[Role::kGradQuery].view();
      g.key = gradients[Role::kGradKey].view();
      g.value = gradients[Role::kGradValue].view();
      if (p.additional) g.additional_key = gradients[Role::kGradAdditionalKey].view();
      if (p.additional) g.additional_value = gradients[Role::kGradAdditionalValue].view();
      if (p.bias) g.bias = gradients[Role::kGradBias].view();
      ASSERT_NO_THROW(backward(p, views, outputs[Role::kOut].view(), outputs[Role::kLse].view(), g)) << text;
      EXPECT_TRUE(c.agrees(gradients, "api"));
    }
  }
}

// A bias of another shape or dtype, dropout without a seed or beyond a probability: refused before a byte of
// the output is written.
TEST(Api, BiasAndDropoutAreChecked) {
  Case c("na:fwd:f32:b1h2kv1d8:9x8:k3x4:bias:drop=0.5");
  std::vector<float> table(64, 0.0f);
  const auto throws = [&](const TensorView& bias, double dropout, const char* word) {
    Views views = views_of(c);
    views.options.bias = bias;
    views.options.dropout = dropout;
    Memory out(DType::kFloat32, testing::shape_for(c.problem(), Role::kOut), {}, true);
    const std::vector<std::byte> before = out.bytes();
    try {
      na2d(views.q, views.k, views.v, out.view(), window_of<2>(c.problem()), views.options);
      ADD_FAILURE() << "served: " << word;
    } catch (const std::invalid_argument& e) {
      EXPECT_EQ(std::string(e.what()).rfind("[na2d] got ", 0), 0u) << e.what();
      EXPECT_NE(std::string(e.what()).find(word), std::string::npos) << e.what();
    }
    EXPECT_EQ(out.bytes(), before);
  };
  const auto view = [&](std::initializer_list<Index> shape, DType t = DType::kFloat32) {
    return TensorView(table.data(), t, shape);
  };
  throws(view({2, 5, 6}), 0.5, "(2, 5, 7)");
  throws(view({1, 5, 7}), 0.5, "(2, 5, 7)");
  throws(view({2, 7}), 0.5, "(2, 5, 7)");
  throws(view({2, 5, 7}, DType::kFloat16), 0.5, "bias");
  throws(view({2, 5, 7}), 1.0, "dropout");
  throws(view({2, 5, 7}), -0.5, "dropout");

  // The general entry has the seed among its tensors.
  Tensors tensors;
  for (const Role r : {Role::kQuery, Role::kKey, Role::kValue, Role::kBias}) tensors[r] = c.input(r).view();
  Memory out(DType::kFloat32, testing::shape_for(c.problem(), Role::kOut), {}, true);
  tensors[Role::kOut] = out.view();
  SerialExecutor serial;
  EXPECT_THROW(run(c.problem(), make_plan(c.problem()), tensors, serial), std::invalid_argument);
  EXPECT_TRUE(std::isnan(out.get(0)));
  tensors.seed = &c.seed();
  tensors[Role::kBias] = {};
  EXPECT_THROW(run(c.problem(), make_plan(c.problem()), tensors, serial), std::invalid_argument);
  EXPECT_TRUE(std::isnan(out.get(0)));
}

// As the header shows it: dense views, nothing but what is needed.
TEST(Api, ShortestCall) {
  std::vector<float> q(64 * 64 * 2 * 8, 0.0f), v(q.size(), 2.0f), out(q.size(), -1.0f);
  const auto view = [](std::vector<float>& x) {
    return TensorView(x.data(), DType::kFloat32, {1, 64, 64, 2, 8});
  };
  na2d(view(q), view(q), view(v), view(out), {{7, 7}});
  for (const float x : out) ASSERT_NEAR(x, 2.0f, 1e-6f);
  attention(TensorView(q.data(), DType::kFloat32, {1, 64, 1, 8}),
            TensorView(q.data(), DType::kFloat32, {1, 64, 1, 8}),
            TensorView(v.data(), DType::kFloat32, {1, 64, 1, 8}),
            TensorView(out.data(), DType::kFloat32, {1, 64, 1, 8}));
}

TEST(Api, DontCareIsEitherTypeOfEqualLengths) {
  Case c("att:fwd:f32:b1h1kv1d8:9,9:ctl:lse");
  c.answer();
  Views views = views_of(c);
  Outputs outputs;
  outputs[Role::kOut] = Memory(DType::kFloat32, {1, 9, 1, 8}, {}, true);
  attention(views.q, views.k, views.v, outputs[Role::kOut].view(), CausalType::kDontCare);
  EXPECT_TRUE(c.agrees(outputs, "api"));
  EXPECT_THROW(attention(views.q, TensorView(views.k.data, DType::kFloat32, {1, 8, 1, 8}),
                         TensorView(views.v.data, DType::kFloat32, {1, 8, 1, 8}), outputs[Role::kOut].view(),
                         CausalType::kDontCare),
               std::invalid_argument);
}

// S = 0 additional keys are none at all, forward and backward.
TEST(Api, NoAdditionalKeys) {
  Case c("na:fwd:f32:b2h1kv1d8:9:k3:lse");
  c.answer();
  Views views = views_of(c);
  const TensorView none(nullptr, DType::kFloat32, {2, 0, 1, 8});
  views.options.additional_key = views.options.additional_value = none;
  Outputs outputs, gradients;
  outputs[Role::kOut] = Memory(DType::kFloat32, {2, 9, 1, 8}, {}, true);
  outputs[Role::kLse] = Memory(DType::kFloat32, {2, 9, 1}, {}, true);
  views.options.lse = outputs[Role::kLse].view();
  ASSERT_NO_THROW(forward(c.problem(), views, outputs[Role::kOut].view()));
  EXPECT_TRUE(c.agrees(outputs, "api"));
  Gradients g;
  g.grad_out = c.input(Role::kGradOut).view();
  g.grad_lse = c.input(Role::kGradLse).view();
  for (const Role r : {Role::kGradQuery, Role::kGradKey, Role::kGradValue})
    gradients[r] = Memory(DType::kFloat32, {2, 9, 1, 8}, {}, true);
  g.query = gradients[Role::kGradQuery].view();
  g.key = gradients[Role::kGradKey].view();
  g.value = gradients[Role::kGradValue].view();
  g.additional_key = g.additional_value = none;
  ASSERT_NO_THROW(backward(c.problem(), views, outputs[Role::kOut].view(), outputs[Role::kLse].view(), g));
  EXPECT_TRUE(c.agrees(gradients, "api"));
}

// An output without elements overlaps nothing, whatever its strides.
TEST(Api, EmptyOutputsOfAnyStride) {
  Case c("att:fwd:f32:b2h2kv1d8:0,5");
  Views views = views_of(c);
  const Index size[] = {2, 0, 2, 8}, stride[] = {0, 0, 0, 0};
  float memory = 5;
  EXPECT_NO_THROW(
      attention(views.q, views.k, views.v, TensorView(&memory, DType::kFloat32, size, stride, 4)));
  EXPECT_NO_THROW(attention(TensorView(nullptr, DType::kFloat32, {2, 0, 2, 8}), views.k, views.v,
                            TensorView(nullptr, DType::kFloat32, {2, 0, 2, 8})));
  EXPECT_EQ(memory, 5);
}

// The process-wide pool serves many threads of the user at a time, and a pool of the user serves too.
TEST(Api, ManyThreadsCallAtOnce) {
  std::vector<std::thread> threads;
  std::vector<std::string> failures(4);
  for (std::size_t t = 0; t < 4; ++t)
    threads.emplace_back([&failures, t] {
      Case c("na:fwd:f32:b1h2kv2d16:12x13:k5x" + std::to_string(3 + 2 * t) + ":lse");
      c.answer();
      for (int round = 0; round < 10; ++round) {
        Views views = views_of(c);
        const auto pool = make_executor(2);
        if (round % 3 == 0) views.options.executor = pool.get();
        Outputs outputs;
        outputs[Role::kOut] = Memory(DType::kFloat32, {1, 12, 13, 2, 16}, {}, true);
        forward(c.problem(), views, outputs[Role::kOut].view());
        for (Index i = 0; i < outputs[Role::kOut].elements(); ++i)
          if (!(std::abs(outputs[Role::kOut].get(i) - c.answer().exact[static_cast<std::size_t>(Role::kOut)]
                                                                      [static_cast<std::size_t>(i)]) < 1e-5))
            failures[t] = "thread " + std::to_string(t) + " round " + std::to_string(round) + " element " +
                          std::to_string(i);
      }
    });
  for (std::thread& t : threads) t.join();
  for (const std::string& f : failures) EXPECT_EQ(f, "");
}

// --- wrong views ----------------------------------------------------------------------------------
class WrongViews : public ::testing::Test {
 protected:
  // The message of a refusal; nothing may have been written.
  template <class Damage>
  std::string forward_error(const Damage& damage) {
    Case c("na:fwd:f32:b2h4kv2d16v8:9x8:k3x3:add=2:lse");
    Views views = views_of(c);
    Memory out(DType::kFloat32, {2, 9, 8, 4, 8}, {}, true), lse(DType::kFloat32, {2, 9, 8, 4}, {}, true);
    const std::vector<std::byte> before = out.bytes();
    TensorView out_view = out.view();
    views.options.lse = lse.view();
    Window<2> window{{3, 3}};
    damage(views, out_view, window);
    std::string message;
    try {
      na2d(views.q, views.k, views.v, out_view, window, views.options);
    } catch (const std::invalid_argument& e) { message = e.what(); }
    EXPECT_TRUE(message.empty() || (out.bytes() == before && std::isnan(lse.get(0))))
        << "written before: " << message;
    EXPECT_TRUE(message.empty() || (message.front() == '[' && message.find("] got ") != std::string::npos &&
                                    message.find(", expected ") != std::string::npos))
        << message;
    return message;
  }
};

TEST_F(WrongViews, AreRefusedForward) {
  const float spare[4096] = {};
  const auto wrong = [&](std::initializer_list<Index> size, DType t = DType::kFloat32) {
    return TensorView(spare, t, size);
  };
  using W = Window<2>;
  EXPECT_EQ(forward_error([](Views&, TensorView&, W&) {}), "");
  EXPECT_NE(forward_error([&](Views& x, TensorView&, W&) { x.q = {}; }), "");
  EXPECT_NE(forward_error([&](Views& x, TensorView&, W&) { x.k = wrong({2, 9, 7, 2, 16}); }), "");
  EXPECT_NE(forward_error([&](Views& x, TensorView&, W&) { x.v = wrong({2, 9, 8, 1, 8}); }), "");
  EXPECT_NE(forward_error([&](Views& x, TensorView&, W&) { x.v.dtype = DType::kFloat64; }), "");
  EXPECT_NE(forward_error([&](Views& x, TensorView&, W&) { x.q.rank = 4; }), "");
  EXPECT_NE(forward_error([&](Views& x, TensorView&, W&) { x.q.data = nullptr; }), "");
  EXPECT_NE(forward_error([&](Views& x, TensorView&, W&) { x.options.additional_value = {}; }), "");
  EXPECT_NE(forward_error([&](Views& x, TensorView&, W&) { x.options.additional_key.data = nullptr; }), "");
  EXPECT_NE(forward_error([&](Views& x, TensorView&, W&) {
              x.options.additional_key = wrong({2, 2, 4, 16});
            }),
            "");
  EXPECT_NE(forward_error([&](Views& x, TensorView&, W&) { x.options.lse = wrong({2, 9, 8, 3}); }), "");
  EXPECT_NE(forward_error([&](Views& x, TensorView&, W&) { x.options.lse.dtype = DType::kFloat64; }), "");
  EXPECT_NE(forward_error([&](Views&, TensorView& out, W&) { out = {}; }), "");
  EXPECT_NE(forward_error([&](Views&, TensorView& out, W&) { out.data = nullptr; }), "");
  EXPECT_NE(forward_error([&](Views&, TensorView& out, W&) { out = wrong({2, 9, 8, 4, 16}); }), "");
  EXPECT_NE(forward_error([&](Views&, TensorView& out, W&) { out.dtype = DType::kBFloat16; }), "");
  EXPECT_NE(forward_error([&](Views&, TensorView& out, W&) { out.stride[3] = 0; }), "")
      << "heads of an output on one place";
  EXPECT_NE(forward_error([&](Views&, TensorView&, W& w) { w.size = {10, 3}; }), "");
  EXPECT_NE(forward_error([&](Views&, TensorView&, W& w) { w.size = {-1, 3}; }), "");
  EXPECT_NE(forward_error([&](Views&, TensorView&, W& w) { w.stride = {4, 1}; }), "");
  EXPECT_NE(forward_error([&](Views&, TensorView&, W& w) { w.dilation = {4, 1}; }), "");
  EXPECT_NE(forward_error([&](Views&, TensorView&, W& w) { w = {}; }), "") << "a window without size";
  EXPECT_NE(forward_error([&](Views& x, TensorView&, W&) { x.options.plan.backend = "cuda_sm90"; }), "");
  EXPECT_NE(forward_error([&](Views& x, TensorView&, W&) {
              x.options.plan.query_tile = TileShape{1, 100, 100};
            }),
            "");
  EXPECT_NE(forward_error([&](Views& x, TensorView&, W&) { x.options.scale = INFINITY; }), "");
  const std::string window = forward_error([&](Views&, TensorView&, W& w) { w.size = {10, 3}; });
  EXPECT_EQ(window.rfind("[na2d] got kernel_size 10", 0), 0u) << window;
  EXPECT_NE(window.find("; the largest legal kernel_size there is 9"), std::string::npos) << window;
}

TEST_F(WrongViews, AreRefusedBackward) {
  Case c("na:fwd:f32:b1h2kv1d16v8:30:k5:add=2:lse");
  c.answer();
  Outputs gradients;
  const Problem b = c.direction(Direction::kBackward);
  for (const Role r : {Role::kGradQuery, Role::kGradKey, Role::kGradValue, Role::kGradAdditionalKey,
                       Role::kGradAdditionalValue})
    gradients[r] = Memory(DType::kFloat32, testing::shape_for(b, r), {}, true);
  const float spare[4096] = {};
  const auto error = [&](const auto& damage) -> std::string {
    Views views = views_of(c);
    TensorView out = c.input(Role::kOut).view(), lse = c.input(Role::kLse).view();
    Gradients g{c.input(Role::kGradOut).view(),
                c.input(Role::kGradLse).view(),
                gradients[Role::kGradQuery].view(),
                gradients[Role::kGradKey].view(),
                gradients[Role::kGradValue].view(),
                gradients[Role::kGradAdditionalKey].view(),
                gradients[Role::kGradAdditionalValue].view()};
    damage(views, out, lse, g);
    try {
      na1d_backward(views.q, views.k, views.v, out, lse, g, {{5}}, views.options);
    } catch (const std::invalid_argument& e) {
      for (const auto& [r, memory] : gradients)
        EXPECT_TRUE(std::isnan(memory.get(0))) << "written before: " << e.what();
      return e.what();
    }
    return "";
  };
  using T = TensorView;
  EXPECT_NE(error([&](Views&, T& out, T&, Gradients&) { out = {}; }), "");
  EXPECT_NE(error([&](Views&, T&, T& lse, Gradients&) { lse = {}; }), "");
  EXPECT_NE(error([&](Views&, T& out, T&, Gradients&) {
              out = T(spare, DType::kFloat32, {1, 30, 2, 16});
            }),
            "");
  EXPECT_NE(error([&](Views&, T&, T& lse, Gradients&) { lse = T(spare, DType::kFloat32, {1, 30, 1}); }), "");
  EXPECT_NE(error([&](Views&, T&, T&, Gradients& g) { g.grad_out = {}; }), "");
  EXPECT_NE(error([&](Views&, T&, T&, Gradients& g) { g.grad_out.dtype = DType::kFloat16; }), "");
  EXPECT_NE(error([&](Views&, T&, T&, Gradients& g) {
              g.grad_lse = T(spare, DType::kFloat32, {1, 30});
            }),
            "");
  EXPECT_NE(error([&](Views&, T&, T&, Gradients& g) { g.query = {}; }), "");
  EXPECT_NE(error([&](Views&, T&, T&, Gradients& g) {
              g.key = T(spare, DType::kFloat32, {1, 30, 2, 16});
            }),
            "");
  EXPECT_NE(error([&](Views&, T&, T&, Gradients& g) { g.value.data = nullptr; }), "");
  EXPECT_NE(error([&](Views&, T&, T&, Gradients& g) { g.value.stride[1] = 0; }), "");
  EXPECT_NE(error([&](Views&, T&, T&, Gradients& g) { g.additional_key = {}; }), "");
  EXPECT_NE(error([&](Views&, T&, T&, Gradients& g) { g.additional_value.size[1] = 3; }), "");
  EXPECT_NE(error([&](Views& x, T&, T&, Gradients&) { x.k = {}; }), "");
  EXPECT_EQ(error([&](Views&, T&, T&, Gradients&) {}), "");
}

// run() itself, below the conveniences: tensors that do not match the problem.
TEST_F(WrongViews, AreRefusedByRun) {
  Case c("na:bwd:f32:b1h1kv1d8:9:k3");
  c.answer();
  const Problem p = c.direction(Direction::kBackward);
  const Choice choice = make_plan(p);
  SerialExecutor serial;
  EXPECT_THROW(run(p, {}, {}, serial), std::invalid_argument);
  EXPECT_THROW(run(p, choice, {}, serial), std::invalid_argument);
  Outputs gradients;
  Tensors tensors;
  for (const Role r : {Role::kQuery, Role::kKey, Role::kValue, Role::kOut, Role::kLse, Role::kGradOut})
    tensors[r] = c.input(r).view();
  for (const Role r : {Role::kGradQuery, Role::kGradKey, Role::kGradValue}) {
    gradients[r] = Memory(DType::kFloat32, {1, 9, 1, 8}, {}, true);
    tensors[r] = gradients[r].view();
  }
  // The problem says that lse has no gradient: one that is there all the same is refused or not read.
  const float one[1] = {};
  tensors[Role::kGradLse] = TensorView(one, DType::kFloat32, {1, 1, 1});
  try {
    run(p, choice, tensors, serial);
    EXPECT_TRUE(c.agrees(gradients, "run"));
  } catch (const std::invalid_argument&) {}
}

TEST(TensorViews, AreCheckedWhenMade) {
  float x = 0;
  const Index negative[] = {2, -1}, huge[] = {INT64_MAX, 3}, seven[] = {1, 1, 1, 1, 1, 1, 1};
  EXPECT_THROW(TensorView(&x, DType::kFloat32, negative, 2), std::invalid_argument);
  EXPECT_THROW(TensorView(&x, DType::kFloat32, huge, 2), std::invalid_argument);
  EXPECT_THROW(TensorView(&x, DType::kFloat32, seven, 7), std::invalid_argument);
  EXPECT_THROW(TensorView(&x, DType::kFloat32, seven, 0), std::invalid_argument);
  const TensorView v(&x, DType::kFloat32, {2, 0, 5});
  EXPECT_EQ(v.elements(), 0);
  EXPECT_EQ(TensorView(&x, DType::kFloat32, {2, 3, 5}).stride[0], 15);
  EXPECT_FALSE(TensorView().present());
}

}  // namespace
}  // namespace nearfield
