// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The vector conversions of 16-bit floats agree with those of one element, on every SIMD target of this
// machine: all 65536 patterns widened, and floats around every point where rounding changes narrowed.
#define HWY_COMPILE_ALL_ATTAINABLE
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <string>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "convert_test.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/convert-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nearfield::cpu::HWY_NAMESPACE {

template <class S>
void widen_all(const S* from, std::size_t n, float* to, std::size_t pitch) {
  const hn::CappedTag<float, 16> d;
  const float check = hn::GetLane(hn::SumOfLanes(d, widen_row(d, from, n, to, pitch)));
  to[pitch] = check;
}

template <class S>
void narrow_all(const float* from, std::size_t n, S* to) {
  narrow_row(hn::CappedTag<float, 16>(), from, n, to);
}

}  // namespace nearfield::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nearfield {
namespace {

template <class S>
struct Functions {
  std::string target;
  void (*widen)(const S*, std::size_t, float*, std::size_t);  // to[pitch] = sum of x * 0
  void (*narrow)(const float*, std::size_t, S*);
};

template <class S>
std::vector<Functions<S>> functions() {
  std::vector<Functions<S>> list;
#if HWY_TARGETS & HWY_AVX3
  if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    list.push_back({"avx512", &cpu::N_AVX3::widen_all<S>, &cpu::N_AVX3::narrow_all<S>});
#endif
#if HWY_TARGETS & HWY_AVX2
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    list.push_back({"avx2", &cpu::N_AVX2::widen_all<S>, &cpu::N_AVX2::narrow_all<S>});
#endif
#if HWY_TARGETS & HWY_SSE4
  if (__builtin_cpu_supports("sse4.2"))
    list.push_back({"sse4", &cpu::N_SSE4::widen_all<S>, &cpu::N_SSE4::narrow_all<S>});
#endif
#if HWY_TARGETS & HWY_NEON
  list.push_back({"neon", &cpu::N_NEON::widen_all<S>, &cpu::N_NEON::narrow_all<S>});
#endif
#if HWY_TARGETS & HWY_EMU128
  list.push_back({"scalar", &cpu::N_EMU128::widen_all<S>, &cpu::N_EMU128::narrow_all<S>});
#endif
#if HWY_TARGETS & HWY_SCALAR
  list.push_back({"scalar", &cpu::N_SCALAR::widen_all<S>, &cpu::N_SCALAR::narrow_all<S>});
#endif
  return list;
}

// The scalar conversions, which the reference backend uses.
float widened(BFloat16Bits x) { return bfloat16_to_float(x.bits); }
float widened(Float16Bits x) { return static_cast<float>(std::bit_cast<Float16>(x.bits)); }
std::uint16_t narrowed(float x, BFloat16Bits) { return float_to_bfloat16(x); }
std::uint16_t narrowed(float x, Float16Bits) { return std::bit_cast<std::uint16_t>(static_cast<Float16>(x)); }
bool is_nan(std::uint16_t bits, BFloat16Bits) { return (bits & 0x7fff) > 0x7f80; }
bool is_nan(std::uint16_t bits, Float16Bits) { return (bits & 0x7fff) > 0x7c00; }

// Every upper half of a float, with lower halves around each multiple of 4096: every tie of either type.
std::vector<float> many_floats() {
  std::vector<float> list;
  for (std::uint32_t high = 0; high < 65536; ++high)
    for (std::uint32_t low = 0; low < 65536; low += 4096)
      for (const std::uint32_t step : {0u, 1u, 4095u})
        list.push_back(std::bit_cast<float>(high << 16 | (low + step)));
  return list;
}

template <class S>
struct Convert : ::testing::Test {};
using Types = ::testing::Types<BFloat16Bits, Float16Bits>;
TYPED_TEST_SUITE(Convert, Types);

TYPED_TEST(Convert, WidensEveryPattern) {
  std::vector<TypeParam> all(65536);
  for (std::size_t i = 0; i < all.size(); ++i) all[i].bits = static_cast<std::uint16_t>(i);
  for (const auto& f : functions<TypeParam>()) {
    std::vector<float> got(all.size() + 1);
    f.widen(all.data(), all.size(), got.data(), all.size());
    EXPECT_TRUE(std::isnan(got[all.size()])) << f.target;
    int wrong = 0;
    for (std::size_t i = 0; i < all.size(); ++i) {
      const float expected = widened(all[i]);
      const bool same = std::bit_cast<std::uint32_t>(got[i]) == std::bit_cast<std::uint32_t>(expected) ||
                        (std::isnan(got[i]) && std::isnan(expected));
      if (!same && wrong++ < 5)
        ADD_FAILURE() << f.target << ": " << i << " became " << got[i] << ", not " << expected;
    }
  }
}

TYPED_TEST(Convert, NarrowsToTheNearest) {
  const std::vector<float> all = many_floats();
  std::vector<TypeParam> got(all.size());
  for (const auto& f : functions<TypeParam>()) {
    f.narrow(all.data(), all.size(), got.data());
    int wrong = 0;
    for (std::size_t i = 0; i < all.size(); ++i) {
      const std::uint16_t expected = narrowed(all[i], TypeParam());
      const bool same = got[i].bits == expected || (std::isnan(all[i]) && is_nan(got[i].bits, TypeParam()));
      if (!same && wrong++ < 5)
        ADD_FAILURE() << f.target << ": " << std::hexfloat << all[i] << " became " << got[i].bits << ", not "
                      << expected;
    }
  }
}

// Nothing outside a row is read (the address sanitizer watches) or written; the padding is zeros.
TYPED_TEST(Convert, RowsOfAnyLength) {
  for (const auto& f : functions<TypeParam>())
    for (std::size_t n = 1; n <= 70; ++n) {
      const std::size_t pitch = (n + 15) / 16 * 16;
      std::vector<TypeParam> from(n), to(n + 2, TypeParam{0x1234});
      std::vector<float> row(pitch + 2, 7.0f);
      for (std::size_t i = 0; i < n; ++i) from[i].bits = static_cast<std::uint16_t>(0x2000 + 37 * i);
      f.widen(from.data(), n, row.data(), pitch);
      EXPECT_EQ(row[pitch], 0.0f) << f.target << " " << n;
      EXPECT_EQ(row[pitch + 1], 7.0f) << f.target << " " << n;
      for (std::size_t i = 0; i < pitch; ++i)
        EXPECT_EQ(row[i], i < n ? widened(from[i]) : 0.0f) << f.target << " " << n << " " << i;
      const std::vector<float> exact(row.begin(), row.begin() + static_cast<std::ptrdiff_t>(n));
      f.narrow(exact.data(), n, to.data() + 1);
      EXPECT_EQ(to.front().bits, 0x1234) << f.target << " " << n;
      EXPECT_EQ(to.back().bits, 0x1234) << f.target << " " << n;
      for (std::size_t i = 0; i < n; ++i) EXPECT_EQ(to[i + 1].bits, from[i].bits) << f.target << " " << n;
      from[n / 2].bits = 0x7f80 | 0x7c00;  // not finite in either type
      f.widen(from.data(), n, row.data(), pitch);
      EXPECT_TRUE(std::isnan(row[pitch])) << f.target << " " << n;
    }
}

}  // namespace
}  // namespace nearfield
#endif  // HWY_ONCE
