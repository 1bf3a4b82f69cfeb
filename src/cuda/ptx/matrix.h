// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Products of small matrices on tensor cores: C[16][8] += A[16][k] B[k][8], k = 16 for bf16 and f16, 8 for tf32:
// always 32 bytes of a row of A. Layouts (lane = 4 g + t; PTX ISA, "Matrix fragments for mma.m16n8k16" and k8):
//
//   C  f32     c0 c1: row g,   columns 2t, 2t+1       c2 c3: row g+8, the same columns
//   A  16 bit  a0: row g,   k 2t, 2t+1      a1: row g+8     a2: row g, k 2t+8, 2t+9      a3: row g+8
//      tf32    a0: row g,   k t             a1: row g+8     a2: row g, k t+4             a3: row g+8
//   B  16 bit  b0: column g, k 2t, 2t+1     b1: k 2t+8, 2t+9
//      tf32    b0: column g, k t            b1: k t+4
//
// ldmatrix reads 8 x 16 bytes per matrix, row i from the address of lane i of the matrix's eight lanes; lane
// 4 g + t gets bytes 4t..4t+3 of row g. Transposed (16-bit elements): elements 2t, 2t+1 of column g.
//
// The operands of a product may be permuted alike along k. The weights of an accumulator become an A operand in
// place: 16 bit as they lie, tf32 with k = t taken from column 2t and k = t+4 from column 2t+1.
#pragma once

#include "cuda/ptx/block.h"

namespace nearfield::ptx {

// Element types. Chunk: elements in 16 bytes. Step: k of one product.
struct BF16 {
  using Storage = std::uint16_t;
  static constexpr int kBytes = 2, kChunk = 8, kStep = 16;
};
struct F16 {
  using Storage = std::uint16_t;
  static constexpr int kBytes = 2, kChunk = 8, kStep = 16;
};
struct F32 {
  using Storage = float;
  static constexpr int kBytes = 4, kChunk = 4, kStep = 8;
};

using Accumulator = PerLane<float, 4>;

// One operand of a product. F32 is held as the sum of two tf32 numbers: 3xTF32, products of the small parts
// with each other left out: relative error 2^-22 of a product.
template <class E, int N>
struct Factor {
  PerLane<Word, N> bits;
};
template <int N>
struct Factor<F32, N> {
  PerLane<Word, N> bits, rest;
};

#if defined(NF_EMULATED)
float to_float(BF16, std::uint16_t bits);
float to_float(F16, std::uint16_t bits);
std::uint16_t from_float(BF16, float x);
std::uint16_t from_float(F16, float x);
void multiply_16bit(bool bf16, Accumulator& c, const PerLane<Word, 4>& a, const PerLane<Word, 4>& b,
                    int pair);
void multiply_tf32(Accumulator& c, const PerLane<Word, 4>& a, const PerLane<Word, 4>& b, int pair);
inline float float_of(Word bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline Word bits_of(float x) {
  Word bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
#else
NF_DEVICE float to_float(BF16, std::uint16_t bits) { return __uint_as_float(static_cast<Word>(bits) << 16); }
NF_DEVICE float to_float(F16, std::uint16_t bits) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
}
NF_DEVICE std::uint16_t from_float(BF16, float x) {
  std::uint16_t bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}
NF_DEVICE std::uint16_t from_float(F16, float x) {
  std::uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}
NF_DEVICE float float_of(Word bits) { return __uint_as_float(bits); }
NF_DEVICE Word bits_of(float x) { return __float_as_uint(x); }
#endif
// The nearest, ties away from 0: as cvt.rna.tf32, of which ptxas makes the same three instructions; but what that would
// round to infinity is cut off.
NF_DEVICE Word to_tf32(float x) {
  Word bits = bits_of(x);
#if defined(NF_EMULATED)
  if (std::fabs(x) < 0x1.ffep127f) bits += 0x1000u;
#else
  asm("{ .reg .pred p; .reg .f32 size; abs.f32 size, %1; setp.lt.f32 p, size, 0f7f7ff000;"
      " @p add.u32 %0, %0, 0x1000; }"
      : "+r"(bits)
      : "f"(x));
#endif
  return bits & ~0x1fffu;
}
NF_DEVICE float to_float(F32, float x) { return x; }
NF_DEVICE float from_float(F32, float x) { return x; }

// Two elements in a word, the first in the low half.
NF_DEVICE Word pack(BF16 e, float first, float second) {
#if defined(NF_EMULATED)
  return static_cast<Word>(from_float(e, second)) << 16 | from_float(e, first);
#else
  Word bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
  return bits;
#endif
}
NF_DEVICE Word pack(F16 e, float first, float second) {
#if defined(NF_EMULATED)
  return static_cast<Word>(from_float(e, second)) << 16 | from_float(e, first);
#else
  Word bits;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
  return bits;
#endif
}

// Four matrices; offset(lane) is the byte offset of the row that the lane names.
template <class Offset>
NF_DEVICE void ldmatrix(Block& block, PerLane<Word, 4>& r, const Offset& offset) {
#if defined(NF_EMULATED)
  Word rows[kLanes][4];
  for (int l = 0; l < kLanes; ++l) std::memcpy(rows[l], block.all->read(block.thread(l), offset(l), 16), 16);
  for (int m = 0; m < 4; ++m)
    for (int l = 0; l < kLanes; ++l) r.of(l)[m] = rows[8 * m + l / 4][l % 4];
#else
  const Word at = block.shared_address(offset(lane_id()));
  Word(&x)[4] = r.of(0);
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(at)
               : "memory");
#endif
}
template <class Offset>
NF_DEVICE void ldmatrix_transposed(Block& block, PerLane<Word, 4>& r, const Offset& offset) {
#if defined(NF_EMULATED)
  std::uint16_t rows[kLanes][8];
  for (int l = 0; l < kLanes; ++l) std::memcpy(rows[l], block.all->read(block.thread(l), offset(l), 16), 16);
  for (int m = 0; m < 4; ++m)
    for (int l = 0; l < kLanes; ++l)
      r.of(l)[m] =
          static_cast<Word>(rows[8 * m + l % 4 * 2 + 1][l / 4]) << 16 | rows[8 * m + l % 4 * 2][l / 4];
#else
  const Word at = block.shared_address(offset(lane_id()));
  Word(&x)[4] = r.of(0);
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(at)
               : "memory");
#endif
}

