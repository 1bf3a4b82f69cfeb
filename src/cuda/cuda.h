// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The CUDA backends: compute capability 8.0 and later, and Hopper.
#pragma once

#include "nearfield/plan.h"

namespace nearfield {

const Backend& cuda_sm80_backend();
const Backend& cuda_sm90_backend();

}  // namespace nearfield
