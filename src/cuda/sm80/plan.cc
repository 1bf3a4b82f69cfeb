// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/sm80/plan.h"

#include <algorithm>
#include <map>

#include "cuda/sm80/cut.h"
#include "plan/bf16_note.h"
#include "plan/tiles.h"
#include "problem/message.h"

namespace nearfield::sm80 {
namespace {

Index volume(const TileShape& t) { return t[0] * t[1] * t[2]; }

const Kernel* find(std::span<const Kernel> kernels, Task task, const Problem& p) {
  const Index depth = max_of(p.head_dim, p.value_dim);
  for (const Kernel& k : kernels)  // the smallest depth comes first
    if (k.task == task && k.dtype == p.dtype && k.depth >= depth) return &k;
  return nullptr;
}

std::optional<std::string> tile_refusal(const Kernel& first, const Problem& p, const PlanOptions& options) {
  const auto why = [&](const char* what, const std::optional<TileShape>& t,
                       Index most) -> std::optional<std::string> {
    if (!t) return std::nullopt;
    const auto [x, y, z] = *t;
    const bool good = x >= 1 && y >= 1 && z >= 1 && x <= most && y <= most && z <= most && volume(*t) <= most;
    if (good) return std::nullopt;
    return what + (" tile " + tile_text(*t, p.rank)) + " is none it can use: any box of at most " +
           std::to_string(most) + " tokens";
  };
  if (const auto reason = why("query", options.query_tile, first.rows)) return reason;
  return why("key", options.key_tile, first.columns);
}

}  // namespace

Chosen choose_kernels(std::span<const Kernel> kernels, const Problem& p) {
  Chosen c;
  if (p.direction == Direction::kForward) {
    c.forward = find(kernels, Task::kForward, p);
    return c;
  }
  c.query_gradient = find(kernels, Task::kQueryGradient, p);
  c.key_gradient = find(kernels, Task::kKeyGradient, p);
  c.value_gradient = find(kernels, Task::kValueGradient, p);
  // Where one kernel holds both sums, it is the smaller one.
  if (c.value_gradient && c.key_gradient && c.value_gradient->depth != c.key_gradient->depth)
    c.value_gradient = nullptr;
  if (p.bias) c.bias_gradient = find(kernels, Task::kBiasGradient, p);
  return c;
}

std::optional<std::string> refusal(std::span<const Kernel> kernels, const Problem& p,
                                   const PlanOptions& options) {
  if (p.dtype == DType::kFloat64)
    return "tensor cores have no float64 that is of use; use float32, or the CPU";
  if (p.head_dim > 256 || p.value_dim > 256) return "head dims above 256 are not served";
  if (!options.kernel.empty()) return "kernel " + options.kernel + ": there are no kernels to choose from";
  const Chosen k = choose_kernels(kernels, p);
  const bool backward = p.direction == Direction::kBackward;
  if (backward ? !k.query_gradient || !k.key_gradient : !k.forward)
    return "this build has no kernel for " + std::string(name_of(p.dtype));
  return tile_refusal(backward ? *k.query_gradient : *k.forward, p, options);
}

void plan(std::span<const Kernel> kernels, const Problem& p, const SequenceOptions& each, Plan& plan) {
  auto own = std::make_shared<OwnPlan>();
  const Chosen& k = own->kernels = choose_kernels(kernels, p);
  const bool backward = p.direction == Direction::kBackward;
  const Kernel& first = backward ? *k.query_gradient : *k.forward;
  const double pairs_of_warp = static_cast<double>(first.rows) / (static_cast<double>(first.threads) / 32) *
                               static_cast<double>(first.columns);
  double computed = 0, useful = 0;
  own->tokens = p.tail_query;
  if (p.offsets) {  // dense tiles of full size: of the lengths nothing is known
    own->of_queries = {{{1, 1, first.rows}, {1, 1, first.columns}}};
    if (backward) own->of_keys = {{{1, 1, k.key_gradient->columns}, {1, 1, k.key_gradient->rows}}};
    const PlanOptions& options = each.of(0);
    if (options.query_tile) own->of_queries[0].query = *options.query_tile;
    if (options.key_tile) own->of_queries[0].key = *options.key_tile;
    plan.query_tiles = {own->of_queries[0].query};
    plan.key_tiles = {own->of_queries[0].key};
    own->tokens = p.offsets->total_query;
  }
  std::map<std::vector<Index>, std::pair<Cut, Cut>> known;  // of queries and of keys
  for (Index i = 0; i < sequences(p); ++i) {
    const Grid grid = grid_of(p, i);
    const PlanOptions& options = each.of(i);
    if (!each.where(i).empty() && !options.kernel.empty())
      refuse("tuner", each.where(i) + " with kernel " + options.kernel, "tiles",
             "cuda_sm80 has no kernels to choose from");
    const auto [at, fresh] = known.try_emplace(numbers_of(grid));
    if (fresh) {
      at->second.first = best_cut(grid, first, true, p.heads / p.kv_heads, options);
      if (backward) at->second.second = best_cut(grid, *k.key_gradient, false, 1, options);
    }
    const Cut& cut = at->second.first;
    own->of_queries.push_back(cut);
    if (backward) own->of_keys.push_back(at->second.second);
    plan.query_tiles.push_back(cut.query);
    plan.key_tiles.push_back(cut.key);
    computed += cut.computed * pairs_of_warp;
    useful += pairs(grid);
    own->tokens += query_tokens(p, i);
  }
  if (useful > 0) plan.waste = std::max(computed / useful, 1.0);  // of long ranges an estimate
  const std::string dtype(name_of(p.dtype));
  plan.kernel = std::string(backward ? "backward" : "forward") + " d" + std::to_string(first.depth) + ", " +
                std::to_string(first.rows) + "x" + std::to_string(first.columns);
  // Blocks of an SM of compute capability 8.0, as registers and shared memory allow.
  const int blocks =
      std::max(1, std::min(65536 / (first.threads * 256), (164 << 10) / (first.shared_bytes + 1024)));
  plan.note = std::to_string(first.shared_bytes) + " bytes of shared memory, " +
              std::to_string(blocks * first.threads / 32) + " or more warps at a time per SM";
  if (!own->of_queries.empty() && own->of_queries[0].pack > 1)
    plan.note += "; " + std::to_string(own->of_queries[0].pack) + " heads share a tile of queries";
  if (backward && !own->of_keys.empty())
    plan.note += "; dK and dV: key tile " + tile_text(own->of_keys[0].key, p.rank) + ", query tile " +
                 tile_text(own->of_keys[0].query, p.rank);
  if (each.tuned()) plan.note += "; chosen by the tuner file";
  if (p.dtype != DType::kFloat32) plan.note += "; weights are rounded to " + dtype + " before products";
  if (p.precision == Precision::kTF32) plan.note += "; TF32 is allowed, and not used";
  const std::string bf16 = bf16_note(
      p, p.dtype == DType::kBFloat16 ? std::nullopt : std::optional<std::string>("the inputs are not bf16"));
  if (!bf16.empty()) plan.note += "; " + bf16;
  if (backward) plan.shared_bytes += static_cast<std::size_t>(own->tokens * p.batch * p.heads) * 8 + 32;
  const Index items = p.offsets ? p.offsets->sequences : sequences(p) > 1 ? sequences(p) : 0;
  if (items > 0) plan.shared_bytes += static_cast<std::size_t>(items) * sizeof(Item) * 2 + 32;
  plan.own = std::move(own);
}

}  // namespace nearfield::sm80
