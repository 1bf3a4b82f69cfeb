// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The planner of the CUDA backend: it counts as the kernels do, tiles of the user are honoured, lists whose lengths
// only the device knows are those of known ones, blocks fit an SM, and the problems of the benchmark waste little.
#include <gtest/gtest.h>

#include "conformance.h"
#include "cuda/sm80/cut.h"
#include "cuda/sm80/emulated.h"

namespace nearfield {
namespace {

// Meetings of one axis, counted run by run.
TEST(Cut, CountsAsTheKernelsDo) {
  for (const Index extent : {1, 7, 40, 200, 1000})
    for (const Index window : {Index{1}, Index{5}, Index{33}, extent})
      for (const Index stride : {1, 3, 16})
        for (const Rule rule : {Rule::kWindow, Rule::kWindowCausal}) {
          if (window > extent || stride > window) continue;
          for (const bool queries : {true, false})
            for (const Index own : {1, 8, 32})
              for (const Index part : {own, max_of(own / 4, 1)})
                for (const Index other : {1, 16, 64}) {
                  const Axis axis(rule, extent, extent, window, stride);
                  double loaded = 0, computed = 0;
                  for (Index begin = 0; begin < extent; begin += own) {
                    const Interval run{begin, min_of(begin + own, extent)};
                    const Interval span = queries ? hull(axis, run) : inverse_hull(axis, run);
                    for (Index at = span.begin; at < span.end; at += other) {
                      ++loaded;
                      for (Index b = run.begin; b < run.end; b += part) {
                        const Interval some{b, min_of(b + part, run.end)};
                        const Interval seen = queries ? hull(axis, some) : inverse_hull(axis, some);
                        computed += !intersect(seen, {at, at + other}).empty();
                      }
                    }
                  }
                  const sm80::Meetings m = sm80::meetings(axis, queries, own, part, other);
                  ASSERT_EQ(m.loaded, loaded)
                      << extent << " " << window << " " << stride << " " << own << " " << other;
                  ASSERT_EQ(m.computed, computed)
                      << extent << " " << window << " " << stride << " " << own << " " << other;
                }
        }
}

// Tiles that the user asks for change the speed, not the answer; those that no kernel can use are refused.
TEST(Cut, TilesOfTheUser) {
  int served = 0;
  for (const char* text :
       {"na:fwd:f32:b1h4kv1d16:12x13:k5x3:s2x1:d1x2:c01:lse", "na:fwd:bf16:b1h2kv1d16:200:k63:lse",
        "na:bwd:bf16:b1h4kv2d16:12x13:k5x3:s2x1:d1x2:c01:add=3:lse",
        "na:bwd:f16:b1h1kv1d16:5x6x7:k3x3x3:lse"}) {
    testing::Case c(text);
    const Direction d = c.problem().direction;
    for (const char* tiles :
         {"q1x1x1", "kv1x1x7", "q1x4x4,kv1x3x5", "q1x1x16,kv1x16x1", "q2x2x4", "q1x1x1000", "kv0x1x1"}) {
      std::string call = "na:fwd:f32:b1h1kv1d1:9x9x9:k3x3x3@cuda_sm80," + std::string(tiles);
      PlanOptions options = parse_call(call).options;
      for (auto* tile : {&options.query_tile, &options.key_tile})
        if (*tile && c.problem().rank < 3) (**tile)[0] = 1;
      if (c.problem().rank == 1)
        for (auto* tile : {&options.query_tile, &options.key_tile})
          if (*tile) (**tile)[1] = 1;
      Choice choice;
      try {
        choice = testing::plan_for(c.direction(d), options);
      } catch (const Unsupported& e) {
        EXPECT_NE(std::string(e.what()).find("tile"), std::string::npos) << e.what();
        continue;
      }
      ++served;
      if (options.query_tile) { EXPECT_EQ(choice.plan->query_tile(0), *options.query_tile) << text << tiles; }
      if (options.key_tile) { EXPECT_EQ(choice.plan->key_tile(0), *options.key_tile) << text << tiles; }
      SerialExecutor serial;
      EXPECT_TRUE(c.agrees(c.run(d, choice, serial), "cuda_sm80")) << tiles;
    }
  }
  EXPECT_GE(served, 20);
}

// A list whose lengths only the device knows gives the bits of the same list with known ones; offsets that are wrong
// touch nothing outside.
TEST(Offsets, OfTheDevice) {
  struct List {
    const char *known, *unknown;
    std::vector<Index> queries, keys;
  };
  const List lists[] = {
      {"att:fwd:f32:b1h2kv1d16:5,9+70,3+0,4+133,134:cbr:drop=0.3:tail=5,9:lse",
       "att:fwd:f32:b1h2kv1d16:var=4,213,159,140,134:cbr:drop=0.3:lse",
       {0, 5, 75, 75, 208},
       {0, 9, 12, 16, 150}},
      {"att:fwd:bf16:b1h4kv2d40v24:64,64+1,1+0,0+90,90:ctl:lse",
       "att:fwd:bf16:b1h4kv2d40v24:var=4,155,155,90,90:ctl:lse",
       {0, 64, 65, 65, 155},
       {0, 64, 65, 65, 155}},
      {"att:fwd:f16:b1h2kv2d8:+:tail=7,7:lse", "att:fwd:f16:b1h2kv2d8:var=0,7,7,0,0:lse", {0}, {0}},
  };
  for (const List& list : lists)
    for (const bool wide : {false, true})
      for (const bool wrong : {false, true})
        for (const Direction d : {Direction::kForward, Direction::kBackward}) {
          testing::Case c(list.known);
          c.answer();
          const testing::Outputs expected = c.run(d, "cuda_sm80");
          Problem p = parse_problem(list.unknown);
          p.direction = d;
          std::vector<std::int64_t> q64(list.queries.begin(), list.queries.end()),
              k64(list.keys.begin(), list.keys.end());
          if (wrong)
            for (auto* offsets : {&q64, &k64}) offsets->back() += 1000, offsets->front() -= 3;
          const std::vector<std::int32_t> q32(q64.begin(), q64.end()), k32(k64.begin(), k64.end());
          Tensors tensors;
          testing::Outputs outputs;
          for (int r = 0; r < kRoles; ++r) {
            const Role role = static_cast<Role>(r);
            const std::vector<Index> shape = testing::shape_for(c.direction(d), role);
            const bool output = d == Direction::kForward ? role == Role::kOut || role == Role::kLse
                                                         : role >= Role::kGradQuery;
            if (shape.empty()) continue;
            ASSERT_EQ(shape, shape_of(p, role));
            if (output) outputs[role] = testing::Memory(dtype_of(p, role), shape, {}, true);
            tensors[role] = output ? outputs[role].view() : c.input(role).view();
          }
          tensors.seed = &c.seed();
          tensors.wide_offsets = wide;
          tensors.query_offsets = wide ? static_cast<const void*>(q64.data()) : q32.data();
          tensors.key_offsets = wide ? static_cast<const void*>(k64.data()) : k32.data();
          PlanOptions options;
          options.backend = "cuda_sm80";
          SerialExecutor serial;
          run(p, testing::plan_for(p, options), tensors, serial);
          if (wrong) continue;
          for (const auto& [role, memory] : outputs)
            EXPECT_EQ(memory.bytes(), expected.at(role).bytes()) << list.unknown << " " << name_of(role);
        }
}

TEST(Cut, RefusalsSayWhy) {
  const Backend& backend = emulated_sm80_backend();
  const auto why = [&](const char* text) {
    return backend.refusal(parse_problem(text), {}).value_or("served");
  };
  EXPECT_NE(why("na:fwd:f64:b1h1kv1d8:9:k3").find("float64"), std::string::npos);
  EXPECT_NE(why("na:fwd:f32:b1h1kv1d257:9:k3").find("256"), std::string::npos);
  EXPECT_NE(why("na:fwd:bf16:b1h1kv1d8v300:9:k3").find("256"), std::string::npos);
  EXPECT_EQ(why("na:fwd:f32:b1h1kv1d8:9:k3:prec=tf32"), "served");
  EXPECT_NE(backend.plan(parse_problem("na:fwd:f32:b1h1kv1d8:9:k3:prec=tf32"), {}).note.find("TF32"),
            std::string::npos);
}

// A budget, as tests/cuda/budget.txt has of registers: with a kilobyte more per block, how many blocks an SM holds
// changes (164 KiB on 8.0, 100 on 8.6).
TEST(Cut, SharedMemoryOfTheKernels) {
  struct Case {
    const char* start;
    Index head_dim;
    int most;  // bytes
  };
  for (const Case& c :
       {Case{"na:fwd:bf16", 64, 46480}, Case{"na:bwd:bf16", 64, 42128}, Case{"na:fwd:bf16", 128, 79248},
        Case{"na:bwd:bf16", 128, 74896}, Case{"na:fwd:bf16", 256, 72848}, Case{"na:bwd:bf16", 256, 70576},
        Case{"na:fwd:f16", 128, 79248}, Case{"na:bwd:f16", 256, 70576}, Case{"na:fwd:f32", 64, 58512},
        Case{"na:bwd:f32", 64, 56464}, Case{"na:fwd:f32", 128, 72848}, Case{"na:bwd:f32", 128, 70576},
        Case{"na:fwd:f32", 256, 69552}, Case{"na:bwd:f32", 256, 68416}}) {
    const std::string text = std::string(c.start) + ":b1h1kv1d" + std::to_string(c.head_dim) + ":300:k3";
    const std::string note = emulated_sm80_backend().plan(parse_problem(text), {}).note;
    EXPECT_NE(note.find(" bytes of shared memory"), std::string::npos) << note;
    EXPECT_LE(std::stoi(note), c.most) << text;
  }
}

// The planner's tiles for the problems of the benchmark: computed pairs over useful ones.
TEST(Cut, WasteOfTheBenchmarkProblems) {
  struct Case {
    const char* text;
    double most;
  };
  for (const Case& c : {Case{"na:fwd:bf16:b1h1kv1d128:32768:k2048", 1.06},
                        Case{"na:fwd:bf16:b1h24kv24d128:256x256:k80x80", 1.20},
                        Case{"na:fwd:bf16:b1h24kv24d128:30x48x80:k18x24x24", 1.45},
                        Case{"na:fwd:bf16:b1h24kv24d128:30x48x80:k18x24x24:s16x8x8", 1.20},
                        Case{"att:fwd:bf16:b1h8kv8d128:4096,4096", 1.0001}}) {
    const Plan plan = emulated_sm80_backend().plan(parse_problem(c.text), {});
    EXPECT_LE(plan.waste, c.most) << c.text;
    EXPECT_GE(plan.waste, 1.0) << c.text;
    RecordProperty(c.text, std::to_string(plan.waste));
    std::printf("%s: waste %.3f\n", c.text, plan.waste);
  }
}

}  // namespace
}  // namespace nearfield
