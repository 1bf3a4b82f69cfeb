// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// libFuzzer target (NEARFIELD_FUZZ, clang): any text is a problem that survives printing, or a refusal.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "nearfield/problem.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace nearfield;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const Problem p = parse_problem(text);
    const std::string canonical = to_string(p);
    const Problem again = parse_problem(canonical);
    if (again != p || to_string(again) != canonical) {
      std::fprintf(stderr, "not a fixed point: %s\n", canonical.c_str());
      std::abort();
    }
  } catch (const std::invalid_argument&) {}
  return 0;
}
