// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Twenty lines: one call, and why it ran where it did.
#include <cstdio>
#include <vector>

#include "nearfield/attention.h"

using namespace nearfield;

int main() {
  std::vector<float> q(64 * 64 * 8 * 32, 0.5f), out(q.size());  // [batch, height, width, heads, head dim]
  auto view = [](std::vector<float>& x) { return TensorView{x.data(), DType::kFloat32, {1, 64, 64, 8, 32}}; };
  na2d(view(q), view(q), view(q), view(out), {{7, 7}});  // 7 x 7 keys around every query
  std::printf("out[0] = %g\n", out[0]);
  std::puts(explain("na:fwd:f32:b1h8kv8d32:64x64:k7x7").c_str());
}
