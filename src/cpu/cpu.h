// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The CPU backend: one kernel source for every SIMD target, chosen at run time.
#pragma once

#include "nearfield/plan.h"

namespace nearfield {

const Backend& cpu_backend();

}  // namespace nearfield
