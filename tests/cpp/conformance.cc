// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "conformance.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <sstream>

#ifdef NF_TEST_EMULATED
#include "cuda/sm80/emulated.h"
#endif
#ifdef NF_TEST_DEVICE
#include "device.h"
#endif

namespace nearfield::testing {
namespace {

constexpr Role kForwardInputs[] = {Role::kQuery,           Role::kKey, Role::kValue, Role::kAdditionalKey,
                                   Role::kAdditionalValue, Role::kBias};
constexpr Role kBackwardInputs[] = {Role::kQuery,           Role::kKey,    Role::kValue, Role::kAdditionalKey,
                                    Role::kAdditionalValue, Role::kBias,   Role::kOut,   Role::kLse,
                                    Role::kGradOut,         Role::kGradLse};
constexpr Role kForwardOutputs[] = {Role::kOut, Role::kLse};
constexpr Role kBackwardOutputs[] = {Role::kGradQuery,           Role::kGradKey,
                                     Role::kGradValue,           Role::kGradAdditionalKey,
                                     Role::kGradAdditionalValue, Role::kGradBias};

std::size_t index(Role r) { return static_cast<std::size_t>(r); }
DType dtype_for(const Problem& p, Role r) {
  const bool lse = r == Role::kLse || r == Role::kGradLse;
  return lse && p.dtype != DType::kFloat64 ? DType::kFloat32 : p.dtype;
}

std::map<std::string, double>& ratios() {
  static std::map<std::string, double> map;
  return map;
}

}  // namespace

void ShuffledExecutor::run(Index tasks, const std::function<void(Index, int)>& fn) {
  std::vector<Index> order(static_cast<std::size_t>(tasks));
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<Index>(i);
  for (std::size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[static_cast<std::size_t>(rng_.in(0, static_cast<Index>(i) - 1))]);
  for (const Index task : order) fn(task, static_cast<int>(rng_.in(0, workers_ - 1)));
}

bool tests_cuda() {
#if defined(NF_TEST_EMULATED) || defined(NF_TEST_DEVICE)
  return true;
#else
  return false;
#endif
}

Choice plan_for(const Problem& problem, const PlanOptions& options) {
#ifdef NF_TEST_EMULATED
  static const std::array<const Backend*, 1> table = {&emulated_sm80_backend()};
  check(problem, options.op);
  return choose(table, problem, options, Device::kCpu);
#elif defined(NF_TEST_DEVICE)
  return make_plan(problem, options, Device::kCuda);
#else
  return make_plan(problem, options);
#endif
}

void execute(const Problem& problem, const Choice& choice, const Tensors& tensors,
             [[maybe_unused]] Executor& executor, std::byte* workspace) {
#ifdef NF_TEST_DEVICE
  run_on_device(problem, choice, tensors, workspace);
#else
  run(problem, choice, tensors, executor, workspace);
#endif
}

std::vector<std::string> backends_under_test() {
  if (tests_cuda()) return {"cuda_sm80"};
  if (const char* only = std::getenv("NEARFIELD_TEST_BACKEND")) return {only};
  if (std::getenv("NEARFIELD_CPU_TARGET")) return {"cpu"};
  return {"reference", "cpu"};
}

bool serves(const std::string& backend, const Problem& problem) {
  PlanOptions options;
  options.backend = backend;
  try {
    plan_for(problem, options);
    return true;
  } catch (const Unsupported&) { return false; }
}

std::vector<std::string> runs_under_test(const Problem& p) {
  std::vector<std::string> runs = backends_under_test();
  if (tests_cuda()) {
    if (p.dtype == DType::kFloat64 || std::max(p.head_dim, p.value_dim) > 256) runs.clear();
    return runs;
  }
  if (runs.back() != "cpu") return runs;
  PlanOptions options;
  options.backend = "cpu";
  const std::string chosen = make_plan(p, options).plan->kernel;
  for (const std::string kernel : kKernels) {
    if (!p.varlen && chosen.rfind(kernel + ",", 0) == 0) continue;  // of a list, each sequence has its own
    if (serves("cpu/" + kernel, p)) runs.push_back("cpu/" + kernel);
  }
  return runs;
}

Case::Case(const std::string& text, double spread) : problem_(parse_problem(text)) {
  // The same data for both directions, whatever the string says about either.
  Rng rng(hash_of(text));
  const Problem backward = direction(Direction::kBackward);
  for (const Role r : kBackwardInputs) {
    const std::vector<Index> shape = shape_for(backward, r);
    if (shape.empty()) continue;
    inputs_[index(r)] = Memory(dtype_for(problem_, r), shape, problem_.strides[index(r)]);
    inputs_[index(r)].fill_normal(rng, r == Role::kQuery ? spread : 1.0);
  }
  seed_ = static_cast<std::int64_t>(rng.next());  // either sign, both words
}

Problem Case::direction(Direction d) const {
  Problem p = problem_;
  p.direction = d;
  for (int r = 0; r < kRoles; ++r)
    if (shape_for(p, static_cast<Role>(r)).empty()) p.strides[static_cast<std::size_t>(r)].clear();
  return p;
}

const Answer& Case::answer() {
  if (!solved_) {
    RoleValues values;
    for (const Role r : kBackwardInputs)
      if (input(r).present()) values[index(r)] = input(r).values();
    answer_ = solve(problem_, values, true, seed_, tests_cuda());
    for (const Role r : {Role::kOut, Role::kLse})
      for (std::size_t i = 0; i < answer_.exact[index(r)].size(); ++i)
        input(r).set(static_cast<Index>(i), answer_.exact[index(r)][i]);
    solved_ = true;
  }
  return answer_;
}

Outputs Case::run(Direction d, const std::string& backend, Executor& executor) {
  PlanOptions options;
  options.backend = backend;
  const Choice choice = plan_for(direction(d), options);
  EXPECT_EQ(choice.backend->name(), backend.substr(0, backend.find('/')));  // it may name a kernel
  return run(d, choice, executor);
}

Outputs Case::run(Direction d, const Choice& choice, Executor& executor) {
  answer();  // the backward pass reads the oracle's O and lse
  const Problem p = direction(d);
  const bool forward = d == Direction::kForward;
  Tensors tensors;
  std::vector<Role> reads(std::begin(kForwardInputs), std::end(kForwardInputs));
  if (!forward) reads.assign(std::begin(kBackwardInputs), std::end(kBackwardInputs));
  std::map<Role, std::vector<std::byte>> before;
  for (const Role r : reads)
    if (!shape_for(p, r).empty()) {
      tensors[r] = input(r).view();
      before[r] = input(r).bytes();
    }
  if (p.dropout > 0) tensors.seed = &seed_;
  Outputs outputs;
  std::vector<Role> writes(std::begin(kForwardOutputs), std::end(kForwardOutputs));
  if (!forward) writes.assign(std::begin(kBackwardOutputs), std::end(kBackwardOutputs));
  for (const Role r : writes) {
    const std::vector<Index> shape = shape_for(p, r);
    if (shape.empty()) continue;
    outputs[r] = Memory(dtype_for(p, r), shape, p.strides[index(r)], true);
    tensors[r] = outputs[r].view();
  }

  const std::string call = to_string(p) + "@" + choice.plan->backend + ", " + choice.plan->kernel;
  const std::size_t bytes = choice.plan->workspace_bytes(executor.workers());
  std::vector<std::byte> workspace(bytes + 1 + 64, std::byte{0xff});
  for (std::size_t i = 0; i < 64; ++i) workspace[1 + bytes + i] = std::byte{0x5a};
  execute(p, choice, tensors, executor, workspace.data() + 1);
  for (std::size_t i = 0; i < 64; ++i)
    if (workspace[1 + bytes + i] != std::byte{0x5a}) {
      ADD_FAILURE() << "writes behind its workspace of " << bytes << " bytes: " << call;
      break;
    }
  for (const auto& [r, old] : before)
    EXPECT_EQ(old, input(r).bytes()) << "input " << name_of(r) << " was written: " << call;
  for (const auto& [r, memory] : outputs)
    EXPECT_TRUE(memory.guards_intact()) << name_of(r) << " written outside: " << call;
  return outputs;
}

Outputs Case::run(Direction d, const std::string& backend) {
  SerialExecutor serial;
  return run(d, backend, serial);
}

::testing::AssertionResult Case::agrees(const Outputs& outputs, const std::string& backend) {
  for (const auto& [r, memory] : outputs) {
    const std::vector<double>&exact = answer().exact[index(r)], &tolerance = answer().tolerance[index(r)];
    if (exact.size() != static_cast<std::size_t>(memory.elements()))
      return ::testing::AssertionFailure()
             << name_of(r) << " has " << memory.elements() << " elements, the oracle's " << exact.size();
    double& worst =
        ratios()[backend + " " + std::string(name_of(problem_.dtype)) + " " + std::string(name_of(r))];
    // Not where numbers that are not finite have part in it.
    const auto comparable = [&](std::size_t i) {
      return !std::isnan(exact[i]) && std::isfinite(tolerance[i]);
    };
    const std::vector<double> values = memory.values();
    for (std::size_t i = 0; i < exact.size(); ++i) {
      const double got = values[i];
      if (!comparable(i) || got == exact[i]) continue;
      const double error = std::abs(got - exact[i]);
      if (std::isfinite(exact[i]) && error <= tolerance[i]) {
        worst = std::max(worst, error / tolerance[i]);
        continue;
      }
      std::size_t bad = 0;
      for (std::size_t j = 0; j < exact.size(); ++j) {
        const double x = values[j];
        bad += comparable(j) && x != exact[j] && !(std::abs(x - exact[j]) <= tolerance[j]);
      }
      std::ostringstream where;
      Index rest = static_cast<Index>(i);
      for (std::size_t a = memory.size().size(); a-- > 0; rest /= memory.size()[a])
        where << (a + 1 == memory.size().size() ? "" : ",") << rest % memory.size()[a];
      return ::testing::AssertionFailure()
             << to_string(problem_) << "@" << backend << ": " << name_of(r) << " at (last axis first) "
             << where.str() << " is " << got << ", exactly " << exact[i] << ", error " << error
             << ", tolerance " << tolerance[i] << "; " << bad << " of " << exact.size() << " are wrong";
    }
  }
  return ::testing::AssertionSuccess();
}

void expect_conforms(Case& c) {
  for (const Direction d : {Direction::kForward, Direction::kBackward})
    for (const std::string& backend : c.runs(d)) {
      try {
        ShuffledExecutor executor(3, hash_of(backend));
        EXPECT_TRUE(c.agrees(c.run(d, backend, executor), backend));
      } catch (const std::exception& e) {
        ADD_FAILURE() << to_string(c.direction(d)) << "@" << backend << " throws " << e.what();
      }
    }
}

void expect_conforms(const std::string& text) {
  Case c(text);
  expect_conforms(c);
}

void expect_all(std::initializer_list<const char*> texts) {
  for (const char* text : texts) expect_conforms(text);
}

std::string worst_ratios() {
  std::ostringstream text;
  text.precision(2);
  for (const auto& [name, ratio] : ratios()) text << name << " " << std::fixed << ratio << "\n";
  return text.str();
}

bool same_bits(const Outputs& a, const Outputs& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [r, memory] : a)
    if (!b.count(r) || b.at(r).bytes() != memory.bytes()) return false;
  return true;
}

}  // namespace nearfield::testing
