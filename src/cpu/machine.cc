// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "cpu/machine.h"

#include <string>

#include "cpu/kernel.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace nearfield::cpu {
namespace {

#if defined(__x86_64__)
// The family of an AMD processor, 0 for others: 25 is Zen 3 and 4 (only 4 has AVX-512), 26 is Zen 5.
unsigned amd_family() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__builtin_cpu_is("amd") || !__get_cpuid(1, &a, &b, &c, &d)) return 0;
  const unsigned family = a >> 8 & 15;
  return family == 15 ? family + (a >> 20 & 255) : family;
}
#else
unsigned amd_family() { return 0; }
#endif

Machine recognised() {
  const std::string target = targets()[0];
  if (target == "avx2") return Machine::kAvx2;
  if (target == "sse4") return Machine::kSse4;
  if (target == "neon") return Machine::kNeon;
  if (target != "avx512") return Machine::kScalar;
  const unsigned family = amd_family();
  return family == 0 ? Machine::kIntel : family <= 25 ? Machine::kZen4 : Machine::kZen5;
}

}  // namespace

Machine machine() {
  static const Machine machine = recognised();
  return machine;
}

const char* name_of(Machine machine) {
  constexpr const char* kNames[kMachines] = {"intel", "zen4", "zen5", "avx2", "sse4", "neon", "scalar"};
  return kNames[static_cast<int>(machine)];
}

}  // namespace nearfield::cpu
