// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// 2^x for x <= 0 (any x below 128), in float: relative error 1.5e-7, 0 below 2^-150 and for
// -inf, NaN for NaN. Cody-Waite reduction to [0, 1) and a minimax polynomial of degree 5;
// 2^0 is 1 - 2^-24.
#if defined(NEARFIELD_CPU_EXP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NEARFIELD_CPU_EXP_INL_H_
#undef NEARFIELD_CPU_EXP_INL_H_
#else
#define NEARFIELD_CPU_EXP_INL_H_
#endif

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace nearfield::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

inline constexpr float kLog2e = 1.44269504088896340736f;

template <class V>
HWY_INLINE V exp2_polynomial(V r) {
  const hn::DFromV<V> d;
  V p = hn::Set(d, 1.8775767e-3f);
  p = hn::MulAdd(p, r, hn::Set(d, 8.9893397e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.5826318e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 2.4015361e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 6.9315308e-1f));
  return hn::MulAdd(p, r, hn::Set(d, 0.99999994f));
}

template <class V>
HWY_INLINE V exp2(V x) {
#if HWY_TARGET == HWY_AVX3
  const V r{_mm512_reduce_ps(x.raw, 1)};  // x - floor(x); 0 for -inf
  return V{_mm512_scalef_ps(exp2_polynomial(r).raw, x.raw)};
#else
  const hn::DFromV<V> d;
  const hn::RebindToSigned<decltype(d)> i;
  const V n = hn::Floor(hn::Max(x, hn::Set(d, -150.0f)));
  const auto exponent = hn::ConvertTo(i, n),
             half = hn::ShiftRight<1>(exponent);  // in two steps: 2^n may be subnormal
  const auto power = [&](auto e)
                         HWY_ATTR { return hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(e, hn::Set(i, 127)))); };
  const V scaled =
      hn::Mul(hn::Mul(exp2_polynomial(hn::Sub(x, n)), power(half)), power(hn::Sub(exponent, half)));
  return hn::IfThenElse(hn::IsNaN(x), x, hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -150.0f)), scaled));
#endif
}

}  // namespace nearfield::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
