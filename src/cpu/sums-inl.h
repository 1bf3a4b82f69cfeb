// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// dK and dV of the keys that several bands see.
#if defined(NEARFIELD_CPU_SUMS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NEARFIELD_CPU_SUMS_INL_H_
#undef NEARFIELD_CPU_SUMS_INL_H_
#else
#define NEARFIELD_CPU_SUMS_INL_H_
#endif

#include <tuple>
#include <vector>

#include "cpu/rows-inl.h"
#include "cpu/tuned.h"

HWY_BEFORE_NAMESPACE();
namespace nearfield::cpu::HWY_NAMESPACE {

// One row of a gradient, from floats at any address.
inline void store_row(const GridView& view, Index at, const float* row, Index channels) {
  const Tag<float> d;
  if (with_element<float>(
          view, at, [&](auto* out) HWY_ATTR { narrow_row(d, row, static_cast<std::size_t>(channels), out); }))
    return;
  for (Index c = 0; c < channels; ++c)
    store_element(view.data, view.dtype, at + c * view.channel, static_cast<double>(row[c]));
}

// False if a sum is not finite.
inline bool add_bands(const SharedSums& job) {
  const Problem& p = *job.problem;
  const Sequence& seq = *job.sequence;
  const GroupBands& bands = *job.bands;
  const Index numbers = p.head_dim + p.value_dim, row_size = numbers * p.kv_heads;
  constexpr Index kMost = 1024;  // channels at a time
  float sum[kMost], check = 0;
  std::vector<Share> shares;
  for (Index i = 0; i < bands.bands(); ++i) shares.push_back(bands.share(i));
  std::vector<const float*> part(shares.size());
  const auto who = [&](int a, Index c) {
    return bands.covers[a][static_cast<std::size_t>(c - bands.grid.axis[a].keys.begin)];
  };
  for (Index t = job.keys.axis[0].begin; t < job.keys.axis[0].end; ++t)
    for (Index y = job.keys.axis[1].begin; y < job.keys.axis[1].end; ++y)
      for (Index x = job.keys.axis[2].begin; x < job.keys.axis[2].end; ++x) {
        const Interval bt = who(0, t), by = who(1, y), bx = who(2, x);
        const Index sharers = bt.size() * by.size() * bx.size();
        if (sharers == 1 && !bands.all_shared) continue;  // its band wrote it
        const Index coord[kMaxRank] = {t, y, x};
        Index token[kMaxRank];
        token_at(coord, job.dilation, bands.residue, token);
        std::size_t n = 0;  // where each band keeps it
        for (Index i = bt.begin; i < bt.end; ++i)
          for (Index j = by.begin; j < by.end; ++j)
            for (Index k = bx.begin; k < bx.end; ++k) {
              const Index band = (i * bands.boxes.count(1) + j) * bands.boxes.count(2) + k;
              const Index number = bands.first[static_cast<std::size_t>(band)] +
                                   shares[static_cast<std::size_t>(band)].number(t, y, x);
              part[n++] = job.shared + number * row_size;
            }
        for (Index kv = 0; kv < p.kv_heads; ++kv)
          for (const auto& [role, begin, size] : {std::tuple(Role::kGradKey, Index{0}, p.head_dim),
                                                  std::tuple(Role::kGradValue, p.head_dim, p.value_dim)}) {
            for (Index piece = 0; piece < size; piece += kMost) {
              const Index count = min_of(size - piece, kMost);
              std::fill(sum, sum + count, 0.0f);
              for (std::size_t i = 0; i < n; ++i) {
                const float* row = part[i] + kv * numbers + begin + piece;
                for (Index c = 0; c < count; ++c) sum[c] += row[c];
              }
              for (Index c = 0; c < count; ++c) check += sum[c] * 0.0f;
              const GridView& view = seq[role];
              store_row(view, view.at(job.batch, token, kv) + piece * view.channel, sum, count);
            }
          }
      }
  return check == 0.0f;
}

}  // namespace nearfield::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
