// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Numbers at the edge: queries that see nothing, scores of +-1e4, equal scores, values that are not
// finite. A NaN may reach only those who see it, and nobody gets one without.
#include <algorithm>
#include <cmath>
#include <limits>

#include "conformance.h"

namespace nearfield {
namespace {

using testing::Case;
using testing::expect_conforms;
using testing::Memory;
using testing::Outputs;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kLargest = 0x1.fffp127;  // rounds to infinity in fewer bits
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr Direction kDirections[] = {Direction::kForward, Direction::kBackward};

TEST(Extremes, QueriesThatSeeNothing) {
  for (const char* text : {"att:fwd:f32:b1h2kv1d16:70,33:cbr:lse", "att:fwd:f16:b1h2kv1d16:5,0:lse",
                           "att:fwd:f64:b1h1kv1d8:9,2+3,0+4,4:cbr:tail=2,2:lse",
                           "na:fwd:f32:b1h1kv1d8:40:k7:q=10-20:kv=30-40:lse",
                           "na:fwd:bf16:b1h1kv1d8:8x8:k3x3:q=0-8x0-2:kv=0-8x5-8:lse"}) {
    Case c(text);
    expect_conforms(c);
    const std::vector<double>& lse = c.answer().exact[static_cast<std::size_t>(Role::kLse)];
    bool some = false;
    for (const Direction d : kDirections)
      for (const std::string& backend : c.runs(d)) {
        const bool forward = d == Direction::kForward;
        const Outputs outputs = c.run(d, backend);
        const Memory& rows = outputs.at(forward ? Role::kOut : Role::kGradQuery);
        const Index width = forward ? c.problem().value_dim : c.problem().head_dim;
        for (std::size_t i = 0; i < lse.size(); ++i) {
          if (lse[i] != -kInfinity) continue;
          some = true;
          const auto query = static_cast<Index>(i);
          if (forward) { EXPECT_EQ(outputs.at(Role::kLse).get(query), -kInfinity) << text << "@" << backend; }
          for (Index x = 0; x < width; ++x)
            EXPECT_EQ(rows.get(query * width + x), 0.0) << text << "@" << backend;
        }
      }
    EXPECT_TRUE(some || c.runs(Direction::kForward).empty()) << text;
  }
}

// An lse of -inf says that the query saw nothing, whatever there is to see: it has no part in any gradient.
TEST(Extremes, GivenThatAQuerySawNothing) {
  for (const char* text : {"na:fwd:f32:b1h2kv1d16:40:k7:add=3:lse", "att:fwd:f64:b1h1kv1d8:33,20:lse",
                           "att:fwd:bf16:b1h1kv1d8:20,20:ctl"}) {
    Case c(text), without(text);
    const Index width = c.problem().value_dim;
    for (const Index row : {Index{0}, Index{7}, Index{19}}) {
      for (Index i = 0; i < width; ++i) without.input(Role::kGradOut).set(row * width + i, 0.0);
      if (without.input(Role::kGradLse).present()) without.input(Role::kGradLse).set(row, 0.0);
    }
    c.answer();
    for (const Index row : {Index{0}, Index{7}, Index{19}}) {
      c.input(Role::kLse).set(row, -kInfinity);
      for (Index i = 0; i < width; ++i) c.input(Role::kOut).set(row * width + i, 0.0);
    }
    for (const std::string& backend : c.runs(Direction::kBackward))
      EXPECT_TRUE(without.agrees(c.run(Direction::kBackward, backend), backend));
  }
}

TEST(Extremes, LargeScores) {
  for (const double spread :
       {30.0, 1000.0, 1e4}) {  // times a key of order 1 and the scale: scores of that order
    Case a("na:fwd:f32:b1h2kv1d16:9x8:k3x5:lse:scale=1", spread / 4),
        b("att:fwd:f32:b1h1kv1d1:20,90:add=3:lse", spread), c("na:fwd:f64:b1h1kv1d4:100:k33:c1:lse", spread),
        d("na:fwd:bf16:b1h1kv1d8:100:k33:lse", spread);
    for (Case* one : {&a, &b, &c, &d}) expect_conforms(*one);
  }
}

TEST(Extremes, ScoresOfOneSign) {
  for (const double score : {1e4, -1e4, 3e38, -3e38, 88.0, -104.0}) {
    Case c("na:fwd:f32:b1h1kv1d8:30:k7:lse:scale=1");
    for (Index i = 0; i < 30; ++i)
      for (Index x = 0; x < 8; ++x) {
        c.input(Role::kQuery).set(i * 8 + x, x == 0 ? score : 0.0);
        c.input(Role::kKey).set(i * 8 + x, x == 0 ? 1.0 : static_cast<double>(i));
      }
    for (const Direction d : kDirections)
      for (const std::string& backend : c.runs(d)) {
        if (std::abs(score) > 1e38 && d == Direction::kBackward) continue;  // gradients beyond float32
        EXPECT_TRUE(c.agrees(c.run(d, backend), backend)) << score;
      }
  }
}

// Weights that vanish: one key towers over all others.
TEST(Extremes, OneKeyTakesAll) {
  Case c("att:fwd:f32:b1h1kv1d4:20,200:lse:scale=1");
  for (Index i = 0; i < 200; ++i) c.input(Role::kKey).set(4 * i, i == 137 ? 500.0 : -500.0);
  for (Index i = 0; i < 20; ++i) c.input(Role::kQuery).set(4 * i, 10.0);
  expect_conforms(c);
}

TEST(Extremes, EqualScoresAverageTheValues) {
  for (const char* text : {"na:fwd:f32:b1h2kv1d16:9x8:k3x5:lse", "att:fwd:f16:b1h1kv1d16:33,70:ctl:lse",
                           "na:fwd:f64:b1h1kv1d16:50:k50:add=14:lse"}) {
    Case c(text);
    for (const Role r : {Role::kKey, Role::kAdditionalKey})
      for (Index i = 0; c.input(r).present() && i < c.input(r).elements(); ++i) c.input(r).set(i, 0.5);
    expect_conforms(c);
  }
}

// Large values and gradients, tiny values, subnormal numbers.
TEST(Extremes, LargeAndTinyValues) {
  for (const double size : {1e30, 1e-30, 1e-42}) {
    Case c("na:fwd:f32:b1h1kv1d8:30:k7:add=2:lse");
    for (const Role r : {Role::kValue, Role::kAdditionalValue})
      for (Index i = 0; i < c.input(r).elements(); ++i) c.input(r).set(i, c.input(r).get(i) * size);
    for (const std::string& backend : c.runs(Direction::kForward))
      EXPECT_TRUE(c.agrees(c.run(Direction::kForward, backend), backend)) << size;
  }
}

// A number of float32's last binade is one like others: those who see one get their share of it, and nobody
// else. (Sums are divided at the end, so that several of them may overflow.)
TEST(Extremes, TheLargestValue) {
  Case c("na:fwd:f32:b1h1kv1d8:40:k7:add=2:lse");
  for (const Index row : {Index{3}, Index{20}})
    for (Index x = 0; x < 8; ++x) c.input(Role::kValue).set(row * 8 + x, x % 2 ? kLargest : -kLargest);
  for (const std::string& backend : c.runs(Direction::kForward))
    EXPECT_TRUE(c.agrees(c.run(Direction::kForward, backend), backend));
}

struct Poison {
  const char* text;
  Role role;
  Index row;  // token and head, in raster order
};

// The oracle's answer for poisoned data is not finite exactly for those who see it; elsewhere the
// numbers must be right. The poisoned rows are at the end of a range of shapes so that they share
// tiles with tokens that do not see them.
TEST(Extremes, NonFiniteQueriesAndKeysReachOnlyWhoSeesThem) {
  for (const Poison& p : {
           Poison{"na:fwd:f32:b1h1kv1d8:40:k5:lse", Role::kKey, 17},
           Poison{"na:fwd:f32:b1h1kv1d8:40:k5:lse", Role::kKey, 0},
           Poison{"na:fwd:f32:b1h1kv1d8:40:k5:lse", Role::kQuery, 39},
           Poison{"na:fwd:f32:b1h1kv1d8:40:k5:lse", Role::kQuery, 16},
           Poison{"na:fwd:f32:b1h2kv1d24:9x8:k3x3:d1x2:lse", Role::kKey, 40},
           Poison{"na:fwd:f32:b1h2kv1d24:9x8:k3x3:lse", Role::kQuery, 77},
           Poison{"na:fwd:f64:b1h1kv1d8:5x5x5:k3x3x3:c100:lse", Role::kKey, 62},
           Poison{"na:fwd:bf16:b1h1kv1d8:64:k9:lse", Role::kKey, 33},
           Poison{"att:fwd:f32:b1h1kv1d16:50,50:ctl:lse", Role::kKey, 49},
           Poison{"att:fwd:f32:b1h1kv1d16:50,50:ctl:lse", Role::kKey, 20},
           Poison{"att:fwd:f32:b1h1kv1d16:50,50:cbr:lse", Role::kQuery, 3},
           Poison{"att:fwd:f16:b1h1kv1d16:5,9+7,3+4,4:lse", Role::kKey, 10},
           Poison{"att:fwd:f32:b1h1kv1d16:5,9+7,3+4,4:tail=3,3:lse", Role::kKey, 17},
           Poison{"na:fwd:f32:b1h2kv2d8:40:k5:add=3:lse", Role::kKey, 31},
           Poison{"na:fwd:f32:b1h2kv2d8:40:k5:add=3:lse", Role::kAdditionalKey, 3},
           Poison{"na:fwd:f32:b1h1kv1d8:40:k9:q=0-20:kv=0-30:lse", Role::kKey, 22},
           Poison{"na:fwd:f32:b2h1kv1d8:40:k5:lse", Role::kKey, 45},
       })
    for (const double poison : {kNaN, kInfinity, -kInfinity}) {
      Case c(p.text);
      const Index depth = c.problem().head_dim;
      c.input(p.role).set(p.row * depth + depth / 2, poison);
      SCOPED_TRACE(::testing::Message() << poison << " in " << name_of(p.role) << " row " << p.row);
      const std::vector<double>& lse = c.answer().exact[static_cast<std::size_t>(Role::kLse)];
      for (const Direction d : kDirections)
        for (const std::string& backend : c.runs(d)) {
          const Outputs outputs = c.run(d, backend);
          EXPECT_TRUE(c.agrees(outputs, backend));
          if (d == Direction::kBackward || !std::isnan(poison)) continue;
          for (std::size_t i = 0; i < lse.size(); ++i)  // and those who see a NaN are told
            EXPECT_EQ(std::isnan(lse[i]), std::isnan(outputs.at(Role::kLse).get(static_cast<Index>(i))))
                << p.text << "@" << backend << " query " << i;
        }
    }
}

// What leaves a NaN out of a sum leaves nothing else out: the row of a NaN and those beside it hold numbers of the
// last binades, of which each gradient is a sum. Scores have no part of them, nor overflows.
TEST(Extremes, HugeNumbersBesideNonFiniteOnes) {
  for (const Poison& p : {
           Poison{"na:fwd:f32:b1h1kv1d16:40:k5:lse", Role::kKey, 17},
           Poison{"na:fwd:f32:b1h1kv1d16:40:k5:lse", Role::kQuery, 17},
           Poison{"na:fwd:f32:b1h2kv1d24:9x8:k3x3:d1x2:lse", Role::kKey, 40},
           Poison{"na:fwd:f32:b1h2kv1d24:9x8:k3x3:lse", Role::kQuery, 77},
           Poison{"na:fwd:f64:b1h1kv1d8:5x5x5:k3x3x3:c100:lse", Role::kKey, 62},
           Poison{"na:fwd:bf16:b1h1kv1d16:64:k9:lse", Role::kKey, 33},
           Poison{"na:fwd:bf16:b1h1kv1d16:64:k9:lse", Role::kQuery, 33},
           Poison{"na:fwd:f16:b1h1kv1d16:64:k9:lse", Role::kKey, 33},
           Poison{"na:fwd:f16:b1h1kv1d16:64:k9:lse", Role::kQuery, 32},
           Poison{"na:fwd:f32:b1h1kv1d136v8:40:k5:lse", Role::kKey, 17},  // of the CUDA kernels for d256
           Poison{"na:fwd:bf16:b1h1kv1d136v8:40:k5:lse", Role::kQuery, 16},
           Poison{"att:fwd:f32:b1h1kv1d16:50,50:ctl:lse", Role::kKey, 40},
           Poison{"att:fwd:f32:b1h1kv1d16:50,50:cbr:lse", Role::kQuery, 3},
       })
    for (const double poison : {kNaN, kInfinity})
      for (const double size : {1e30, 1.5e38, 3e38, kLargest}) {
        Case c(p.text);
        const bool half = c.problem().dtype == DType::kFloat16;
        if (half && size < 1e38) continue;
        if (size == kLargest && c.problem().dtype != DType::kFloat32) continue;
        const double huge = half ? size / 1e38 * 2e4 : size;  // 30000 and 60000 are in its last two binades
        const Index depth = c.problem().head_dim, channel = depth - 1;
        testing::Memory &of = c.input(p.role),
                        &other = c.input(p.role == Role::kKey ? Role::kQuery : Role::kKey);
        for (Index i = channel; i < of.elements(); i += depth) of.set(i, of.get(i) < 0 ? -huge : huge);
        for (Index i = channel; i < other.elements(); i += depth) other.set(i, 0.0);
        for (const Role r : {Role::kGradOut, Role::kGradLse})  // sums are not to overflow
          for (Index i = 0; i < c.input(r).elements(); ++i) c.input(r).set(i, c.input(r).get(i) / 32);
        of.set(p.row * depth + depth / 2, poison);
        SCOPED_TRACE(::testing::Message()
                     << poison << " in " << name_of(p.role) << " row " << p.row << ", beside " << huge);
        const Role gradient = p.role == Role::kKey ? Role::kGradQuery : Role::kGradKey;
        const std::vector<double>& exact = c.answer().exact[static_cast<std::size_t>(gradient)];
        EXPECT_GT(std::ranges::count_if(exact, [&](double x) { return std::abs(x) > huge / 1e4; }), 10);
        expect_conforms(c);
      }
}

// Whatever is behind the data that belongs to the call is not looked at: other batch entries, other
// sequences and tails stay clean when a whole entry is NaN, values included.
TEST(Extremes, EntriesAndSequencesDoNotMix) {
  Case batch("na:fwd:f32:b3h2kv1d8:6x6:k3x3:lse"), packed("att:fwd:f32:b1h2kv1d8:7,9+5,4+8,8:tail=3,3:lse");
  for (const Role r : {Role::kQuery, Role::kKey, Role::kValue}) {
    const Index per_batch = batch.input(r).elements() / 3;
    for (Index i = per_batch; i < 2 * per_batch; ++i) batch.input(r).set(i, kNaN);
    const Index row = packed.input(r).size()[2] * packed.input(r).size()[3];
    const Index begin = r == Role::kQuery ? 7 : 9, end = r == Role::kQuery ? 12 : 13;
    for (Index i = begin * row; i < end * row; ++i) packed.input(r).set(i, kNaN);
    for (Index i = packed.input(r).elements() - 3 * row; i < packed.input(r).elements(); ++i)
      packed.input(r).set(i, kNaN);  // the tail
  }
  expect_conforms(batch);
  expect_conforms(packed);
}

}  // namespace
}  // namespace nearfield
