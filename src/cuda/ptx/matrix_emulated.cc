// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Tensor cores on the host. Products of two factors are exact; they and C are summed almost exactly and then cut
// off, not rounded, to float32: of what hardware is known to do the least accurate that is plausible.
#include <bit>
#include <vector>

#include "cuda/ptx/matrix.h"

namespace nearfield::ptx {
namespace {

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define NF_FAST_CLONES __attribute__((target_clones("avx512f", "avx2,fma", "default")))
#else
#define NF_FAST_CLONES
#endif

// C[16][8] += A[16][k] B[k][8], cut off.
NF_FAST_CLONES void multiply_plain(float* c, const float* a, const float* b, int k) {
  for (int i = 0; i < 16; ++i) {
    double sum[8];
    for (int j = 0; j < 8; ++j) sum[j] = static_cast<double>(c[8 * i + j]);
    for (int x = 0; x < k; ++x) {
      const auto f = static_cast<double>(a[16 * i + x]);
      for (int j = 0; j < 8; ++j) sum[j] += f * static_cast<double>(b[8 * x + j]);
    }
    for (int j = 0; j < 8; ++j) {
      auto r = static_cast<float>(sum[j]);
      const double size = sum[j] < 0 ? -sum[j] : sum[j],
                   got = r < 0 ? -static_cast<double>(r) : static_cast<double>(r);
      if (got > size && got < 1e300 * 1e300) {  // rounded away from 0
        Word bits;
        std::memcpy(&bits, &r, 4);
        --bits;
        std::memcpy(&r, &bits, 4);
      }
      c[8 * i + j] = r;
    }
  }
}

void gather(float* plain, const Accumulator& c) {
  for (int l = 0; l < kLanes; ++l)
    for (int i = 0; i < 4; ++i) plain[8 * (l / 4 + i / 2 * 8) + l % 4 * 2 + i % 2] = c.of(l)[i];
}
void scatter(Accumulator& c, const float* plain) {
  for (int l = 0; l < kLanes; ++l)
    for (int i = 0; i < 4; ++i) c.of(l)[i] = plain[8 * (l / 4 + i / 2 * 8) + l % 4 * 2 + i % 2];
}

float half_to_float(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const float x = exponent == 31  ? (fraction ? std::nanf("") : INFINITY)
                  : exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                  : std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
  return bits & 0x8000 ? -x : x;
}

const float* half_table() {
  static const std::vector<float> table = [] {
    std::vector<float> t(65536);
    for (unsigned i = 0; i < t.size(); ++i) t[i] = half_to_float(static_cast<std::uint16_t>(i));
    return t;
  }();
  return table.data();
}

}  // namespace

float to_float(BF16, std::uint16_t bits) { return float_of(static_cast<Word>(bits) << 16); }
float to_float(F16, std::uint16_t bits) { return half_table()[bits]; }

std::uint16_t from_float(BF16, float x) {
  const Word bits = bits_of(x);
  if (x != x) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

std::uint16_t from_float(F16, float x) {
  const auto sign = static_cast<std::uint16_t>(std::signbit(x) ? 0x8000 : 0);
  if (x != x) return static_cast<std::uint16_t>(sign | 0x7e00);
  const float size = std::fabs(x);
  if (size >= 65520.0f) return static_cast<std::uint16_t>(sign | 0x7c00);
  if (size < 0x1p-14f)
    return static_cast<std::uint16_t>(sign | static_cast<int>(std::nearbyint(size * 0x1p24f)));
  const Word bits = bits_of(size), rounded = bits + 0xfffu + (bits >> 13 & 1u);
  return static_cast<std::uint16_t>(sign | ((rounded >> 13) - (112u << 10)));
}

void multiply_16bit(bool bf16, Accumulator& c, const PerLane<Word, 4>& a, const PerLane<Word, 4>& b,
                    int pair) {
  float plain_a[16 * 16], plain_b[16 * 8], plain_c[16 * 8];
  const float* half = half_table();
  const auto decode = [&](Word x) { return bf16 ? float_of(x << 16) : half[x & 0xffffu]; };
  for (int l = 0; l < kLanes; ++l) {
    const int g = l / 4, t = l % 4;
    for (int i = 0; i < 4; ++i) {
      float* row = plain_a + 16 * (g + i % 2 * 8) + 2 * t + i / 2 * 8;
      row[0] = decode(a.of(l)[i]);
      row[1] = decode(a.of(l)[i] >> 16);
    }
    for (int i = 0; i < 2; ++i) {
      const Word x = b.of(l)[2 * pair + i];
      plain_b[8 * (2 * t + 8 * i) + g] = decode(x);
      plain_b[8 * (2 * t + 8 * i + 1) + g] = decode(x >> 16);
    }
  }
  gather(plain_c, c);
  multiply_plain(plain_c, plain_a, plain_b, 16);
  scatter(c, plain_c);
}

void multiply_tf32(Accumulator& c, const PerLane<Word, 4>& a, const PerLane<Word, 4>& b, int pair) {
  float plain_a[16 * 16], plain_b[16 * 8], plain_c[16 * 8];
  for (int l = 0; l < kLanes; ++l) {
    const int g = l / 4, t = l % 4;
    for (int i = 0; i < 4; ++i)  // the low 13 bits are not looked at
      plain_a[16 * (g + i % 2 * 8) + t + i / 2 * 4] = float_of(a.of(l)[i] & ~0x1fffu);
    for (int i = 0; i < 2; ++i) plain_b[8 * (t + 4 * i) + g] = float_of(b.of(l)[2 * pair + i] & ~0x1fffu);
  }
  gather(plain_c, c);
  multiply_plain(plain_c, plain_a, plain_b, 8);
  scatter(c, plain_c);
}

}  // namespace nearfield::ptx
