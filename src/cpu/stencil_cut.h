// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// What the stencil kernel adds to a Cut.
#pragma once

#include "cpu/stencil_keys.h"

namespace nearfield::cpu {

struct StencilCut {
  Columns columns;
  RowSlots slots;        // of the ring
  Index width = 0;       // packed columns of a key row, whole vectors
  Index chunk_rows = 1;  // key rows of which S is formed before P V
};

}  // namespace nearfield::cpu
