// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The one harness: a problem string is run, forward and backward, by a backend on random data and
// compared with the oracle. Whatever can go wrong besides the numbers is looked at in the same run:
//
//   outputs are full of NaN before, and their guards and gaps untouched after
//   inputs have the same bits after as before
//   the workspace has exactly the bytes that the plan asks for, is full of NaN and misaligned
//   nothing is finite by luck: an expected -inf is -inf, a query that sees nothing gives exactly 0
#pragma once

#include <gtest/gtest.h>

#include <initializer_list>
#include <map>
#include <string>

#include "memory.h"
#include "nearfield/attention.h"
#include "softmax_oracle.h"

namespace nearfield::testing {

// Runs tasks on one thread, in a random order, each as a random worker: what no executor may depend on.
class ShuffledExecutor final : public Executor {
 public:
  ShuffledExecutor(int workers, std::uint64_t seed) : workers_(workers), rng_(seed) {}
  int workers() const override { return workers_; }
  void run(Index tasks, const std::function<void(Index, int)>& fn) override;

 private:
  int workers_;
  Rng rng_;
};

// Whether this program tests the CUDA kernels, emulated on the host (NF_TEST_EMULATED) or on a GPU
// (NF_TEST_DEVICE), and nothing else.
bool tests_cuda();
// The backends that this process tests: all of them, only `cpu` when a SIMD target is forced, or the one that
// NEARFIELD_TEST_BACKEND names.
std::vector<std::string> backends_under_test();
// make_plan() of attention.h, which also knows the emulated backend.
Choice plan_for(const Problem& problem, const PlanOptions& options = {});
// run() of attention.h on tensors of the host, wherever the backend wants them.
void execute(const Problem& problem, const Choice& choice, const Tensors& tensors, Executor& executor,
             std::byte* workspace = nullptr);
// The ways in which they can run a problem: "reference", "cpu" with the kernel that the planner chooses, and
// every other kernel of `cpu` that serves it, "cpu/b16". CUDA: none if it is one that it refuses for good.
std::vector<std::string> runs_under_test(const Problem& problem);
inline constexpr const char* kKernels[] = {"general", "b16", "b32", "m16", "m32", "s2"};

// Whether a backend, or one of its kernels (`cpu/b16`), takes the problem.
bool serves(const std::string& backend, const Problem& problem);

// What a run wrote, by role.
using Outputs = std::map<Role, Memory>;

class Case {
 public:
  // A string of either direction: both are run. Strides of the other direction's tensors are dense.
  explicit Case(const std::string& text, double spread = 1.0);

  const Problem& problem() const { return problem_; }
  Problem direction(Direction d) const;
  std::vector<std::string> runs(Direction d) const { return runs_under_test(direction(d)); }
  Memory& input(Role r) { return inputs_[static_cast<std::size_t>(r)]; }
  std::int64_t& seed() { return seed_; }  // of dropout
  const Answer& answer();                 // of the inputs at the time of the first call

  // Runs one direction on a backend, or on one of its kernels ("cpu/b16"); records a failure if anything but
  // the numbers is wrong.
  Outputs run(Direction d, const std::string& backend, Executor& executor);
  Outputs run(Direction d, const std::string& backend);
  Outputs run(Direction d, const Choice& choice, Executor& executor);
  // Whether every number is within its tolerance. Where numbers that are not finite come in, anything goes.
  ::testing::AssertionResult agrees(const Outputs& outputs, const std::string& backend);

 private:
  Problem problem_;
  std::array<Memory, kRoles> inputs_;  // of both directions; o and lse are the oracle's, rounded
  std::int64_t seed_ = 0;
  Answer answer_;
  bool solved_ = false;
};

// Both directions, in every way that there is to run them.
void expect_conforms(const std::string& text);
void expect_conforms(Case& c);
void expect_all(std::initializer_list<const char*> texts);

// Largest error over tolerance that was met, per backend and role, for the record.
std::string worst_ratios();

bool same_bits(const Outputs& a, const Outputs& b);

}  // namespace nearfield::testing
