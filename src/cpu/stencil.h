// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// How the stencil kernel `s2` cuts a sequence whose windows move by one key per query along the last axis.
//
// A tile is four query rows of one vector of queries each. A task sweeps a box of queries along its slowest axis, a
// step at a time, and keeps the key rows that a step sees in a ring, transposed and with their columns (see
// stencil_keys.h): a key that several queries of a tile see is loaded once, shifted, and nothing is computed in vain.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "cpu/band.h"

namespace nearfield::cpu {

// Why the stencil kernel cannot run the sequence, in words; nothing if it can.
std::optional<std::string> stencil_refusal(const Problem& problem, const Grid& grid);

// Nothing where it refuses.
std::optional<Cut> cut_stencil(const Problem& problem, const Grid& grid);

// Pairs that it computes: vectors at the end of a row are not full.
double stencil_pairs(const Grid& grid, const Cut& cut);

std::size_t stencil_scratch(const Problem& problem, const Cut& cut);

// One task. Null on targets that it is not compiled for.
using RunStencil = void (*)(const Band& band, std::byte* scratch);
RunStencil stencil_kernel();

}  // namespace nearfield::cpu
