// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The host side of the tuned backward pass: bands, the buffer of keys that they share, and the general path where
// something was not finite.
#include <algorithm>
#include <atomic>

#include "cpu/general.h"
#include "cpu/own_plan.h"
#include "cpu/tuned.h"
#include "runtime/convert.h"

namespace nearfield::cpu {
namespace {

constexpr std::size_t kSharedBytes = std::size_t{256}
                                     << 20;  // for more batch entries at a time there is no need

// The bands of one sequence: group by group, behind each other in the shared buffer.
struct SequenceBands {
  std::vector<GroupBands> groups;
  std::vector<Index> first;   // shared keys of the groups before
  std::vector<Index> before;  // bands of the groups before
  Index shared = 0, bands = 0;

  SequenceBands(const Problem& p, const Grid& grid, const Cut& cut) {
    for (Index g = 0; g < grid.groups(); ++g) {
      groups.emplace_back(grid, g, cut.band, cut.streamed, p.additional);
      first.push_back(shared);
      before.push_back(bands);
      shared += groups.back().shared_keys();
      bands += groups.back().bands();
    }
  }
};

// What SequenceBands counts; groups that are alike are counted once.
Index shared_keys(const Problem& p, const Grid& grid, const Cut& cut) {
  Index keys = 0;
  for_each_kind_of_group(grid.axis[0], [&](Index t, Index ts) {
    for_each_kind_of_group(grid.axis[1], [&](Index y, Index ys) {
      for_each_kind_of_group(grid.axis[2], [&](Index x, Index xs) {
        const Index g = (t * grid.axis[1].dilation + y) * grid.axis[2].dilation + x;
        keys += ts * ys * xs * GroupBands(grid, g, cut.band, cut.streamed, p.additional).shared_keys();
      });
    });
  });
  return keys;
}

std::size_t row_bytes(const Problem& p) {
  return static_cast<std::size_t>((p.head_dim + p.value_dim) * p.kv_heads) * sizeof(float);
}

}  // namespace

std::size_t shared_bytes_per_entry(const Problem& p, const OwnPlan& own) {
  Index keys = 0;
  for (Index i = 0; i < sequences(p); ++i)
    if (!own.by_general(i)) keys += shared_keys(p, grid_of(p, i), own.of(i));
  return static_cast<std::size_t>(keys) * row_bytes(p);
}

Index entries_at_once(const Problem& p, std::size_t bytes_per_entry) {
  return clamp(static_cast<Index>(kSharedBytes / std::max<std::size_t>(bytes_per_entry, 1)), 1,
               max_of(p.batch, 1));
}

void run_tuned_backward(const Problem& p, const Plan& plan, const OwnPlan& own, const Tensors& tensors,
                        Executor& executor, std::byte* base, std::byte* scratch) {
  const std::vector<Sequence> list = tuned_sequences(p, own, tensors);
  std::vector<SequenceBands> bands;
  std::vector<Index> first, before;  // shared keys and bands of the sequences before
  Index keys = 0, total = 0;
  for (const Sequence& s : list) {
    bands.emplace_back(p, s.grid, own.of(s.number));
    first.push_back(keys);
    before.push_back(total);
    keys += bands.back().shared;
    total += bands.back().bands;
  }
  const auto numbers = static_cast<Index>(row_bytes(p) / sizeof(float));
  auto* shared = reinterpret_cast<float*>(base);
  // Heads in one task: those of the cut, fewer where there are not tasks enough; first down to pieces of memory that
  // are read well.
  const auto parts_of = [&](const Cut& cut) {
    const auto tasks = [&](Index heads) { return total * p.batch * ceil_div(p.kv_heads, heads); };
    const auto bytes = [&](Index heads) { return heads * p.head_dim * size_of(p.dtype); };
    Index heads = cut.heads;
    while (heads > 1 && tasks(heads) < 4 * executor.workers() && bytes(heads / 2) >= 512)
      heads = ceil_div(heads, 2);
    while (heads > 1 && tasks(heads) < 2 * executor.workers()) heads = ceil_div(heads, 2);
    return ceil_div(p.kv_heads, heads);
  };
  Index most_parts = 1;
  for (const Sequence& s : list) most_parts = max_of(most_parts, parts_of(own.of(s.number)));
  const auto sequence_of = [&](Index band) {
    return static_cast<std::size_t>(std::upper_bound(before.begin(), before.end(), band) - before.begin() -
                                    1);
  };
  const std::vector<char> general = general_entries(p, own);
  std::vector<std::atomic<char>> again(general.begin(), general.end());  // what the general path runs
  const auto flag = [&](std::size_t i, Index batch) {
    again[static_cast<std::size_t>(list[i].number * p.batch + batch)] = 1;
  };

  const Index wave = entries_at_once(p, shared_bytes_per_entry(p, own));
  for (Index entry = 0; entry < p.batch; entry += wave) {
    const Index entries = min_of(wave, p.batch - entry);
    executor.run(entries * total * most_parts, [&](Index task, int worker) {
      const Index part = task % most_parts, index = task / most_parts % total,
                  slot = task / most_parts / total;
      const std::size_t i = sequence_of(index);
      const SequenceBands& mine = bands[i];
      const Cut& cut = own.of(list[i].number);
      const Index parts = parts_of(cut);
      if (part >= parts) return;
      const Index in_sequence = index - before[i];
      const auto g = static_cast<std::size_t>(
          std::upper_bound(mine.before.begin(), mine.before.end(), in_sequence) - mine.before.begin() - 1);
      const GroupBands& group = mine.groups[g];
      const Index number = in_sequence - mine.before[g];
      Band band;
      band.problem = &p;
      band.sequence = &list[i];
      band.cut = &cut;
      band.grid = group.grid;
      std::copy(group.residue, group.residue + kMaxRank, band.residue);
      for (int a = 0; a < kMaxRank; ++a) band.dilation[a] = list[i].grid.axis[a].dilation;
      band.batch = entry + slot;
      band.queries = group.boxes.box(number);
      band.head_begin = part * p.kv_heads / parts;
      band.head_end = (part + 1) * p.kv_heads / parts;
      band.share = group.share(number);
      band.shared =
          shared +
          (slot * keys + first[i] + mine.first[g] + group.first[static_cast<std::size_t>(number)]) * numbers;
      const TunedKernels& kernels = tuned_kernels();
      if (!(cut.lanes == 32 ? kernels.backward32 : kernels.backward16)(
              band, scratch + static_cast<std::size_t>(worker) * plan.private_bytes))
        flag(i, band.batch);
    });
    // Sums of the keys that bands share, a row of keys at a time.
    struct Rows {
      std::size_t sequence, group;
      Index first;  // row
    };
    std::vector<Rows> rows;
    Index count = 0;
    constexpr Index kPiece = 256;
    for (std::size_t i = 0; i < list.size(); ++i)
      for (std::size_t g = 0; g < bands[i].groups.size(); ++g) {
        const Box all = bands[i].groups[g].grid.keys();
        rows.push_back({i, g, count});
        count += all.axis[0].size() * all.axis[1].size() * ceil_div(all.axis[2].size(), kPiece);
      }
    executor.run(entries * count, [&](Index task, int) {
      const Index slot = task / count, index = task % count;
      const auto at =
          static_cast<std::size_t>(std::upper_bound(rows.begin(), rows.end(), index,
                                                    [](Index n, const Rows& r) { return n < r.first; }) -
                                   rows.begin() - 1);
      const auto [i, g, row] = rows[at];
      const GroupBands& group = bands[i].groups[g];
      SharedSums job;
      job.problem = &p;
      job.sequence = &list[i];
      job.bands = &group;
      for (int a = 0; a < kMaxRank; ++a) job.dilation[a] = list[i].grid.axis[a].dilation;
      job.batch = entry + slot;
      job.shared = shared + (slot * keys + first[i] + bands[i].first[g]) * numbers;
      job.keys = TileGrid{group.grid.keys(), {1, 1, kPiece}}.box(index - row);
      if (!tuned_kernels().add_bands(job)) flag(i, job.batch);
    });
    if (p.additional > 0)
      executor.run(entries * p.additional, [&](Index task, int) {
        const Index slot = task / p.additional, s = task % p.additional;
        std::vector<float> sum(static_cast<std::size_t>(numbers), 0.0f);
        for (const SequenceBands& mine : bands)
          for (std::size_t g = 0; g < mine.groups.size(); ++g)
            for (Index b = 0; b < mine.groups[g].bands(); ++b) {
              const Index key = first[0] + mine.first[g] +
                                mine.groups[g].first[static_cast<std::size_t>(b) + 1] - p.additional + s;
              const float* row = shared + (slot * keys + key) * numbers;
              for (Index c = 0; c < numbers; ++c) sum[static_cast<std::size_t>(c)] += row[c];
            }
        const Index token[kMaxRank] = {0, 0, s};
        const GridView &k = list[0][Role::kGradAdditionalKey], &v = list[0][Role::kGradAdditionalValue];
        float check = 0;
        for (Index h = 0; h < p.kv_heads; ++h)
          for (Index c = 0; c < p.head_dim + p.value_dim; ++c) {
            const float x = sum[static_cast<std::size_t>(h * (p.head_dim + p.value_dim) + c)];
            const bool of_key = c < p.head_dim;
            const GridView& view = of_key ? k : v;
            check += x * 0.0f;
            store_element(view.data, view.dtype,
                          view.at(entry + slot, token, h) + (of_key ? c : c - p.head_dim) * view.channel,
                          static_cast<double>(x));
          }
        if (check != 0.0f) flag(0, entry + slot);
      });
  }
  const std::vector<char> only(again.begin(), again.end());
  if (std::find(only.begin(), only.end(), char{1}) != only.end())
    run_general(p, own.general, tensors, executor, base, &only);
  else fill_tails(p, tensors);
}

}  // namespace nearfield::cpu
