// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The host side of the tuned kernels: plans and tasks.
#include <algorithm>
#include <cmath>

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

  // workers: those that share these bands.
  Bands(const Problem& p, const Sequence& s, const Cut& c, double workers) : sequence(&s), cut(&c) {
    shape = c.streamed ? c.macro : c.band;
    heads = c.heads;
    count(p);
    if (c.streamed || total == 0) return;  // what is summed together is a macro's
    if (c.stencil) shorten(p, static_cast<Index>(std::ceil(workers)));
    else balance(p, workers);
  }

  // A task per worker if the cut gives fewer: shorter bands first, for whole tokens are read at once; not too short ones,
  // for each packs its halo.
  void shorten(const Problem& p, Index wanted) {
    const auto r = static_cast<std::size_t>(cut->ring_axis);
    const Index whole = shape[r], token = p.head_dim * size_of(p.dtype),
                reach = max_of(sequence->grid.axis[r].window, cut->step);
    const auto cut_bands = [&](Index least) {
      for (Index parts = 2; total < wanted && parts <= whole / least; ++parts) {
        shape[r] = ceil_div(ceil_div(whole, parts), cut->tile[r]) * cut->tile[r];
        count(p);
      }
    };
    const auto cut_heads = [&](Index least) {
      while (total < wanted && heads > 1 && heads / 2 * token >= least) {
        heads = ceil_div(heads, 2);
        count(p);
      }
    };
    cut_bands(2 * reach);
    cut_heads(512);
    cut_bands(reach);
    cut_heads(0);
  }

  // Cuts the bands shorter, or gives tasks fewer heads, if all workers finish earlier that way. No result depends on it.
  void balance(const Problem& p, double workers) {
    const auto r = static_cast<std::size_t>(cut->ring_axis);
    const Index whole = shape[r], most = heads, tiles = ceil_div(whole, cut->tile[r]);
    Index best_length = whole, best_heads = most;
    double least = -1;
    for (Index parts = 1; parts <= tiles; ++parts) {
      shape[r] = ceil_div(tiles, parts) * cut->tile[r];
      if (ceil_div(whole, shape[r]) != parts) continue;
      for (heads = most; heads > 0; heads /= 2) {
        count(p);
        const double time = task_time(p) * (std::ceil(static_cast<double>(total) / workers) + kTail);
        if (least >= 0 && time >= least) continue;
        least = time;
        best_length = shape[r];
        best_heads = heads;
      }
      if (static_cast<double>(total) > 16 * workers) break;
    }
    shape[r] = best_length;
    heads = best_heads;
    count(p);
  }
  // Part of a task for which some workers wait for the last one: they do not start together, nor take the same time.
  static constexpr double kTail = 0.4;

  // About the cycles of one task: the products of its queries, setting up its tiles, and packing its keys. Where
  // these do not stay in the caches, tokens that are read in short pieces cost more.
  double task_time(const Problem& p) const {
    const auto r = static_cast<std::size_t>(cut->ring_axis);
    const auto channels = static_cast<double>(p.head_dim + p.value_dim),
               of_heads = static_cast<double>(heads);
    double queries = 1, tiles = 1, seen = 1, all_keys = static_cast<double>(p.kv_heads * p.batch);
    for (std::size_t a = 0; a < kMaxRank; ++a) {
      const Axis& own = sequence->grid.axis[a];
      const Index length = min_of(shape[a], max_of(ceil_div(own.queries.size(), own.dilation), 1));
      queries *= static_cast<double>(length);
      tiles *= static_cast<double>(ceil_div(length, cut->tile[a]));
      seen *= static_cast<double>(pairs(own)) / static_cast<double>(max_of(own.queries.size(), 1));
      all_keys *= static_cast<double>(own.keys.size());
    }
    const auto slots = static_cast<double>(
        min_of(shape[r], max_of(sequence->grid.axis[r].queries.size(), 1)) + cut->slots - cut->step);
    const double bytes = static_cast<double>(heads * min_of(p.head_dim, p.value_dim) * size_of(p.dtype));
    const bool cached = all_keys * channels * static_cast<double>(size_of(p.dtype)) < kCached;
    const double multiply =
        of_heads * static_cast<double>(p.heads / p.kv_heads) * queries * seen * channels * 0.1;
    const double pack = slots * static_cast<double>(cut->rows_per_slot) * of_heads * channels * 4 *
                        (cached || bytes >= 1024 ? 0.25
                         : bytes >= 512          ? 0.4
                                                 : 0.6);
    return multiply + pack + 2500 * tiles;
  }
  static constexpr double kCached = 8 << 20;  // bytes of all keys and values that the caches are sure to keep

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

}  // namespace

