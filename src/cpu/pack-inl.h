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

#include "cpu/ahead.h"
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

// n tokens, `step` elements apart, of heads `head_step` apart, to [heads][rows][pitch]. All heads of a token lie next
// to each other in memory: they are read together.
template <class S>
HWY_INLINE void pack_rows(const S* HWY_RESTRICT from, Index step, Index n, Index head_step, Index heads,
                          Index channels, float* HWY_RESTRICT to, std::size_t pitch, std::size_t rows) {
  constexpr Index kTokensAhead = 4, kPerLine = static_cast<Index>(kLine / sizeof(S));
  const FloatTag d;
  const std::size_t whole = pitch_of<float>(channels);
  for (Index i = 0; i < n; ++i, from += step, to += pitch) {
    const bool fetch = i + kTokensAhead < n;
    const S* own = from;
    float* out = to;
    for (Index h = 0; h < heads; ++h, own += head_step, out += rows * pitch) {
      if (fetch)
        for (Index c = 0; c < channels; c += kPerLine) __builtin_prefetch(own + kTokensAhead * step + c);
      widen_row(d, own, static_cast<std::size_t>(channels), out, whole);
    }
  }
}

// n tokens from `token` on, `stride` apart along the last axis, of heads [begin, end), to rows from `row` on.
inline void pack_tokens(const GridView& view, Index batch, const Index* token, Index stride, Index n,
                        Index channels, Index begin, Index end, float* to, std::size_t pitch,
                        std::size_t rows, Index row) {
  Index at = view.at(batch, token, begin);
  const Index step = stride * view.axis[2];
  to += static_cast<std::size_t>(row) * pitch;
  if (with_element<float>(view, at, [&](const auto* from) HWY_ATTR {
        pack_rows(from, step, n, view.head, end - begin, channels, to, pitch, rows);
      }))
    return;
  for (Index i = 0; i < n; ++i, at += step, to += pitch) {
    float* out = to;
    for (Index h = begin; h < end; ++h, out += rows * pitch)
      load_row<float>(view, at + (h - begin) * view.head, channels, out);
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

// Packs some keys of the band into its ring; keys: all of them.
template <class Packing = FloatPacking>
void pack_ring(const Band& band, const BandScratch& m, const Box& some, const Box& keys) {
  const Cut& cut = *band.cut;
  const Sequence& seq = *band.sequence;
  Ring{cut.ring_axis, cut.slots, cut.keys_per_row()}.for_each_run(
      keys, some, Index{1} << 40, [&](Index t, Index y, Interval x, Index row) HWY_ATTR {
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

// The same for the keys whose coordinate on the ring's axis is in `fresh`.
template <class Packing = FloatPacking>
void pack_ring_slots(const Band& band, const BandScratch& m, Interval fresh, const Box& keys) {
  Box box = keys;
  box.axis[band.cut->ring_axis] = fresh;
  pack_ring<Packing>(band, m, box, keys);
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
    Index first[kMaxRank], token[kMaxRank], step[kMaxRank];
    for (int a = 0; a < kMaxRank; ++a) {
      first[a] = tile.box.axis[a].begin;
      step[a] = view.axis[a] * band.dilation[a];
    }
    token_at(first, band.dilation, band.residue, token);
    const Index origin = view.at(band.batch, token, 0);
    for (int l = 0; l < tile.lanes(); ++l) {
      const signed char* p = tile.order().at[l];
      at[l] = origin + p[0] * step[0] + p[1] * step[1] + p[2] * step[2];  // of lanes without a query: unused
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

#if HWY_TARGET == HWY_AVX3
// 16 x 16 numbers: to[c * pitch + i] = from[i][c] * by.
HWY_INLINE void transpose16(const float* const* from, Index c, float by, float* HWY_RESTRICT to,
                            std::size_t pitch) {
  const __m512 scale = _mm512_set1_ps(by);
  __m512 a[16], b[16];
  NF_UNROLL
  for (int i = 0; i < 16; ++i) a[i] = _mm512_mul_ps(_mm512_loadu_ps(from[i] + c), scale);
  NF_UNROLL
  for (int i = 0; i < 16; i += 2) {  // pairs of rows
    b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
  }
  NF_UNROLL
  for (int i = 0; i < 16; i += 4)  // a[i + k]: column 4 j + k of rows i..i+3 in 128-bit lane j
    for (int k = 0; k < 2; ++k) {
      const __m512d low = _mm512_castps_pd(b[i + k]), high = _mm512_castps_pd(b[i + 2 + k]);
      a[i + 2 * k] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
      a[i + 2 * k + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
  NF_UNROLL
  for (std::size_t k = 0; k < 4; ++k) {
    const __m512 even = _mm512_shuffle_f32x4(a[k], a[k + 4], 0x88),
                 odd = _mm512_shuffle_f32x4(a[k], a[k + 4], 0xdd),
                 even2 = _mm512_shuffle_f32x4(a[k + 8], a[k + 12], 0x88),
                 odd2 = _mm512_shuffle_f32x4(a[k + 8], a[k + 12], 0xdd);
    _mm512_store_ps(to + k * pitch, _mm512_shuffle_f32x4(even, even2, 0x88));
    _mm512_store_ps(to + (k + 8) * pitch, _mm512_shuffle_f32x4(even, even2, 0xdd));
    _mm512_store_ps(to + (k + 4) * pitch, _mm512_shuffle_f32x4(odd, odd2, 0x88));
    _mm512_store_ps(to + (k + 12) * pitch, _mm512_shuffle_f32x4(odd, odd2, 0xdd));
  }
}
#endif

// 16 rows times `by`, transposed to lanes [0, 16) of [channels][kL].
template <int kL>
HWY_INLINE void transpose_16_rows(const float* const* from, Index channels, float by,
                                  float* HWY_RESTRICT to) {
  Index c = 0;
#if HWY_TARGET == HWY_AVX3
  for (; c + 16 <= channels; c += 16) transpose16(from, c, by, to + c * kL, kL);
#endif
  for (; c + 4 <= channels; c += 4)
    for (int i = 0; i < 16; i += 4) transpose4(from + i, c, by, to + c * kL + i, kL);
  for (; c < channels; ++c)
    for (int i = 0; i < 16; ++i) to[c * kL + i] = from[i][c] * by;
}

// rows [kL][pitch] transposed to [channels][kL].
template <int kL>
void transpose_rows(const float* rows, std::size_t pitch, Index channels, float* HWY_RESTRICT to) {
  for (int l = 0; l < kL; l += 16) {
    const float* from[16];
    for (int i = 0; i < 16; ++i) from[i] = rows + static_cast<std::size_t>(l + i) * pitch;
    transpose_16_rows<kL>(from, channels, 1.0f, to + l);
  }
}

// The lanes' channels times `by`, transposed to [channels][kL]; lanes without a query are 0. line: room for 16 rows of
// `channels` floats, whole vectors.
template <int kL>
void pack_lanes(const GridView& view, const QueryTile& tile, const LaneOffsets& offsets, Index head,
                Index channels, float by, float* HWY_RESTRICT line, float* HWY_RESTRICT to) {
  const std::size_t pitch = pitch_of<float>(channels);
  const bool in_place = view.dtype == DType::kFloat32 && view.channel == 1;
  for (int l = 0; l < kL; l += 16) {
    const float* from[16];
    for (int i = 0; i < 16; ++i) {
      float* own = line + static_cast<std::size_t>(i) * pitch;
      from[i] = own;
      if (!tile.live[l + i]) std::fill(own, own + channels, 0.0f);
      else if (in_place)
        from[i] = static_cast<const float*>(view.data) + offsets.at[l + i] + head * view.head;
      else load_row<float>(view, offsets.at[l + i] + head * view.head, channels, own);
    }
    transpose_16_rows<kL>(from, channels, by, to + l);
  }
}

// acc [kL][pitch], each lane times its factor, to the tensor. line: room for a row.
inline void unpack_lanes(const GridView& view, const QueryTile& tile, const LaneOffsets& offsets, Index head,
                         Index channels, const float* HWY_RESTRICT acc, std::size_t pitch,
                         const float* factor, float* HWY_RESTRICT line) {
  const FloatTag d;
  const bool in_place = view.dtype == DType::kFloat32 && view.channel == 1 && channels % kFloats == 0;
  for (int l = 0; l < tile.lanes(); ++l) {
    if (!tile.live[l]) continue;
    const Index at = offsets.at[l] + head * view.head;
    const float* row = acc + static_cast<std::size_t>(l) * pitch;
    const Floats f = hn::Set(d, factor[l]);
    if (in_place) {
      float* to = static_cast<float*>(view.data) + at;
      for (Index c = 0; c < channels; c += kFloats) hn::StoreU(hn::Mul(hn::Load(d, row + c), f), d, to + c);
      continue;
    }
    for (Index c = 0; c < channels; c += kFloats) hn::Store(hn::Mul(hn::Load(d, row + c), f), d, line + c);
    if (with_element<float>(view, at, [&](auto* to) HWY_ATTR {
          narrow_row(d, line, static_cast<std::size_t>(channels), to);
        }))
      continue;
    for (Index c = 0; c < channels; ++c)
      store_element(view.data, view.dtype, at + c * view.channel, static_cast<double>(line[c]));
  }
}

}  // namespace nearfield::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
