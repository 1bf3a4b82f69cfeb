// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The one validator: every rule of the specification (section 6) that shapes and arguments can break,
// each with its message, `[op] got X, expected Y; hint`.
#include "nearfield/request.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "problem_family.h"

namespace nearfield {
namespace {

using testing::Rng;
using Sizes = std::vector<Index>;

TensorInfo tensor(Sizes size, const char* dtype = "float32", const char* device = "cpu") {
  return {true, dtype, device, std::move(size), {}};
}

// na2d: two images of 8 x 9 tokens, four query heads on two key heads, D 16, Dv 24.
Request image() {
  Request r;
  r.op = "na2d";
  r.rank = 2;
  r.query = tensor({2, 8, 9, 4, 16});
  r.key = tensor({2, 8, 9, 2, 16});
  r.value = tensor({2, 8, 9, 2, 24});
  r.window = {3, 5};
  r.stride = {1, 1};
  r.dilation = {1, 1};
  r.causal = {0, 0};
  return r;
}

// attention: 10 queries, 12 keys.
Request sequence() {
  Request r;
  r.op = "attention";
  r.operation = Operation::kAttention;
  r.query = tensor({2, 10, 4, 16});
  r.key = tensor({2, 12, 2, 16});
  r.value = tensor({2, 12, 2, 24});
  return r;
}

// Three sequences packed to 10 queries and 12 keys.
Request packed() {
  Request r = sequence();
  r.varlen = true;
  r.query.size[0] = r.key.size[0] = r.value.size[0] = 1;
  r.query_offsets = {0, 4, 4, 10};
  r.key_offsets = {0, 3, 8, 12};
  return r;
}

// Two token layouts, 4 x 5 and 3 x 2, packed to 28 tokens: two are left over.
Request packed_images() {
  Request r = image();
  r.op = "multi_dimensional_attention_varlen";
  r.varlen = true;
  r.query = tensor({1, 28, 4, 16});
  r.key = tensor({1, 28, 2, 16});
  r.value = tensor({1, 28, 2, 24});
  r.layouts.resize(2);
  r.layouts[0].extent = r.layouts[0].query_extent = {4, 5, 0};
  r.layouts[1].extent = r.layouts[1].query_extent = {3, 2, 0};
  for (Layout& l : r.layouts) l.window = {2, 2, 1};
  return r;
}

Request backward_of(Request r) {
  r.direction = Direction::kBackward;
  Sizes out = r.query.size;
  out.back() = r.value.size.back();
  Sizes lse(out.begin(), out.end() - 1);
  const char* lse_type = r.query.dtype == "float64" ? "float64" : "float32";
  r.out = tensor(out, r.query.dtype.c_str());
  r.grad_out = r.out;
  r.lse = tensor(lse, lse_type);
  r.grad_lse = r.lse;
  return r;
}

std::string error_of(const Request& r) {
  try {
    make_problem(r);
  } catch (const std::invalid_argument& e) { return e.what(); }
  return "";
}

// The request after `damage` is refused; the message has the form and all of the words.
void refused(Request r, const std::function<void(Request&)>& damage, const std::vector<std::string>& words) {
  ASSERT_EQ(error_of(r), "");
  damage(r);
  const std::string message = error_of(r);
  EXPECT_EQ(message.rfind("[" + r.op + "] got ", 0), 0u)
      << "`" << message << "` should name " << words.front();
  EXPECT_NE(message.find(", expected "), std::string::npos) << message;
  for (const std::string& word : words)
    EXPECT_NE(message.find(word), std::string::npos) << message << "\nlacks " << word;
}

// --- what is legal --------------------------------------------------------------------------------
TEST(Request, BecomesAProblem) {
  EXPECT_EQ(to_string(make_problem(image())), "na:fwd:f32:b2h4kv2d16v24:8x9:k3x5");
  EXPECT_EQ(to_string(make_problem(sequence())), "att:fwd:f32:b2h4kv2d16v24:10,12");
  EXPECT_EQ(to_string(make_problem(packed())), "att:fwd:f32:b1h4kv2d16v24:4,3+0,5+6,4");
  EXPECT_EQ(to_string(make_problem(packed_images())), "na:fwd:f32:b1h4kv2d16v24:4x5+3x2:k2x2:tail=2,2");
  EXPECT_EQ(to_string(make_problem(backward_of(image()))), "na:bwd:f32:b2h4kv2d16v24:8x9:k3x5:lse");
  Request r = image();
  r.window = {8, 3};
  r.stride = {8, 2};
  r.dilation = {1, 3};
  r.causal = {1, 0};
  r.scale = 0.0;
  r.lse_wanted = true;
  r.additional_key = tensor({2, 7, 2, 16});
  r.additional_value = tensor({2, 7, 2, 24});
  EXPECT_EQ(to_string(make_problem(r)), "na:fwd:f32:b2h4kv2d16v24:8x9:k8x3:s8x2:d1x3:c10:add=7:lse:scale=0");
  r.additional_key.size[1] = r.additional_value.size[1] = 0;
  EXPECT_EQ(make_problem(r).additional, 0);
  for (const char* dtype : {"float32", "float64", "bfloat16", "float16"}) {
    Request all = image();
    all.query.dtype = all.key.dtype = all.value.dtype = dtype;
    EXPECT_EQ(error_of(all), "") << dtype;
    EXPECT_EQ(error_of(backward_of(all)), "") << dtype;
  }
}

TEST(Request, QueriesMayHaveALayoutOfTheirOwn) {
  Request r = image();
  r.query = tensor({2, 4, 18, 4, 16});
  EXPECT_EQ(to_string(make_problem(r)), "na:fwd:f32:b2h4kv2d16v24:8x9:k3x5:qgrid=4x18");
  EXPECT_EQ(error_of(backward_of(r)), "");
  r.query.size[1] = 8;  // dilation is legal on the axis that both share
  r.dilation = {2, 1};
  EXPECT_EQ(to_string(make_problem(r)), "na:fwd:f32:b2h4kv2d16v24:8x9:k3x5:d2x1:qgrid=8x18");
  refused(r, [](Request& x) { x.dilation = {1, 2}, x.window = {3, 3}; }, {"dilation 2", "axis 1", "layouts"});
  refused(r, [](Request& x) { x.bias = tensor({4, 5, 9}); }, {"bias", "18 queries", "9 keys", "axis 1"});
}

TEST(Request, LenientWindows) {
  Request r = image();
  r.op = "multi_dimensional_attention";
  r.lenient_windows = true;
  r.window = {-1, 3};
  EXPECT_EQ(to_string(make_problem(r)), "na:fwd:f32:b2h4kv2d16v24:8x9:k8x3");
  r.stride = {8, 1};
  EXPECT_EQ(to_string(make_problem(r)), "na:fwd:f32:b2h4kv2d16v24:8x9:k8x3:s8x1");
  refused(r, [](Request& x) { x.stride[0] = 9; }, {"stride 9", "window_size = 8"});
  refused(r, [](Request& x) { x.stride[0] = 1, x.dilation[0] = 2; },
          {"window_size -1", "dilation 2", "axis 0"});
  refused(r, [](Request& x) { x.window[1] = 0; }, {"window_size 0", "axis 1"});
  refused(r, [](Request& x) { x.window[1] = -2; }, {"window_size -2", "axis 1"});
  refused(r, [](Request& x) { x.lenient_windows = false; }, {"window_size -1"});
  for (const Index any : {-5, 0, 100}) {  // ignored where there is one token only
    Request one = r;
    one.query.size[1] = one.key.size[1] = one.value.size[1] = 1;
    one.window[0] = one.stride[0] = one.dilation[0] = any;
    one.causal[0] = 1;
    EXPECT_EQ(to_string(make_problem(one)), "na:fwd:f32:b2h4kv2d16v24:1x9:k1x3") << any;
  }
  Request many = packed_images();
  many.lenient_windows = true;
  many.layouts[0].window = {-1, 2, 1};
  many.layouts[1].window = {2, -1, 1};
  EXPECT_EQ(to_string(make_problem(many)), "na:fwd:f32:b1h4kv2d16v24:4x5+3x2:k4x2+2x2:tail=2,2");
  refused(many, [](Request& x) { x.layouts[1].dilation = {1, 2, 1}; }, {"-1", "axis 1 of sequence 1"});
}

TEST(Request, Bias) {
  Request r = image();
  r.bias = tensor({4, 5, 9});
  EXPECT_EQ(to_string(make_problem(r)), "na:fwd:f32:b2h4kv2d16v24:8x9:k3x5:bias");
  EXPECT_EQ(error_of(backward_of(r)), "");
  refused(r, [](Request& x) { x.bias.size = {2, 5, 9}; }, {"bias", "(2, 5, 9)", "(4, 5, 9)"});
  refused(r, [](Request& x) { x.bias.size = {4, 5}; }, {"bias", "(4, 5)"});
  refused(r, [](Request& x) { x.bias.dtype = "float64"; }, {"bias", "float64"});
  refused(r, [](Request& x) { x.bias.device = "cuda:0"; }, {"bias", "cuda:0"});
}

// The permission to multiply in bf16 means nothing to other dtypes, and is no part of their problems.
TEST(Request, Bf16Arithmetic) {
  for (const char* dtype : {"bfloat16", "float32", "float16", "float64"}) {
    Request r = image();
    for (TensorInfo* t : {&r.query, &r.key, &r.value}) t->dtype = dtype;
    r.precision = Precision::kBF16;
    const bool bf16 = std::string(dtype) == "bfloat16";
    EXPECT_EQ(make_problem(r).precision, bf16 ? Precision::kBF16 : Precision::kFull) << dtype;
    EXPECT_EQ(to_string(make_problem(r)).ends_with(":prec=bf16"), bf16) << dtype;
    r.precision = Precision::kFull;
    EXPECT_EQ(make_problem(r).precision, Precision::kFull) << dtype;
  }
}

TEST(Request, EmptyIsLegalWhereTheSpecificationSaysSo) {
  Request r = image();
  r.query.size[0] = r.key.size[0] = r.value.size[0] = 0;
  EXPECT_EQ(error_of(r), "") << "batch 0";
  r = sequence();
  r.query.size[1] = 0;
  EXPECT_EQ(error_of(r), "") << "no queries";
  r = sequence();
  r.key.size[1] = r.value.size[1] = 0;
  EXPECT_EQ(error_of(r), "") << "no keys";
  r = packed();
  r.query_offsets = r.key_offsets = {0};
  EXPECT_EQ(to_string(make_problem(r)), "att:fwd:f32:b1h4kv2d16v24:+:tail=10,12") << "no sequences";
  r.query_offsets = r.key_offsets = {0, 0, 0};
  EXPECT_EQ(sequences(make_problem(r)), 2) << "sequences of length zero";
  r = packed_images();
  r.layouts.clear();
  EXPECT_EQ(error_of(r), "") << "no layouts";
}

TEST(Request, StridesAreKeptWhereTheyAreNotDense) {
  Request r = image();
  r.query.stride = {8 * 9 * 4 * 16, 9 * 4 * 16, 4 * 16, 16, 1};
  r.key.stride = {8 * 9 * 2 * 16, 2 * 16, 8 * 2 * 16, 16, 1};  // transposed
  r.value.stride = {0, 9 * 2 * 24, 2 * 24, 24, 1};             // broadcast
  const Problem p = make_problem(r);
  EXPECT_TRUE(p.strides[static_cast<std::size_t>(Role::kQuery)].empty());
  EXPECT_EQ(p.strides[static_cast<std::size_t>(Role::kKey)], r.key.stride);
  EXPECT_EQ(p.strides[static_cast<std::size_t>(Role::kValue)], r.value.stride);
  const float data[6] = {};
  const TensorInfo info = info_of(TensorView(data, DType::kFloat32, {2, 3}));
  EXPECT_TRUE(info.present);
  EXPECT_EQ(info.dtype, "float32");
  EXPECT_EQ(info.size, (Sizes{2, 3}));
  EXPECT_FALSE(info_of(TensorView()).present);
}

TEST(Request, WindowsOnTheLimit) {
  for (Index extent = 1; extent < 20; ++extent)
    for (Index d = 1; d <= extent + 1; ++d)
      for (Index k = 1; k <= extent + 1; ++k)
        for (Index s = 1; s <= k + 1; ++s) {
          Request r = image();
          r.rank = 1;
          for (TensorInfo* t : {&r.query, &r.key, &r.value}) t->size = {1, extent, 2, 4};
          r.window = {k}, r.stride = {s}, r.dilation = {d}, r.causal = {0};
          ASSERT_EQ(error_of(r).empty(), k * d <= extent && s <= k)
              << "L" << extent << " k" << k << " s" << s << " d" << d;
        }
}

// Axes past the rank are unused, whatever they hold: two such requests are one problem.
TEST(Request, UnusedAxesDoNotCount) {
  Request r = packed_images();
  const Problem p = make_problem(r);
  r.layouts[1].extent[2] = r.layouts[1].window[2] = r.layouts[0].dilation[2] = 77;
  r.layouts[0].causal[2] = true;
  EXPECT_EQ(make_problem(r), p);
}

// --- tensors --------------------------------------------------------------------------------------
TEST(RequestErrors, TensorsThatDoNotFitTogether) {
  refused(image(), [](Request& r) { r.query.present = false; }, {"query"});
  refused(image(), [](Request& r) { r.value.present = false; }, {"value"});
  refused(image(), [](Request& r) { r.query.size.pop_back(); }, {"query", "4", "5", "(2, 8, 9, 4)"});
  refused(image(), [](Request& r) { r.key.size.push_back(1); }, {"key", "6", "5"});
  refused(image(), [](Request& r) { r.key.size.clear(); }, {"key", "rank 0"});
  refused(image(), [](Request& r) { r.key.dtype = "float64"; }, {"key", "float64", "float32"});
  refused(image(), [](Request& r) { r.value.dtype = "int64"; }, {"value", "int64"});
  for (const char* dtype : {"int32", "bool", "uint8", "complex64", "float8_e4m3fn", ""})
    refused(image(), [&](Request& r) { r.query.dtype = r.key.dtype = r.value.dtype = dtype; },
            {dtype, "float32", "bfloat16"});
  refused(image(), [](Request& r) { r.value.device = "cuda:0"; }, {"value", "cuda:0", "cpu"});
  refused(image(), [](Request& r) { r.key.size[0] = 3; }, {"key", "batch", "3", "2"});
  refused(image(), [](Request& r) { r.value.size[0] = 1; }, {"value", "batch", "1", "2"});
  refused(image(), [](Request& r) { r.value.size[1] = 7; }, {"value", "7", "8"});
  refused(sequence(), [](Request& r) { r.value.size[1] = 11; }, {"value", "11", "12"});
  refused(image(), [](Request& r) { r.value.size[3] = 1; }, {"value", "heads", "1", "2"});
  refused(image(), [](Request& r) { r.key.size[4] = 8; }, {"key", "head_dim", "8", "16"});
  refused(image(), [](Request& r) { r.key.size[3] = r.value.size[3] = 3; }, {"4", "3", "multiple"});
  refused(image(), [](Request& r) { r.query.size[3] = 0; }, {"heads", "0"});
  refused(image(), [](Request& r) { r.key.size[3] = r.value.size[3] = 0; }, {"heads", "0"});
  refused(image(), [](Request& r) { r.query.size[4] = r.key.size[4] = 0; }, {"head_dim", "0"});
  refused(image(), [](Request& r) { r.value.size[4] = 0; }, {"head_dim", "0"});
  refused(image(), [](Request& r) { r.query.size[1] = -8; }, {"-8"});
  refused(image(), [](Request& r) { r.query.stride = {1, 2}; }, {"2 strides"});
  refused(image(), [](Request& r) { r.rank = 0; }, {"rank 0"});
  refused(image(), [](Request& r) { r.rank = 4; }, {"rank 4"});
}

TEST(RequestErrors, HugeSizes) {
  refused(sequence(), [](Request& r) { r.query.size[1] = INT64_MAX; }, {std::to_string(INT64_MAX)});
  refused(sequence(),
          [](Request& r) {
            r.query.size = {INT64_MAX, INT64_MAX, 4, 16};
            r.key.size[0] = r.value.size[0] = INT64_MAX;
          },
          {std::to_string(INT64_MAX)});
  refused(image(),
          [](Request& r) {
            for (TensorInfo* t : {&r.query, &r.key, &r.value})
              t->size[0] = t->size[1] = t->size[2] = kMaxExtent;
          },
          {"tokens", "2**48"});
  refused(image(),
          [](Request& r) {
            r.query.size[3] = kMaxExtent * 2;
            r.query.size[4] = r.key.size[4] = kMaxExtent;
          },
          {"heads"});
}

TEST(RequestErrors, AdditionalKeys) {
  Request base = image();
  base.additional_key = tensor({2, 7, 2, 16});
  base.additional_value = tensor({2, 7, 2, 24});
  refused(base, [](Request& r) { r.additional_value.present = false; },
          {"additional_values", "both or neither"});
  refused(base, [](Request& r) { r.additional_key.present = false; }, {"additional_keys", "both or neither"});
  refused(base, [](Request& r) { r.additional_key.size.pop_back(); },
          {"additional_keys", "rank 3", "rank 4"});
  refused(base, [](Request& r) { r.additional_key.size[0] = 1; }, {"additional_keys", "batch"});
  refused(base, [](Request& r) { r.additional_value.size[1] = 6; }, {"additional_values", "6", "7"});
  refused(base, [](Request& r) { r.additional_key.size[2] = r.additional_value.size[2] = 4; },
          {"additional_keys", "heads", "4", "2"});
  refused(base, [](Request& r) { r.additional_key.size[3] = 24; },
          {"additional_keys", "head_dim", "24", "16"});
  refused(base, [](Request& r) { r.additional_value.size[3] = 16; },
          {"additional_values", "head_dim", "16", "24"});
  refused(base, [](Request& r) { r.additional_key.dtype = "float16"; }, {"additional_keys", "float16"});
  refused(base, [](Request& r) { r.additional_value.device = "cuda:1"; }, {"additional_values", "cuda:1"});
  refused(packed(),
          [](Request& r) {
            r.additional_key = tensor({1, 7, 2, 16});
            r.additional_value = tensor({1, 7, 2, 24});
          },
          {"additional", "varlen"});
}

TEST(RequestErrors, BackwardTensors) {
  const Request base = backward_of(image());
  refused(base, [](Request& r) { r.out.size[1] = 7; }, {"out", "7", "8"});
  refused(base, [](Request& r) { r.out.size.back() = 16; }, {"out", "16", "24"});
  refused(base, [](Request& r) { r.out.dtype = "bfloat16"; }, {"out", "bfloat16"});
  refused(base, [](Request& r) { r.out.present = false; }, {"out"});
  refused(base, [](Request& r) { r.lse.present = false; }, {"lse"});
  refused(base, [](Request& r) { r.lse.size.push_back(1); }, {"lse"});
  refused(base, [](Request& r) { r.lse.dtype = "float64"; }, {"lse", "float64", "float32"});
  refused(base, [](Request& r) { r.lse.device = "cuda:0"; }, {"lse", "cuda:0"});
  refused(base, [](Request& r) { r.grad_out.size[0] = 1; }, {"grad_out"});
  refused(base, [](Request& r) { r.grad_out.present = false; }, {"grad_out"});
  refused(base, [](Request& r) { r.grad_lse.size[0] = 1; }, {"grad_lse"});
  Request half = image();
  half.query.dtype = half.key.dtype = half.value.dtype = "bfloat16";
  refused(backward_of(half), [](Request& r) { r.lse.dtype = "bfloat16"; }, {"lse", "bfloat16", "float32"});
  Request no_gradient = base;
  no_gradient.grad_lse.present = false;
  EXPECT_FALSE(make_problem(no_gradient).lse);
}

// --- windows --------------------------------------------------------------------------------------
TEST(RequestErrors, WindowsNameTheLargestLegalValue) {
  refused(image(),
          [](Request& r) {
            r.window = {9, 5};
          },
          {"9", "axis 0", "8", "; ", "largest legal kernel_size there is 8"});
  refused(image(),
          [](Request& r) {
            r.window = {3, 10};
          },
          {"10", "axis 1", "largest legal kernel_size there is 9"});
  refused(image(),
          [](Request& r) {
            r.window = {3, 5};
            r.dilation = {3, 1};
          },
          {"3", "dilation 3", "largest legal kernel_size there is 2"});
  refused(image(),
          [](Request& r) {
            r.window = {1, 1};
            r.dilation = {1, 10};
          },
          {"dilation 10", "largest legal dilation there is 9"});
  refused(image(), [](Request& r) { r.window = {0, 5}; }, {"0", "axis 0"});
  refused(image(), [](Request& r) { r.window = {-1, 5}; }, {"-1", "axis 0", "8"});
  refused(image(), [](Request& r) { r.window = {-3, 5}; }, {"-3", "axis 0"});
  refused(image(), [](Request& r) { r.stride = {4, 1}; }, {"stride 4", "axis 0", "3"});
  refused(image(), [](Request& r) { r.stride = {1, 0}; }, {"stride 0", "axis 1"});
  refused(image(), [](Request& r) { r.stride = {1, -1}; }, {"stride -1"});
  refused(image(), [](Request& r) { r.dilation = {1, 0}; }, {"dilation 0", "axis 1"});
  refused(image(), [](Request& r) { r.dilation = {-2, 1}; }, {"dilation -2"});
  refused(image(), [](Request& r) { r.causal = {0, 2}; }, {"is_causal", "2"});
  refused(image(), [](Request& r) { r.causal = {-1, 0}; }, {"is_causal", "-1"});
  refused(image(), [](Request& r) { r.window = {3}; }, {"kernel_size", "length 1", "2"});
  refused(image(), [](Request& r) { r.stride = {1, 1, 1}; }, {"stride", "length 3", "2"});
  refused(image(), [](Request& r) { r.dilation = {}; }, {"dilation", "length 0"});
  refused(image(), [](Request& r) { r.causal = {1}; }, {"is_causal", "length 1"});
  refused(image(),
          [](Request& r) {
            r.window = {INT64_MAX, 5};
            r.dilation = {INT64_MAX, 1};
          },
          {std::to_string(INT64_MAX)});
  refused(image(), [](Request& r) { r.window = {INT64_MIN, 5}; }, {std::to_string(INT64_MIN)});
}

TEST(RequestErrors, NumbersOutOfRange) {
  refused(image(), [](Request& r) { r.scale = std::numeric_limits<double>::quiet_NaN(); }, {"scale", "nan"});
  refused(image(), [](Request& r) { r.scale = std::numeric_limits<double>::infinity(); }, {"scale", "inf"});
  refused(image(), [](Request& r) { r.dropout = 1.0; }, {"dropout_p", "1"});
  refused(image(), [](Request& r) { r.dropout = -0.5; }, {"dropout_p", "-0.5"});
  refused(image(), [](Request& r) { r.dropout = std::numeric_limits<double>::quiet_NaN(); }, {"dropout_p"});
}

// --- causal types, varlen, ranges -----------------------------------------------------------------
TEST(RequestErrors, DontCareNeedsEqualLengths) {
  refused(sequence(), [](Request& r) { r.causal_type = CausalType::kDontCare; }, {"DontCare", "10", "12"});
  Request r = sequence();
  r.query.size[1] = 12;
  r.causal_type = CausalType::kDontCare;
  const Problem p = make_problem(r);
  EXPECT_TRUE(p.causal_type == CausalType::kTopLeft || p.causal_type == CausalType::kBottomRight);
  refused(packed(), [](Request& x) { x.causal_type = CausalType::kDontCare; }, {"DontCare", "4", "3"});
  r = packed();
  r.key_offsets = r.query_offsets;
  r.causal_type = CausalType::kDontCare;
  EXPECT_EQ(error_of(r), "");
}

TEST(RequestErrors, VarlenOffsets) {
  refused(packed(), [](Request& r) { r.query_offsets[0] = 1; }, {"cumulative_seqlen_Q", "1", "start at 0"});
  refused(packed(), [](Request& r) { r.key_offsets[0] = -1; }, {"cumulative_seqlen_KV", "-1"});
  refused(packed(), [](Request& r) { r.query_offsets[2] = 3; },
          {"cumulative_seqlen_Q", "4", "3", "never decrease"});
  refused(packed(), [](Request& r) { r.key_offsets[1] = -5; }, {"cumulative_seqlen_KV", "-5"});
  refused(packed(), [](Request& r) { r.query_offsets[3] = 11; }, {"cumulative_seqlen_Q", "11", "10"});
  refused(packed(), [](Request& r) { r.key_offsets[3] = INT64_MAX; }, {"cumulative_seqlen_KV", "12"});
  refused(packed(), [](Request& r) { r.key_offsets.pop_back(); }, {"3", "2"});
  refused(packed(), [](Request& r) { r.query_offsets.clear(); }, {"cumulative_seqlen_Q"});
  refused(packed(), [](Request& r) { r.key_offsets.clear(); }, {"cumulative_seqlen_KV"});
  refused(packed(), [](Request& r) { r.query.size[0] = r.key.size[0] = r.value.size[0] = 2; },
          {"batch 2", "1"});
}

TEST(RequestErrors, VarlenOffsetTensors) {
  const auto with = [](Request r) {
    r.cumulative_query = r.cumulative_key = tensor({4}, "int32");
    return r;
  };
  Request r = with(packed());
  r.max_query = r.max_key = 6;
  EXPECT_EQ(to_string(make_problem(r)), "att:fwd:f32:b1h4kv2d16v24:4,3+0,5+6,4");
  refused(r, [](Request& x) { x.max_query = 5; }, {"max_seqlen_Q 5", "6", "sequence 2"});
  refused(r, [](Request& x) { x.max_key = -1; }, {"max_seqlen_KV -1"});
  r.query_offsets.clear();  // values that only the device can read
  r.key_offsets.clear();
  EXPECT_EQ(to_string(make_problem(r)), "att:fwd:f32:b1h4kv2d16v24:var=3,10,12,6,6");
  r.max_query = r.max_key = std::nullopt;
  EXPECT_EQ(to_string(make_problem(r)), "att:fwd:f32:b1h4kv2d16v24:var=3,10,12,10,12");
  refused(r, [](Request& x) { x.cumulative_query.dtype = "float32"; },
          {"cumulative_seqlen_Q", "float32", "int64"});
  refused(r, [](Request& x) { x.cumulative_key.size = {4, 1}; }, {"cumulative_seqlen_KV", "(4, 1)"});
  refused(r, [](Request& x) { x.cumulative_key.size = {0}; }, {"cumulative_seqlen_KV", "(0,)"});
  refused(r, [](Request& x) { x.cumulative_key.size = {5}; }, {"3 query sequences", "4 key sequences"});
  refused(r, [](Request& x) { x.cumulative_key.device = "cuda:0"; }, {"cumulative_seqlen_KV", "cuda:0"});
  refused(r, [](Request& x) { x.cumulative_key.present = false; }, {"cumulative_seqlen_Q without"});
}

TEST(RequestErrors, VarlenLayouts) {
  refused(packed_images(), [](Request& r) { r.layouts[0].extent[0] = r.layouts[0].query_extent[0] = 5; },
          {"31", "28"});
  refused(packed_images(), [](Request& r) { r.layouts[1].window[1] = 3; },
          {"3", "sequence 1", "axis 1", "largest legal window_size there is 2"});
  refused(packed_images(), [](Request& r) { r.layouts[1].stride[0] = 3; }, {"stride 3", "sequence 1"});
  refused(packed_images(), [](Request& r) { r.layouts[0].dilation[0] = 3; }, {"dilation 3", "sequence 0"});
  refused(packed_images(), [](Request& r) { r.layouts[0].extent[1] = r.layouts[0].query_extent[1] = -5; },
          {"-5"});
  refused(packed_images(),
          [](Request& r) { r.layouts[0].extent[1] = r.layouts[0].query_extent[1] = INT64_MAX; }, {"extent"});
  refused(packed_images(), [](Request& r) { r.layouts[0].query_extent[0] = 3; }, {"3", "4"});
  refused(packed_images(), [](Request& r) { r.query.size[0] = r.key.size[0] = r.value.size[0] = 2; },
          {"batch 2"});
  refused(packed_images(), [](Request& r) { r.query.size.push_back(1); }, {"query", "rank 5", "rank 4"});
}

TEST(RequestErrors, RangesOfTheGlobalLayout) {
  Request base = image();
  base.global_extent = {20, 9};
  base.query_begin = {4, 0};
  base.key_begin = {2, 0};
  EXPECT_EQ(to_string(make_problem(base)), "na:fwd:f32:b2h4kv2d16v24:20x9:k3x5:q=4-12x0-9:kv=2-10x0-9");
  Request wider = base;
  wider.key.size[1] = wider.value.size[1] = 12;
  EXPECT_EQ(to_string(make_problem(wider)), "na:fwd:f32:b2h4kv2d16v24:20x9:k3x5:q=4-12x0-9:kv=2-14x0-9");
  refused(base, [](Request& r) { r.query_begin = {13, 0}; }, {"13", "21", "20"});
  refused(base, [](Request& r) { r.key_begin = {0, 1}; }, {"1-10", "9"});
  refused(base, [](Request& r) { r.key_begin = {-1, 0}; }, {"-1"});
  refused(base, [](Request& r) { r.query_begin = {4}; }, {"query", "length 1"});
  refused(base, [](Request& r) { r.key_begin = {}; }, {"key", "length 0"});
  refused(base, [](Request& r) { r.global_extent = {20}; }, {"length 1"});
  refused(base, [](Request& r) { r.query_begin = {INT64_MAX, 0}; }, {std::to_string(INT64_MAX)});
  refused(base, [](Request& r) { r.window = {21, 5}; }, {"21", "largest legal kernel_size there is 20"});
  refused(image(), [](Request& r) { r.query_begin = {0, 0}; }, {"global"});
}

// --- nothing crashes ------------------------------------------------------------------------------
TEST(RequestFuzz, OnlyInvalidArgumentIsThrown) {
  Rng rng(8);
  constexpr Index kOdd[] = {-1, 0, 1, 2, 3, 5, 1 << 20, kMaxExtent, kMaxExtent + 1, INT64_MAX, INT64_MIN};
  const auto odd = [&] { return kOdd[rng.in(0, 10)]; };
  const auto mangle = [&](Sizes& v) {
    switch (rng.in(0, 3)) {
      case 0: v.clear(); break;
      case 1: v.push_back(odd()); break;
      case 2:
        if (!v.empty()) v.pop_back();
        break;
      default:
        if (!v.empty()) v[static_cast<std::size_t>(rng.in(0, static_cast<Index>(v.size()) - 1))] = odd();
    }
  };
  int accepted = 0;
  for (int i = 0; i < testing::tries(100000); ++i) {
    Request r = rng.chance(40)   ? image()
                : rng.chance(30) ? sequence()
                : rng.chance(50) ? packed()
                                 : packed_images();
    if (rng.chance(30)) r = backward_of(r);
    if (rng.chance(20))
      r.additional_key = tensor({r.query.size[0], 3, 2, 16}),
      r.additional_value = tensor({r.query.size[0], 3, 2, 24});
    if (rng.chance(20)) r.global_extent = {20, 9}, r.query_begin = r.key_begin = {1, 0};
    for (Index n = rng.in(0, 3); n > 0; --n) {
      TensorInfo* const tensors[] = {&r.query, &r.key, &r.value,    &r.additional_key, &r.additional_value,
                                     &r.out,   &r.lse, &r.grad_out, &r.grad_lse};
      TensorInfo& t = *tensors[rng.in(0, 8)];
      Layout spare;
      Layout& layout = r.layouts.empty() ? spare : r.layouts.back();
      const auto axis = static_cast<std::size_t>(rng.in(0, 1));
      switch (rng.in(0, 18)) {
        case 0: mangle(t.size); break;
        case 1:
          t.stride = t.size;
          mangle(t.stride);
          break;
        case 2: t.dtype = rng.pick({"float64", "int8", "", "bfloat16"}); break;
        case 3: t.present = !t.present; break;
        case 4: t.device = rng.pick({"cuda:0", "", "meta"}); break;
        case 5: mangle(r.window); break;
        case 6: mangle(r.stride); break;
        case 7: mangle(r.dilation); break;
        case 8: mangle(r.causal); break;
        case 9: mangle(r.query_offsets); break;
        case 10: mangle(r.key_offsets); break;
        case 11: mangle(r.global_extent); break;
        case 12: mangle(r.query_begin); break;
        case 13: r.rank = static_cast<int>(rng.in(-1, 5)); break;
        case 14: layout.extent[axis] = layout.query_extent[axis] = odd(); break;
        case 15: layout.window[axis] = odd(); break;
        case 16: layout.dilation[axis] = odd(); break;
        case 17: r.varlen = !r.varlen; break;
        case 18: r.operation = rng.pick({Operation::kAttention, Operation::kNeighborhood}); break;
      }
    }
    try {
      const Problem p = make_problem(r);
      ++accepted;
      ASSERT_EQ(to_string(parse_problem(to_string(p))), to_string(p));  // what is accepted has a name
    } catch (const std::invalid_argument& e) {
      ASSERT_EQ(std::string(e.what()).rfind("[" + r.op + "] got ", 0), 0u) << e.what();
    }
  }
  EXPECT_GT(accepted, testing::tries(5000));
}

}  // namespace
}  // namespace nearfield
