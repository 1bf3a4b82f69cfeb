// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The name of a problem: parse and print are inverse, every option means what the grammar says, and
// whatever is malformed is refused with a message that quotes the offending part, never with a crash.
#include "nearfield/problem.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "axis_oracle.h"
#include "problem_family.h"

namespace nearfield {
namespace {

using testing::Rng;

std::string error_of(std::string_view text) {
  try {
    parse_problem(text);
  } catch (const std::invalid_argument& e) { return e.what(); }
  return "";
}

// --- laws ---------------------------------------------------------------------------------------
TEST(ProblemString, ParseAfterPrintIsTheProblem) {
  Rng rng(1);
  for (int i = 0; i < 20000; ++i) {
    const Problem p = testing::random_problem(rng);
    const std::string text = to_string(p);
    Problem again;
    ASSERT_NO_THROW(again = parse_problem(text)) << text;
    ASSERT_EQ(again, p) << text << "\n" << to_string(again);
    ASSERT_EQ(to_string(again), text);
  }
}

TEST(ProblemString, OtherSpellingsHaveOneCanonicalForm) {
  Rng rng(2);
  for (int i = 0; i < 20000; ++i) {
    const Problem p = testing::random_problem(rng);
    const std::string spelled = testing::spell(p, rng);
    Problem again;
    ASSERT_NO_THROW(again = parse_problem(spelled)) << spelled;
    ASSERT_EQ(again, p) << spelled << "\n" << to_string(again) << "\n" << to_string(p);
    ASSERT_EQ(to_string(again), to_string(p)) << spelled;
  }
}

TEST(ProblemString, DifferentProblemsHaveDifferentNames) {
  Rng rng(3);
  for (int i = 0; i < 5000; ++i) {
    const Problem a = testing::random_problem(rng), b = testing::random_problem(rng);
    ASSERT_TRUE(a == b || to_string(a) != to_string(b)) << to_string(a);
  }
}

// --- every part of the grammar --------------------------------------------------------------------
TEST(ProblemString, CanonicalLinesAreTheirOwnForm) {
  for (const char* text : {
           "na:fwd:bf16:b1h8kv8d64:64x64:k7x7",
           "na:bwd:f32:b2h8kv2d64v32:16x32x32:k5x9x9:s1x3x3:d3x1x2:c100:add=4:lse",
           "na:fwd:f16:b0h1kv1d3:5:k5:c1",
           "na:fwd:f32:b1h1kv1d8:64x48x80:k3x3x3:q=8-16x0-48x0-80:kv=7-17x0-48x0-80",
           "na:fwd:f32:b1h1kv1d8:8x8+5x7:k3x3",
           "na:fwd:f32:b1h1kv1d8:8x8+5x7:k3x3+5x1:s1x1+2x1:d1x1+1x7:c00+01:tail=3,0",
           "na:fwd:f32:b1h1kv1d8:8x8+:k3x3",
           "na:fwd:f32:b1h1kv1d8:+:k1x1",
           "na:fwd:f32:b1h1kv1d8:32x32:k3x3:qgrid=8x64",
           "na:fwd:f32:b1h1kv1d8:32:k3:drop=0.1:bias:lse:nondet:scale=0.5:prec=tf32",
           "na:fwd:f32:b1h1kv1d8:32:k3:scale=0:prec=bf16",
           "na:fwd:f32:b1h1kv1d8:32:k3:str=q~1024,32,8,2~k~0,8,8,1~o~512,16,16,1",
           "att:fwd:f64:b1h8kv8d64:4096,77",
           "att:fwd:f32:b1h2kv1d8:0,7:ctl",
           "att:bwd:f32:b1h2kv1d8:5,7+0,0+3,3:cbr:lse",
           "att:fwd:f32:b1h2kv1d8:5,7+:cbr",
           "att:fwd:f32:b1h2kv1d8:+:tail=5,5",
           "att:fwd:f32:b1h2kv1d8:var=4,100,120,40,50:ctl",
       }) {
    Problem p;
    ASSERT_NO_THROW(p = parse_problem(text)) << text;
    EXPECT_EQ(to_string(p), text);
  }
}

TEST(ProblemString, EveryFieldIsRead) {
  const Problem p = parse_problem(
      "na:bwd:bf16:b2h6kv3d40v24:9x8:k4x3:s2x1:d2x1:c01:add=5:q=1-9x0-8:kv=0-9x2-7:lse:scale=0.25:"
      "str=dq~1920,240,240,40,1");
  EXPECT_EQ(p.operation, Operation::kNeighborhood);
  EXPECT_EQ(p.direction, Direction::kBackward);
  EXPECT_EQ(p.dtype, DType::kBFloat16);
  EXPECT_EQ(p.batch, 2);
  EXPECT_EQ(p.heads, 6);
  EXPECT_EQ(p.kv_heads, 3);
  EXPECT_EQ(p.head_dim, 40);
  EXPECT_EQ(p.value_dim, 24);
  EXPECT_EQ(p.rank, 2);
  EXPECT_FALSE(p.varlen);
  ASSERT_EQ(p.layouts.size(), 1u);
  const Layout& l = p.layouts[0];
  EXPECT_EQ(l.extent, (std::array<Index, 3>{9, 8, 0}));
  EXPECT_EQ(l.query_extent, l.extent);
  EXPECT_EQ(l.window, (std::array<Index, 3>{4, 3, 1}));
  EXPECT_EQ(l.stride, (std::array<Index, 3>{2, 1, 1}));
  EXPECT_EQ(l.dilation, (std::array<Index, 3>{2, 1, 1}));
  EXPECT_EQ(l.causal, (std::array<bool, 3>{false, true, false}));
  EXPECT_EQ(p.additional, 5);
  ASSERT_TRUE(p.query_range && p.key_range);
  EXPECT_EQ(p.query_range->axis[0], (Interval{1, 9}));
  EXPECT_EQ(p.key_range->axis[1], (Interval{2, 7}));
  EXPECT_TRUE(p.lse);
  EXPECT_EQ(p.scale, 0.25);
  EXPECT_EQ(p.strides[static_cast<std::size_t>(Role::kGradQuery)],
            (std::vector<Index>{1920, 240, 240, 40, 1}));

  const Problem a = parse_problem("att:fwd:f16:b1h1kv1d4:5,9+2,3:cbr:tail=1,2:drop=0.5:nondet:prec=bf16");
  EXPECT_EQ(a.operation, Operation::kAttention);
  EXPECT_EQ(a.causal_type, CausalType::kBottomRight);
  EXPECT_TRUE(a.varlen);
  ASSERT_EQ(a.layouts.size(), 2u);
  EXPECT_EQ(a.layouts[0].query_extent[0], 5);
  EXPECT_EQ(a.layouts[0].extent[0], 9);
  EXPECT_EQ(a.tail_query, 1);
  EXPECT_EQ(a.tail_key, 2);
  EXPECT_EQ(a.dropout, 0.5);
  EXPECT_TRUE(a.nondeterministic);
  EXPECT_EQ(a.precision, Precision::kBF16);
  EXPECT_FALSE(a.scale.has_value());

  const Problem v = parse_problem("att:fwd:f32:b1h1kv1d4:var=3,10,20,5,6");
  ASSERT_TRUE(v.offsets.has_value());
  EXPECT_EQ(*v.offsets, (DeviceOffsets{3, 10, 20, 5, 6}));
  EXPECT_TRUE(parse_problem("na:fwd:f32:b1h1kv1d4:9:k3:bias").bias);
  const Problem g = parse_problem("na:fwd:f32:b1h1kv1d4:9x8:k3x3:qgrid=3x16");
  EXPECT_TRUE(g.query_layout);
  EXPECT_EQ(g.layouts[0].query_extent, (std::array<Index, 3>{3, 16, 0}));
}

TEST(ProblemString, ScaleDefaultsToTheRootOfHeadDim) {
  EXPECT_DOUBLE_EQ(parse_problem("na:fwd:f32:b1h1kv1d64:9:k3").effective_scale(), 0.125);
  EXPECT_EQ(parse_problem("na:fwd:f32:b1h1kv1d64:9:k3:scale=0").effective_scale(), 0.0);
}

// --- errors ---------------------------------------------------------------------------------------
struct Bad {
  const char* text;
  const char* quoted;  // what the message must quote
};

TEST(ProblemString, ErrorsQuoteTheOffendingPart) {
  for (const Bad& bad : std::vector<Bad>{
           {"", ""},
           {"na", "na"},
           {"nb:fwd:f32:b1h1kv1d8:9:k3", "nb"},
           {"na:fw:f32:b1h1kv1d8:9:k3", "fw"},
           {"na:fwd:f31:b1h1kv1d8:9:k3", "f31"},
           {"na:fwd:f32:b1h1kv1:9:k3", "b1h1kv1"},
           {"na:fwd:f32:b1h1kv1d8x:9:k3", "b1h1kv1d8x"},
           {"na:fwd:f32:h1b1kv1d8:9:k3", "h1b1kv1d8"},
           {"na:fwd:f32:b1h1kv1d8v:9:k3", "b1h1kv1d8v"},
           {"na:fwd:f32:b-1h1kv1d8:9:k3", "b-1h1kv1d8"},
           {"na:fwd:f32:b99999999999999999999h1kv1d8:9:k3", "99999999999999999999"},
           {"na:fwd:f32:b1h1kv1d8:9x:k3", "9x"},
           {"na:fwd:f32:b1h1kv1d8:9x9x9x9:k3", "9x9x9x9"},
           {"na:fwd:f32:b1h1kv1d8:9+9x9:k3", "9+9x9"},
           {"na:fwd:f32:b1h1kv1d8:-9:k3", "-9"},
           {"na:fwd:f32:b1h1kv1d8: 9:k3", " 9"},
           {"na:fwd:f32:b1h1kv1d8:9:k3x3", "k3x3"},
           {"na:fwd:f32:b1h1kv1d8:9:k", "k"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:k4", "k4"},
           {"na:fwd:f32:b1h1kv1d8:9", "k"},
           {"na:fwd:f32:b1h1kv1d8:9:k10", "10"},
           {"na:fwd:f32:b1h1kv1d8:9:k0", "0"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:s4", "stride 4"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:s0", "stride 0"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:d4", "dilation 4"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:d0", "dilation 0"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:c2", "c2"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:c11", "c11"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:ctl", "ctl"},
           {"na:fwd:f32:b1h1kv1d8:9+8:k3+3+3", "k3+3+3"},
           {"na:fwd:f32:b1h3kv2d8:9:k3", "3"},
           {"na:fwd:f32:b1h0kv1d8:9:k3", "0"},
           {"na:fwd:f32:b1h1kv0d8:9:k3", "0"},
           {"na:fwd:f32:b1h1kv1d0:9:k3", "0"},
           {"na:fwd:f32:b1h1kv1d8v0:9:k3", "0"},
           {"na:fwd:f32:b2h1kv1d8:9+9:k3", "2"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:foo", "foo"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:foo=1", "foo=1"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:", "``"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:lse=1", "lse=1"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:lse:lse", "lse"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:add=x", "add=x"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:add=1:add=2", "add=2"},
           {"na:fwd:f32:b1h1kv1d8:9+9:k3:add=1", "additional"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:q=3", "q=3"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:q=3-4-5", "q=3-4-5"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:q=3-4x1-2", "q=3-4x1-2"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:q=5-4", "5-4"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:kv=5-10", "5-10"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:drop=1", "1"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:drop=-0.1", "-0.1"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:drop=nan", "nan"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:scale=inf", "inf"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:scale=1e999", "1e999"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:scale=", "scale="},
           {"na:fwd:f32:b1h1kv1d8:9:k3:prec=f8", "prec=f8"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:tail=1,1", "tail"},
           {"na:fwd:f32:b1h1kv1d8:9+8:k3:tail=1", "tail=1"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:str=q", "str=q"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:str=x~1,2,3,4", "x"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:str=q~1,2,3", "3 strides"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:str=q~72,8,8,-1", "-1"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:str=q~72,8,8,1~q~72,8,8,1", "q"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:str=dq~72,8,8,1", "dq"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:str=q~72,4611686018427387904,8,1", "4611686018427387904"},
           {"na:fwd:f32:b1h1kv1d8:9x9:k3x3:d2x1:qgrid=4x9", "dilation"},
           {"na:fwd:f32:b1h1kv1d8:9:k3:qgrid=4:bias", "bias"},
           {"na:fwd:f32:b1h1kv1d8:var=1,2,3,4,5:k3", "var=1,2,3,4,5"},
           {"att:fwd:f32:b1h1kv1d8:9", "9"},
           {"att:fwd:f32:b1h1kv1d8:9,9,9", "9,9,9"},
           {"att:fwd:f32:b1h1kv1d8:9,9:k3", "k3"},
           {"att:fwd:f32:b1h1kv1d8:9,9:s1", "s1"},
           {"att:fwd:f32:b1h1kv1d8:9,9:c1", "c1"},
           {"att:fwd:f32:b1h1kv1d8:9,9:qgrid=3", "qgrid=3"},
           {"att:fwd:f32:b1h1kv1d8:var=1,2,3,4", "var=1,2,3,4"},
           {"na:fwd:f32:b1h1kv1d8:2147483648:k3", "2147483648"},
           {"na:fwd:f32:b1h1kv1d8:2147483647x2147483647x2147483647:k1x1x1", "tokens"},
           {"na:fwd:f64:b2147483647h2147483647kv1d2147483647:9:k1", "2147483647"},
           {"na:fwd:f32:b1h1kv1d8:9:k9223372036854775807:d9223372036854775807", "9223372036854775807"},
           {"na:fwd:f32:b1h1kv1d8:0:k1", "0"},
       }) {
    const std::string message = error_of(bad.text);
    EXPECT_FALSE(message.empty()) << "accepted: " << bad.text;
    EXPECT_EQ(message.rfind("[problem string] got ", 0), 0u) << bad.text << "\n" << message;
    EXPECT_NE(message.find(", expected "), std::string::npos) << bad.text << "\n" << message;
    EXPECT_NE(message.find(bad.quoted), std::string::npos) << bad.text << "\n" << message;
    EXPECT_LT(message.size(), 600u) << bad.text;
  }
}

TEST(ProblemString, TheHintNamesTheLargestLegalWindow) {
  EXPECT_NE(error_of("na:fwd:f32:b1h1kv1d8:20:k11:d3").find("; the largest legal kernel_size there is 6"),
            std::string::npos)
      << error_of("na:fwd:f32:b1h1kv1d8:20:k11:d3");
}

// More tokens, over all sequences, than a 64-bit integer counts.
TEST(ProblemString, HugeListsAreRefused) {
  std::string grids = "65536x65536x65536";
  for (int i = 1; i < 50000; ++i) grids += "+65536x65536x65536";
  EXPECT_NE(error_of("na:fwd:f32:b1h1kv1d1:" + grids + ":k1x1x1"), "");
  EXPECT_NE(error_of(std::string(std::size_t{1} << 21, ':')), "");
  EXPECT_NE(error_of(std::string(100000, 'x')), "");
}

// --- fuzz -----------------------------------------------------------------------------------------
// Whatever the text: a problem that prints and parses again, or a refusal. Nothing else.
void survives(const std::string& text) {
  try {
    const Problem p = parse_problem(text);
    const std::string canonical = to_string(p);
    ASSERT_EQ(parse_problem(canonical), p) << text;
    ASSERT_EQ(to_string(parse_problem(canonical)), canonical) << text;
  } catch (const std::invalid_argument& e) {
    ASSERT_EQ(std::string_view(e.what()).substr(0, 21), "[problem string] got ") << text;
  }
}

TEST(ProblemFuzz, MutatedStrings) {
  Rng rng(4);
  const std::string_view alphabet = "0123456789xx::,,++--==~.bhkvdscqtlreanodfpg \t\n\xff";
  std::string base;
  for (int i = 0; i < testing::tries(150000); ++i) {
    if (i % 10 == 0) base = testing::spell(testing::random_problem(rng), rng);
    std::string text = base;
    for (Index n = rng.in(1, 4); n > 0 && !text.empty(); --n) {
      const auto at = static_cast<std::size_t>(rng.in(0, static_cast<Index>(text.size()) - 1));
      const char c = alphabet[static_cast<std::size_t>(rng.in(0, static_cast<Index>(alphabet.size()) - 1))];
      switch (rng.in(0, 4)) {
        case 0: text[at] = c; break;
        case 1: text.insert(at, 1, c); break;
        case 2: text.erase(at, static_cast<std::size_t>(rng.in(1, 6))); break;
        case 3:
          text.insert(
              at, text.substr(static_cast<std::size_t>(rng.in(0, static_cast<Index>(text.size()) - 1)), 12));
          break;
        case 4: text.insert(at, std::to_string(rng.next() >> rng.in(0, 63))); break;
      }
    }
    survives(text);
    if (HasFatalFailure()) return;
  }
}

TEST(ProblemFuzz, Garbage) {
  Rng rng(5);
  for (int i = 0; i < testing::tries(50000); ++i) {
    std::string text(static_cast<std::size_t>(rng.in(0, 60)), '\0');
    for (char& c : text) c = static_cast<char>(rng.next());
    if (rng.chance(50)) text = "na:fwd:f32:b1h1kv1d8:" + text;
    survives(text);
    if (HasFatalFailure()) return;
  }
}

// check() is also called on problems that were not parsed: any content of the fields is refused, not run.
TEST(ProblemFuzz, CheckRefusesDamagedProblems) {
  Rng rng(6);
  constexpr Index kOdd[] = {-1, 0, 1, 2, 7, 1 << 20, kMaxExtent, kMaxExtent + 1, INT64_MAX, INT64_MIN};
  const auto odd = [&] { return kOdd[rng.in(0, 9)]; };
  int refused = 0;
  for (int i = 0; i < testing::tries(100000); ++i) {
    Problem p = testing::random_problem(rng);
    for (Index n = rng.in(1, 2); n > 0; --n) {
      const auto axis = static_cast<std::size_t>(rng.in(0, 2));
      Layout spare;
      Layout& layout = p.layouts.empty() ? spare : p.layouts.back();
      switch (rng.in(0, 17)) {
        case 0: p.batch = odd(); break;
        case 1: p.heads = odd(); break;
        case 2: p.kv_heads = odd(); break;
        case 3: p.head_dim = odd(); break;
        case 4: p.value_dim = odd(); break;
        case 5: p.rank = static_cast<int>(rng.in(-2, 7)); break;
        case 6: p.additional = odd(); break;
        case 7: layout.extent[axis] = odd(); break;
        case 8: layout.query_extent[axis] = odd(); break;
        case 9: layout.window[axis] = odd(); break;
        case 10: layout.stride[axis] = odd(); break;
        case 11: layout.dilation[axis] = odd(); break;
        case 12: p.layouts.clear(); break;
        case 13: p.layouts.push_back(layout); break;
        case 14: p.tail_query = odd(); break;
        case 15: p.query_range = Box{{{odd(), odd()}, {odd(), odd()}, {odd(), odd()}}}; break;
        case 16:
          p.strides[static_cast<std::size_t>(rng.in(0, kRoles - 1))] = {odd(), odd(), odd(), odd()};
          break;
        case 17: p.varlen = !p.varlen; break;
      }
    }
    try {
      check(p, "op");
    } catch (const std::invalid_argument& e) {
      ASSERT_EQ(std::string_view(e.what()).substr(0, 9), "[op] got ");
      ++refused;
    }
  }
  EXPECT_GT(refused, testing::tries(10000));
}

// --- what a problem implies -------------------------------------------------------------------------
oracle::Axis axis_of(const Problem& p, const Layout& l, int a) {
  const auto i = static_cast<std::size_t>(a);
  if (p.operation == Operation::kAttention)
    return {p.causal_type == CausalType::kNone      ? oracle::Kind::kDense
            : p.causal_type == CausalType::kTopLeft ? oracle::Kind::kTopLeft
                                                    : oracle::Kind::kBottomRight,
            l.query_extent[0],
            l.extent[0],
            1,
            1,
            1};
  return {l.causal[i] ? oracle::Kind::kWindowCausal : oracle::Kind::kWindow,
          l.query_extent[i],
          l.extent[i],
          l.window[i],
          l.stride[i],
          l.dilation[i]};
}

TEST(Problem, WorkIsCountedExactly) {
  Rng rng(7);
  for (int i = 0; i < 400; ++i) {
    const Problem p = testing::random_runnable_problem(rng);
    double visible = 0, dense = 0;
    for (Index s = 0; s < sequences(p); ++s) {
      const Layout& l = p.layouts[static_cast<std::size_t>(s)];
      double product = 1, queries = 1, keys = 1;
      for (int a = 0; a < p.rank; ++a) {
        const oracle::Axis axis = axis_of(p, l, a);
        const Interval q = p.query_range ? p.query_range->axis[a] : Interval{0, axis.lq};
        const Interval k = p.key_range ? p.key_range->axis[a] : Interval{0, axis.lk};
        Index n = 0;
        for (Index y = q.begin; y < q.end; ++y)
          for (Index x = k.begin; x < k.end; ++x) n += oracle::sees(axis, y, x);
        product *= static_cast<double>(n);
        queries *= static_cast<double>(q.size());
        keys *= static_cast<double>(k.size());
      }
      EXPECT_EQ(static_cast<double>(query_tokens(p, s)), queries) << to_string(p);
      EXPECT_EQ(static_cast<double>(key_tokens(p, s)), keys) << to_string(p);
      visible += product + queries * static_cast<double>(p.additional);
      dense += queries * (keys + static_cast<double>(p.additional));
    }
    visible *= static_cast<double>(p.batch);
    dense *= static_cast<double>(p.batch);
    ASSERT_EQ(visible_pairs(p), visible) << to_string(p);
    const double flops = 2.0 * static_cast<double>((p.head_dim + p.value_dim) * p.heads) * visible;
    ASSERT_DOUBLE_EQ(useful_flops(p), p.direction == Direction::kForward ? flops : 2.5 * flops)
        << to_string(p);
    ASSERT_TRUE(std::isfinite(sparsity(p)) && sparsity(p) >= 1.0) << to_string(p);
    ASSERT_DOUBLE_EQ(sparsity(p), visible > 0 ? dense / visible : 1.0) << to_string(p);
  }
}

TEST(Problem, GridsHaveLeadingAxesOfExtentOne) {
  const Grid g = grid_of(parse_problem("na:fwd:f32:b1h1kv1d8:9x8:k3x2:s2x1:d1x4:c10:kv=2-9x0-7"), 0);
  EXPECT_EQ(g.axis[0].key_extent, 1);
  EXPECT_EQ(visible(g.axis[0], 0), (Interval{0, 1}));
  EXPECT_EQ(g.axis[1].rule, Rule::kWindowCausal);
  EXPECT_EQ(g.axis[1].stride, 2);
  EXPECT_EQ(g.axis[1].keys, (Interval{2, 9}));
  EXPECT_EQ(g.axis[2].rule, Rule::kWindow);
  EXPECT_EQ(g.axis[2].dilation, 4);
  EXPECT_EQ(g.axis[2].queries, (Interval{0, 8}));
  EXPECT_EQ(g.groups(), 4);
}

TEST(Problem, ShapesOfEveryTensor) {
  const auto shape = [](const char* text, Role role) { return shape_of(parse_problem(text), role); };
  using V = std::vector<Index>;
  const char* const image = "na:bwd:f64:b2h6kv3d8v5:9x7:k3x3:add=4:q=1-6x0-7:kv=0-8x0-7:lse";
  EXPECT_EQ(shape(image, Role::kQuery), (V{2, 5, 7, 6, 8}));
  EXPECT_EQ(shape(image, Role::kKey), (V{2, 8, 7, 3, 8}));
  EXPECT_EQ(shape(image, Role::kGradValue), (V{2, 8, 7, 3, 5}));
  EXPECT_EQ(shape(image, Role::kOut), (V{2, 5, 7, 6, 5}));
  EXPECT_EQ(shape(image, Role::kLse), (V{2, 5, 7, 6}));
  EXPECT_EQ(shape(image, Role::kGradLse), (V{2, 5, 7, 6}));
  EXPECT_EQ(shape(image, Role::kAdditionalKey), (V{2, 4, 3, 8}));
  EXPECT_EQ(shape(image, Role::kGradAdditionalValue), (V{2, 4, 3, 5}));
  EXPECT_EQ(dtype_of(parse_problem(image), Role::kLse), DType::kFloat64);
  const char* const packed = "att:fwd:f16:b1h2kv1d8:5,9+0,3+4,0:tail=2,1";
  EXPECT_EQ(shape(packed, Role::kQuery), (V{1, 11, 2, 8}));
  EXPECT_EQ(shape(packed, Role::kValue), (V{1, 13, 1, 8}));
  EXPECT_EQ(shape(packed, Role::kLse), (V{1, 11, 2}));
  EXPECT_EQ(shape(packed, Role::kGradQuery), V{});
  EXPECT_EQ(dtype_of(parse_problem(packed), Role::kLse), DType::kFloat32);
  EXPECT_EQ(shape("na:fwd:f32:b1h1kv1d4:9x8:k3x3:qgrid=3x16", Role::kQuery), (V{1, 3, 16, 1, 4}));
}

}  // namespace
}  // namespace nearfield
