// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Backward: dK and dV leave the ring of a band, to the tensors or the band's part of the shared buffer.
#if defined(NEARFIELD_CPU_LEAVE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NEARFIELD_CPU_LEAVE_INL_H_
#undef NEARFIELD_CPU_LEAVE_INL_H_
#else
#define NEARFIELD_CPU_LEAVE_INL_H_
#endif

#include "cpu/pack-inl.h"
#include "cpu/sums-inl.h"
#include "cpu/sweep.h"

HWY_BEFORE_NAMESPACE();
namespace nearfield::cpu::HWY_NAMESPACE {

// Floats of whole vectors.
inline std::size_t vectors_of(Index channels) {
  return static_cast<std::size_t>(ceil_div(channels, kFloats) * kFloats);
}

// sum, NaN where one of n numbers (whole vectors) is not finite; it is 0 to begin with.
HWY_INLINE Floats zero_if_finite(const float* HWY_RESTRICT numbers, std::size_t n, Floats sum) {
  const FloatTag d;
  for (std::size_t i = 0; i < n; i += kFloats) sum = hn::MulAdd(hn::Load(d, numbers + i), hn::Zero(d), sum);
  return sum;
}

// Rows of whole vectors of floats: they are used where they lie.
inline bool whole_floats(const GridView& view, Index channels) {
  return view.dtype == DType::kFloat32 && view.channel == 1 && channels % kFloats == 0;
}

// One row of dK or dV where it belongs: `to` is the band's row of the shared buffer, or null for the tensor. sum: as in
// zero_if_finite().
HWY_INLINE Floats leave_row(const GridView& view, Index batch, const Index* token, Index kv,
                            const float* HWY_RESTRICT row, Index channels, float* HWY_RESTRICT to,
                            Floats sum) {
  const FloatTag d;
  if (channels % kFloats == 0 && (to || whole_floats(view, channels))) {
    if (!to) to = static_cast<float*>(view.data) + view.at(batch, token, kv);
    for (Index c = 0; c < channels; c += kFloats) {
      const Floats x = hn::Load(d, row + c);
      hn::StoreU(x, d, to + c);
      sum = hn::MulAdd(x, hn::Zero(d), sum);
    }
    return sum;
  }
  if (to) std::copy(row, row + channels, to);
  else store_row(view, view.at(batch, token, kv), row, channels);
  return zero_if_finite(row, vectors_of(channels), sum);
}

HWY_INLINE void clear_row(float* row, Index channels) {
  const FloatTag d;
  for (Index c = 0; c < channels; c += kFloats) hn::Store(hn::Zero(d), d, row + c);
}

// dK and dV of some of the band's keys leave; the ring has zeros in their place. seen: false if no tile saw them: 0
// then. Returns 0, NaN if something was not finite.
inline float leave_ring(const Band& band, const BandScratch& m, const Box& some, const Box& keys, bool seen) {
  const FloatTag d;
  const Problem& p = *band.problem;
  const Cut& cut = *band.cut;
  const GridView &dk = (*band.sequence)[Role::kGradKey], &dv = (*band.sequence)[Role::kGradValue];
  const Index numbers = p.head_dim + p.value_dim;
  float check = 0;
  if (!seen) std::fill(m.line, m.line + std::max(m.k_pitch, m.v_pitch), 0.0f);
  const Ring ring{cut.ring_axis, cut.slots};
  ring.for_each_run(keys, some, Index{1} << 40, [&](Index t, Index y, Interval run, Index row) HWY_ATTR {
    Floats sum = hn::Zero(d);
    for (Index x = run.begin; x < run.end; ++x, ++row) {
      const Index coord[kMaxRank] = {t, y, x};
      Index token[kMaxRank];
      token_at(coord, band.dilation, band.residue, token);
      const Index shared = band.share.number(t, y, x);
      for (Index kv = band.head_begin; kv < band.head_end; ++kv) {
        const std::size_t at =
            static_cast<std::size_t>(kv - band.head_begin) * m.rows + static_cast<std::size_t>(row);
        float* to = shared < 0 ? nullptr : band.shared + (shared * p.kv_heads + kv) * numbers;
        float *k = seen ? m.grad_keys + at * m.k_pitch : m.line,
              *v = seen ? m.grad_values + at * m.v_pitch : m.line;
        sum = leave_row(dk, band.batch, token, kv, k, p.head_dim, to, sum);
        sum = leave_row(dv, band.batch, token, kv, v, p.value_dim, to ? to + p.head_dim : nullptr, sum);
        clear_row(k, p.head_dim);
        clear_row(v, p.value_dim);
      }
    }
    check += hn::GetLane(hn::SumOfLanes(d, sum));
  });
  return check;
}

// The keys that no tile from here on sees. Returns as leave_ring().
inline float leave_done(const Band& band, const BandScratch& m, const Sweep& sweep) {
  const int r = band.cut->ring_axis;
  Box seen = sweep.done, unseen = sweep.done;
  seen.axis[r].end = min_of(seen.axis[r].end, sweep.taken);
  unseen.axis[r].begin = max_of(unseen.axis[r].begin, sweep.taken);
  return (seen.empty() ? 0 : leave_ring(band, m, seen, sweep.keys, true)) +
         (unseen.empty() ? 0 : leave_ring(band, m, unseen, sweep.keys, false));
}

}  // namespace nearfield::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
