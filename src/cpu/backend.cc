// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The CPU backend: which of its kernels runs a problem.
#include "cpu/choice.h"
#include "cpu/cpu.h"
#include "cpu/general.h"
#include "cpu/kernel.h"
#include "cpu/machine.h"
#include "cpu/tuned.h"
#include "plan/bf16_note.h"
#include "plan/tuner.h"
#include "plan/unserved.h"

namespace nearfield {
namespace {

using cpu::kLanes;

Index volume(const TileShape& t) { return t[0] * t[1] * t[2]; }

// Why the plan's kernel multiplies in float32 or float64.
std::optional<std::string> why_not_bf16(const Problem& p, const Plan& plan) {
  if (p.dtype != DType::kBFloat16) return "the inputs are not bf16";
  if (p.direction == Direction::kBackward) return "gradients are multiplied in float32";
  if (!plan.own) return "the general path multiplies in float32";
  if (const auto reason = cpu::bf16_refusal(p)) return reason;
  if (plan.kernel.find("bf16") == std::string::npos)
    return plan.kernel.substr(0, plan.kernel.rfind(',')) + " multiplies in float32";
  return std::nullopt;
}

class Cpu final : public Backend {
 public:
  std::string_view name() const override { return "cpu"; }
  Device device() const override { return Device::kCpu; }
  std::string device_class() const override { return cpu::name_of(cpu::machine()); }
  std::vector<std::string> targets() const override { return cpu::targets(); }

  std::optional<std::string> refusal(const Problem& p, const PlanOptions& options) const override {
    const auto bad = [](const TileShape& t, Index most) {
      return t[0] < 1 || t[1] < 1 || t[2] < 1 || t[0] > most || t[1] > most || t[2] > most ||
             volume(t) > most;
    };
    const std::string lanes = "any box of at most " + std::to_string(kLanes) + " tokens";
    if (options.query_tile && bad(*options.query_tile, kLanes))
      return "query tile " + tile_text(*options.query_tile, p.rank) + " is none it can use: " + lanes;
    if (options.key_tile && p.direction == Direction::kBackward && bad(*options.key_tile, kLanes))
      return "key tile " + tile_text(*options.key_tile, p.rank) + " is none it can use backward: " + lanes;
    if (options.key_tile && p.direction == Direction::kForward &&
        (bad(*options.key_tile, cpu::kMaxRows) || volume(*options.key_tile) != (*options.key_tile)[2]))
      return "key tile " + tile_text(*options.key_tile, p.rank) +
             " is none it can use forward: runs along the last axis of at most " +
             std::to_string(cpu::kMaxRows) + " tokens";
    if (!options.kernel.empty() && options.kernel != "general") {
      if (const auto reason = cpu::tuned_refusal(p, options))
        return "kernel " + options.kernel + ": " + *reason;
    }
    return unserved(p);
  }

  Plan plan(const Problem& p, const PlanOptions& options) const override {
    Plan plan;
    plan.backend = name();
    Plan general;
    const SequenceOptions each(options, p, *this);
    cpu::plan_general(p, each, general);
    const auto reason = cpu::tuned_refusal(p, options);
    const bool forced = options.kernel == "general";
    cpu::KernelChoice choice =
        cpu::choose_kernels(p, general, each, !reason, !reason && cpu::multiplies_bf16(p));
    if (choice.all_general()) {
      plan = std::move(general);
      plan.backend = name();
      if (reason) plan.note = *reason;
      else if (!forced && !each.tuned()) plan.note = "predicted to be faster than the tuned kernels";
    } else {
      cpu::plan_tuned(p, choice, std::move(general), plan);
    }
    plan.kernel = choice.kernel + ", " + targets()[0];
    plan.seconds = choice.seconds;
    plan.candidates = std::move(choice.candidates);
    if (each.tuned()) plan.note += (plan.note.empty() ? "" : "; ") + std::string("chosen by the tuner file");
    const std::string bf16 = bf16_note(p, why_not_bf16(p, plan));
    if (!bf16.empty()) plan.note += (plan.note.empty() ? "" : "; ") + bf16;
    return plan;
  }

  void run(const Problem& p, const Plan& plan, const Tensors& tensors, Executor& executor,
           std::byte* workspace) const override {
    if (plan.own) cpu::run_tuned(p, plan, tensors, executor, workspace);
    else cpu::run_general(p, plan, tensors, executor, workspace);
  }
};

}  // namespace

const Backend& cpu_backend() {
  static const Cpu backend;
  return backend;
}

}  // namespace nearfield
