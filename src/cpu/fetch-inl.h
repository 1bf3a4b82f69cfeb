// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// What a band will touch next, as runs of memory for Ahead.
#if defined(NEARFIELD_CPU_FETCH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NEARFIELD_CPU_FETCH_INL_H_
#undef NEARFIELD_CPU_FETCH_INL_H_
#else
#define NEARFIELD_CPU_FETCH_INL_H_
#endif

#include "cpu/ahead.h"
#include "cpu/band.h"
#include "cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nearfield::cpu::HWY_NAMESPACE {

// A box of tokens of all the band's heads is about to be read, or written.
inline void fetch(const Band& band, Role role, const Box& box, bool write, Ahead& ahead) {
  const Problem& p = *band.problem;
  const GridView& view = (*band.sequence)[role];
  const bool of_numbers = role == Role::kLse || role == Role::kGradLse;
  if (box.empty() || !view.data || (view.channel != 1 && !of_numbers)) return;
  const bool of_keys = role == Role::kKey || role == Role::kValue || role == Role::kGradKey ||
                       role == Role::kGradValue,
             of_dots = role == Role::kQuery || role == Role::kKey || role == Role::kGradQuery ||
                       role == Role::kGradKey;
  const Index per_kv = of_keys ? 1 : p.heads / p.kv_heads, heads = (band.head_end - band.head_begin) * per_kv,
              channels = of_numbers ? 1
                         : of_dots  ? p.head_dim
                                    : p.value_dim,
              size = size_of(view.dtype);
  const bool together = view.head == channels;
  for (Index t = box.axis[0].begin; t < box.axis[0].end; ++t)
    for (Index y = box.axis[1].begin; y < box.axis[1].end; ++y) {
      const Index coord[kMaxRank] = {t, y, box.axis[2].begin};
      Index token[kMaxRank];
      token_at(coord, band.dilation, band.residue, token);
      const auto* first = static_cast<const std::byte*>(view.data) +
                          view.at(band.batch, token, band.head_begin * per_kv) * size;
      for (Index h = 0; h < (together ? 1 : heads); ++h, first += view.head * size)
        ahead.add(first, static_cast<std::size_t>(channels * size * (together ? heads : 1)),
                  view.axis[2] * band.dilation[2] * size, box.axis[2].size(), write);
    }
}

}  // namespace nearfield::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
