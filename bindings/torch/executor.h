// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// torch's own intra-op threads as an Executor: torch.set_num_threads() rules, one pool, and a call from
// inside a parallel region runs on its own thread.
#pragma once

#include "nearfield/executor.h"

namespace nearfield::torch_ops {

// torch.get_num_threads().
int threads();

class TorchExecutor final : public Executor {
 public:
  explicit TorchExecutor(int workers) : workers_(workers) {}
  int workers() const override { return workers_; }
  void run(Index tasks, const std::function<void(Index, int)>& fn) override;

 private:
  int workers_;  // read once: the workspace is allotted by it
};

}  // namespace nearfield::torch_ops
