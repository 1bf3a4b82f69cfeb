// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Takes the noise off a picture of a disc and leaves its edge sharp. Every pixel averages the 7 x 7
// pixels around it, weighted by likeness: exp(-(x - y)^2 / h^2). That is the softmax of q.k with
// q = (2x, 1), k = (y, -y^2) and scale 1 / h^2, so it is one call.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "nearfield/attention.h"

using namespace nearfield;
using Picture = std::vector<float>;
constexpr Index kRows = 20, kColumns = 40;

void print(const char* title, const Picture& picture, const Picture& clean) {
  double error = 0;
  for (std::size_t i = 0; i < picture.size(); ++i) {
    const int ink = static_cast<int>(9 * std::clamp(picture[i], 0.0f, 1.0f));
    std::printf("%c%s", " .:-=+*#%@"[ink], (i + 1) % kColumns == 0 ? "\n" : "");
    error += std::pow(picture[i] - clean[i], 2.0) / static_cast<double>(picture.size());
  }
  std::printf("%s: noise %.3f\n\n", title, std::sqrt(error));
}

int main() {
  Picture clean, noisy, smooth(kRows * kColumns), q, k;
  std::mt19937 random(7);
  std::normal_distribution<float> noise(0.0f, 0.2f);
  for (int row = 0; row < kRows; ++row)
    for (int column = 0; column < kColumns; ++column) {
      clean.push_back(std::hypot(row - 9.5, (column - 19.5) / 2) < 7 ? 1.0f : 0.0f);
      const float x = clean.back() + noise(random);
      noisy.push_back(x);
      q.insert(q.end(), {2 * x, 1});
      k.insert(k.end(), {x, -x * x});
    }

  // Tensors are heads-last, [batch, rows, columns, heads, channels], and stay the caller's.
  Options options;
  options.scale = 1 / (0.5 * 0.5);
  const auto view = [](const Picture& p, Index channels) {
    return TensorView{p.data(), DType::kFloat32, {1, kRows, kColumns, 1, channels}};
  };
  na2d(view(q, 2), view(k, 2), view(noisy, 1), view(smooth, 1), {{7, 7}}, options);

  print("before", noisy, clean);
  print("after", smooth, clean);
}
