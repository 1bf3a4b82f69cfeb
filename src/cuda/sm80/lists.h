// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The kernels that each file compiles.
#pragma once

#include <vector>

#include "cuda/sm80/kernels.h"

namespace nearfield::sm80 {

void list_forward_bf16(std::vector<Kernel>& list);
void list_forward_f16(std::vector<Kernel>& list);
void list_forward_f32(std::vector<Kernel>& list);
void list_backward_bf16(std::vector<Kernel>& list);
void list_backward_f16(std::vector<Kernel>& list);
void list_backward_f32(std::vector<Kernel>& list);

// Enqueues a copy of the items into device memory: they travel as arguments, so that a graph can hold the copy.
// Returns a cudaError_t.
int copy_items(const Item* items, Index count, Item* to, void* stream);

}  // namespace nearfield::sm80
