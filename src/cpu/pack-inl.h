// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Between tensors in memory and the packed float arrays of the tuned kernels.
#if defined(NEARFIELD_CPU_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NEARFIELD_CPU_PACK_INL_H_
#undef NEARFIELD_CPU_PACK_INL_H_
#else
#define NEARFIELD_CPU_PACK_INL_H_
#endif

#include "cpu/ring.h"
#include "cpu/rows-inl.h"
#include "cpu/score-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nearfield::cpu::HWY_NAMESPACE {

// n channels from element `at` on to a packed row; channels up to the next whole vector are 0.
HWY_INLINE void pack_row(const GridView& v, Index at, Index n, float* HWY_RESTRICT row) {
  const FloatTag d;
  if (v.dtype == DType::kFloat32 && v.channel == 1) {
    const float* from = static_cast<const float*>(v.data) + at;
    Index c = 0;
    for (; c + kFloats <= n; c += kFloats) hn::Store(hn::LoadU(d, from + c), d, row + c);
    if (c < n) {
      hn::Store(hn::Zero(d), d, row + c);
      for (; c < n; ++c) row[c] = from[c];
    }
    return;
  }
  load_row<float>(v, at, n, row);
}

// Packed keys and values, [heads][rows][pitch] each.
struct PackedKeys {
  float *k = nullptr, *v = nullptr;
  std::size_t k_pitch = 0, v_pitch = 0, rows = 0;  // rows of a head
  std::size_t keys_per_row = 1;                    // of v

  float* k_of(Index head) const { return k + static_cast<std::size_t>(head) * rows * k_pitch; }
  float* v_of(Index head) const {
    return v + static_cast<std::size_t>(head) * (rows / keys_per_row) * v_pitch;
  }
};

// n tokens from `token` on, `stride` apart along the last axis, of heads [begin, end), to rows from `row` on. All
// heads of a token lie next to each other in memory: they are read together.
inline void pack_tokens(const GridView& view, Index batch, const Index* token, Index stride, Index n,
                        Index channels, Index begin, Index end, float* to, std::size_t pitch,
                        std::size_t rows, Index row) {
  Index at = view.at(batch, token, begin);
  for (Index i = 0; i < n; ++i, at += stride * view.axis[2]) {
    float* out = to + static_cast<std::size_t>(row + i) * pitch;
    for (Index h = begin; h < end; ++h, out += rows * pitch)
      pack_row(view, at + (h - begin) * view.head, channels, out);
  }
}

// How keys and values are packed; bf16_pack-inl.h has another way.
struct FloatPacking {
  static constexpr int kKeysPerRow = 1;  // of packed values
  template <class... Args>
  static void keys(const Args&... args) {
    pack_tokens(args...);
  }
  template <class... Args>
  static void values(const Args&... args) {
    pack_tokens(args...);
  }
};

// Packs the keys whose coordinate on the ring's axis is in `fresh`; keys: those of the whole band.
template <class Packing = FloatPacking>
void pack_ring_slots(const Band& band, const BandScratch& m, Interval fresh, const Box& keys) {
  const Cut& cut = *band.cut;
  const Sequence& seq = *band.sequence;
  Box box = keys;
  box.axis[cut.ring_axis] = fresh;
  Ring{cut.ring_axis, cut.slots, cut.keys_per_row()}.for_each_run(
      keys, box, Index{1} << 40, [&](Index t, Index y, Interval x, Index row) HWY_ATTR {
        const Index coord[kMaxRank] = {t, y, x.begin};
        Index token[kMaxRank];
        token_at(coord, band.dilation, band.residue, token);
        Packing::keys(seq[Role::kKey], band.batch, token, band.dilation[2], x.size(), band.problem->head_dim,
                      band.head_begin, band.head_end, m.keys, m.k_pitch, m.rows, row);
        Packing::values(seq[Role::kValue], band.batch, token, band.dilation[2], x.size(),
                        band.problem->value_dim, band.head_begin, band.head_end, m.values, m.v_pitch, m.rows,
                        row);
      });
}

template <class Packing = FloatPacking>
void pack_additional_keys(const Band& band, const BandScratch& m) {
  const Problem& p = *band.problem;
  const Sequence& seq = *band.sequence;
  const Index token[kMaxRank] = {0, 0, 0};
  if (p.additional == 0) return;
  Packing::keys(seq[Role::kAdditionalKey], band.batch, token, 1, p.additional, p.head_dim, band.head_begin,
                band.head_end, m.more_keys, m.k_pitch, m.more_rows, 0);
  Packing::values(seq[Role::kAdditionalValue], band.batch, token, 1, p.additional, p.value_dim,
                  band.head_begin, band.head_end, m.more_values, m.v_pitch, m.more_rows, 0);
}

// Element indices of head 0 of a tile's lanes.
struct LaneOffsets {
  Index at[kMostLanes];
  LaneOffsets() = default;
  LaneOffsets(const Band& band, const QueryTile& tile, const GridView& view) {
    for (int l = 0; l < tile.lanes(); ++l) {
      at[l] = 0;
      if (!tile.live[l]) continue;
      Index token[kMaxRank];
      token_at(tile.coord[l], band.dilation, band.residue, token);
      at[l] = view.at(band.batch, token, 0);
    }
  }
};

