// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The CPU backend: one kernel source for every SIMD target, chosen at run time.
#pragma once

#include <string>
#include <vector>

#include "nearfield/plan.h"

namespace nearfield {

const Backend& cpu_backend();

// The SIMD target in use ("avx512", ...; empty if built without Highway) and all that this machine has.
std::string cpu_target();
std::vector<std::string> cpu_targets();

}  // namespace nearfield
