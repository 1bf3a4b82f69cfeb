// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Where work for a GPU goes: the executor of a call whose tensors lie on a device. Tensors, seed and workspace are
// then pointers into the memory of the current device, and run() returns when everything has been enqueued.
//
//   StreamExecutor stream(my_stream);             // a cudaStream_t; null: the default stream
//   run(problem, make_plan(problem, {}, Device::kCuda), tensors, stream, workspace);
#pragma once

#include <stdexcept>

#include "nearfield/executor.h"

namespace nearfield {

class NF_API StreamExecutor final : public Executor {
 public:
  explicit StreamExecutor(void* stream) : stream_(stream) {}
  void* stream() const { return stream_; }
  int workers() const override { return 1; }
  void run(Index, const std::function<void(Index, int)>&) override {
    throw std::logic_error("[run] got work of the host for a stream of a GPU");
  }

 private:
  void* stream_;
};

}  // namespace nearfield
