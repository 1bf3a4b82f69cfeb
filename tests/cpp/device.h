// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// A call on tensors of the host, run by a backend for GPUs: copied to the device, run, copied back.
#pragma once

#include "nearfield/attention.h"

namespace nearfield::testing {

// Like nearfield::run. On the device everything is as aligned as on the host, and followed by guard bytes, which are
// looked at; inputs are copied back too. Throws std::runtime_error with the driver's words.
void run_on_device(const Problem& problem, const Choice& choice, const Tensors& tensors,
                   std::byte* workspace);

}  // namespace nearfield::testing
