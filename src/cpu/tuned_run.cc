// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The host side of the tuned kernels: plans and tasks.
#include <algorithm>

#include "cpu/general.h"
#include "cpu/kernel.h"
#include "cpu/own_plan.h"
#include "cpu/stencil.h"
#include "cpu/tuned.h"

namespace nearfield::cpu {
namespace {

// The bands of one sequence: [batch][dilation group][head group][band].
struct Bands {
  const Sequence* sequence;
  const Cut* cut;
  TileShape shape;            // of a band
  Index heads;                // of a task
  std::vector<Index> before;  // of each dilation group, running
  Index total = 0;            // of one batch entry

  Bands(const Problem& p, const Sequence& s, const Cut& c, Index wanted) : sequence(&s), cut(&c) {
    shape = c.streamed ? c.macro : c.band;
    heads = c.heads;
    count(p);
    if (c.streamed || total == 0) return;
    // More tasks than the cut gives: first fewer heads in each, then shorter bands. No result depends on it.
    const auto r = static_cast<std::size_t>(c.ring_axis);
    const Index token = p.head_dim * size_of(p.dtype),
                reach = max_of(s.grid.axis[c.ring_axis].window, c.step);
    if (c.stencil) {  // bands first: whole tokens are read at once; few of them, for each packs its halo
      while (2 * total < wanted && shape[r] > 4 * reach) {
        shape[r] = ceil_div(shape[r], 2 * c.tile[r]) * c.tile[r];
        count(p);
      }
      wanted = ceil_div(wanted, 2);
    }
    while (total < wanted && heads > 1 && heads / 2 * token >= 512) {
      heads = ceil_div(heads, 2);
      count(p);
    }
    while (total < wanted && shape[r] > 2 * reach) {
      shape[r] = ceil_div(shape[r], 2 * c.tile[r]) * c.tile[r];
      count(p);
    }
    while (total < wanted && heads > 1) {
      heads = ceil_div(heads, 2);
      count(p);
    }
  }

  void count(const Problem& p) {
    before.clear();
    total = 0;
    for (Index g = 0; g < sequence->grid.groups(); ++g) {
      Index residue[kMaxRank];
      before.push_back(total);
      total +=
          TileGrid{group(sequence->grid, g, residue).queries(), shape}.count() * ceil_div(p.kv_heads, heads);
    }
  }

