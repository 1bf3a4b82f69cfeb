// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "executor.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>

namespace nearfield::torch_ops {

int threads() { return std::max(1, static_cast<int>(torch::stable::get_num_threads())); }

void TorchExecutor::run(Index tasks, const std::function<void(Index, int)>& fn) {
  const Index chunks = std::min<Index>(workers(), tasks);
  std::atomic<Index> next{0};
  std::exception_ptr error;  // must not cross torch's loop: its text would be lost
  std::mutex mutex;
  const auto draw = [&](Index worker) {
    for (Index task = next++; task < tasks; task = next++) {
      try {
        fn(task, static_cast<int>(worker));
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!error) error = std::current_exception();
      }
    }
  };
  if (chunks <= 1) {
    draw(0);
  } else {
    torch::stable::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t worker = begin; worker < end; ++worker) draw(worker);
    });
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace nearfield::torch_ops
