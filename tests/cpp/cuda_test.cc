// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The parts of the CUDA backend that stand for themselves, on the host: the emulator finds what it is there to find,
// products have the layouts of the PTX manual.
#include <gtest/gtest.h>

#include "conformance.h"
#include "cuda/ptx/matrix.h"
#include "cuda/sm80/emulated.h"

namespace nearfield {
namespace {

using ptx::Block;
using ptx::PerLane;
using ptx::Word;

void on_host(int warps, const std::function<void(Block&)>& body, std::vector<ptx::Span> spans = {}) {
  SerialExecutor serial;
  ptx::emulate(1, warps, 4096, spans, serial, body);
}

// What the emulator says, or nothing.
std::string finding(int warps, const std::function<void(Block&)>& body, std::vector<ptx::Span> spans = {}) {
  try {
    on_host(warps, body, std::move(spans));
  } catch (const std::logic_error& e) { return e.what(); }
  return "";
}

TEST(Emulator, FindsRaces) {
  const auto exchange = [](bool synchronised) {
    return [synchronised](Block& block) {
      NF_LANES(lane) block.set<int>(lane, static_cast<Word>(4 * block.thread(lane)), lane);
      if (synchronised) block.barrier();
      NF_LANES(lane) block.get<int>(lane, static_cast<Word>(4 * ((block.thread(lane) + 1) % 64)));
    };
  };
  EXPECT_EQ(finding(2, exchange(true)), "");
  EXPECT_NE(finding(2, exchange(false)).find("race"), std::string::npos);
  EXPECT_NE(finding(1,
                    [](Block& block) {
                      NF_LANES(lane)
                      block.set<int>(lane, 0, lane);
                    })
                .find("two threads write"),
            std::string::npos);
  EXPECT_NE(finding(1,
                    [](Block& block) {  // a read, then a write by another thread
                      NF_LANES(lane) if (lane == 0) block.set<int>(lane, 0, 1);
                      block.barrier();
                      NF_LANES(lane) if (lane == 1) block.get<int>(lane, 0);
                      NF_LANES(lane) if (lane == 0) block.set<int>(lane, 0, 2);
                    })
                .find("race"),
            std::string::npos);
}

TEST(Emulator, ChecksBoundsAndAlignment) {
  EXPECT_NE(finding(1, [](Block& b) { b.set<int>(0, 4096, 1); }).find("outside"), std::string::npos);
  EXPECT_NE(finding(1, [](Block& b) { b.get<float>(0, 0xfffffffc); }).find("outside"), std::string::npos);
  EXPECT_NE(finding(1, [](Block& b) { b.get<float>(0, 2); }).find("unaligned"), std::string::npos);
  alignas(16) float memory[8] = {};
  const auto* bytes = reinterpret_cast<const std::byte*>(memory);
  const std::vector<ptx::Span> input{{bytes, bytes + 16, false}};
  EXPECT_EQ(finding(
                1, [&](Block& b) { b.load(memory + 3); }, input),
            "");
  EXPECT_NE(finding(
                1, [&](Block& b) { b.load(memory + 4); }, input)
                .find("read outside"),
            std::string::npos);
  EXPECT_NE(finding(
                1, [&](Block& b) { b.store(memory, 1.0f); }, input)
                .find("write outside"),
            std::string::npos);
  EXPECT_NE(finding(
                1, [&](Block& b) { b.copy16(0, 0, memory + 4, 16); }, input)
                .find("read outside"),
            std::string::npos);
  EXPECT_NE(finding(
                1, [&](Block& b) { b.copy16(0, 0, memory + 1, 4); }, input)
                .find("unaligned"),
            std::string::npos);
}

// Blocks run in no order that is known.
TEST(Emulator, NoTwoBlocksMeetInMemory) {
  alignas(16) float memory[4] = {};
  const auto* bytes = reinterpret_cast<const std::byte*>(memory);
  SerialExecutor serial;
  const auto of_two_blocks = [&](const std::function<void(Block&)>& body) -> std::string {
    try {
      ptx::emulate(2, 1, 16, {{bytes, bytes + sizeof memory, true}}, serial, body);
    } catch (const std::logic_error& e) { return e.what(); }
    return "";
  };
  EXPECT_EQ(of_two_blocks([&](Block& b) { b.store(memory + b.index(), 1.0f); }), "");
  EXPECT_NE(of_two_blocks([&](Block& b) { b.store(memory, 1.0f); }).find("two blocks write"),
            std::string::npos);
  EXPECT_NE(of_two_blocks([&](Block& b) {
              if (b.index() == 0) b.store(memory, 1.0f);
              else b.load(memory);
            }).find("another block wrote"),
            std::string::npos);
}

TEST(Emulator, CopiesArriveWhenTheyAreWaitedFor) {
  alignas(16) float memory[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  const auto* bytes = reinterpret_cast<const std::byte*>(memory);
  on_host(1,
          [&](Block& b) {
            b.copy16(0, 0, memory, 16);
            b.commit();
            b.copy16(0, 16, memory + 4, 8);
            b.commit();
            EXPECT_TRUE(std::isnan(b.get<float>(0, 0)));
            b.wait<1>();
            EXPECT_EQ(b.get<float>(0, 4), 2.0f);
            EXPECT_TRUE(std::isnan(b.get<float>(0, 16)));
            b.wait<0>();
            EXPECT_EQ(b.get<float>(0, 20), 6.0f);
            EXPECT_EQ(b.get<float>(0, 24), 0.0f);  // behind the 8 bytes
          },
          {{bytes, bytes + 32, false}});
}

TEST(Emulator, CopiesOnTheirWayAreLeftAlone) {
  alignas(16) float memory[4] = {1, 2, 3, 4};
  const auto* bytes = reinterpret_cast<const std::byte*>(memory);
  const auto of_copy = [&](const auto& behind) {
    return finding(1, [&](Block& b) { b.copy16(0, 0, memory, 16), behind(b); }, {{bytes, bytes + 16, false}});
  };
  EXPECT_EQ(of_copy([](Block& b) { b.commit(), b.wait<0>(), b.set(0, 0, 1.0f); }), "");
  EXPECT_NE(of_copy([](Block& b) { b.commit(), b.set(0, 0, 1.0f); }).find("still on its way"),
            std::string::npos);
  EXPECT_NE(of_copy([&](Block& b) { b.commit(), b.copy16(0, 0, memory, 8); }).find("still on its way"),
            std::string::npos);
  // Only groups are waited for.
  EXPECT_NE(of_copy([](Block& b) { b.wait<0>(); }).find("ended before a copy"), std::string::npos);
  EXPECT_NE(of_copy([](Block& b) { b.wait<0>(), b.set(0, 0, 1.0f); }).find("still on its way"),
            std::string::npos);
}

TEST(Emulator, EveryWarpMustReachABarrier) {
  EXPECT_NE(finding(2,
                    [](Block& b) {
                      if (b.warp == 0) b.barrier();
                    })
                .find("barrier"),
            std::string::npos);
}

// Element (row, k) of A, (k, column) of B and (row, column) of C by the manual's tables.
template <class E>
void expect_product() {
  constexpr int kStep = E::kStep, kPer = 4 / E::kBytes;
  const auto a_at = [](int i, int k) { return static_cast<float>((3 * i + 5 * k) % 7 - 3); };
  const auto b_at = [](int k, int j) { return static_cast<float>((2 * k + 7 * j) % 5 - 2); };
  PerLane<Word, 4> a, b;
  ptx::Accumulator c;
  const auto word = [](auto&& element) {
    if constexpr (kPer == 1) return ptx::bits_of(element(0));
    else return ptx::pack(E{}, element(0), element(1));
  };
  for (int l = 0; l < 32; ++l)
    for (int i = 0; i < 4; ++i) {
      const int g = l / 4, t = l % 4;
      a.of(l)[i] = word([&](int e) { return a_at(g + i % 2 * 8, kPer * t + e + i / 2 * kStep / 2); });
      b.of(l)[i] = word([&](int e) { return b_at(kPer * t + e + i % 2 * kStep / 2, g + i / 2 * 8); });
      c.of(l)[i] = static_cast<float>(i);
    }
  ptx::Factor<E, 4> fa, fb;
  ptx::prepare(fa, a);
  ptx::prepare(fb, b);
  for (int pair = 0; pair < 2; ++pair) {
    ptx::Accumulator sum = c;
    ptx::multiply(sum, fa, fb, pair);
    for (int l = 0; l < 32; ++l)
      for (int i = 0; i < 4; ++i) {
        const int row = l / 4 + i / 2 * 8, column = l % 4 * 2 + i % 2 + 8 * pair;
        float expected = static_cast<float>(i);
        for (int k = 0; k < kStep; ++k) expected += a_at(row, k) * b_at(k, column);
        ASSERT_EQ(sum.of(l)[i], expected) << "lane " << l << " register " << i;
      }
  }
}
TEST(Matrix, ProductsHaveTheLayoutsOfTheManual) {
  expect_product<ptx::BF16>();
  expect_product<ptx::F16>();
  expect_product<ptx::F32>();
}

TEST(Matrix, RowsAndColumnsOfSharedMemory) {
  on_host(1, [](Block& block) {
    for (int i = 0; i < 32 * 8; ++i)  // element e of row r: 100 r + e
      block.set<std::uint16_t>(i / 8, static_cast<Word>(2 * i),
                               static_cast<std::uint16_t>(i / 8 * 100 + i % 8));
    block.barrier();
    PerLane<Word, 4> rows, columns;
    const auto row = [](int lane) { return static_cast<Word>(16 * lane); };
    ptx::ldmatrix(block, rows, row);
    ptx::ldmatrix_transposed(block, columns, row);
    for (int l = 0; l < 32; ++l)
      for (int m = 0; m < 4; ++m) {
        const int g = l / 4, t = l % 4;
        EXPECT_EQ(rows.of(l)[m] & 0xffff, Word((8 * m + g) * 100 + 2 * t));
        EXPECT_EQ(rows.of(l)[m] >> 16, Word((8 * m + g) * 100 + 2 * t + 1));
        EXPECT_EQ(columns.of(l)[m] & 0xffff, Word((8 * m + 2 * t) * 100 + g));
        EXPECT_EQ(columns.of(l)[m] >> 16, Word((8 * m + 2 * t + 1) * 100 + g));
      }
  });
}

// Weights of accumulators as operands: their products with the identity are the weights.
template <class E>
void expect_weights() {
  ptx::Accumulator w[4];
  for (int n = 0; n < 4; ++n)
    for (int l = 0; l < 32; ++l)
      for (int i = 0; i < 4; ++i)
        w[n].of(l)[i] = static_cast<float>((l / 4 + i / 2 * 8) * 32 + 8 * n + l % 4 * 2 + i % 2) / 4;
  for (int step = 0; step < 32 / E::kStep; ++step) {
    ptx::Factor<E, 4> a, b;
    ptx::weights(a, w, step);
    for (int half = 0; half < E::kStep / 8; ++half) {  // picks columns 8 half on of the step
      PerLane<Word, 4> raw;
      for (int l = 0; l < 32; ++l)
        for (int i = 0; i < 4; ++i) {
          const int g = l / 4, t = l % 4;
          // k of a word: 16 bit as in the table; tf32: t stands for column 2t, t+4 for column 2t+1.
          const auto one = [&](int column) { return i < 2 && column == 8 * half + g ? 1.0f : 0.0f; };
          if constexpr (E::kBytes == 4) raw.of(l)[i] = ptx::bits_of(one(2 * t + i % 2));
          else raw.of(l)[i] = ptx::pack(E{}, one(2 * t + i % 2 * 8), one(2 * t + 1 + i % 2 * 8));
        }
      ptx::prepare(b, raw);
      ptx::Accumulator c;
      for (int l = 0; l < 32; ++l)
        for (int i = 0; i < 4; ++i) c.of(l)[i] = 0;
      ptx::multiply(c, a, b, 0);
      for (int l = 0; l < 32; ++l)
        for (int i = 0; i < 4; ++i) {
          const float expected = w[step * E::kStep / 8 + half].of(l)[i];
          ASSERT_NEAR(c.of(l)[i], expected, expected * (E::kBytes == 4 ? 1e-6f : 0x1p-8f));
        }
    }
  }
}
TEST(Matrix, WeightsBecomeOperands) {
  expect_weights<ptx::BF16>();
  expect_weights<ptx::F16>();
  expect_weights<ptx::F32>();
}

TEST(Matrix, RoundsAsIeee) {
  for (const float x : {0.0f, 1.0f, -1.5f, 65519.0f, 65520.0f, 0x1p-24f, 0x1p-25f, 0x1.8p-25f, 0x1.ffcp-15f,
                        3e-5f, -0.1f, 1.0009765f, 1e30f, -HUGE_VALF})
    EXPECT_EQ(static_cast<double>(ptx::to_float(ptx::F16{}, ptx::from_float(ptx::F16{}, x))),
              testing::rounded(static_cast<double>(x), DType::kFloat16))
        << x;
  for (const float x : {1.00390625f, 1.01171875f, -3.3e38f, 3.4e38f, 1e-40f, 0.3f})
    EXPECT_EQ(static_cast<double>(ptx::to_float(ptx::BF16{}, ptx::from_float(ptx::BF16{}, x))),
              testing::rounded(static_cast<double>(x), DType::kBFloat16))
        << x;
  EXPECT_EQ(ptx::float_of(ptx::to_tf32(1.0f + 0x1p-11f)), 1.0f + 0x1p-10f);
  EXPECT_EQ(ptx::float_of(ptx::to_tf32(1.0f + 0x1.8p-12f)), 1.0f);
  EXPECT_EQ(ptx::float_of(ptx::to_tf32(0x1.fffp127f)), 0x1.ffcp127f);
  EXPECT_EQ(ptx::float_of(ptx::to_tf32(-0x1.fffp127f)), -0x1.ffcp127f);
  EXPECT_EQ(ptx::float_of(ptx::to_tf32(-0x1.ffd8p127f)), -0x1.ffcp127f);
  EXPECT_EQ(ptx::float_of(ptx::to_tf32(-HUGE_VALF)), -HUGE_VALF);
  EXPECT_EQ(ptx::float_of(ptx::to_tf32(0x1.ffdp127f)), 0x1.ffcp127f);
  EXPECT_TRUE(std::isnan(ptx::float_of(ptx::to_tf32(std::nanf("")))));
}

}  // namespace
}  // namespace nearfield
