// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// (layer L2.) "cpu/b16" names a backend and one of its kernels.
#pragma once

#include "nearfield/plan.h"
#include "problem/message.h"

namespace nearfield {

// Moves what stands behind the slash of options.backend into options.kernel.
inline void split_kernel(PlanOptions& options) {
  const std::size_t slash = options.backend.find('/');
  if (slash == std::string::npos) return;
  if (slash == 0 || slash + 1 == options.backend.size())
    refuse(options.op, "backend `" + options.backend + "`", "BACKEND or BACKEND/KERNEL", "`cpu/b16`, say");
  options.kernel = options.backend.substr(slash + 1);
  options.backend.resize(slash);
}

}  // namespace nearfield
