// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The specification as slow plain code: any dtype, any strides, float64 inside. Everything that the
// semantics define is defined here, and the last row of the backend table.
#pragma once

#include "nearfield/plan.h"

namespace nearfield {

const Backend& reference_backend();

}  // namespace nearfield
