// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The cost model: a price for everything on every machine, more work never cheaper, and a choice that neither the batch
// nor the company of other sequences moves.
#include "cpu/cost.h"

#include <gtest/gtest.h>

#include <cmath>

#include "conformance.h"
#include "cpu/choice.h"
#include "cpu/cpu.h"
#include "cpu/general.h"
#include "cpu/tuned.h"
#include "problem_family.h"

namespace nearfield::cpu {
namespace {

using testing::Case;
using testing::Memory;
using testing::Rng;

std::vector<Machine> machines() {
  std::vector<Machine> all;
  for (int i = 0; i < kMachines; ++i) all.push_back(static_cast<Machine>(i));
  return all;
}

Plan plan_of(const Problem& p) {
  PlanOptions options;
  options.backend = "cpu";
  return *make_plan(p, options).plan;
}

TEST(Cost, EveryKernelHasConstantsOnEveryMachine) {
  Counts one;
  one.of.fill(1);
  for (const Machine m : machines())
    for (const Direction d : {Direction::kForward, Direction::kBackward}) {
      std::vector<std::string> names = {"general"};
      const bool wide = m == Machine::kIntel || m == Machine::kZen4 || m == Machine::kZen5;
      for (const Kind& kind : kKinds) {
        if (kind.stencil && (d == Direction::kBackward || !(wide || m == Machine::kAvx2))) continue;
        names.emplace_back(kind.name);
        if (wide && d == Direction::kForward && !kind.stencil)
          names.push_back(std::string(kind.name) + " bf16");
      }
      for (const std::string& name : names) {
        const double seconds = seconds_of(one, name, d, m);
        EXPECT_TRUE(std::isfinite(seconds) && seconds > 0) << name_of(m) << " " << name;
      }
    }
}

TEST(Cost, PositiveAndFiniteForEveryProblem) {
  Rng rng(4711);
  for (int i = 0; i < 400; ++i) {
    Problem p = testing::random_runnable_problem(rng);
    for (auto& strides : p.strides) strides.clear();  // they belong to a direction
    for (const Direction d : {Direction::kForward, Direction::kBackward}) {
      p.direction = d;
      const Plan plan = plan_of(p);
      if (sequences(p) == 0) continue;
      const auto valid = [&](double seconds) {  // nothing to do may cost nothing
        return std::isfinite(seconds) && (seconds > 0 || (seconds == 0 && visible_pairs(p) == 0));
      };
      EXPECT_TRUE(valid(plan.seconds)) << to_string(p);
      ASSERT_FALSE(plan.candidates.empty());
      double least = plan.candidates[0].seconds;
      for (const Candidate& c : plan.candidates) {
        EXPECT_TRUE(valid(c.seconds)) << to_string(p) << " " << c.kernel;
        for (const double n : c.counts)
          EXPECT_TRUE(std::isfinite(n) && n >= 0) << to_string(p) << " " << c.kernel;
        least = std::min(least, c.seconds);
      }
      // The tensors of all entries may outgrow a cache that those of one fit.
      if (sequences(p) == 1 && p.batch == 1) { EXPECT_EQ(plan.seconds, least) << to_string(p); }
    }
  }
}

// On every machine, also those that are not this one.
TEST(Cost, MoreHeadsTokensAndKeysCostMore) {
  const char* const ladders[][4] = {
      {"na:fwd:f32:b1h1kv1d64:64x64:k7x7", "na:fwd:f32:b1h2kv2d64:64x64:k7x7",
       "na:fwd:f32:b1h4kv4d64:64x64:k7x7", "na:fwd:f32:b1h8kv8d64:64x64:k7x7"},
      {"na:bwd:f32:b1h2kv2d64:24x24:k7x7", "na:bwd:f32:b1h2kv2d64:24x48:k7x7",
       "na:bwd:f32:b1h2kv2d64:48x48:k7x7", "na:bwd:f32:b1h2kv2d64:96x96:k7x7"},
      {"na:fwd:f32:b1h2kv2d32:4096:k15", "na:fwd:f32:b1h2kv2d32:4096:k63", "na:fwd:f32:b1h2kv2d32:4096:k255",
       "na:fwd:f32:b1h2kv2d32:4096:k1023"},
      {"att:bwd:f32:b1h2kv2d32:100,100", "att:bwd:f32:b1h2kv2d32:100,300", "att:bwd:f32:b1h2kv2d32:300,300",
       "att:bwd:f32:b1h2kv2d32:1000,1000"},
      {"na:fwd:f32:b1h2kv2d16:8x16x16:k3x3x3", "na:fwd:f32:b1h2kv2d32:8x16x16:k3x3x3",
       "na:fwd:f32:b1h2kv2d64:8x16x16:k3x3x3", "na:fwd:f32:b1h2kv2d128:8x16x16:k3x3x3"}};
  for (const Machine m : machines())
    for (const auto& ladder : ladders)
      for (const Kind& kind : kKinds) {
        double before = 0;
        for (const char* text : ladder) {
          const Problem p = parse_problem(text);
          const Grid grid = grid_of(p, 0);
          const std::optional<Cut> cut = cut_sequence(p, grid, kind);
          if (!cut) continue;
          const double seconds = seconds_of(in_memory(p, counts_of(p, grid, *cut, m), tensor_bytes(p, grid)),
                                            kind.name, p.direction, m);
          if (kind.stencil && !std::isfinite(seconds)) continue;  // machines that do not have it
          EXPECT_GT(seconds, before) << text << " " << kind.name << " " << name_of(m);
          before = seconds;
        }
      }
}

TEST(Cost, TheBatchMultipliesAndDoesNotMoveTheChoice) {
  Rng rng(99);
  for (int i = 0; i < 200; ++i) {
    Problem p = testing::random_runnable_problem(rng);
    for (auto& strides : p.strides) strides.clear();
    if (p.varlen) continue;
    p.batch = 1;
    const Plan one = plan_of(p);
    p.batch = 9;
    const Plan nine = plan_of(p);
    EXPECT_EQ(one.kernel, nine.kernel) << to_string(p);
    if (visible_pairs(p) > 0) { EXPECT_GT(nine.seconds, one.seconds) << to_string(p); }
    EXPECT_GE(nine.seconds, one.seconds) << to_string(p);
  }
}

TEST(Cost, ASequenceIsRunAsIfAlone) {
  const char* const sizes[] = {"64x64", "7x9", "40x3", "16x16", "100x8"};
  for (const char* direction : {"fwd", "bwd"}) {
    std::string list;
    for (const char* size : sizes) list += (list.empty() ? "" : "+") + std::string(size);
    const std::string head = std::string("na:") + direction + ":f32:b1h2kv2d32:";
    const auto choice = [&](const std::string& layouts) {
      const Problem p = parse_problem(head + layouts + ":k7x3");
      Plan general;
      const SequenceOptions each({}, p, cpu_backend());
      plan_general(p, each, general);
      return choose_kernels(p, general, each, true, false);
    };
    const KernelChoice all = choice(list);
    for (std::size_t i = 0; i < std::size(sizes); ++i) {
      const KernelChoice alone = choice(sizes[i]);
      ASSERT_EQ(all.cuts[i].has_value(), alone.cuts[0].has_value()) << sizes[i];
      if (alone.cuts[0]) { EXPECT_STREQ(all.cuts[i]->name, alone.cuts[0]->name) << sizes[i]; }
    }
  }
}

// Some sequences of a list by the general path, whatever the planner would do.
TEST(Cost, TheGeneralPathRunsItsPartOfAList) {
  Case c("na:fwd:f32:b1h4kv2d24:20x30+9x7+13x17+8x8:k5x7:lse");
  c.answer();
  for (const Direction d : {Direction::kForward, Direction::kBackward})
    for (const std::size_t general_mask : {0b0010u, 0b1001u, 0b0111u}) {
      const Problem p = c.direction(d);
      Plan general, plan;
      PlanOptions options;
      options.kernel = "b16";
      const SequenceOptions each(options, p, cpu_backend());
      plan_general(p, each, general);
      KernelChoice choice = choose_kernels(p, general, each, true, false);
      EXPECT_EQ(choice.kernel, "b16");
      for (std::size_t i = 0; i < 4; ++i)
        if (general_mask >> i & 1) choice.cuts[i].reset();
      plan_tuned(p, choice, general, plan);
      plan.problem = to_string(p);
      const Choice mixed{&cpu_backend(), std::make_shared<const Plan>(plan)};
      testing::ShuffledExecutor executor(3, general_mask);
      EXPECT_TRUE(c.agrees(c.run(d, mixed, executor), "cpu")) << general_mask;
    }
}

}  // namespace
}  // namespace nearfield::cpu
