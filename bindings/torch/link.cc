// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The one symbol that C++ programs link against: nearfield/torch/operators.h.
#include <string>

#include "nearfield/attention.h"

extern "C" __attribute__((visibility("default"))) const char* nf_torch_backends() {
  static const std::string names = [] {
    std::string text;
    for (const nearfield::Backend* backend : nearfield::backends())
      text += (text.empty() ? "" : " ") + std::string(backend->name());
    return text;
  }();
  return names.c_str();
}
