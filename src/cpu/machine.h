// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Machines whose constants differ (cost_table.h), recognised by vendor, family and SIMD target: never by a timing.
#pragma once

namespace nearfield::cpu {

enum class Machine : int { kIntel, kZen4, kZen5, kAvx2, kSse4, kNeon, kScalar };
inline constexpr int kMachines = static_cast<int>(Machine::kScalar) + 1;

// This one, under the SIMD target in use.
Machine machine();
const char* name_of(Machine machine);

}  // namespace nearfield::cpu
