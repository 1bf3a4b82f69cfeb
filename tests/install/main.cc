// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// What a user's program does: calls a convenience function, asks for an explanation, catches our errors
// by type across the library's border, brings its own executor.
#include <cstdio>
#include <string>
#include <vector>

#include "nearfield/attention.h"
#include "nearfield/c.h"

int main() {
  using namespace nearfield;
  int failures = 0;
  const auto expect = [&](bool holds, const char* what) {
    if (!holds) std::printf("FAILED: %s\n", what), ++failures;
  };

  // Keys are all alike, so that every query averages the values of its window.
  constexpr Index kTokens = 10;
  std::vector<float> q(kTokens, 1.0f), k(kTokens, 1.0f), v, out(kTokens), lse(kTokens);
  for (Index i = 0; i < kTokens; ++i) v.push_back(static_cast<float>(i));
  const auto view = [](std::vector<float>& x) {
    return TensorView{x.data(), DType::kFloat32, {1, 10, 1, 1}};
  };
  SerialExecutor executor;
  Options options;
  options.executor = &executor;
  options.lse = {lse.data(), DType::kFloat32, {1, kTokens, 1}};
  na1d(view(q), view(k), view(v), view(out), {{3}}, options);
  for (Index i = 0; i < kTokens; ++i) {
    const Interval seen = visible(Axis{Rule::kWindow, kTokens, kTokens, 3}, i);
    const float mean = static_cast<float>(seen.begin + seen.end - 1) / 2;
    expect(out[static_cast<std::size_t>(i)] > mean - 1e-4f && out[static_cast<std::size_t>(i)] < mean + 1e-4f,
           "mean of the window");
  }
  expect(lse[0] > 2.0985f && lse[0] < 2.0988f, "lse = 1 + ln 3");

  try {
    na1d(view(q), view(k), view(v), view(out), {{11}});
    expect(false, "a window larger than the axis is refused");
  } catch (const std::invalid_argument& e) {
    expect(std::string(e.what()).starts_with("[na1d] got "), e.what());
  }
  try {
    options.plan.backend = "cuda_sm80";
    na1d(view(q), view(k), view(v), view(out), {{3}}, options);
    expect(false, "a backend that is not there is refused");
  } catch (const std::invalid_argument&) {}

  expect(version() == "0.1.0", "version");
  expect(explain("na:fwd:f32:b1h1kv1d1:10:k3").find("reference") != std::string::npos, "explain");
  char* info = nf_info();
  expect(std::string(info).find("\"ok\"") != std::string::npos, info);
  nf_free(info);
  if (failures == 0) std::puts("OK: na1d, explain, errors and the C API");
  return failures != 0;
}
