// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// What a plan says of the permission to multiply in bf16.
#pragma once

#include <string>
#include <string_view>

#include "nearfield/problem.h"

namespace nearfield {

// why_not: the reason that the kernel multiplies in float32 after all.
inline std::string bf16_note(const Problem& p, std::string_view why_not) {
  if (p.precision != Precision::kBF16) return "";
  return "bf16 arithmetic is allowed, and not used: " + std::string(why_not);
}

}  // namespace nearfield