// From raw words as they lie in memory.
template <class E, int N>
NF_DEVICE void prepare(Factor<E, N>& f, const PerLane<Word, N>& raw) {
  f.bits = raw;
}
template <int N>
NF_DEVICE void prepare(Factor<F32, N>& f, const PerLane<Word, N>& raw) {
  NF_LANES(lane) {
    NF_UNROLL
    for (int i = 0; i < N; ++i) {
      const float x = float_of(raw.of(lane)[i]);
      const Word big = to_tf32(x);
      f.bits.of(lane)[i] = big;
      f.rest.of(lane)[i] = to_tf32(x - float_of(big));
    }
  }
}

#if !defined(NF_EMULATED)
NF_DEVICE void mma(BF16, float (&c)[4], const Word (&a)[4], Word b0, Word b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
NF_DEVICE void mma(F16, float (&c)[4], const Word (&a)[4], Word b0, Word b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
NF_DEVICE void mma(F32, float (&c)[4], const Word (&a)[4], Word b0, Word b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif

// C += A B; b holds two B operands, of which `pair` (0 or 1) is meant.
template <class E>
NF_DEVICE void multiply(Accumulator& c, const Factor<E, 4>& a, const Factor<E, 4>& b, int pair) {
#if defined(NF_EMULATED)
  multiply_16bit(std::is_same_v<E, BF16>, c, a.bits, b.bits, pair);
#else
  mma(E{}, c.of(0), a.bits.of(0), b.bits.of(0)[2 * pair], b.bits.of(0)[2 * pair + 1]);
#endif
}
// Tensor cores cut sums off where FADD rounds: over many steps that would cost float32 its last bits, so each step
// begins at 0 and is added outside (Ootomo and Yokota, 2022, section 3.3).
NF_DEVICE void multiply(Accumulator& c, const Factor<F32, 4>& a, const Factor<F32, 4>& b, int pair) {
#if defined(NF_EMULATED)
  Accumulator step;
  std::memset(static_cast<void*>(&step), 0, sizeof step);
  multiply_tf32(step, a.rest, b.bits, pair);
  multiply_tf32(step, a.bits, b.rest, pair);
  multiply_tf32(step, a.bits, b.bits, pair);
  for (int l = 0; l < kLanes; ++l)
    for (int i = 0; i < 4; ++i) c.of(l)[i] += step.of(l)[i];
#else
  float step[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  mma(F32{}, step, a.rest.of(0), b.bits.of(0)[2 * pair], b.bits.of(0)[2 * pair + 1]);
  mma(F32{}, step, a.bits.of(0), b.rest.of(0)[2 * pair], b.rest.of(0)[2 * pair + 1]);
  mma(F32{}, step, a.bits.of(0), b.bits.of(0)[2 * pair], b.bits.of(0)[2 * pair + 1]);
  NF_UNROLL
  for (int i = 0; i < 4; ++i) c.of(0)[i] += step[i];
#endif
}

// Step `step` of the weights in accumulators, rounded to E, as an A operand: columns step * kStep on.
template <class E, int N>
NF_DEVICE void weights(Factor<E, 4>& a, const Accumulator (&w)[N], int step) {
  NF_LANES(lane) {
    const float(&first)[4] = w[2 * step].of(lane), (&second)[4] = w[2 * step + 1].of(lane);
    a.bits.of(lane)[0] = pack(E{}, first[0], first[1]);
    a.bits.of(lane)[1] = pack(E{}, first[2], first[3]);
    a.bits.of(lane)[2] = pack(E{}, second[0], second[1]);
    a.bits.of(lane)[3] = pack(E{}, second[2], second[3]);
  }
}
template <int N>
NF_DEVICE void weights(Factor<F32, 4>& a, const Accumulator (&w)[N], int step) {
  PerLane<Word, 4> raw;
  NF_LANES(lane) {
    const float(&c)[4] = w[step].of(lane);
    raw.of(lane)[0] = bits_of(c[0]);
    raw.of(lane)[1] = bits_of(c[2]);
    raw.of(lane)[2] = bits_of(c[1]);
    raw.of(lane)[3] = bits_of(c[3]);
  }
  prepare(a, raw);
}

}  // namespace nearfield::ptx
