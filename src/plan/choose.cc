// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The choice of a backend from an ordered table, and the one cache of the library.
#include <cstdio>
#include <mutex>
#include <unordered_map>

#include "plan/kernel_name.h"
#include "plan/tiles.h"
#include "plan/tuner.h"
#include "problem/message.h"
#include "runtime/environment.h"

namespace nearfield {
namespace {

constexpr std::size_t kCacheBytes = std::size_t{8} << 20;

std::string backend_names(std::span<const Backend* const> table) {
  std::string names;
  for (const Backend* b : table) names += (names.empty() ? "" : ", ") + std::string(b->name());
  return names;
}

const char* device_name(Device d) { return d == Device::kCpu ? "CPU" : "CUDA"; }

std::optional<std::string> refusal_of(const Backend& b, const Problem& p, const PlanOptions& options,
                                      Device device) {
  const std::optional<std::string> reason = b.refusal(p, options);
  if (b.device() == device) return reason;
  return std::string("it runs on ") + device_name(b.device()) + " tensors, these are on " +
         device_name(device) + (reason ? "; " + *reason : "");
}

// What is asked of a backend, as it stands behind a problem string.
std::string suffix(std::string_view backend, const PlanOptions& options, int rank) {
  std::string text = "@" + std::string(backend);
  if (!options.kernel.empty()) text += "/" + options.kernel;
  if (options.query_tile) text += ",q" + tile_text(*options.query_tile, rank);
  if (options.key_tile) text += ",kv" + tile_text(*options.key_tile, rank);
  return text;
}

void check_backend_name(std::span<const Backend* const> table, const PlanOptions& options) {
  if (options.backend.empty()) return;
  for (const Backend* b : table)
    if (b->name() == options.backend) return;
  refuse(options.op, "backend `" + options.backend + "`", "one of " + backend_names(table),
         "leave it out for the best one");
}

// What was asked for, or else by the environment, with the tuner in use.
PlanOptions resolved(PlanOptions options) {
  options.tuner = active_tuner();
  if (options.backend.empty()) {
    static const std::string forced = environment("NEARFIELD_BACKEND");
    options.backend = forced;
  }
  split_kernel(options);
  return options;
}

Choice planned(const Backend& b, const Problem& p, const PlanOptions& options) {
  Plan plan = b.plan(p, options);
  plan.problem = to_string(p);
  plan.tuner = options.tuner ? options.tuner->id() : 0;
  return {&b, std::make_shared<const Plan>(std::move(plan))};
}

Choice choose_uncached(std::span<const Backend* const> table, const Problem& p, const PlanOptions& options,
                       Device device) {
  check_backend_name(table, options);
  if (!options.backend.empty()) {
    for (const Backend* b : table) {
      if (b->name() != options.backend) continue;
      if (const auto reason = refusal_of(*b, p, options, device))
        throw Unsupported("[" + options.op + "] got backend " + options.backend +
                          ", expected one that serves " + to_string(p) + "; " + options.backend + ": " +
                          *reason);
      return planned(*b, p, options);
    }
  }
  std::string reasons;
  for (const Backend* b : table) {
    if (b->device() != device) continue;
    const auto reason = b->refusal(p, options);
    if (!reason) return planned(*b, p, options);
    reasons += (reasons.empty() ? "" : "; ") + std::string(b->name()) + ": " + *reason;
  }
  throw Unsupported("[" + options.op + "] got " + to_string(p) +
                    ", expected a problem that a backend serves; " + reasons);
}

std::string plan_text(const Plan& plan, int rank) {
  char text[96];
  std::string line = plan.kernel;
  if (!plan.query_tiles.empty()) {
    line += ", query tile " + tile_text(plan.query_tiles[0], rank) + ", key tile " +
            tile_text(plan.key_tiles[0], rank);
    if (plan.query_tiles.size() > 1)
      line += " (first of " + std::to_string(plan.query_tiles.size()) + " sequences)";
    std::snprintf(text, sizeof text, ", waste %.2f", plan.waste);
    line += text;
  }
  std::snprintf(text, sizeof text, ", workspace %zu + %zu bytes per worker", plan.shared_bytes,
                plan.private_bytes);
  line += text;
  return plan.note.empty() ? line : line + " (" + plan.note + ")";
}

// "b16 1.2 ms, general 5.3 ms": what the kernels of a plan would take.
std::string prediction_text(const Plan& plan) {
  std::string line;
  for (const Candidate& c : plan.candidates) {
    char text[48];
    const double ms = c.seconds * 1e3;
    std::snprintf(text, sizeof text, ms < 0.1 ? " %.2g us" : " %.3g ms", ms < 0.1 ? ms * 1e3 : ms);
    line += (line.empty() ? "" : ", ") + c.kernel + text;
  }
  return line;
}

}  // namespace

Choice choose(std::span<const Backend* const> table, const Problem& p, const PlanOptions& asked,
              Device device) {
  const PlanOptions options = resolved(asked);
  static std::mutex mutex;
  static std::unordered_map<std::string, Choice> cache;
  const std::string problem = to_string(p), asked_for = suffix(options.backend, options, p.rank);
  std::string key = problem + asked_for + (device == Device::kCpu ? "" : "#cuda");
  if (options.tuner) key += "#" + std::to_string(options.tuner->id());
  {
    const std::lock_guard lock(mutex);
    const auto found = cache.find(key);
    if (found != cache.end()) return found->second;
  }
  const Choice choice = choose_uncached(table, p, options, device);
  static const bool log = verbose("dispatch");
  if (log) {  // the call can be pasted into explain
    const bool any = asked_for != "@";
    log_row("dispatch", {any ? problem + suffix(choice.backend->name(), options, p.rank) : problem,
                         choice.backend->name(), choice.plan->kernel});
  }
  const std::lock_guard lock(mutex);
  static std::size_t cached_bytes = 0;
  std::size_t bytes = 512 + 2 * key.size() + 2 * sizeof(TileShape) * choice.plan->query_tiles.size();
  for (const Candidate& c : choice.plan->candidates) bytes += sizeof c + sizeof(double) * c.counts.size();
  if (cached_bytes + bytes > kCacheBytes) {  // a plan is quickly made again
    cache.clear();
    cached_bytes = 0;
  }
  cached_bytes += bytes;
  cache.emplace(key, choice);
  return choice;
}

std::vector<Answer> answers(std::span<const Backend* const> table, const Problem& p, const PlanOptions& asked,
                            Device device) {
  const PlanOptions options = resolved(asked);
  check_backend_name(table, options);
  std::vector<Answer> all;
  bool chosen = false;
  for (const Backend* b : table) {
    if (!options.backend.empty() && options.backend != b->name()) continue;
    Answer answer{b, refusal_of(*b, p, options, device), std::nullopt, false};
    if (!answer.refusal) {
      answer.plan = b->plan(p, options);
      answer.chosen = !chosen;
      chosen = true;
    }
    all.push_back(std::move(answer));
  }
  return all;
}

std::string explain(std::span<const Backend* const> table, const Problem& p, const PlanOptions& options,
                    Device device) {
  char text[160];
  std::snprintf(text, sizeof text, "\n  %.4g visible pairs per head, %.4g useful FLOP, 1 / %.4g of dense\n",
                visible_pairs(p), useful_flops(p), sparsity(p));
  std::string all = to_string(p) + text;
  for (const Answer& a : answers(table, p, options, device)) {
    const std::string_view name = a.backend->name();
    all += (a.chosen ? "* " : "  ") + std::string(name) +
           std::string(max_of(0, 10 - static_cast<Index>(name.size())), ' ') + " ";
    if (a.refusal) {
      all += "no: " + *a.refusal + "\n";
      continue;
    }
    all += plan_text(*a.plan, p.rank) + "\n";
    const std::string times = prediction_text(*a.plan);
    if (!times.empty()) all += "             predicted on one thread: " + times + "\n";
  }
  return all;
}

Call parse_call(std::string_view text) {
  const std::size_t at = text.find('@');
  Call call;
  call.problem = parse_problem(text.substr(0, at));
  if (at == std::string_view::npos) return call;
  std::string_view rest = text.substr(at + 1);
  bool first = true;
  while (true) {
    const std::size_t comma = rest.find(',');
    const std::string_view part = rest.substr(0, comma);
    if (first) {
      call.options.backend = part;
    } else {
      const bool keys = part.starts_with("kv");
      if (!keys && !part.starts_with("q"))
        refuse("problem string", "`" + std::string(part) + "`", "qTILE or kvTILE behind the backend");
      std::optional<TileShape>& tile = keys ? call.options.key_tile : call.options.query_tile;
      if (tile) refuse("problem string", "`" + std::string(part) + "`", "each tile once");
      TileShape shape{1, 1, 1};
      std::string_view numbers = part.substr(keys ? 2 : 1);
      for (int a = kMaxRank - call.problem.rank; a < kMaxRank; ++a) {
        const std::size_t x = numbers.find('x');
        const std::string number(numbers.substr(0, x));
        if (number.empty() || number.size() > 9 ||
            number.find_first_not_of("0123456789") != std::string::npos ||
            (x == std::string_view::npos) != (a == kMaxRank - 1))
          refuse("problem string", "`" + std::string(part) + "`", "one number per axis, such as q4x4");
        shape[static_cast<std::size_t>(a)] = std::stoll(number);
        numbers.remove_prefix(x == std::string_view::npos ? numbers.size() : x + 1);
      }
      tile = shape;
    }
    first = false;
    if (comma == std::string_view::npos) return call;
    rest.remove_prefix(comma + 1);
  }
}

}  // namespace nearfield