std::vector<Sequence> tuned_sequences(const Problem& p, const OwnPlan& own, const Tensors& tensors) {
  std::vector<Sequence> list = sequences_of(p, tensors);
  std::erase_if(list, [&](const Sequence& s) { return own.by_general(s.number); });
  return list;
}

std::vector<char> general_entries(const Problem& p, const OwnPlan& own) {
  std::vector<char> entries;
  for (Index i = 0; i < sequences(p); ++i)
    entries.insert(entries.end(), static_cast<std::size_t>(p.batch), own.by_general(i) ? 1 : 0);
  return entries;
}

bool multiplies_bf16(const Problem& p) {
  return p.direction == Direction::kForward && p.dtype == DType::kBFloat16 &&
         p.precision == Precision::kBF16 && !bf16_refusal(p);
}

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
        return "the keys of a band, or the sums that bands share, take too much memory";
  }
  if (p.dtype == DType::kFloat64) return "float64 takes the general path";
  if (p.bias) return "a bias takes the general path";
  if (p.dropout > 0) return "dropout takes the general path";
  if (options.query_tile || options.key_tile) return "tile shapes are honoured by the general path";
  return std::nullopt;
}

void plan_tuned(const Problem& p, const KernelChoice& choice, Plan general, Plan& plan) {
  auto own = std::make_shared<OwnPlan>();
  own->cuts = choice.cuts;
  own->general = std::move(general);
  plan.shared_bytes = kAlignment;
  if (own->some_general() || p.direction == Direction::kBackward) {
    plan.private_bytes = own->general.private_bytes;
    plan.shared_bytes = own->general.shared_bytes;
  }
  double computed = 0;
  for (Index i = 0; i < sequences(p); ++i) {
    const Grid grid = grid_of(p, i);
    computed += static_cast<double>(p.additional) * static_cast<double>(query_tokens(p, i));
    if (own->by_general(i)) {
      plan.query_tiles.push_back(own->general.query_tile(i));
      plan.key_tiles.push_back(own->general.key_tile(i));
      computed += computed_pairs(grid, TileSide::kQueries, own->general.query_tile(i), kLanes);
      continue;
    }
    const Cut& cut = own->of(i);
    plan.query_tiles.push_back(cut.tile);
    plan.key_tiles.push_back({1, 1, cut.chunk_keys});
    computed += cut.stencil ? stencil_pairs(grid, cut)
                            : computed_pairs(grid, TileSide::kQueries, cut.tile, cut.lanes);
    plan.private_bytes = std::max(plan.private_bytes, aligned(band_scratch_bytes(p, cut)));
  }
  const double useful = visible_pairs(p);
  plan.waste = useful > 0 ? computed * static_cast<double>(p.batch) / useful : 1.0;
  if (p.direction == Direction::kBackward) {
    const std::size_t entry = shared_bytes_per_entry(p, *own);
    plan.shared_bytes = std::max(
        plan.shared_bytes, kAlignment + aligned(entry * static_cast<std::size_t>(entries_at_once(p, entry))));
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
  const std::vector<Sequence> list = tuned_sequences(p, own, tensors);
  std::vector<Bands> bands;
  std::vector<Index> before;
  Index tasks = 0;
  double work = 0;
  for (const Sequence& s : list) work += pairs(s.grid);
  for (const Sequence& s : list) {  // each gets as many of the workers as it has of the work
    before.push_back(tasks);
    const double share = work > 0 ? pairs(s.grid) / work : 1.0;
    bands.emplace_back(p, s, own.of(s.number),
                       share * executor.workers() / static_cast<double>(max_of(p.batch, 1)));
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
  if (own.some_general()) {
    const std::vector<char> only = general_entries(p, own);
    run_general(p, own.general, tensors, executor, base, &only);
  } else {
    fill_tails(p, tensors);
  }
}

}  // namespace nearfield::cpu
