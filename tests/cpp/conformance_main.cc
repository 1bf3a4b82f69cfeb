// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// main() of the conformance tests. With NEARFIELD_CPU_TARGET the whole process runs on that SIMD target;
// exit status 77 says that this machine lacks it, or the GPU that is to be tested (ctest: SKIP_RETURN_CODE).
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "conformance.h"
#include "nearfield/c.h"

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (const char* target = std::getenv("NEARFIELD_CPU_TARGET")) {
    char* text = nf_info();
    const std::string info = text ? text : "";
    nf_free(text);
    const std::string quoted = "\"" + std::string(target) + "\"";
    if (info.find("\"cpu_target\": " + quoted) == std::string::npos) {
      std::printf("skipped: no SIMD target %s here: %s\n", quoted.c_str(), info.c_str());
      return 77;
    }
  }
  const auto any = nearfield::parse_problem("na:fwd:f32:b1h1kv1d8:9:k3");
  if (nearfield::testing::tests_cuda() && !nearfield::testing::serves("cuda_sm80", any)) {
    std::printf("skipped: %s",
                nearfield::explain("na:fwd:f32:b1h1kv1d8:9:k3@cuda_sm80", nearfield::Device::kCuda).c_str());
    return 77;
  }
  const int status = RUN_ALL_TESTS();
  if (std::getenv("NEARFIELD_TEST_RATIOS")) std::fputs(nearfield::testing::worst_ratios().c_str(), stdout);
  return status;
}
