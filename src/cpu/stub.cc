// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Stands in for the CPU backend where the library was built without Highway.
#include "cpu/cpu.h"
#include "plan/absent.h"

namespace nearfield {

const Backend& cpu_backend() {
  static const Absent backend("cpu", Device::kCpu,
                              "this build has no SIMD kernels: Highway (libhwy-dev) was not found");
  return backend;
}

}  // namespace nearfield
