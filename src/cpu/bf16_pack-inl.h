// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// From bfloat16 tensors to the packed pairs of bf16-inl.h. Nothing is converted: bits are moved.
#if defined(NEARFIELD_CPU_BF16_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NEARFIELD_CPU_BF16_PACK_INL_H_
#undef NEARFIELD_CPU_BF16_PACK_INL_H_
#else
#define NEARFIELD_CPU_BF16_PACK_INL_H_
#endif

#include "cpu/pack-inl.h"

// Whether the target that is being compiled may have bf16 dot products; whether the machine has them is asked at
// run time.
#undef NF_BF16_TARGET
#if HWY_TARGET == HWY_AVX3 && (HWY_COMPILER_GCC_ACTUAL || HWY_COMPILER_CLANG)
#define NF_BF16_TARGET 1
#include <immintrin.h>
#else
#define NF_BF16_TARGET 0
#endif

#if NF_BF16_TARGET
HWY_BEFORE_NAMESPACE();
namespace nearfield::cpu::HWY_NAMESPACE {

using Pairs = __m512i;  // of bfloat16

// pinned() of micro-inl.h.
HWY_INLINE Pairs pinned_pairs(Pairs x) {
#if HWY_COMPILER_GCC_ACTUAL
  asm volatile("" : "+v"(x));
#endif
  return x;
}

// Channels [c, c + 32) of the n from element `at` on; 0 behind the last.
HWY_INLINE Pairs load_channels(const GridView& v, Index at, Index c, Index n) {
  const auto* from = static_cast<const std::uint16_t*>(v.data) + at;
  if (v.channel != 1) {
    alignas(64) std::uint16_t some[32] = {};
    for (Index i = 0; i < 32 && c + i < n; ++i) some[i] = from[(c + i) * v.channel];
    return _mm512_load_si512(some);
  }
  if (c + 32 <= n) return _mm512_loadu_si512(from + c);
  return _mm512_maskz_loadu_epi16((1u << (n - c)) - 1, from + c);
}

// A channel each: the halves of load_channels().
HWY_INLINE Pairs low_channels(Pairs x) { return _mm512_cvtepu16_epi32(_mm512_castsi512_si256(x)); }
HWY_INLINE Pairs high_channels(Pairs x) { return _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(x, 1)); }

// pack_tokens() of pack-inl.h for K: pairs of channels, rows and pitch counted in pairs.
inline void pack_key_pairs(const GridView& view, Index batch, const Index* token, Index stride, Index n,
                           Index channels, Index begin, Index end, std::uint32_t* to, std::size_t pitch,
                           std::size_t rows, Index row) {
  Index at = view.at(batch, token, begin);
  for (Index i = 0; i < n; ++i, at += stride * view.axis[2]) {
    std::uint32_t* out = to + static_cast<std::size_t>(row + i) * pitch;
    for (Index h = begin; h < end; ++h, out += rows * pitch)
      for (Index c = 0; c < channels; c += 32)
        _mm512_store_si512(out + c / 2, load_channels(view, at + (h - begin) * view.head, c, channels));
  }
}

// The same for V: pairs of keys. `row` is even where the token's coordinate is; rows: keys of a head. The half of a
// pair that belongs to no token of this call stays what it is.
inline void pack_value_pairs(const GridView& view, Index batch, const Index* token, Index stride, Index n,
                             Index channels, Index begin, Index end, std::uint32_t* to, std::size_t pitch,
                             std::size_t rows, Index row) {
  const Pairs low_half = _mm512_set1_epi32(0xffff);
  const Index step = stride * view.axis[2];
  Index at = view.at(batch, token, begin);
  for (const Index last = row + n; row < last;) {
    const bool both = row % 2 == 0 && row + 1 < last, odd = row % 2 != 0;
    std::uint32_t* out = to + static_cast<std::size_t>(row / 2) * pitch;
    for (Index h = begin; h < end; ++h, out += rows / 2 * pitch) {
      const Index from = at + (h - begin) * view.head;
      for (Index c = 0; c < channels; c += 32) {
        const Pairs x = load_channels(view, from, c, channels);
        const Pairs y = both ? load_channels(view, from + step, c, channels) : x;
        const auto put = [&](std::uint32_t* to_pair, Pairs first, Pairs second) HWY_ATTR {
          Pairs pair = _mm512_or_si512(first, _mm512_slli_epi32(second, 16));
          if (!both) {  // first and second are the same key
            const Pairs old = _mm512_load_si512(to_pair);
            pair = odd ? _mm512_or_si512(_mm512_and_si512(low_half, old), _mm512_slli_epi32(second, 16))
                       : _mm512_or_si512(_mm512_andnot_si512(low_half, old), first);
          }
          _mm512_store_si512(to_pair, pair);
        };
        put(out + c, low_channels(x), low_channels(y));
        if (c + 16 < channels) put(out + c + 16, high_channels(x), high_channels(y));
      }
    }
    row += both ? 2 : 1;
    at += both ? 2 * step : step;
  }
}

inline std::uint32_t* pairs(float* x) { return reinterpret_cast<std::uint32_t*>(x); }
inline const std::uint32_t* pairs(const float* x) { return reinterpret_cast<const std::uint32_t*>(x); }

struct PairPacking {
  static constexpr int kKeysPerRow = 2;
  static void keys(const GridView& view, Index batch, const Index* token, Index stride, Index n,
                   Index channels, Index begin, Index end, float* to, std::size_t pitch, std::size_t rows,
                   Index row) {
    pack_key_pairs(view, batch, token, stride, n, channels, begin, end, pairs(to), pitch, rows, row);
  }
  static void values(const GridView& view, Index batch, const Index* token, Index stride, Index n,
                     Index channels, Index begin, Index end, float* to, std::size_t pitch, std::size_t rows,
                     Index row) {
    pack_value_pairs(view, batch, token, stride, n, channels, begin, end, pairs(to), pitch, rows, row);
  }
};

// 16 x 16 numbers of 32 bits, transposed.
HWY_INLINE void transpose16(Pairs (&r)[16]) {
  Pairs t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
    t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
    t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
    t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
    r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
    r[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
    r[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
  }
}

// The lanes' channels, transposed to [pairs of channels, rounded up to 16][kL]; lanes without a query are 0.
template <int kL>
void pack_lane_pairs(const GridView& view, const QueryTile& tile, const LaneOffsets& offsets, Index head,
                     Index channels, std::uint32_t* HWY_RESTRICT to) {
  for (int l = 0; l < kL; l += 16)
    for (Index c = 0; c < channels; c += 32) {
      Pairs r[16];
      for (int i = 0; i < 16; ++i)
        r[i] = tile.live[l + i] ? load_channels(view, offsets.at[l + i] + head * view.head, c, channels)
                                : _mm512_setzero_si512();
      transpose16(r);
      for (int i = 0; i < 16; ++i) _mm512_store_si512(to + (c / 2 + i) * kL + l, r[i]);
    }
}

}  // namespace nearfield::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // NF_BF16_TARGET

#endif  // per-target guard
