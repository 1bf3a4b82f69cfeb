// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The host side of the general path: strips of lane tiles, tasks, scratch. A task is one strip of one batch
// entry and dilation group, for all heads at once where there are tasks enough (the heads of a token lie next to
// each other in memory). Each task writes its own part of the outputs, so nothing depends on threads.
#include "cpu/general.h"

#include <algorithm>

#include "cpu/kernel.h"
#include "problem/message.h"
#include "runtime/convert.h"

namespace nearfield::cpu {
namespace {

constexpr Index kEnoughTasks = 64;

// Rows of a block: the two arrays of rows, used one after the other, fit a 32 KB L1 cache.
int rows_per_block(const Problem& p) {
  const Index row_bytes = (p.head_dim + p.value_dim) * (p.dtype == DType::kFloat64 ? 8 : 4);
  return static_cast<int>(clamp(32768 / row_bytes / 16 * 16, 16, kMaxRows));
}

// kMaxTiles lane tiles along the slowest axis that has more than one.
TileShape strip_shape(const Box& range, const TileShape& tile) {
  TileShape strip = tile;
  for (std::size_t a = 0; a < kMaxRank; ++a) {
    if (range.axis[a].size() <= tile[a]) continue;
    strip[a] *= kMaxTiles;
    return strip;
  }
  return strip;
}

// The grid in which additional keys are the lanes and every query sees them: one group, no window.
Grid additional_grid(const Grid& grid, Index additional) {
  Grid g;
  for (int a = 0; a < kMaxRank; ++a) {
    const bool last = a == kMaxRank - 1;
    g.axis[a] = Axis(Rule::kDense, grid.axis[a].query_extent, last ? additional : 1);
    g.axis[a].queries = grid.axis[a].queries;
  }
  return g;
}

// All strips of one pass over one sequence, numbered.
struct Pass {
  const Sequence* sequence;
  Grid grid;
  TileSide side;
  TileShape tile;
  bool additional = false;
  std::vector<Index> strips_before;  // of each dilation group, running
  Index strips = 0;

  Pass(const Sequence& s, const Grid& g, TileSide side_, const TileShape& tile_, bool additional_)
      : sequence(&s), grid(g), side(side_), tile(tile_), additional(additional_) {
    for (Index i = 0; i < grid.groups(); ++i) {
      Index residue[kMaxRank];
      strips_before.push_back(strips);
      strips += cut(group(grid, i, residue)).count();
    }
  }

  TileGrid cut(const Grid& own) const {
    const Box range = side == TileSide::kQueries ? own.queries() : own.keys();
    return {range, strip_shape(range, tile)};
  }

  void set_strip(Index strip, TileJob& job) const {
    const Index g =
        std::upper_bound(strips_before.begin(), strips_before.end(), strip) - strips_before.begin() - 1;
    job.sequence = sequence;
    job.grid = group(grid, g, job.residue);
    for (int a = 0; a < kMaxRank; ++a) job.dilation[a] = grid.axis[a].dilation;
    job.additional = additional;
    job.lanes = cut(job.grid).box(strip - strips_before[static_cast<std::size_t>(g)]);
    job.tile = tile;
  }
};

// The gradient of the bias is summed in bands of strips, each with sums of its own, which are added up at
// the end: so it depends on the problem only, not on threads.
struct BiasBands {
  Index bands = 0, positions = 0;  // of one head

