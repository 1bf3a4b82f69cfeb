// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// What a Problem can say and no backend on the host serves yet, with the reason.
#pragma once

#include <optional>
#include <string>

#include "nearfield/problem.h"

namespace nearfield {

inline std::optional<std::string> unserved(const Problem& p) {
  if (p.offsets)
    return "offsets known only on the device need a device backend; pass offsets that the host can read";
  if (p.precision == Precision::kTF32) return "it has no TF32 kernels; leave out prec";
  return std::nullopt;
}

}  // namespace nearfield
