// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The stencil kernel of the `cpu` backend, which the planner picks for large problems, forced on small ones: against
// the oracle, and the bits that nothing may change.
#include <cmath>
#include <limits>

#include "conformance.h"
#include "problem_family.h"

namespace nearfield {
namespace {

using testing::Case;
using testing::Outputs;
using testing::same_bits;
using testing::serves;

constexpr Direction kForward = Direction::kForward;
const std::string kStencil = "cpu/s2";

bool compiled() { return serves(kStencil, parse_problem("na:fwd:f32:b1h1kv1d16:32:k5")); }

#define NF_NEEDS_STENCIL() \
  if (!compiled()) GTEST_SKIP() << "the stencil kernel is not compiled for this SIMD target"

// Also that the problem is served.
void expect_stencil(const std::string& text) {
  SCOPED_TRACE(text);
  Case c(text);
  testing::ShuffledExecutor executor(3, 1);
  EXPECT_TRUE(c.agrees(c.run(kForward, kStencil, executor), kStencil));
}

TEST(Stencil, Windows) {
  NF_NEEDS_STENCIL();
  for (const char* text : {
           "na:fwd:f32:b1h1kv1d8:1:k1:lse",  // rank 1: one query row
           "na:fwd:f32:b1h1kv1d8:17:k17:lse",
           "na:fwd:f32:b2h2kv2d32:100:k64:lse",
           "na:fwd:f32:b1h1kv1d16:60:k12:c1:lse",
           "na:fwd:f32:b1h1kv1d16:57:k5:d3:lse",
           "na:fwd:f32:b1h2kv2d16:8x9:k3x5:lse",
           "na:fwd:f32:b1h1kv1d32:19x21:k7x7:lse",
           "na:fwd:f32:b1h1kv1d64:33x35:k13x13:lse",
           "na:fwd:f32:b1h2kv2d32:40x70:k6x8:lse",  // even windows, two chunks of columns
           "na:fwd:f32:b1h1kv1d32:18x33:k7x5:c10:lse",
           "na:fwd:f32:b1h1kv1d32:18x33:k7x5:c01:lse",
           "na:fwd:f32:b1h1kv1d32:18x33:k7x17:c11:lse",  // windows cut in the second vector too
           "na:fwd:f32:b1h1kv1d16:23x37:k3x4:d2x3:lse",
           "na:fwd:f32:b1h1kv1d16:23x37:k5x4:s3x1:lse",  // strides of other axes
           "na:fwd:f32:b1h1kv1d16:4x20:k4x20:lse",
           "na:fwd:f32:b1h2kv2d16:6x7x18:k3x5x3:lse",
           "na:fwd:f32:b1h1kv1d64:8x16x16:k8x7x7:c100:lse",
           "na:fwd:f32:b1h1kv1d16:5x19x37:k3x6x8:c011:d1x1x2:lse",
           "na:fwd:f32:b1h1kv1d16:5x12x20:k1x5x5:lse",
           "na:fwd:f32:b1h2kv1d16:8x9+5x7+16x20:k3x3+5x7+2x4:c00+10+01:tail=2,3:lse",
       })
    expect_stencil(text);
}

TEST(Stencil, HeadsTypesStridesAndRanges) {
  NF_NEEDS_STENCIL();
  for (const int d : {1, 3, 8, 15, 17, 20, 33, 48, 80, 130})
    for (const char* rest : {"v24:9x20:k3x5:lse", ":6x18:k5x3"})
      expect_stencil("na:fwd:f32:b1h4kv2d" + std::to_string(d) + rest);
  for (const int d : {1, 5, 16, 31, 64, 72, 100, 200})
    expect_stencil("na:fwd:f32:b1h2kv2d16v" + std::to_string(d) + ":7x19:k3x4:lse");
  for (const std::string dtype : {"bf16", "f16"})
    for (const char* rest :
         {":b2h4kv2d32v20:9x20:k5x3:d1x2:c10:lse", ":b1h2kv2d16:37:k9:lse", ":b1h1kv1d33:5x5x17:k3x3x3:c100"})
      expect_stencil("na:fwd:" + dtype + rest);
  for (const char* text : {
           "na:fwd:f32:b2h6kv2d24:12x20:k5x5:lse",
           "na:fwd:f32:b0h2kv1d16:5x20:k3x3:lse",
           // heads first; gaps; channels two apart; broadcast
           "na:fwd:f32:b2h3kv3d8:20:k3:lse:str=q~480,8,160,1~k~480,8,160,1~v~480,8,160,1~o~480,8,160,1~lse~"
           "60,1,20",
           "na:fwd:f32:b1h2kv1d7v5:4x6:k3x3:lse:str=q~2000,200,30,11,1~k~900,90,14,9,1~v~900,90,14,6,1~o~"
           "2000,200,30,12,1",
           "na:fwd:f32:b1h2kv2d16:11:k5:lse:str=q~704,64,32,2~k~704,64,32,2~v~352,2,1,22~o~704,64,32,2",
           "na:fwd:f32:b2h4kv2d8:11:k5:lse:str=q~0,32,8,1~k~176,0,8,1~v~88,8,0,1",
           // shards: whole halos, cut windows, nothing to see, no queries
           "na:fwd:f32:b1h1kv1d8:40x30:k7x5:q=10-20x3-25:kv=7-23x0-30:lse",
           "na:fwd:f32:b1h1kv1d8:40x30:k7x5:q=10-20x3-25:kv=10-20x3-25:lse",
           "na:fwd:f32:b1h1kv1d8:40x30:k7x5:q=10-20x3-25:kv=25-30x0-30:lse",
           "na:fwd:f32:b1h1kv1d8:40x30:k7x5:q=10-20x3-25:kv=0-40x9-9:lse",
           "na:fwd:f32:b1h1kv1d8:40x30:k7x5:q=10-10x3-25:kv=7-23x0-30:lse",
           "na:fwd:f32:b1h1kv1d8:6x7x8:k3x3x3:c100:q=2-5x0-7x4-8:kv=0-6x1-6x3-8:lse",
           "na:fwd:f32:b1h1kv1d16:9x20:k5x5:scale=0:lse",
           "na:fwd:f32:b1h1kv1d16:9x20:k5x5:scale=-0.7:lse",
       })
    expect_stencil(text);
}

// Problems of all kinds; those it does not take are refused before they run.
TEST(Stencil, RandomSweep) {
  NF_NEEDS_STENCIL();
  int served = 0;
  for (int i = 0; i < 400; ++i) {
    testing::Rng rng(static_cast<std::uint64_t>(i) * 104729 + 3);
    Problem p = testing::random_runnable_problem(rng);
    p.direction = Direction::kForward;
    p.dropout = 0;
    p.bias = false;
    p.additional = 0;
    for (auto& strides : p.strides) strides.clear();
    for (Layout& layout : p.layouts)
      for (std::size_t a = 0; a < kMaxRank; ++a)
        if (rng.chance(70)) layout.stride[a] = 1;
    if (!serves(kStencil, p)) continue;
    ++served;
    expect_stencil(to_string(p));
    if (HasFailure()) return;
  }
  EXPECT_GT(served, 80);
}

TEST(Stencil, LargeScores) {
  NF_NEEDS_STENCIL();
  for (const double spread : {30.0, 1000.0, 1e4}) {  // the maximum moves from chunk to chunk
    Case a("na:fwd:f32:b1h2kv1d16:30x20:k13x9:lse:scale=1", spread / 4),
        b("na:fwd:bf16:b1h1kv1d8:100:k33:lse", spread),
        c("na:fwd:f32:b1h1kv1d64:6x12x20:k5x9x9:lse:scale=1", spread / 8);
    for (Case* one : {&a, &b, &c}) EXPECT_TRUE(one->agrees(one->run(kForward, kStencil), kStencil)) << spread;
  }
}

// A maximum that grows a little with every chunk: never by enough to move at once, by far more than 2^16 in all.
TEST(Stencil, MaximumThatCreeps) {
  NF_NEEDS_STENCIL();
  for (const double per_row : {0.3, 3.0, 9.0}) {
    Case c("na:fwd:f32:b1h1kv1d64:40x20:k40x9:lse:scale=1");
    for (Index i = 0; i < 40 * 20; ++i) {
      for (Index x = 0; x < 64; ++x) c.input(Role::kQuery).set(i * 64 + x, x == 0 ? 1.0 : 0.0);
      c.input(Role::kKey).set(i * 64, per_row * static_cast<double>(i / 20));
    }
    EXPECT_TRUE(c.agrees(c.run(kForward, kStencil), kStencil)) << per_row;
  }
}

TEST(Stencil, NonFiniteReachesOnlyWhoSeesIt) {
  NF_NEEDS_STENCIL();
  for (const char* text :
       {"na:fwd:f32:b1h2kv2d24:9x20:k3x3:lse", "na:fwd:f32:b1h1kv1d8:40:k5:lse",
        "na:fwd:f32:b1h1kv1d8:6x40:k3x5:c01:lse", "na:fwd:f32:b1h1kv1d16:5x6x20:k3x3x3:c100:lse",
        "na:fwd:bf16:b1h1kv1d8:7x40:k4x9:d1x2:lse"})
    for (const Role role : {Role::kKey, Role::kQuery})
      for (const double poison :
           {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()})
        for (int where = 0; where < 5; ++where) {
          Case c(text);
          const Index depth = c.problem().head_dim, rows = c.input(role).elements() / depth,
                      row = where * (rows - 1) / 4;
          c.input(role).set(row * depth + depth / 2, poison);
          SCOPED_TRACE(::testing::Message()
                       << text << " " << poison << " in " << name_of(role) << " row " << row);
          const Outputs outputs = c.run(kForward, kStencil);
          EXPECT_TRUE(c.agrees(outputs, kStencil));
          const std::vector<double>& lse = c.answer().exact[static_cast<std::size_t>(Role::kLse)];
          for (std::size_t i = 0; i < lse.size() && std::isnan(poison); ++i)
            EXPECT_EQ(std::isnan(lse[i]), std::isnan(outputs.at(Role::kLse).get(static_cast<Index>(i))))
                << "query " << i;
        }
}

// The cut of the work into tasks follows the workers; no bit of the result does.
TEST(Stencil, ThreadsDoNotChangeBits) {
  NF_NEEDS_STENCIL();
  for (const char* text :
       {"na:fwd:f32:b1h4kv2d32:70x21:k7x7:lse", "na:fwd:bf16:b1h4kv4d40:12x19x20:k3x3x3:c100:lse",
        "na:fwd:f32:b2h2kv2d16:33x40:k3x4:d2x2:lse"}) {
    Case c(text);
    const Outputs serial = c.run(kForward, kStencil);
    for (const int threads : {1, 2, 3, 7, 40}) {
      testing::ShuffledExecutor shuffled(threads, static_cast<std::uint64_t>(threads));
      EXPECT_TRUE(same_bits(serial, c.run(kForward, kStencil, shuffled))) << text << " on " << threads;
    }
    const auto pool = make_executor(3);
    EXPECT_TRUE(same_bits(serial, c.run(kForward, kStencil, *pool))) << text;
  }
}

// An entry of a batch has the bits that it has alone.
TEST(Stencil, BatchDoesNotChangeBits) {
  NF_NEEDS_STENCIL();
  Case three("na:fwd:f32:b3h2kv2d16:30x21:k5x5:lse"), one("na:fwd:f32:b1h2kv2d16:30x21:k5x5:lse");
  for (const Role r : {Role::kQuery, Role::kKey, Role::kValue})
    for (Index i = 0; i < one.input(r).elements(); ++i)
      one.input(r).set(i, three.input(r).get(one.input(r).elements() + i));
  const Outputs all = three.run(kForward, kStencil), alone = one.run(kForward, kStencil);
  for (const Role r : {Role::kOut, Role::kLse})
    for (Index i = 0; i < alone.at(r).elements(); ++i)
      ASSERT_EQ(alone.at(r).get(i), all.at(r).get(alone.at(r).elements() + i)) << name_of(r) << " " << i;
}

TEST(Stencil, RefusalsSayWhy) {
  struct Refused {
    const char *text, *word;
  };
  for (const Refused& r : {Refused{"na:fwd:f32:b1h1kv1d16:32:k5:s2", "more than one key per query"},
                           Refused{"na:fwd:f32:b1h1kv1d16:32:k5:add=3", "additional"},
                           Refused{"att:fwd:f32:b1h1kv1d16:32,32", "window"},
                           Refused{"na:fwd:f32:b1h1kv1d16:300:k255", "longer"},
                           Refused{"na:bwd:f32:b1h1kv1d16:32:k5", "forward"},
                           Refused{"na:fwd:f64:b1h1kv1d16:32:k5", "float64"}}) {
    PlanOptions options;
    options.backend = kStencil;
    try {
      make_plan(parse_problem(r.text), options);
      ADD_FAILURE() << r.text << " is served";
    } catch (const Unsupported& e) {
      const std::string message = e.what(), word = compiled() ? r.word : "compiled for";
      EXPECT_NE(message.find(word), std::string::npos) << message;
    }
  }
}

}  // namespace
}  // namespace nearfield
