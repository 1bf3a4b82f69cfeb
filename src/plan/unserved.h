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
  if (p.query_layout) return "a query layout of its own is not implemented yet";
  if (p.bias) return "relative position bias is not implemented yet";
  if (p.dropout > 0) return "dropout is not implemented yet; use dropout_p=0";
  if (p.nondeterministic) return "it has no nondeterministic kernels; leave out nondet";
  if (p.precision != Precision::kFull) return "it has no kernels of reduced precision; leave out prec";
  return std::nullopt;
}

}  // namespace nearfield
