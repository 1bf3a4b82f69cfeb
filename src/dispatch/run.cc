// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// From a problem and tensors to a backend: the last checks before memory is written.
#include <chrono>
#include <cstdio>
#include <memory>

#include "nearfield/attention.h"
#include "problem/message.h"
#include "runtime/environment.h"
#include "runtime/trace.h"

namespace nearfield {
namespace {

bool is_output(Role role, Direction direction) {
  return direction == Direction::kForward ? role == Role::kOut || role == Role::kLse
                                          : role >= Role::kGradQuery;
}

bool is_optional(Role role, Direction direction) {
  return (role == Role::kLse && direction == Direction::kForward);
}

void check_view(const Problem& p, Role role, const TensorView& t) {
  const std::vector<Index> shape = shape_of(p, role);
  const std::string name = "tensor `" + std::string(name_of(role)) + "`";
  if (shape.empty() || (!t.present() && is_optional(role, p.direction))) return;
  const std::vector<Index> size(t.size.begin(), t.size.begin() + t.rank);
  if (size != shape)
    refuse("run", t.present() ? name + " of shape " + shape_text(size) : "no " + name,
           "shape " + shape_text(shape), to_string(p));
  if (t.dtype != dtype_of(p, role))
    refuse("run", name + " of dtype " + std::string(name_of(t.dtype)),
           std::string(name_of(dtype_of(p, role))));
  if (t.elements() > 0 && t.data == nullptr)
    refuse("run", name + " without memory", "a pointer to its first element");
  if (!is_output(role, p.direction) || t.elements() == 0) return;
  for (int i = 0; i < t.rank; ++i)
    if (t.size[static_cast<std::size_t>(i)] > 1 && t.stride[static_cast<std::size_t>(i)] == 0)
      refuse("run", name + " with stride 0", "outputs whose elements have memory of their own");
}

// With NEARFIELD_VERBOSE=exec.
void run_and_log(const Problem& p, const Choice& choice, const Tensors& tensors, Executor& executor,
                 std::byte* workspace) {
  const auto begin = std::chrono::steady_clock::now();
  choice.backend->run(p, *choice.plan, tensors, executor, workspace);
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
  char ms[32];
  std::snprintf(ms, sizeof ms, "%.4f", took.count());
  log_row("exec", {choice.plan->problem, choice.backend->name(), choice.plan->kernel,
                   std::to_string(executor.workers()), ms});
}

}  // namespace

std::string_view version() { return NF_VERSION; }

Choice make_plan(const Problem& problem, const PlanOptions& options, Device device) {
  check(problem, options.op);
  return choose(backends(), problem, options, device);
}

std::string explain(std::string_view text, Device device) {
  const Call call = parse_call(text);
  return explain(backends(), call.problem, call.options, device);
}

void run(const Problem& problem, const Choice& choice, const Tensors& tensors, Executor& executor,
         std::byte* workspace) {
  if (!choice.backend || !choice.plan) refuse("run", "an empty plan", "one from make_plan()");
  if (choice.plan->problem != to_string(problem))
    refuse("run", "a plan made for " + choice.plan->problem, "one for " + to_string(problem),
           "call make_plan() for it");
  Tensors used = tensors;
  for (int r = 0; r < kRoles; ++r) {
    const Role role = static_cast<Role>(r);
    check_view(problem, role, used[role]);
    if (shape_of(problem, role).empty()) used[role] = TensorView();  // not a tensor of this problem
  }
  if (problem.dropout > 0 && !tensors.seed)
    refuse("run", "dropout without a seed", "a pointer to one number");
  if (problem.offsets && (!tensors.query_offsets || !tensors.key_offsets))
    refuse("run", "no offsets", "pointers to those of queries and of keys", to_string(problem));
  bool anything = false;
  for (int r = 0; r < kRoles; ++r) {
    const TensorView& t = used[static_cast<Role>(r)];
    anything =
        anything || (is_output(static_cast<Role>(r), problem.direction) && t.present() && t.elements() > 0);
  }
  if (!anything) return;
  std::unique_ptr<std::byte[]> own;
  const std::size_t bytes = choice.plan->workspace_bytes(executor.workers());
  if (!workspace && bytes > 0) {
    if (choice.backend->device() == Device::kCuda)
      refuse("run", "no workspace", std::to_string(bytes) + " bytes of memory of the device");
    own.reset(new std::byte[bytes]);
    workspace = own.get();
  }
  if (tracing()) trace(choice.plan->problem);
  static const bool log = verbose("exec");
  if (log) run_and_log(problem, choice, used, executor, workspace);
  else choice.backend->run(problem, *choice.plan, used, executor, workspace);
}

}  // namespace nearfield
