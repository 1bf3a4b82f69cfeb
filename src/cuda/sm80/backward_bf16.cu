// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/sm80/entry-inl.h"

namespace nearfield::sm80 {

void list_backward_bf16(std::vector<Kernel>& list) { add_backward<ptx::BF16>(Make{list}); }

}  // namespace nearfield::sm80
