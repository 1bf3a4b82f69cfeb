// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// What a plan says of the permission to multiply in bf16.
#pragma once

#include <optional>
#include <string>

#include "nearfield/problem.h"

namespace nearfield {

// why_not: the reason that the kernel multiplies otherwise after all; nothing if it does not.
inline std::string bf16_note(const Problem& p, const std::optional<std::string>& why_not) {
  if (p.precision != Precision::kBF16) return "";
  return why_not ? "bf16 arithmetic is allowed, and not used: " + *why_not
                 : "bf16 arithmetic is allowed, and used";
}

}  // namespace nearfield