  explicit BiasBands(const Problem& p) {
    if (!p.bias || p.direction == Direction::kForward) return;
    positions = 1;
    for (int a = 0; a < p.rank; ++a) positions *= 2 * p.layouts[0].window[a] - 1;
    const Index most = (Index{8} << 20) / positions / p.heads;  // 64 MB
    bands = clamp(ceil_div(kEnoughTasks, p.heads), 1, max_of(most, 1));
  }
  Index numbers(const Problem& p) const { return bands * p.heads * positions; }
};

// dQ with the gradient of the bias: a task is one band of strips and one head.
void run_bias_bands(const Problem& p, const Pass& pass, const BiasBands& bias, const TileJob& common,
                    const GridView& delta, const GridView& out, double* sums, Executor& executor,
                    std::byte* scratch, std::size_t scratch_bytes) {
  const Index total = pass.strips * p.batch;
  std::fill(sums, sums + bias.numbers(p), 0.0);
  executor.run(bias.bands * p.heads, [&](Index task, int worker) {
    TileJob job = common;
    job.delta = delta;
    const Index band = task / p.heads;
    job.head_begin = task % p.heads;
    job.head_end = job.head_begin + 1;
    job.bias_sums = sums + band * p.heads * bias.positions;
    for (Index i = total * band / bias.bands; i < total * (band + 1) / bias.bands; ++i) {
      job.batch = i / pass.strips;
      pass.set_strip(i % pass.strips, job);
      kernels(p.dtype).query_gradient(job, scratch + static_cast<std::size_t>(worker) * scratch_bytes);
    }
  });
  executor.run(p.heads, [&](Index head, int) {
    Index position[kMaxRank], width[kMaxRank];
    for (int a = 0; a < kMaxRank; ++a) width[a] = 2 * pass.grid.axis[a].window - 1;
    for (Index i = 0; i < bias.positions; ++i) {
      double sum = 0;
      for (Index band = 0; band < bias.bands; ++band)
        sum += sums[(band * p.heads + head) * bias.positions + i];
      position[2] = i % width[2];
      position[1] = i / width[2] % width[1];
      position[0] = i / width[2] / width[1];
      store_element(out.data, out.dtype, out.at(0, position, head), sum);
    }
  });
}

// Runs one kernel over all strips, batch entries and heads.
void run_passes(const Problem& p, const std::vector<Pass>& passes, Index heads, const TileJob& common,
                const std::vector<GridView>& deltas, void (*kernel)(const TileJob&, std::byte*),
                Executor& executor, std::byte* scratch, std::size_t scratch_bytes,
                const std::vector<char>* only) {
  std::vector<Index> before;
  Index strips = 0;
  for (const Pass& pass : passes) {
    before.push_back(strips);
    strips += pass.strips;
  }
  const Index parts = strips * p.batch >= kEnoughTasks ? 1 : heads;  // tasks per strip and batch entry
  executor.run(strips * p.batch * parts, [&](Index task, int worker) {
    TileJob job = common;
    const Index part = task % parts, strip = task / parts % strips;
    job.batch = task / parts / strips;
    job.head_begin = part * heads / parts;
    job.head_end = (part + 1) * heads / parts;
    // The last pass that begins at or before the strip is the one with strips in it.
    const auto i =
        static_cast<std::size_t>(std::upper_bound(before.begin(), before.end(), strip) - before.begin() - 1);
    if (only && !(*only)[static_cast<std::size_t>(passes[i].sequence->number * p.batch + job.batch)]) return;
    passes[i].set_strip(strip - before[i], job);
    if (!deltas.empty()) job.delta = deltas[static_cast<std::size_t>(passes[i].sequence->number)];
    kernel(job, scratch + static_cast<std::size_t>(worker) * scratch_bytes);
  });
}

// delta as a tensor [B, tokens, H] per sequence, one behind the other.
std::vector<GridView> delta_views(const Problem& p, const std::vector<Sequence>& list, std::byte* memory) {
  std::vector<GridView> views;
  Index first = 0;
  for (const Sequence& s : list) {
    const Box q = s.grid.queries();
    GridView v;
    v.data = memory;
    v.dtype = lse_dtype(p.dtype);
    v.head = 1;
    v.axis[2] = p.heads;
    v.axis[1] = v.axis[2] * q.axis[2].size();
    v.axis[0] = v.axis[1] * q.axis[1].size();
    v.batch = v.axis[0] * q.axis[0].size();
    v.origin =
        first - q.axis[0].begin * v.axis[0] - q.axis[1].begin * v.axis[1] - q.axis[2].begin * v.axis[2];
    first += v.batch * p.batch;
    views.push_back(v);
  }
  return views;
}

}  // namespace

void plan_general(const Problem& p, const SequenceOptions& each, Plan& plan) {
  const bool backward = p.direction == Direction::kBackward;
  int rows = rows_per_block(p);
  plan.kernel = "general, " + targets()[0];
  double computed = 0;
  for (Index i = 0; i < sequences(p); ++i) {
    const Grid grid = grid_of(p, i);
    const PlanOptions& options = each.of(i);
    if (options.key_tile && !backward) {
      if (!each.where(i).empty())  // one length for all sequences of a call
        refuse("tuner", each.where(i) + " with a key tile forward", "a query tile, or a kernel");
      rows = static_cast<int>((*options.key_tile)[2]);
    }
    const TileShape q =
        options.query_tile ? *options.query_tile : best_tile(grid, TileSide::kQueries, kLanes);
    const TileShape k = !backward          ? TileShape{1, 1, rows}
                        : options.key_tile ? *options.key_tile
                                           : best_tile(grid, TileSide::kKeys, kLanes);
    plan.query_tiles.push_back(q);
    plan.key_tiles.push_back(k);
    const double forward = computed_pairs(grid, TileSide::kQueries, q, kLanes);
    // Backward: three of the seven products run over query tiles, four over key tiles.
    computed += backward ? (3 * forward + 4 * computed_pairs(grid, TileSide::kKeys, k, kLanes)) / 7 : forward;
    computed += static_cast<double>(p.additional) * static_cast<double>(query_tokens(p, i));
  }
  const double useful = visible_pairs(p);
  plan.waste = useful > 0 ? computed * static_cast<double>(p.batch) / useful : 1.0;
  plan.private_bytes = aligned(kernels(p.dtype).scratch_bytes(p.head_dim, p.value_dim, rows, kMaxTiles));
  plan.shared_bytes = 64;  // for alignment
  if (backward) {
    Index numbers = 0;
    for (Index i = 0; i < sequences(p); ++i) numbers += p.batch * p.heads * query_tokens(p, i);
    plan.shared_bytes += aligned(static_cast<std::size_t>(numbers * size_of(lse_dtype(p.dtype))));
    plan.shared_bytes += aligned(static_cast<std::size_t>(BiasBands(p).numbers(p)) * 8);
  }
}

void run_general(const Problem& p, const Plan& plan, const Tensors& tensors, Executor& executor,
                 std::byte* workspace, const std::vector<char>* only) {
  const bool backward = p.direction == Direction::kBackward;
  const Kernels& of_dtype = kernels(p.dtype);
  const std::vector<Sequence> list = sequences_of(p, tensors);
  auto* base = reinterpret_cast<std::byte*>(aligned(reinterpret_cast<std::size_t>(workspace)));
  std::byte* scratch = base + (plan.shared_bytes - 64);

  TileJob common;
  common.problem = &p;
  common.seed = p.dropout > 0 ? *tensors.seed : 0;
  common.rows_per_block =
      backward ? rows_per_block(p) : static_cast<int>(plan.key_tiles.empty() ? 16 : plan.key_tile(0)[2]);
  std::vector<Pass> over_queries, over_keys;
  for (const Sequence& s : list) {
    over_queries.emplace_back(s, s.grid, TileSide::kQueries, plan.query_tile(s.number), false);
    if (!backward) continue;
    over_keys.emplace_back(s, s.grid, TileSide::kKeys, plan.key_tile(s.number), false);
    if (p.additional > 0)
      over_keys.emplace_back(s, additional_grid(s.grid, p.additional), TileSide::kKeys,
                             TileShape{1, 1, kLanes}, true);
  }
  const std::vector<GridView> deltas = backward ? delta_views(p, list, base) : std::vector<GridView>();
  if (backward && p.bias) {
    const BiasBands bias(p);
    auto* sums = reinterpret_cast<double*>(scratch - aligned(static_cast<std::size_t>(bias.numbers(p)) * 8));
    run_bias_bands(p, over_queries[0], bias, common, deltas[0], list[0][Role::kGradBias], sums, executor,
                   scratch, plan.private_bytes);
  } else {
    run_passes(p, over_queries, p.heads, common, deltas,
               backward ? of_dtype.query_gradient : of_dtype.forward, executor, scratch, plan.private_bytes,
               only);
  }
  if (backward)
    run_passes(p, over_keys, p.kv_heads, common, deltas, of_dtype.key_gradient, executor, scratch,
               plan.private_bytes, only);
  fill_tails(p, tensors);
}
}  // namespace nearfield::cpu
