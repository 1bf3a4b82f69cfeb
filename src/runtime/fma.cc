// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Compile with -O3 -ffp-contract=fast. Each burst is the same C++ on another width of vector: kChains
// independent accumulators cover latency x units of every core so far (4 cycles x 2 on x86, 4 x 4 on Arm)
// and leave registers for the two factors.
#include "runtime/fma.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

namespace nearfield {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kParts = 3, kSteps = 1500;  // steps: some 10 us between two looks at the clock

#if defined(__x86_64__)
constexpr int kChains = 12;
#else
constexpr int kChains = 20;
#endif

// Returns the floating-point operations done; `seed` keeps the compiler from knowing the numbers.
using Burst = double (*)(volatile float* seed);

#define NF_BURST(name, bytes, attribute)                                         \
  attribute double name(volatile float* seed) {                                  \
    typedef float Vector __attribute__((vector_size(bytes)));                    \
    const float s = *seed;                                                       \
    const Vector factor = Vector{} + (1 - s), term = Vector{} + s;               \
    Vector sum[kChains];                                                         \
    for (int c = 0; c < kChains; ++c) sum[c] = Vector{} + static_cast<float>(c); \
    for (int i = 0; i < kSteps; ++i)                                             \
      for (int c = 0; c < kChains; ++c) sum[c] = sum[c] * factor + term;         \
    Vector all = sum[0];                                                         \
    for (int c = 1; c < kChains; ++c) all += sum[c];                             \
    float one = 0;                                                               \
    for (unsigned i = 0; i < bytes / sizeof(float); ++i) one += all[i];          \
    *seed = one == 0.125f ? 0.25f : s;                                           \
    return 2.0 * kSteps * kChains * (bytes / sizeof(float));                     \
  }

NF_BURST(baseline, 16, )
#if defined(__x86_64__)
NF_BURST(sse4, 16, __attribute__((target("sse4.2"))))
NF_BURST(avx2, 32, __attribute__((target("avx2,fma"))))
NF_BURST(avx512, 64, __attribute__((target("avx512f,avx512vl"))))
#endif

Burst burst_of(const char* target) {
  const auto is = [&](const char* name) { return std::strcmp(target, name) == 0; };
  if (is("scalar")) return baseline;
#if defined(__x86_64__)
  if (is("sse4") && __builtin_cpu_supports("sse4.2")) return sse4;
  if (is("avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2;
  if (is("avx512") && __builtin_cpu_supports("avx512vl")) return avx512;
#elif defined(__aarch64__)
  if (is("neon")) return baseline;
#endif
  return nullptr;
}

}  // namespace

double fma_peak(const char* target, int threads, double milliseconds) {
  const Burst burst = burst_of(target);
  if (!burst || threads < 1) return -1;
  const auto part = std::chrono::duration_cast<Clock::duration>(
      std::chrono::duration<double, std::milli>(milliseconds / kParts));
  std::vector<double> rates(static_cast<std::size_t>(threads) * kParts);
  std::atomic<int> waiting{threads};
  const auto work = [&](int thread) {
    volatile float seed = 0.001f;
    --waiting;
    while (waiting.load() > 0) std::this_thread::yield();
    for (int p = 0; p < kParts; ++p) {
      const auto begin = Clock::now();
      auto now = begin;
      double flops = 0;
      while (now - begin < part) flops += burst(&seed), now = Clock::now();
      rates[static_cast<std::size_t>(p * threads + thread)] =
          flops / std::chrono::duration<double>(now - begin).count() * 1e-9;
    }
  };
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(work, t);
  work(0);
  for (std::thread& t : others) t.join();
  double best = 0;
  for (int p = 0; p < kParts; ++p) {
    double sum = 0;
    for (int t = 0; t < threads; ++t) sum += rates[static_cast<std::size_t>(p * threads + t)];
    best = std::max(best, sum);
  }
  return best;
}

}  // namespace nearfield