  void set(const Problem& p, Index task, Band& band) const {
    const Index g = std::upper_bound(before.begin(), before.end(), task) - before.begin() - 1;
    task -= before[static_cast<std::size_t>(g)];
    band.sequence = sequence;
    band.cut = cut;
    band.grid = group(sequence->grid, g, band.residue);
    for (int a = 0; a < kMaxRank; ++a) band.dilation[a] = sequence->grid.axis[a].dilation;
    const TileGrid boxes{band.grid.queries(), shape};
    const Index parts = ceil_div(p.kv_heads, heads), part = task % parts;
    band.queries = boxes.box(task / parts);
    band.head_begin = part * p.kv_heads / parts;
    band.head_end = (part + 1) * p.kv_heads / parts;
  }
};

// Pairs that a cut computes.
double pairs_of(const Grid& grid, const Cut& cut) {
  return cut.stencil ? stencil_pairs(grid, cut)
                     : computed_pairs(grid, TileSide::kQueries, cut.tile, cut.lanes);
}

// The cut of the kernel asked for, or that which computes the fewest pairs, weighed by what a pair costs: relative
// times of the kernels at equal waste, as measured on an AMD Zen 4.
Cut best_cut(const Problem& p, const Grid& grid, const std::string& asked, bool bf16) {
  std::optional<Cut> best;
  double least = 0;
  for (const Kind& kind : kKinds) {
    if (!asked.empty() && asked != kind.name) continue;
    if (kind.stencil && stencil_refusal(p, grid)) continue;  // also of the target
    if (asked.empty() && kind.stencil && bf16) continue;     // it multiplies in float32
    const std::optional<Cut> cut = cut_sequence(p, grid, kind, bf16);
    if (!cut) continue;
    const double price =
        (kind.stencil ? 0.85 : 1.0) * (kind.streamed ? 1.1 : 1.0) * (kind.lanes == 32 ? 0.97 : 1.0);
    const double cost = price * pairs_of(grid, *cut);
    if (best && cost >= least) continue;
    least = cost;
    best = cut;
  }
  return *best;
}

bool multiplies_bf16(const Problem& p) {
  return p.direction == Direction::kForward && p.dtype == DType::kBFloat16 &&
         p.precision == Precision::kBF16 && !bf16_refusal(p);
}

}  // namespace

std::optional<std::string> bf16_refusal(const Problem& p) {
  if (p.dtype != DType::kBFloat16 || p.precision != Precision::kBF16) return std::nullopt;
#if defined(__x86_64__) || defined(__i386__)
  static const bool here = __builtin_cpu_supports("avx512bf16");
#else
  constexpr bool here = false;
#endif
  if (!tuned_kernels().bf16_forward16) return "the " + targets()[0] + " kernels multiply in float32";
  if (!here) return "this processor has no AVX512_BF16";
  return std::nullopt;
}

std::optional<std::string> tuned_refusal(const Problem& p, const PlanOptions& options) {
  if (!options.kernel.empty() && options.kernel != "general") {
    std::string names = "general";
    const Kind* asked = nullptr;
    for (const Kind& kind : kKinds) {
      names += std::string(", ") + kind.name;
      if (options.kernel == kind.name) asked = &kind;
    }
    if (!asked) return "there is none of this name; there are " + names;
    for (Index i = 0; i < sequences(p) && asked->stencil; ++i)
      if (const auto reason = stencil_refusal(p, grid_of(p, i))) return reason;
    for (Index i = 0; i < sequences(p); ++i)
      if (!cut_sequence(p, grid_of(p, i), *asked, multiplies_bf16(p)))
        return "the keys of a band do not fit its memory";
  }
  if (p.dtype == DType::kFloat64) return "float64 takes the general path";
  if (p.bias) return "a bias takes the general path";
  if (p.dropout > 0) return "dropout takes the general path";
  if (options.query_tile || options.key_tile) return "tile shapes are honoured by the general path";
  return std::nullopt;
}

void plan_tuned(const Problem& p, const PlanOptions& options, Plan& plan) {
  auto own = std::make_shared<OwnPlan>();
  const bool bf16 = multiplies_bf16(p);
  double computed = 0;
  for (Index i = 0; i < sequences(p); ++i) {
    const Grid grid = grid_of(p, i);
    own->cuts.push_back(best_cut(p, grid, options.kernel, bf16));
    const Cut& cut = own->cuts.back();
    plan.query_tiles.push_back(cut.tile);
    plan.key_tiles.push_back({1, 1, cut.chunk_keys});
    computed +=
        pairs_of(grid, cut) + static_cast<double>(p.additional) * static_cast<double>(query_tokens(p, i));
    plan.private_bytes = std::max(plan.private_bytes, aligned(band_scratch_bytes(p, cut)));
  }
  const double useful = visible_pairs(p);
  plan.waste = useful > 0 ? computed * static_cast<double>(p.batch) / useful : 1.0;
  plan.kernel =
      std::string(own->cuts.empty() ? "b16" : own->cuts[0].name) + (bf16 ? " bf16, " : ", ") + targets()[0];
  plan.shared_bytes = kAlignment;
  if (p.direction == Direction::kBackward) {
    const std::size_t entry = shared_bytes_per_entry(p, *own);
    plan_general(p, options, own->general);
    plan.shared_bytes += aligned(entry * static_cast<std::size_t>(entries_at_once(p, entry)));
    plan.private_bytes = std::max(plan.private_bytes, own->general.private_bytes);
    plan.shared_bytes = std::max(plan.shared_bytes, own->general.shared_bytes);
  }
  plan.own = std::move(own);
}

void run_tuned(const Problem& p, const Plan& plan, const Tensors& tensors, Executor& executor,
               std::byte* workspace) {
  const auto& own = *static_cast<const OwnPlan*>(plan.own.get());
  auto* base = reinterpret_cast<std::byte*>(aligned(reinterpret_cast<std::size_t>(workspace)));
  std::byte* scratch = base + (plan.shared_bytes - kAlignment);
  if (p.direction == Direction::kBackward) {
    run_tuned_backward(p, plan, own, tensors, executor, base, scratch);
    return;
  }
  const std::vector<Sequence> list = sequences_of(p, tensors);
  std::vector<Bands> bands;
  std::vector<Index> before;
  Index tasks = 0;
  const Index wanted = ceil_div(4 * executor.workers(), p.batch * max_of(sequences(p), 1));
  for (const Sequence& s : list) {
    before.push_back(tasks);
    bands.emplace_back(p, s, own.of(s.number), wanted);
    tasks += bands.back().total * p.batch;
  }
  executor.run(tasks, [&](Index task, int worker) {
    const auto i =
        static_cast<std::size_t>(std::upper_bound(before.begin(), before.end(), task) - before.begin() - 1);
    const Bands& own_bands = bands[i];
    task -= before[i];
    Band band;
    band.problem = &p;
    band.batch = task / own_bands.total;
    own_bands.set(p, task % own_bands.total, band);
    const TunedKernels& kernels = tuned_kernels();
    const bool wide = band.cut->lanes == 32;
    const auto run = band.cut->stencil ? stencil_kernel()
                     : band.cut->bf16  ? (wide ? kernels.bf16_forward32 : kernels.bf16_forward16)
                                       : (wide ? kernels.forward32 : kernels.forward16);
    run(band, scratch + static_cast<std::size_t>(worker) * plan.private_bytes);
  });
  fill_tails(p, tensors);
}

}  // namespace nearfield::cpu
