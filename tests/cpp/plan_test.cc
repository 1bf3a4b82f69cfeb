// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Plans: what they depend on, how much memory they take, what explain says of them, and backends or
// kernels that cannot be had.
#include <gtest/gtest.h>

#include <algorithm>

#include "nearfield/attention.h"

namespace nearfield {
namespace {

TEST(Plan, IsMadeByABackend) {
  EXPECT_EQ(version(), "0.1.0");
  std::vector<std::string> names;
  for (const Backend* b : backends()) names.emplace_back(b->name());
  EXPECT_EQ(names, (std::vector<std::string>{"cuda_sm90", "cuda_sm80", "cpu", "reference"}));
  const Problem p = parse_problem("na:fwd:f32:b1h1kv1d32:64x64:k7x7");
  const Choice choice = make_plan(p);
  EXPECT_EQ(choice.backend->name(), "cpu");
  EXPECT_EQ(choice.plan->backend, "cpu");
  EXPECT_GE(choice.plan->waste, 1.0);
  EXPECT_FALSE(choice.plan->kernel.empty());
  EXPECT_THROW(make_plan(p, {}, Device::kCuda), Unsupported);
  PlanOptions options;
  options.backend = "tpu";
  try {
    make_plan(p, options);
    ADD_FAILURE();
  } catch (const std::invalid_argument& e) {
    const std::string message = e.what();
    for (const char* word : {"tpu", "cpu", "reference", ", expected "})
      EXPECT_NE(message.find(word), std::string::npos) << message;
  }
  Problem broken = p;
  broken.layouts[0].window[0] = 99;
  EXPECT_THROW(make_plan(broken), std::invalid_argument);
}

// A plan is a function of the problem: never of the batch, nor of the sequences packed beside it.
TEST(Plan, DependsOnTheSequenceOnly) {
  for (const char* backend : {"cpu", "reference"}) {
    PlanOptions options;
    options.backend = backend;
    const auto plan = [&](const char* text) { return *make_plan(parse_problem(text), options).plan; };
    const Plan one = plan("na:fwd:f32:b1h2kv1d32:40x30:k7x5"),
               many = plan("na:fwd:f32:b9h2kv1d32:40x30:k7x5"),
               packed = plan("na:fwd:f32:b1h2kv1d32:9x9+40x30:k7x5");
    EXPECT_EQ(one.kernel, many.kernel);
    EXPECT_EQ(one.query_tiles, many.query_tiles);
    if (one.query_tiles.empty()) continue;
    EXPECT_EQ(one.query_tile(0), packed.query_tile(1));
    EXPECT_EQ(one.key_tile(0), packed.key_tile(1));
  }
}

TEST(Plan, WorkspaceIsSmall) {  // O(rows of keys) a worker, not O(tokens)
  PlanOptions options;
  options.backend = "cpu";
  const Plan small = *make_plan(parse_problem("na:fwd:f32:b1h8kv8d64:256x256:k13x13"), options).plan,
             large = *make_plan(parse_problem("na:fwd:f32:b1h8kv8d64:2048x2048:k13x13"), options).plan;
  EXPECT_EQ(small.private_bytes, large.private_bytes);
  EXPECT_LT(large.workspace_bytes(2), std::size_t{16} << 20);
}

// The tables of a large window's backward pass, and of one with as many additional keys as a layout has.
TEST(Plan, WorkspaceOfLargeWindows) {
  const auto plan = [](const char* text) {
    const Call call = parse_call(text);
    return *make_plan(call.problem, call.options).plan;
  };
  EXPECT_LT(plan("na:bwd:f32:b1h4kv4d32:64x64x64:k63x63x63@cpu").workspace_bytes(2), std::size_t{1} << 30);
  if (plan("na:fwd:f32:b1h1kv1d32:64x64:k7x7@cpu").candidates.empty()) GTEST_SKIP() << "no CPU kernels";
  const Plan few = plan("na:fwd:f32:b1h8kv8d64:64x64:k7x7@cpu/b16"),
             many = plan("na:fwd:f32:b1h8kv8d64:64x64:k7x7:add=4096@cpu/b16");
  const std::size_t packed = 4096 * (64 + 64) * sizeof(float);  // of one head at least
  EXPECT_GT(many.private_bytes, few.private_bytes + packed);
}

// Bands of a backward pass that share most of their keys would have sums of tens of times the keys.
TEST(Plan, BackwardSumsAreNotManyTimesTheKeys) {
  for (const char* text :
       {"na:bwd:f32:b1h4kv1d64:32x64x48:k20x20x11@cpu", "na:bwd:f32:b1h8kv1d64:64x32x32:k32x11x10:s8x7x1@cpu",
        "na:bwd:f32:b1h16kv2d32:48x32x64:k22x15x33@cpu", "na:bwd:f32:b1h32kv4d256:32x64x48:k6x23x21@cpu",
        "na:bwd:f32:b1h64kv8d256:64x48x64:k7x18x17:s6x1x17@cpu", "na:bwd:f32:b1h4kv4d64:128x128:k63x63@cpu",
        "na:bwd:f32:b1h1kv1d64:65536:k4095@cpu", "att:bwd:f32:b1h1kv1d64:65536,65536@cpu"}) {
    const Call call = parse_call(text);
    const Problem& p = call.problem;
    const Plan plan = *make_plan(p, call.options).plan;
    const double keys = static_cast<double>(key_tokens(p, 0) * p.kv_heads * (p.head_dim + p.value_dim) * 4);
    EXPECT_LT(static_cast<double>(plan.shared_bytes), std::max(8 * keys, 0.5 * (1 << 30))) << text;
    EXPECT_LT(plan.private_bytes, std::size_t{64} << 20) << text;
  }
  Call wide = parse_call("na:bwd:f32:b1h1kv1d128:16x32x48:k16x32x32@cpu/b16");
  if (make_plan(wide.problem).plan->candidates.empty()) GTEST_SKIP() << "no CPU kernels";
  EXPECT_THROW(make_plan(wide.problem, wide.options), Unsupported);
}

// Millions of dilation groups are planned kind by kind: one by one, each of these takes many seconds.
TEST(Plan, MillionsOfGroupsAreNoMatter) {
  for (const char* text :
       {"na:bwd:f32:b1h1kv1d8:16777216:k3:d5000000", "na:bwd:f32:b1h1kv1d8:16777215:k1:d16777215",
        "na:bwd:f32:b1h1kv1d8:2147483647:k400:d5000000", "na:fwd:f32:b1h1kv1d8:2147483647:k400:d5000000",
        "na:bwd:f32:b1h1kv1d8:16777215:k2:d1000000:q=1000-9000000:kv=3000000-16000000",
        "na:bwd:f32:b1h1kv1d8:4096x4096:k3x3:d1365x1365", "na:bwd:f32:b1h1kv1d8:9+16777216:k3:d1+5000000"}) {
    const Plan plan = *make_plan(parse_problem(text)).plan;
    EXPECT_GE(plan.waste, 1.0) << text;
    EXPECT_GT(plan.workspace_bytes(1), std::size_t{0}) << text;
  }
}

TEST(Explain, PredictsEveryKernel) {
  const std::string text = explain("na:fwd:f32:b1h8kv8d32:64x64:k7x7@cpu");
  const Plan plan = *make_plan(parse_problem("na:fwd:f32:b1h8kv8d32:64x64:k7x7")).plan;
  if (plan.backend != "cpu") GTEST_SKIP() << "no CPU kernels";
  const std::size_t at = text.find("predicted on one thread: ");
  ASSERT_NE(at, std::string::npos) << text;
  for (const Candidate& c : plan.candidates)
    EXPECT_NE(text.find(c.kernel + " ", at), std::string::npos) << c.kernel << ": " << text;
  for (const char* kernel : {"b16", "b32", "m16", "m32", "general"})
    EXPECT_NE(text.find(std::string(kernel) + " ", at), std::string::npos) << text;
  EXPECT_NE(text.find("ms", at), std::string::npos) << text;
  // A kernel that is forced is the plan, and what it costs is known.
  const Call call = parse_call("na:fwd:f32:b1h8kv8d32:64x64:k7x7@cpu/m16");
  const Plan forced = *make_plan(call.problem, call.options).plan;
  EXPECT_EQ(forced.kernel.substr(0, 4), "m16,");
  for (const Candidate& c : forced.candidates)
    if (c.kernel == "m16") { EXPECT_EQ(c.seconds, forced.seconds); }
  EXPECT_GT(forced.seconds, plan.seconds);
}

TEST(Explain, NamesEveryBackendWithItsReason) {
  const std::string text = explain("na:fwd:f32:b1h8kv8d32:64x64:k7x7");
  for (const char* word :
       {"na:fwd:f32:b1h8kv8d32:64x64:k7x7", "cuda_sm90", "cuda_sm80", "cpu", "reference", "waste"})
    EXPECT_NE(text.find(word), std::string::npos) << text;
  EXPECT_NE(explain("na:fwd:f32:b1h1kv1d8:9:k3:bias").find("bias"), std::string::npos);
  EXPECT_EQ(explain("na:fwd:bf16:b1h1kv1d8:9:k3").find("bf16 arithmetic"), std::string::npos);
  for (const char* problem : {"na:fwd:bf16:b1h1kv1d8:9:k3:prec=bf16", "att:bwd:f32:b1h1kv1d8:9,9:prec=bf16"})
    for (const char* backend : {"@cpu", "@reference"})
      EXPECT_NE(explain(std::string(problem) + backend).find("bf16 arithmetic"), std::string::npos)
          << problem << backend;
  EXPECT_NE(explain("na:fwd:f32:b1h1kv1d8:9:k3", Device::kCuda).find("cpu"), std::string::npos);
  const Call call = parse_call("na:fwd:f32:b1h1kv1d64:64x64:k7x7@cpu,q4x8,kv1x16");
  EXPECT_EQ(call.options.backend, "cpu");
  EXPECT_EQ(call.options.query_tile, (TileShape{1, 4, 8}));
  EXPECT_EQ(call.options.key_tile, (TileShape{1, 1, 16}));
  for (const char* bad : {"", "@cpu", "na:fwd:f32:b1h1kv1d8:9:k3@cpu,", "na:fwd:f32:b1h1kv1d8:9:k3@cpu,q",
                          "na:fwd:f32:b1h1kv1d8:9:k3@cpu,q4x4", "na:fwd:f32:b1h1kv1d8:9:k3@cpu,z4",
                          "na:fwd:f32:b1h1kv1d8:9:k3@cpu,q4,q4", "na:fwd:f32:b1h1kv1d8:9:k3@cpu,q-4",
                          "na:fwd:f32:b1h1kv1d8:9:k3@cpu,q99999999999999999999"})
    EXPECT_THROW(parse_call(bad), std::invalid_argument) << bad;
}

TEST(Plan, KernelsThatCannotBeHad) {
  const auto message = [](const char* text) -> std::string {
    const Call call = parse_call(text);
    try {
      make_plan(call.problem, call.options);
    } catch (const std::exception& e) { return e.what(); }
    return "";
  };
  const struct {
    const char *problem, *words;
  } cases[] = {
      {"na:fwd:f32:b1h1kv1d8:9:k3@reference/b16", "it has one kernel; leave `/b16` out"},
      {"na:fwd:f32:b1h1kv1d8:9:k3@cpu/", "expected BACKEND or BACKEND/KERNEL"},
      {"na:fwd:f32:b1h1kv1d8:9:k3@/b16", "expected BACKEND or BACKEND/KERNEL"},
  };
  for (const auto& [problem, words] : cases)
    EXPECT_NE(message(problem).find(words), std::string::npos) << problem << ": " << message(problem);
  if (make_plan(parse_problem("na:fwd:f32:b1h1kv1d8:9:k3")).plan->candidates.empty()) return;
  const std::string text = message("na:fwd:f32:b1h1kv1d8:9:k3@cpu/b17");
  for (const char* word : {"b16", "b32", "m16", "m32", "s2", "general"})
    EXPECT_NE(text.find(word), std::string::npos) << text;
}

TEST(Plan, OfAnotherProblemIsRefused) {
  const Problem small = parse_problem("na:fwd:f32:b1h1kv1d8:10:k3"),
                large = parse_problem("na:fwd:f32:b1h1kv1d64:10:k3");
  SerialExecutor executor;
  EXPECT_THROW(run(large, make_plan(small), Tensors(), executor), std::invalid_argument);
}

}  // namespace
}  // namespace nearfield
