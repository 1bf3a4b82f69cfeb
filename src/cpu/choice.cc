// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "cpu/choice.h"

#include <algorithm>
#include <map>

#include "cpu/cost.h"
#include "cpu/stencil.h"
#include "plan/tiles.h"
#include "problem/message.h"

namespace nearfield::cpu {
namespace {

constexpr std::size_t kKernels = std::size(kKinds) + 1;  // the last one is general
const char* kernel_name(std::size_t k) { return k < std::size(kKinds) ? kKinds[k].name : "general"; }

// As the constants know it.
std::string full_name(std::size_t k, bool bf16) {
  const bool in_bf16 = bf16 && k < std::size(kKinds) && !kKinds[k].stencil;
  return std::string(kernel_name(k)) + (in_bf16 ? " bf16" : "");
}

// What every kernel makes of one sequence.
struct Offers {
  std::optional<Cut> cut[kKernels];
  Counts counts[kKernels];
  double bytes;  // of its tensors
  bool serves[kKernels];
  std::size_t best;  // alone, in a batch of one
};

Offers offers_of(const Problem& p, const Grid& grid, const TileShape& query_tile, const TileShape& key_tile,
                 const std::string& asked, bool tuned, bool bf16) {
  const Machine m = machine();
  Offers o;
  o.best = kKernels - 1;
  o.bytes = tensor_bytes(p, grid);
  double least = -1;
  for (std::size_t k = kKernels; k-- > 0;) {  // of equals the first
    const bool general = k + 1 == kKernels;
    if (!general && tuned && !(kKinds[k].stencil && stencil_refusal(p, grid)))
      o.cut[k] = cut_sequence(p, grid, kKinds[k], bf16);
    o.serves[k] = general || o.cut[k];
    if (!o.serves[k]) continue;
    o.counts[k] =
        general ? general_counts(p, grid, query_tile, key_tile, m) : counts_of(p, grid, *o.cut[k], m);
    if (!asked.empty() && asked != kernel_name(k)) continue;
    const double seconds = seconds_of(in_memory(p, o.counts[k], o.bytes), full_name(k, bf16), p.direction, m);
    if (least >= 0 && seconds > least) continue;
    least = seconds;
    o.best = k;
  }
  return o;
}

// The kernel that is asked of a sequence; tiles are the general path's.
std::string asked_of(const SequenceOptions& each, Index i) {
  const PlanOptions& options = each.of(i);
  const bool tiles = options.query_tile || options.key_tile;
  if (tiles && !each.where(i).empty() && !options.kernel.empty() && options.kernel != "general")
    refuse("tuner", each.where(i) + " with tiles for kernel " + options.kernel,
           "them for `cpu/general` only");
  return options.kernel.empty() && tiles ? "general" : options.kernel;
}

// A call of one kernel for some sequences with `batch` entries each.
struct Total {
  Counts counts;
  Index sequences = 0;
  void add(const Counts& of_one, Index batch) {
    for (std::size_t i = 0; i < kCounts; ++i) counts.of[i] += of_one.of[i] * static_cast<double>(batch);
    counts[Count::kCall] = 1;
    ++sequences;
  }
};

}  // namespace

bool KernelChoice::all_general() const {
  return std::none_of(cuts.begin(), cuts.end(), [](const auto& cut) { return cut.has_value(); });
}

KernelChoice choose_kernels(const Problem& p, const Plan& general, const SequenceOptions& each, bool tuned,
                            bool bf16) {
  KernelChoice choice;
  Total all[kKernels], chosen[kKernels];
  std::map<std::vector<Index>, Offers> known;  // by grid: all else is common
  const Index list = sequences(p);
  double bytes = 0;
  for (Index i = 0; i < list; ++i) {
    const Grid grid = grid_of(p, i);
    std::vector<Index> key = numbers_of(grid);
    auto at = known.find(key);
    const std::string asked = asked_of(each, i);
    if (at == known.end())
      at = known
               .emplace(key,
                        offers_of(p, grid, general.query_tile(i), general.key_tile(i), asked, tuned, bf16))
               .first;
    const Offers& o = at->second;
    if (!each.where(i).empty() && asked != kernel_name(o.best))
      refuse("tuner", each.where(i) + " with kernel " + asked, "one that serves " + tuner_problem(p, i),
             "remove the line, or optimise anew");
    bytes += o.bytes * static_cast<double>(p.batch);
    for (std::size_t k = 0; k < kKernels; ++k)
      if (o.serves[k]) all[k].add(o.counts[k], p.batch);
    chosen[o.best].add(o.counts[o.best], p.batch);
    choice.cuts.push_back(o.cut[o.best]);
  }
  for (std::size_t k = 0; k < kKernels; ++k) {
    const std::string name = full_name(k, bf16);
    if (chosen[k].sequences > 0) {
      choice.seconds += seconds_of(in_memory(p, chosen[k].counts, bytes), name, p.direction, machine());
      choice.kernel += (choice.kernel.empty() ? "" : ", ") + name;
      if (chosen[k].sequences < list) choice.kernel += " (" + std::to_string(chosen[k].sequences) + ")";
    }
    if (all[k].sequences < list || list == 0) continue;
    Candidate c;
    c.kernel = name;
    const Counts counts = in_memory(p, all[k].counts, bytes);
    c.counts.assign(counts.of.begin(), counts.of.end());
    c.seconds = seconds_of(counts, name, p.direction, machine());
    choice.candidates.push_back(c);
  }
  if (list == 0) choice.kernel = "general";
  return choice;
}

}  // namespace nearfield::cpu
