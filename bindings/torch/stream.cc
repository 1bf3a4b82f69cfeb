// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "stream.h"

#include <dlfcn.h>

#include <stdexcept>
#include <string>

namespace nearfield::torch_ops {

// The function lives in libtorch_cuda, which not every PyTorch has and which is loaded without offering its names to
// others: so it is asked for by name, and this library loads everywhere.
void* current_stream(std::int32_t device) {
  using Get = std::int32_t (*)(std::int32_t, void**);
  static const Get get = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    return library ? reinterpret_cast<Get>(dlsym(library, "aoti_torch_get_current_cuda_stream")) : nullptr;
  }();
  if (!get)
    throw std::runtime_error("[nearfield] got CUDA tensors, expected a PyTorch that was built with CUDA");
  void* stream = nullptr;
  if (get(device, &stream) != 0)
    throw std::runtime_error("[nearfield] PyTorch has no current stream for cuda:" + std::to_string(device));
  return stream;
}

}  // namespace nearfield::torch_ops
