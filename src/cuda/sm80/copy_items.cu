// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/sm80/lists.h"

namespace nearfield::sm80 {
namespace {

constexpr int kPart = 8;  // 4 KiB of arguments is what every driver takes

struct Part {
  Item item[kPart];
};

__global__ void copy_part(const __grid_constant__ Part part, int count, Item* to) {
  const auto* words = reinterpret_cast<const Index*>(part.item);
  static_assert(sizeof(Item) % sizeof(Index) == 0 && sizeof(Part) < 3800);
  for (int i = static_cast<int>(threadIdx.x); i < count * static_cast<int>(sizeof(Item) / sizeof(Index));
       i += 128)
    reinterpret_cast<Index*>(to)[i] = words[i];
}

}  // namespace

int copy_items(const Item* items, Index count, Item* to, void* stream) {
  for (Index first = 0; first < count; first += kPart) {
    Part part{};
    const int n = static_cast<int>(min_of(kPart, count - first));
    for (int i = 0; i < n; ++i) part.item[i] = items[first + i];
    copy_part<<<1, 128, 0, static_cast<cudaStream_t>(stream)>>>(part, n, to + first);
    if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace nearfield::sm80
