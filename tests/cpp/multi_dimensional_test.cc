// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// attention.h beyond na1d/na2d/na3d/attention: multi_dimensional_attention and its kin, and packed
// sequences, forward and backward against the oracle.
#include <gtest/gtest.h>

#include <functional>

#include "conformance.h"

namespace nearfield {
namespace {

using testing::Case;
using testing::Memory;
using testing::Outputs;

struct Call {
  TensorView q, k, v, out, lse;
  Options options;
  Gradients gradients;
};

// Runs both directions on every backend and compares with the oracle of the problem.
void expect_agrees(const char* text, const std::function<void(const Call&)>& forward,
                   const std::function<void(const Call&)>& backward) {
  SCOPED_TRACE(text);
  Case c(text);
  c.answer();
  const Problem& p = c.problem();
  const Problem b = c.direction(Direction::kBackward);
  for (const char* backend : {"", "reference", "cpu"}) {
    Outputs outputs, gradients;
    for (const Role r : {Role::kOut, Role::kLse})
      outputs[r] = Memory(dtype_of(p, r), testing::shape_for(p, r), {}, true);
    for (const Role r : {Role::kGradQuery, Role::kGradKey, Role::kGradValue})
      gradients[r] = Memory(p.dtype, testing::shape_for(b, r), {}, true);
    Call call{c.input(Role::kQuery).view(),
              c.input(Role::kKey).view(),
              c.input(Role::kValue).view(),
              outputs[Role::kOut].view(),
              outputs[Role::kLse].view(),
              {},
              {}};
    call.options.plan.backend = backend;
    call.options.lse = call.lse;
    ASSERT_NO_THROW(forward(call));
    EXPECT_TRUE(c.agrees(outputs, backend));
    call.gradients.grad_out = c.input(Role::kGradOut).view();
    call.gradients.grad_lse = c.input(Role::kGradLse).view();
    call.gradients.query = gradients[Role::kGradQuery].view();
    call.gradients.key = gradients[Role::kGradKey].view();
    call.gradients.value = gradients[Role::kGradValue].view();
    call.options.lse = {};
    ASSERT_NO_THROW(backward(call));
    EXPECT_TRUE(c.agrees(gradients, backend));
  }
}

void expect_multi_dimensional(const char* text, const Windows& windows) {
  expect_agrees(
      text, [&](const Call& x) { multi_dimensional_attention(x.q, x.k, x.v, x.out, windows, x.options); },
      [&](const Call& x) {
        multi_dimensional_attention_backward(x.q, x.k, x.v, x.out, x.lse, x.gradients, windows, x.options);
      });
}

TEST(MultiDimensional, WindowsOfMinusOneAreTheWholeAxis) {
  expect_multi_dimensional("na:fwd:f32:b2h2kv1d8:7x6:k7x6:lse", {});
  expect_multi_dimensional("na:fwd:f32:b1h2kv2d8v5:7x6:k7x3:s2x2:c10:lse", {{-1, 3}, {2}, {1}, {1, 0}});
  expect_multi_dimensional("na:fwd:f64:b1h1kv1d8:30:k5:d3:lse", {{5}, {1}, {3}});
}

TEST(MultiDimensional, AxesOfOneTokenIgnoreTheirWindow) {
  expect_multi_dimensional("na:fwd:f32:b1h2kv2d8:1x9x4:k1x3x2:s1x2x2:lse",
                           {{50, 3, 2}, {7, 2, 2}, {9, 1, 1}, {1, 0, 0}});
}

TEST(MultiDimensional, QueriesOnALayoutOfTheirOwn) {
  expect_multi_dimensional("na:fwd:f32:b1h2kv1d8:8x9:k3x9:qgrid=4x18:lse", {{3, -1}});
}

TEST(MultiDimensional, SpaceAndTime) {
  const Windows windows{{-1, 3, 3}};
  expect_agrees(
      "na:fwd:f32:b1h2kv1d8:4x5x6:k4x3x3:c100:lse",
      [&](const Call& x) { spatio_temporal_attention(x.q, x.k, x.v, x.out, windows, x.options); },
      [&](const Call& x) {
        spatio_temporal_attention_backward(x.q, x.k, x.v, x.out, x.lse, x.gradients, windows, x.options);
      });
}

TEST(Packed, Attention) {
  const Index q[] = {0, 4, 4, 10}, k[] = {0, 3, 8, 12};
  for (const auto& [text, causal] :
       {std::pair("att:fwd:f32:b1h4kv2d16v8:4,3+0,5+6,4:tail=2,1:lse", CausalType::kNone),
        std::pair("att:fwd:f32:b1h4kv2d16v8:4,3+0,5+6,4:ctl:lse", CausalType::kTopLeft),
        std::pair("att:fwd:f64:b1h1kv1d4:4,3+0,5+6,4:cbr:lse", CausalType::kBottomRight)})
    expect_agrees(
        text,
        [&, type = causal](const Call& x) { attention_varlen(x.q, x.k, x.v, x.out, q, k, type, x.options); },
        [&, type = causal](const Call& x) {
          attention_varlen_backward(x.q, x.k, x.v, x.out, x.lse, x.gradients, q, k, type, x.options);
        });
}

TEST(Packed, Layouts) {
  std::vector<Layout> layouts(2);
  layouts[0].extent = {4, 5, 0};
  layouts[0].window = {-1, 3, 1};
  layouts[0].stride = {1, 2, 1};
  layouts[1].extent = {6, 1, 0};
  layouts[1].window = {2, 9, 1};
  layouts[1].dilation = {3, 1, 1};
  layouts[1].causal = {true, true, false};
  expect_agrees(
      "na:fwd:f32:b1h4kv2d16v8:4x5+6x1:k4x3+2x1:s1x2+1x1:d1x1+3x1:c00+10:tail=3,3:lse",
      [&](const Call& x) { multi_dimensional_attention_varlen(x.q, x.k, x.v, x.out, 2, layouts, x.options); },
      [&](const Call& x) {
        multi_dimensional_attention_varlen_backward(x.q, x.k, x.v, x.out, x.lse, x.gradients, 2, layouts,
                                                    x.options);
      });
}

TEST(MultiDimensional, WrongViewsAreRefused) {
  float data[64] = {};
  const TensorView small(data, DType::kFloat32, {1, 4, 1, 4}), flat(data, DType::kFloat32, {4, 4});
  const auto message = [](const auto& call) -> std::string {
    try {
      call();
    } catch (const std::invalid_argument& e) { return e.what(); }
    return "";
  };
  EXPECT_EQ(message([&] {
              multi_dimensional_attention(flat, flat, flat, flat);
            }).rfind("[multi_dimensional_attention] got ", 0),
            0u);
  EXPECT_NE(message([&] { spatio_temporal_attention(small, small, small, small); }).find("rank 6"),
            std::string::npos);
  EXPECT_NE(message([&] {
              multi_dimensional_attention(small, small, small, small, {{3, 3}});
            }).find("length 2"),
            std::string::npos);
  EXPECT_NE(
      message([&] { attention_varlen(small, small, small, small, {}, {}); }).find("cumulative_seqlen_Q"),
      std::string::npos);
}

}  // namespace
}  // namespace nearfield
