// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// 2^x for x <= 0 (any x below 60), in float: relative error 1.5e-7 on AVX-512, 2.2e-7 elsewhere, subnormal and then 0
// below 2^-126, 0 for -inf, NaN for NaN. Cody-Waite reduction and a minimax polynomial of degree 5: to [0, 1) where
// AVX-512 has instructions for it (2^0 is 1 - 2^-24), else to [-1/2, 1/2].
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
HWY_INLINE V exp2(V x) {
  const hn::DFromV<V> d;
#if HWY_TARGET == HWY_AVX3
  const V r{_mm512_reduce_ps(x.raw, 1)};  // x - floor(x); 0 for -inf
  V p = hn::Set(d, 1.8775767e-3f);
  p = hn::MulAdd(p, r, hn::Set(d, 8.9893397e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.5826318e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 2.4015361e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 6.9315308e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.99999994f));
  return V{_mm512_scalef_ps(p.raw, x.raw)};
#else
  const hn::RebindToSigned<decltype(d)> i;
  const V least = hn::Set(d, -151.0f);  // 2^-151 rounds to 0
#if HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR
  const V bounded = hn::Max(least, x);  // the second operand where one is NaN
#else
  const V bounded = hn::IfThenElse(hn::Lt(x, least), least, x);
#endif
  // Added to a number below 2^22, 1.5 2^23 leaves the nearest integer n in the last places of the sum; 64 more, so that
  // 2^(n + 64) is a normal number, which the last step brings to 2^n, subnormal or not.
  const V round = hn::Set(d, 12582912.0f + 64), sum = hn::Add(bounded, round),
          r = hn::Sub(bounded, hn::Sub(sum, round));
  V p = hn::Set(d, 1.3276473e-3f);
  p = hn::MulAdd(p, r, hn::Set(d, 9.6755410e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.5507131e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 2.4022120e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 6.9314694e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  p = hn::BitCast(d, hn::Add(hn::BitCast(i, p), hn::ShiftLeft<23>(hn::BitCast(i, sum))));
  return hn::MulAdd(p, hn::Set(d, 0x1p-64f),
                    hn::Sub(bounded, bounded));  // NaN - NaN stays NaN, whatever p became
#endif
}

}  // namespace nearfield::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
