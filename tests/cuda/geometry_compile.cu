// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// geometry.h on the device. That this compiles is the first test: nvcc accepts the header, in constant
// expressions, on the host and in a kernel, without --expt-relaxed-constexpr. The second, where there is
// a GPU: the device computes what the host computes.
#include <cstdio>
#include <vector>

#include "nearfield/geometry.h"

using namespace nearfield;

namespace {

// Compile time.
constexpr Axis kAxis{Rule::kWindow, 10, 10, 3};
static_assert(visible(kAxis, 0) == Interval{0, 3} && visible(kAxis, 9) == Interval{7, 10});
static_assert(seen_by(kAxis, 1) == Interval{0, 3});
static_assert(cover(kAxis, {0, 2}, {0, 3}) == Cover::kFull);
static_assert(cover(kAxis, {0, 2}, {5, 7}) == Cover::kSkip);
static_assert(cover(kAxis, {0, 5}, {0, 4}) == Cover::kPartial);

// What one thread computes for query (and key) i of an axis. Plain numbers, so that bits compare.
struct Answer {
  Index visible[2], seen_by[2], needed[2], cover, grid_cover, pairs;
};

NF_HD constexpr Answer answer(const Axis& axis, Index i) {
  const Axis a = group(axis, 0);
  const Interval run{i, min_of(i + 4, a.key_extent)}, other{0, min_of(8, a.key_extent)};
  const Interval v = visible(a, i), s = seen_by(a, i), n = needed_keys(axis, run);
  const Grid grid{{Axis{}, axis, a}};
  Index residue[kMaxRank] = {};
  const Cover all = cover(group(grid, 0, residue), Box{{{0, 1}, run, run}}, Box{{{0, 1}, other, other}});
  return {{v.begin, v.end},        {s.begin, s.end},
          {n.begin, n.end},        static_cast<Index>(cover(a, run, other)),
          static_cast<Index>(all), pairs(axis)};
}

__global__ void answer_all(Axis axis, Index count, Answer* out) {
  const Index i = blockIdx.x * static_cast<Index>(blockDim.x) + threadIdx.x;
  if (i < count) out[i] = answer(axis, i);
}

bool same(const Answer& a, const Answer& b) {
  return a.visible[0] == b.visible[0] && a.visible[1] == b.visible[1] && a.seen_by[0] == b.seen_by[0] &&
         a.seen_by[1] == b.seen_by[1] && a.needed[0] == b.needed[0] && a.needed[1] == b.needed[1] &&
         a.cover == b.cover && a.grid_cover == b.grid_cover && a.pairs == b.pairs;
}

// Number of queries for which host and device disagree.
int compare(const Axis& axis) {
  const Index count = group(axis, 0).query_extent;
  Answer* device = nullptr;
  cudaMallocManaged(&device, sizeof(Answer) * static_cast<std::size_t>(count));
  answer_all<<<static_cast<unsigned>(ceil_div(count, 64)), 64>>>(axis, count, device);
  if (cudaDeviceSynchronize() != cudaSuccess) {
    std::printf("kernel failed: %s\n", cudaGetErrorString(cudaGetLastError()));
    return 1;
  }
  int wrong = 0;
  for (Index i = 0; i < count; ++i) wrong += !same(device[i], answer(axis, i));
  cudaFree(device);
  return wrong;
}

}  // namespace

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("OK: compiled; no GPU here, so nothing ran");
    return 0;
  }
  int wrong = 0, axes = 0;
  for (const Rule rule : {Rule::kWindow, Rule::kWindowCausal})
    for (Index extent : {1, 7, 40, 129})
      for (Index window = 1; window <= extent; window += 3)
        for (Index stride = 1; stride <= window; stride += 2)
          for (Index dilation = 1; dilation * window <= extent; dilation += 2, ++axes)
            wrong += compare(Axis{rule, extent, extent, window, stride, dilation});
  for (const Rule rule : {Rule::kDense, Rule::kTopLeft, Rule::kBottomRight})
    for (Index keys : {1, 30, 64}) ++axes, wrong += compare(Axis{rule, 33, keys});
  std::printf("%s: %d axes on the GPU, %d queries differ\n", wrong ? "FAILED" : "OK", axes, wrong);
  return wrong != 0;
}
