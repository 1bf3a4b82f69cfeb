// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Between tensors in memory and the stencil kernel's scratch. Memory is walked in its own order, all heads of a token
// at a time: sixteen tokens are copied (or converted) to a scratch that stays in the L1 cache, and transposed
// from there.
#if defined(NEARFIELD_CPU_STENCIL_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NEARFIELD_CPU_STENCIL_PACK_INL_H_
#undef NEARFIELD_CPU_STENCIL_PACK_INL_H_
#else
#define NEARFIELD_CPU_STENCIL_PACK_INL_H_
#endif

#include "cpu/pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nearfield::cpu::HWY_NAMESPACE {

inline constexpr int kStaged = 16;  // tokens

// kFloats tokens and 16 channels: to[c * pitch + i] = from[i][c] * by.
HWY_INLINE void transpose_tokens(const float* from, Index from_pitch, float by, float* HWY_RESTRICT to,
                                 Index pitch) {
#if HWY_TARGET == HWY_AVX3
  const __m512 scale = _mm512_set1_ps(by);
  __m512 r[16], t[16];
  const auto f = [](__m512d x) HWY_ATTR { return _mm512_castpd_ps(x); };
  const auto w = [](__m512 x) HWY_ATTR { return _mm512_castps_pd(x); };
  NF_UNROLL
  for (int i = 0; i < 16; ++i) r[i] = _mm512_mul_ps(_mm512_loadu_ps(from + i * from_pitch), scale);
  NF_UNROLL
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  NF_UNROLL
  for (int i = 0; i < 16; i += 4) {
    r[i] = f(_mm512_unpacklo_pd(w(t[i]), w(t[i + 2])));
    r[i + 1] = f(_mm512_unpackhi_pd(w(t[i]), w(t[i + 2])));
    r[i + 2] = f(_mm512_unpacklo_pd(w(t[i + 1]), w(t[i + 3])));
    r[i + 3] = f(_mm512_unpackhi_pd(w(t[i + 1]), w(t[i + 3])));
  }
  NF_UNROLL
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
  }
  NF_UNROLL
  for (int i = 0; i < 4; ++i) {
    _mm512_store_ps(to + i * pitch, _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88));
    _mm512_store_ps(to + (i + 8) * pitch, _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd));
    _mm512_store_ps(to + (i + 4) * pitch, _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88));
    _mm512_store_ps(to + (i + 12) * pitch, _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd));
  }
#else
  for (int i = 0; i < kFloats; i += 4) {
    const float* rows[4];
    for (int j = 0; j < 4; ++j) rows[j] = from + (i + j) * from_pitch;
    for (Index c = 0; c < 16; c += 4)
      transpose4(rows, c, by, to + c * pitch + i, static_cast<std::size_t>(pitch));
  }
#endif
}

// Heads of a tensor's tokens next to each other, in memory and staged.
struct HeadRun {
  const GridView& view;
  Index heads, channels, step;  // step: floats between staged heads
  bool joined;                  // one run of memory

  HeadRun(const GridView& v, Index n, Index channels_)
      : view(v), heads(n), channels(channels_), step(channels_),
        joined(v.channel == 1 && (n == 1 || v.head == channels_)) {
    if (!joined) step = static_cast<Index>(pitch_of<float>(channels));
  }

  // The heads of the token whose first element is `at`; writes up to 15 floats more.
  HWY_INLINE void stage(Index at, float* HWY_RESTRICT to) const {
    const auto all = static_cast<std::size_t>(heads * channels);
    const FloatTag d;
    if (joined && with_element<float>(view, at, [&](const auto* from) HWY_ATTR {
          widen_row(d, from, all, to, rounded(all, 16));
        }))
      return;
    for (Index h = 0; h < heads; ++h) load_row(view, at + h * view.head, channels, to + h * step);
  }

  // The same into arrays of a head's own, `apart` floats from each other; zeros up to whole vectors.
  HWY_INLINE void scatter(Index at, float* HWY_RESTRICT to, Index apart) const {
    const FloatTag d;
    if (joined && view.dtype == DType::kFloat32 && channels % 16 == 0) {
      const float* from = static_cast<const float*>(view.data) + at;
      for (Index h = 0; h < heads; ++h, from += channels, to += apart)
        for (Index c = 0; c < channels; c += kFloats) hn::Store(hn::LoadU(d, from + c), d, to + c);
      return;
    }
    for (Index h = 0; h < heads; ++h) load_row(view, at + h * view.head, channels, to + h * apart);
  }
};

// row times factor, to the tensor.
HWY_INLINE void store_scaled(const GridView& view, Index at, Index channels, const float* HWY_RESTRICT row,
                             float factor, float* HWY_RESTRICT line) {
  const FloatTag d;
  const Floats f = hn::Set(d, factor);
  if (view.dtype == DType::kFloat32 && view.channel == 1 && channels % kFloats == 0) {
    float* to = static_cast<float*>(view.data) + at;
    for (Index c = 0; c < channels; c += kFloats) hn::StoreU(hn::Mul(hn::Load(d, row + c), f), d, to + c);
    return;
  }
  for (Index c = 0; c < channels; c += kFloats) hn::Store(hn::Mul(hn::Load(d, row + c), f), d, line + c);
  if (with_element<float>(
          view, at, [&](auto* to) HWY_ATTR { narrow_row(d, line, static_cast<std::size_t>(channels), to); }))
    return;
  for (Index c = 0; c < channels; ++c)
    store_element(view.data, view.dtype, at + c * view.channel, static_cast<double>(line[c]));
}

}  // namespace nearfield::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
