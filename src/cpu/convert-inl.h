// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// 16-bit floats in memory <-> float vectors, the same numbers as runtime/convert.h gives one at a time.
//
//   x = widen(d, from)      d.lanes() values from `from` on, of the type that it points to; exact
//   narrow(x, d, to)        the nearest value, ties to even; NaN stays NaN, what is too large becomes infinity
//
// float (and double) memory has the same two functions, which only load and store; widen_row() and
// narrow_row() do rows of any length. Highway's own conversions truncate to bfloat16, and without F16C
// take an infinity of binary16 for a number; so these are spelled out.
#if defined(NEARFIELD_CPU_CONVERT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NEARFIELD_CPU_CONVERT_INL_H_
#undef NEARFIELD_CPU_CONVERT_INL_H_
#else
#define NEARFIELD_CPU_CONVERT_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>

#include "runtime/convert.h"

HWY_BEFORE_NAMESPACE();
namespace nearfield::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The instruction set converts binary16 as IEEE 754 says.
inline constexpr bool kHasHalf =
    HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2 || (HWY_TARGET == HWY_NEON && HWY_ARCH_ARM_A64);

template <class D>
using Bits16 = hn::Rebind<std::uint16_t, D>;
template <class D>
using Bits32 = hn::RebindToUnsigned<D>;

template <class D>
HWY_INLINE hn::Vec<D> widen(D d, const hn::TFromD<D>* from) {
  return hn::LoadU(d, from);
}

template <class D>
HWY_INLINE void narrow(hn::Vec<D> x, D d, hn::TFromD<D>* to) {
  hn::StoreU(x, d, to);
}

template <class D>
HWY_INLINE hn::Vec<D> widen(D d, const BFloat16Bits* from) {
  const auto bits = hn::LoadU(Bits16<D>(), &from->bits);
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(Bits32<D>(), bits)));
}

template <class D>
HWY_INLINE void narrow(hn::Vec<D> x, D d, BFloat16Bits* to) {
  const Bits32<D> du;
  const auto bits = hn::BitCast(du, x), high = hn::ShiftRight<16>(bits);
  const auto odd = hn::And(high, hn::Set(du, 1));
  const auto nearest = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fff))));
  const auto is_nan = hn::RebindMask(du, hn::IsNaN(x));
  const auto result = hn::IfThenElse(is_nan, hn::Or(high, hn::Set(du, 0x40)), nearest);
  hn::StoreU(hn::TruncateTo(Bits16<D>(), result), Bits16<D>(), &to->bits);
  (void)d;
}

template <class D>
HWY_INLINE hn::Vec<D> widen(D d, const Float16Bits* from) {
  const Bits16<D> d16;
  const Bits32<D> du;
  const auto bits = hn::LoadU(d16, &from->bits);
  if constexpr (kHasHalf) {
    return hn::PromoteTo(d, hn::BitCast(hn::Rebind<hwy::float16_t, D>(), bits));
  } else {
    const auto all = hn::PromoteTo(du, bits);
    const auto sign = hn::ShiftLeft<16>(hn::And(all, hn::Set(du, 0x8000)));
    const auto shifted = hn::ShiftLeft<13>(hn::And(all, hn::Set(du, 0x7fff)));
    const auto exponent = hn::And(shifted, hn::Set(du, 0x7c00u << 13));
    // A larger exponent bias; the largest exponent becomes the largest again.
    auto normal = hn::Add(shifted, hn::Set(du, (127u - 15) << 23));
    const auto special = hn::Eq(exponent, hn::Set(du, 0x7c00u << 13));
    normal = hn::Add(normal, hn::IfThenElseZero(special, hn::Set(du, (128u - 16) << 23)));
    // 2**-14 + the fraction, less 2**-14: no subnormal float takes part, so no mode flushes it.
    const auto smallest = hn::Set(du, (127u - 14) << 23);
    const auto subnormal =
        hn::BitCast(du, hn::Sub(hn::BitCast(d, hn::Add(shifted, smallest)), hn::BitCast(d, smallest)));
    const auto magnitude = hn::IfThenElse(hn::Eq(exponent, hn::Zero(du)), subnormal, normal);
    return hn::BitCast(d, hn::Or(magnitude, sign));
  }
}

