// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The kernels on the host, for tests: the same text as on the GPU, with every access checked
// (cuda/ptx/emulator.h). Tensors and workspace are the host's.
#pragma once

#include "nearfield/plan.h"

namespace nearfield {

const Backend& emulated_sm80_backend();

}  // namespace nearfield
