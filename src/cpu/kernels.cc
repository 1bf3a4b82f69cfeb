// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Compiles the kernels once per SIMD target and picks one at run time. Highway's own dispatcher lives in
// a shared library; this table needs none, so that the built library stands alone.
#include "cpu/targets.h"

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "cpu/kernel.h"
#include "runtime/environment.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/general-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nearfield::cpu::HWY_NAMESPACE {

template <class T>
std::size_t scratch_bytes(Index head_dim, Index value_dim, int rows_per_block, int tiles) {
  return Scratch<T>(head_dim, value_dim, rows_per_block, tiles, nullptr).bytes;
}

inline constexpr Kernels kFloat = {NF_TARGET_NAME, &scratch_bytes<float>, &forward<float>,
                                   &query_gradient<float>, &key_gradient<float>};
inline constexpr Kernels kDouble = {kFloat.target, &scratch_bytes<double>, &forward<double>,
                                    &query_gradient<double>, &key_gradient<double>};
const Kernels* const kTable[] = {&kFloat, &kDouble};

}  // namespace nearfield::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nearfield::cpu {
namespace {

struct Target {
  const Kernels* const* table;  // float, double
  bool here;                    // does this machine have it?
};

// Best first.
const std::vector<Target>& all_targets() {
  static const std::vector<Target> list = {
#if HWY_TARGETS & HWY_AVX3
    {N_AVX3::kTable, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx2") &&
                         __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")},
#endif
#if HWY_TARGETS & HWY_AVX2
    {N_AVX2::kTable, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2")},
#endif
#if HWY_TARGETS & HWY_SSE4
    {N_SSE4::kTable, __builtin_cpu_supports("sse4.1") && __builtin_cpu_supports("sse4.2")},
#endif
#if HWY_TARGETS & HWY_NEON
    {N_NEON::kTable, true},
#endif
#if HWY_TARGETS & HWY_EMU128
    {N_EMU128::kTable, true},
#endif
#if HWY_TARGETS & HWY_SCALAR
    {N_SCALAR::kTable, true},
#endif
  };
  return list;
}

const Target& chosen() {
  static const Target& target = []() -> const Target& {
    const std::string forced = environment("NEARFIELD_CPU_TARGET");
    std::string here;
    for (const Target& t : all_targets()) {
      if (!t.here) continue;
      if (forced.empty() || forced == t.table[0]->target) return t;
      here += (here.empty() ? "" : ", ") + std::string(t.table[0]->target);
    }
    throw Unsupported("[nearfield] got NEARFIELD_CPU_TARGET=" + forced + ", expected one of " + here +
                      "; unset it for the best one");
  }();
  return target;
}

}  // namespace

const Kernels& kernels(DType dtype) { return *chosen().table[dtype == DType::kFloat64 ? 1 : 0]; }

std::vector<std::string> targets() {
  std::vector<std::string> names{chosen().table[0]->target};
  for (const Target& t : all_targets())
    if (t.here && names[0] != t.table[0]->target) names.emplace_back(t.table[0]->target);
  return names;
}

}  // namespace nearfield::cpu
#endif  // HWY_ONCE