// 4 x 4 numbers, transposed: to[c * pitch + i] = from[i][c] * by.
HWY_INLINE void transpose4(const float* const* from, Index c, float by, float* HWY_RESTRICT to,
                           std::size_t pitch) {
#if HWY_TARGET == HWY_SCALAR
  for (int i = 0; i < 4; ++i)
    for (std::size_t j = 0; j < 4; ++j)
      to[j * pitch + static_cast<std::size_t>(i)] = from[i][c + static_cast<Index>(j)] * by;
#else
  const hn::FixedTag<float, 4> d;
  const hn::Repartition<double, decltype(d)> w;
  const auto scale = hn::Set(d, by);
  const auto a = hn::Mul(hn::LoadU(d, from[0] + c), scale), b = hn::Mul(hn::LoadU(d, from[1] + c), scale),
             e = hn::Mul(hn::LoadU(d, from[2] + c), scale), f = hn::Mul(hn::LoadU(d, from[3] + c), scale);
  const auto ab0 = hn::BitCast(w, hn::InterleaveLower(d, a, b)),
             ab1 = hn::BitCast(w, hn::InterleaveUpper(d, a, b)),
             ef0 = hn::BitCast(w, hn::InterleaveLower(d, e, f)),
             ef1 = hn::BitCast(w, hn::InterleaveUpper(d, e, f));
  hn::Store(hn::BitCast(d, hn::InterleaveLower(w, ab0, ef0)), d, to);
  hn::Store(hn::BitCast(d, hn::InterleaveUpper(w, ab0, ef0)), d, to + pitch);
  hn::Store(hn::BitCast(d, hn::InterleaveLower(w, ab1, ef1)), d, to + 2 * pitch);
  hn::Store(hn::BitCast(d, hn::InterleaveUpper(w, ab1, ef1)), d, to + 3 * pitch);
#endif
}

// The lanes' channels times `by`, transposed to [channels][kL]; lanes without a query are 0. line: room for 4 rows of
// `channels` floats, whole vectors.
template <int kL>
void pack_lanes(const GridView& view, const QueryTile& tile, const LaneOffsets& offsets, Index head,
                Index channels, float by, float* HWY_RESTRICT line, float* HWY_RESTRICT to) {
  const std::size_t pitch = pitch_of<float>(channels);
  const bool in_place = view.dtype == DType::kFloat32 && view.channel == 1;
  for (int l = 0; l < kL; l += 4) {
    const float* from[4];
    for (int i = 0; i < 4; ++i) {
      float* own = line + static_cast<std::size_t>(i) * pitch;
      from[i] = own;
      if (!tile.live[l + i]) std::fill(own, own + channels, 0.0f);
      else if (in_place)
        from[i] = static_cast<const float*>(view.data) + offsets.at[l + i] + head * view.head;
      else pack_row(view, offsets.at[l + i] + head * view.head, channels, own);
    }
    Index c = 0;
    for (; c + 4 <= channels; c += 4) transpose4(from, c, by, to + c * kL + l, kL);
    for (; c < channels; ++c)
      for (int i = 0; i < 4; ++i) to[c * kL + l + i] = from[i][c] * by;
  }
}

// rows [kL][pitch] transposed to [channels][kL].
template <int kL>
void transpose_rows(const float* rows, std::size_t pitch, Index channels, float* HWY_RESTRICT to) {
  for (int l = 0; l < kL; l += 4) {
    const float* from[4];
    for (int i = 0; i < 4; ++i) from[i] = rows + static_cast<std::size_t>(l + i) * pitch;
    Index c = 0;
    for (; c + 4 <= channels; c += 4) transpose4(from, c, 1.0f, to + c * kL + l, kL);
    for (; c < channels; ++c)
      for (int i = 0; i < 4; ++i) to[c * kL + l + i] = from[i][c];
  }
}

// acc [kL][pitch], each lane times its factor, to the tensor.
inline void unpack_lanes(const GridView& view, const QueryTile& tile, const LaneOffsets& offsets, Index head,
                         Index channels, const float* HWY_RESTRICT acc, std::size_t pitch,
                         const float* factor, float* HWY_RESTRICT line) {
  const FloatTag d;
  for (int l = 0; l < tile.lanes(); ++l) {
    if (!tile.live[l]) continue;
    const Index at = offsets.at[l] + head * view.head;
    const float* row = acc + static_cast<std::size_t>(l) * pitch;
    const Floats f = hn::Set(d, factor[l]);
    Index c = 0;
    if (view.dtype == DType::kFloat32 && view.channel == 1) {
      float* to = static_cast<float*>(view.data) + at;
      for (; c + kFloats <= channels; c += kFloats) hn::StoreU(hn::Mul(hn::Load(d, row + c), f), d, to + c);
      for (; c < channels; ++c) to[c] = row[c] * factor[l];
      continue;
    }
    for (Index i = 0; i < channels; i += kFloats) hn::Store(hn::Mul(hn::Load(d, row + i), f), d, line + i);
    if (view.dtype == DType::kBFloat16 && view.channel == 1) {
      auto* to = static_cast<std::uint16_t*>(view.data) + at;
      for (; c < channels; ++c) to[c] = float_to_bfloat16(line[c]);
    } else {
      for (; c < channels; ++c)
        store_element(view.data, view.dtype, at + c * view.channel, static_cast<double>(line[c]));
    }
  }
}

}  // namespace nearfield::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
