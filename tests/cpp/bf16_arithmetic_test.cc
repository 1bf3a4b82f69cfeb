// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The permission to multiply in bf16 (prec=bf16), on every kernel of the CPU backend: where it is made use of, the
// oracle's bound of that arithmetic holds; where it is not, the bits are those without it.
#include <cmath>
#include <limits>

#include "conformance.h"

namespace nearfield {
namespace {

using testing::Case;
using testing::Memory;
using testing::Outputs;
using testing::same_bits;

constexpr const char* kKernels[] = {"cpu/general", "cpu/b16", "cpu/b32", "cpu/m16", "cpu/m32"};
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Odd and even windows, head dims that fill no pair or no vector, pairs cut by tiles, ranges, dilation and lists.
constexpr const char* kProblems[] = {
    "na:fwd:bf16:b1h2kv2d64:300:k63:prec=bf16:lse",
    "na:fwd:bf16:b2h4kv2d32:19x21:k7x5:d1x2:add=5:prec=bf16:lse",
    "na:fwd:bf16:b1h1kv1d64:24x20:k13x13:prec=bf16:lse",
    "na:fwd:bf16:b1h2kv1d40v24:6x7x8:k3x4x5:c100:prec=bf16:lse",
    "na:fwd:bf16:b1h6kv2d33v17:17x30:k5x6:s2x3:c01:prec=bf16:lse",
    "na:fwd:bf16:b1h2kv1d1v80:50:k1:prec=bf16:lse",
    "na:fwd:bf16:b1h1kv1d130v300:40:k9:add=70:prec=bf16:lse",
    "na:fwd:bf16:b1h2kv1d16:20x13:k5x3:q=8-16x1-12:kv=6-18x3-12:prec=bf16:lse",
    "na:fwd:bf16:b1h2kv1d24:8x9+5x7+16x4:k3x3+5x7+2x4:c00+10+01:tail=2,3:prec=bf16:lse",
    "na:fwd:bf16:b1h2kv2d16:9x8x11:k3x8x5:d2x1x2:prec=bf16:lse:str=q~12672,1408,176,16,8,1~v~50688,5632,704,"
    "64,32,2",
    "att:fwd:bf16:b1h4kv2d64:150,333:prec=bf16:lse",
    "att:fwd:bf16:b1h2kv1d64v32:5,9+70,3+33,0+90,150:cbr:prec=bf16:lse",
    "att:fwd:bf16:b2h2kv1d20:70,131:ctl:add=3:prec=bf16",
    "na:fwd:bf16:b1h1kv1d32:40:k9:scale=-0.7:prec=bf16:lse",
    "na:fwd:bf16:b1h1kv1d32:40:k9:scale=0:prec=bf16:lse",
};

Plan plan_of(const Problem& p, const char* kernel) {
  PlanOptions options;
  options.backend = kernel;
  return *make_plan(p, options).plan;
}

bool uses_bf16(const Plan& plan) { return plan.kernel.find("bf16") != std::string::npos; }

TEST(Bf16Arithmetic, EveryKernelIsWithinItsBoundOrTheSameAsWithout) {
  int used = 0;
  for (const char* text : kProblems) {
    Case with(text);
    Problem p = with.direction(Direction::kForward);
    p.precision = Precision::kFull;
    for (const char* kernel : kKernels) {
      const Outputs outputs = with.run(Direction::kForward, kernel);
      EXPECT_TRUE(with.agrees(outputs, kernel));
      const Plan plan = plan_of(with.direction(Direction::kForward), kernel);
      EXPECT_NE(plan.note.find(uses_bf16(plan) ? "and used" : "and not used"), std::string::npos)
          << plan.note;
      used += uses_bf16(plan);
      if (uses_bf16(plan)) continue;
      Tensors tensors;
      Outputs without;
      for (int r = 0; r < kRoles; ++r) {
        const Role role = static_cast<Role>(r);
        if (!testing::shape_for(p, role).empty()) tensors[role] = with.input(role).view();
      }
      for (const auto& [role, memory] : outputs) {
        without[role] =
            Memory(dtype_of(p, role), memory.size(), p.strides[static_cast<std::size_t>(role)], true);
        tensors[role] = without[role].view();
      }
      PlanOptions options;
      options.backend = kernel;
      SerialExecutor serial;
      run(p, make_plan(p, options), tensors, serial);
      EXPECT_TRUE(same_bits(outputs, without)) << text << "@" << kernel;
    }
  }
  // All tuned kernels or none: it depends on the processor.
  EXPECT_TRUE(used == 0 || used == 4 * static_cast<int>(std::size(kProblems))) << used;
}

TEST(Bf16Arithmetic, ThreadsAndOrderOfTasks) {
  for (const char* text : kProblems) {
    Case c(text);
    for (const char* kernel : kKernels) {
      const Outputs serial = c.run(Direction::kForward, kernel);
      for (const int threads : {2, 3, 7}) {
        testing::ShuffledExecutor shuffled(threads, static_cast<std::uint64_t>(threads));
        EXPECT_TRUE(same_bits(serial, c.run(Direction::kForward, kernel, shuffled)))
            << text << "@" << kernel << ", " << threads << " workers shuffled";
      }
    }
  }
}

// The other key of a pair may be one that nobody in the tile sees, or no key at all: nothing of it gets through.
TEST(Bf16Arithmetic, ValuesThatAreNotFiniteReachNoMoreQueries) {
  for (const char* text :
       {"na:fwd:bf16:b1h1kv1d16:70:k7:prec=bf16:lse", "na:fwd:bf16:b1h1kv1d8:9x13:k3x4:prec=bf16:lse",
        "att:fwd:bf16:b1h1kv1d8:40,40:ctl:prec=bf16:lse"}) {
    Problem p = parse_problem(text);
    p.precision = Precision::kFull;
    for (const Index row : {Index{0}, Index{12}, Index{33}, Index{39}}) {
      Case with(text), without(to_string(p));
      for (const Role r : {Role::kQuery, Role::kKey, Role::kValue})
        for (Index i = 0; i < with.input(r).elements(); ++i) without.input(r).set(i, with.input(r).get(i));
      for (Case* c : {&with, &without})
        for (Index x = 0; x < p.value_dim; ++x) c->input(Role::kValue).set(row * p.value_dim + x, kNaN);
      for (const char* kernel : {"cpu/b16", "cpu/b32", "cpu/m16", "cpu/m32"}) {
        const Outputs a = with.run(Direction::kForward, kernel), b = without.run(Direction::kForward, kernel);
        const std::vector<double>& exact = with.answer().exact[static_cast<std::size_t>(Role::kOut)];
        const std::vector<double>& tolerance = with.answer().tolerance[static_cast<std::size_t>(Role::kOut)];
        Index some = 0;
        for (Index i = 0; i < a.at(Role::kOut).elements(); ++i) {
          const bool nan = std::isnan(a.at(Role::kOut).get(i));
          some += nan;
          const auto at = static_cast<std::size_t>(i);
          EXPECT_TRUE(nan || std::abs(a.at(Role::kOut).get(i) - exact[at]) <= tolerance[at])
              << text << ": " << i;
          EXPECT_EQ(nan, std::isnan(b.at(Role::kOut).get(i)))
              << text << "@" << kernel << " row " << row << ": " << i;
        }
        EXPECT_GT(some, 0);
      }
    }
  }
}

TEST(Bf16Arithmetic, NonFiniteQueriesAndKeys) {
  for (const char* text :
       {"na:fwd:bf16:b1h1kv1d9:70:k7:prec=bf16:lse", "att:fwd:bf16:b1h1kv1d16:50,50:cbr:prec=bf16:lse"})
    for (const Role role : {Role::kQuery, Role::kKey})
      for (const double poison : {kNaN, HUGE_VAL, -HUGE_VAL}) {
        Case c(text);
        c.input(role).set(33 * c.problem().head_dim + 8, poison);
        for (const char* kernel : kKernels) EXPECT_TRUE(c.agrees(c.run(Direction::kForward, kernel), kernel));
      }
}

// The instruction takes subnormal numbers as 0.
TEST(Bf16Arithmetic, LargeTinyAndSubnormalNumbers) {
  for (const double size : {1e30, 1e-30, 1e-39, 1e-40}) {
    Case values("na:fwd:bf16:b1h1kv1d8:30:k7:add=2:prec=bf16:lse"),
        keys("na:fwd:bf16:b1h1kv1d8:30:k7:prec=bf16:lse");
    for (Index i = 0; i < values.input(Role::kValue).elements(); ++i) {
      values.input(Role::kValue).set(i, size * values.input(Role::kValue).get(i));
      keys.input(Role::kKey).set(i, size * keys.input(Role::kKey).get(i));
      keys.input(Role::kQuery).set(i, keys.input(Role::kQuery).get(i) / size / 100);
    }
    for (const char* kernel : kKernels) {
      EXPECT_TRUE(values.agrees(values.run(Direction::kForward, kernel), kernel)) << size;
      EXPECT_TRUE(keys.agrees(keys.run(Direction::kForward, kernel), kernel)) << size;
    }
  }
  for (const double spread : {30.0, 1000.0}) {
    Case c("na:fwd:bf16:b1h2kv1d16:100:k33:prec=bf16:lse", spread);
    for (const char* kernel : kKernels) EXPECT_TRUE(c.agrees(c.run(Direction::kForward, kernel), kernel));
  }
}

}  // namespace
}  // namespace nearfield
