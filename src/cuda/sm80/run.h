// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The backend for devices of compute capability 8.0 and later, wherever its kernels run.
#pragma once

#include "cuda/sm80/kernels.h"
#include "nearfield/plan.h"

namespace nearfield::sm80 {

// `device`: where its tensors lie. The launcher must outlive it. absence(): why this machine can run no kernel, or
// nothing; asked by calls that mean this backend.
std::unique_ptr<Backend> make_backend(const Launcher& launcher, Device device,
                                      std::string_view (*absence)() = nullptr);

}  // namespace nearfield::sm80