template <class D>
HWY_INLINE void narrow(hn::Vec<D> x, D d, Float16Bits* to) {
  const Bits16<D> d16;
  const Bits32<D> du;
  if constexpr (kHasHalf) {
    const auto half = hn::DemoteTo(hn::Rebind<hwy::float16_t, D>(), x);
    hn::StoreU(hn::BitCast(d16, half), d16, &to->bits);
  } else {
    const auto bits = hn::BitCast(du, x), magnitude = hn::And(bits, hn::Set(du, 0x7fffffff));
    const auto sign = hn::ShiftRight<16>(hn::Xor(bits, magnitude));
    const auto odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(du, 1));
    const auto normal = hn::ShiftRight<13>(
        hn::Add(hn::Sub(magnitude, hn::Set(du, (127u - 15) << 23)), hn::Add(odd, hn::Set(du, 0xfff))));
    // In x + 1/2 the last place is 2**-24, that of a subnormal half: the addition rounds.
    const auto half = hn::Set(du, 126u << 23);
    const auto subnormal =
        hn::Sub(hn::BitCast(du, hn::Add(hn::BitCast(d, magnitude), hn::BitCast(d, half))), half);
    const auto is_small = hn::Lt(magnitude, hn::Set(du, (127u - 14) << 23));
    const auto is_finite = hn::Lt(magnitude, hn::Set(du, (127u + 16) << 23));
    const auto is_nan = hn::RebindMask(du, hn::IsNaN(x));
    auto result = hn::IfThenElse(is_small, subnormal, normal);
    result = hn::IfThenElse(is_finite, result, hn::Set(du, 0x7c00));
    result = hn::IfThenElse(is_nan, hn::Set(du, 0x7e00), result);
    hn::StoreU(hn::TruncateTo(d16, hn::Or(result, sign)), d16, &to->bits);
  }
}

// n values, and zeros up to row[pitch], a multiple of the vector's lanes from n on. Returns the sum of
// x * 0: 0 if every value is finite, else NaN.
template <class D, class S>
HWY_INLINE hn::Vec<D> widen_row(D d, const S* HWY_RESTRICT from, std::size_t n,
                                hn::TFromD<D>* HWY_RESTRICT row, std::size_t pitch) {
  constexpr std::size_t kCount = hn::MaxLanes(D());
  const hn::Vec<D> zero = hn::Zero(d);
  hn::Vec<D> check = zero;
  const auto put = [&](const S* values, hn::TFromD<D>* to) HWY_ATTR {
    const hn::Vec<D> x = widen(d, values);
    check = hn::MulAdd(x, zero, check);
    hn::StoreU(x, d, to);
  };
  std::size_t c = 0;
  for (; c + kCount <= n; c += kCount) put(from + c, row + c);
  for (std::size_t i = c; i < pitch; i += kCount) hn::StoreU(zero, d, row + i);
  if (c == n) return check;
  if (n > kCount) {  // the last vector overlaps the one before
    put(from + n - kCount, row + n - kCount);
  } else {
    S few[kCount] = {};
    std::copy(from, from + n, few);
    put(few, row);
  }
  return check;
}

template <class D, class S>
HWY_INLINE void narrow_row(D d, const hn::TFromD<D>* HWY_RESTRICT row, std::size_t n, S* HWY_RESTRICT to) {
  constexpr std::size_t kCount = hn::MaxLanes(D());
  const auto put = [&](const hn::TFromD<D>* values, S* at) HWY_ATTR { narrow(hn::LoadU(d, values), d, at); };
  std::size_t c = 0;
  for (; c + kCount <= n; c += kCount) put(row + c, to + c);
  if (c == n) return;
  if (n > kCount) {
    put(row + n - kCount, to + n - kCount);
  } else {
    hn::TFromD<D> some[kCount] = {};
    S few[kCount];
    std::copy(row, row + n, some);
    put(some, few);
    std::copy(few, few + n, to);
  }
}

}  // namespace nearfield::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
