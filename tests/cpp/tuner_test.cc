// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Laws of tuner files: a sequence is planned alike alone, in a batch and in a list; what is forced is not tuned; what
// is broken or foreign is refused with its line.
#include <gtest/gtest.h>

#include <initializer_list>
#include <regex>

#include "nearfield/attention.h"
#include "nearfield/c.h"

namespace nearfield {
namespace {

std::string taken(char* json) {
  const std::string copy = json;
  nf_free(json);
  return copy;
}

std::string device() {
  for (const Backend* b : backends())
    if (b->name() == "cpu") return b->device_class();
  return "";
}

std::string line(const std::string& problem, const std::string& choice,
                 const std::string& version = std::string(version())) {
  return R"({"nearfield_tuner": 1, "problem": ")" + problem + R"(", "device": ")" + device() +
         R"(", "version": ")" + version + R"(", "choice": ")" + choice + "\"}\n";
}

std::string kernel_of(const std::string& problem, const PlanOptions& options = {}) {
  return make_plan(parse_problem(problem), options).plan->kernel;
}

class TunerTest : public testing::Test {
 protected:
  void SetUp() override {
    if (kernel_of(kProblem).find(',') == std::string::npos) GTEST_SKIP() << "built without the CPU kernels";
  }
  void TearDown() override { taken(nf_tuner(nullptr, nullptr)); }
  static std::string use(const std::string& text) { return taken(nf_tuner(text.c_str(), "file")); }
  static constexpr const char* kProblem = "na:fwd:f32:b1h2kv1d32:9x40:k3x5";
};

TEST_F(TunerTest, NamesOneSequence) {
  EXPECT_EQ(taken(nf_tuner_problems("na:fwd:f32:b3h2kv1d32:9x40:k3x5:scale=2:lse")),
            "{\"ok\": [\"" + std::string(kProblem) + "\"]}");
  EXPECT_NE(taken(nf_tuner_problems("att:bwd:f32:b1h2kv1d32:8,9+3,4:ctl:tail=5,6"))
                .find("\"att:bwd:f32:b1h2kv1d32:3,4:ctl\""),
            std::string::npos);
}

TEST_F(TunerTest, EveryKernelIsTakenAloneInABatchAndInAList) {
  const std::string before = kernel_of(kProblem);
  for (const std::string kernel : {"b16", "m32", "general"}) {
    use(line(kProblem, "cpu/" + kernel));
    EXPECT_EQ(kernel_of(kProblem).rfind(kernel + ",", 0), 0u) << kernel_of(kProblem);
    EXPECT_EQ(kernel_of("na:fwd:f32:b5h2kv1d32:9x40:k3x5:lse"), kernel_of(kProblem));
    EXPECT_EQ(kernel_of("na:fwd:f32:b1h2kv1d32:9x40+9x40:k3x5"), kernel_of(kProblem));
    const std::string mixed = kernel_of("na:fwd:f32:b1h2kv1d32:9x40+9x7:k3x5");
    EXPECT_NE(mixed.find(kernel), std::string::npos) << mixed;
  }
  taken(nf_tuner(nullptr, nullptr));
  EXPECT_EQ(kernel_of(kProblem), before);
}

TEST_F(TunerTest, TilesAreThoseOfTheGeneralPath) {
  use(line(kProblem, "cpu,q2x8"));
  const auto plan = make_plan(parse_problem(kProblem)).plan;
  EXPECT_EQ(plan->query_tile(0), (TileShape{1, 2, 8}));
  EXPECT_EQ(plan->kernel.rfind("general", 0), 0u);
}

TEST_F(TunerTest, WhatIsForcedOrOfAnotherMachineIsNotTuned) {
  use(line(kProblem, "cpu/m32"));
  PlanOptions forced;
  forced.backend = "cpu/b16";
  EXPECT_EQ(kernel_of(kProblem, forced).rfind("b16,", 0), 0u);
  taken(nf_tuner(nullptr, nullptr));
  const std::string before = kernel_of(kProblem);
  use(line(kProblem, "cpu/no such", "9.9.9"));  // other versions may have it
  EXPECT_EQ(kernel_of(kProblem), before);
  std::string other = line(kProblem, "cpu/m32");
  other.replace(other.find("\"" + device() + "\""), device().size() + 2, "\"another\"");
  use(other);
  EXPECT_EQ(kernel_of(kProblem), before);
}

// Who keeps plans, as PyTorch's operators do, keeps them under the tuner they were made with, whatever it is by then.
TEST_F(TunerTest, APlanKnowsItsTuner) {
  EXPECT_EQ(tuner_in_use(), 0);
  const auto without = make_plan(parse_problem(kProblem)).plan;
  use(line(kProblem, "cpu/m16"));
  const std::int64_t first = tuner_in_use();
  const auto with = make_plan(parse_problem(kProblem)).plan;
  use(line(kProblem, "cpu/m32"));
  EXPECT_NE(tuner_in_use(), first);
  EXPECT_EQ(make_plan(parse_problem(kProblem)).plan->tuner, tuner_in_use());
  EXPECT_EQ(without->tuner, 0);
  EXPECT_EQ(with->tuner, first);
  EXPECT_NE(first, 0);
}

TEST_F(TunerTest, TheLastLineCounts) {
  use(line(kProblem, "cpu/m16") + "\n" + line(kProblem, "cpu/m32"));
  EXPECT_EQ(kernel_of(kProblem).rfind("m32,", 0), 0u);
}

TEST_F(TunerTest, BrokenAndForeignFilesAreRefusedWithTheirLine) {
  const std::string good = line(kProblem, "cpu/b16");
  const std::pair<std::string, const char*> cases[] = {
      {"not json", "column 1"},
      {"[]", "column 1"},
      {R"({"a": 1})", "nearfield_tuner"},
      {R"({"nearfield_tuner": {}})", "column"},
      {R"({"nearfield_tuner": 1, "nearfield_tuner": 1})", "twice"},
      {R"({"nearfield_tuner": 1} x)", "behind"},
      {R"({"nearfield_tuner": "1)", "does not end"},
      {R"({"nearfield_tuner": 2})", "format 2"},
      {R"({"nearfield_tuner": 1})", "problem"},
      {line("na:fwd", "cpu/b16"), "problem string"},
      {line("na:fwd:f32:b2h2kv1d32:9x40:k3x5", "cpu/b16"), "b1h2kv1d32"},
      {line(kProblem, "cpu"), "a kernel or tiles"},
      {line(kProblem, "cpu,q2"), "one number per axis"},
  };
  for (const auto& [text, part] : cases) {
    const std::string answer = use(good + text);
    EXPECT_EQ(answer.rfind("{\"error\": ", 0), 0u) << text << answer;
    EXPECT_NE(answer.find("file:2"), std::string::npos) << answer;
    EXPECT_NE(answer.find(part), std::string::npos) << answer;
  }
}

TEST_F(TunerTest, AKernelThatCannotServeIsAnErrorOfTheCall) {
  for (const std::string choice : {"cpu/no", "cpu/b16,q2x8", "cpu,q2x8,kv1x16"}) {
    use(line(kProblem, choice));
    EXPECT_THROW(kernel_of(kProblem), std::invalid_argument) << choice;
  }
  const std::string backward = "na:bwd:f32:b1h2kv1d32:9x40:k3x5";
  for (const auto& [problem, choice] : std::initializer_list<std::pair<std::string, std::string>>{
           {kProblem, "cpu,q17x1"},
           {kProblem, "cpu,q1x17"},
           {kProblem, "cpu,q99x99"},
           {kProblem, "cpu,q0x0"},
           {kProblem, "cpu,q4294967297x1"},
           {backward, "cpu,q5x4"},
           {backward, "cpu,q2x8,kv1x17"},
           {backward, "cpu/general,kv99x99"},
       }) {
    use(line(problem, choice));
    for (const std::string& list : {problem, std::regex_replace(problem, std::regex("9x40"), "5x40+9x40")}) {
      try {
        kernel_of(list);
        ADD_FAILURE() << list << " " << choice;
      } catch (const std::invalid_argument& e) {
        EXPECT_EQ(std::string(e.what()).rfind("[tuner] got file:1", 0), 0u) << e.what();
        EXPECT_NE(std::string(e.what()).find("tile"), std::string::npos) << e.what();
      }
    }
  }
  use(line("na:fwd:f64:b1h2kv1d32:9x40:k3x5", "cpu/b16"));  // float64 is for the general path
  EXPECT_THROW(kernel_of("na:fwd:f64:b1h2kv1d32:9x40:k3x5"), std::invalid_argument);
}

}  // namespace
}  // namespace nearfield
