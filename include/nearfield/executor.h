// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Where threads come from. A host program (PyTorch, a server) brings its own pool by implementing
// this interface; make_executor() serves plain C++ programs. Results never depend on the executor,
// on its number of workers or on which worker ran what.
#pragma once

#include <functional>
#include <memory>

#include "nearfield/geometry.h"
#include "nearfield/status.h"

namespace nearfield {

class NF_API Executor {
 public:
  virtual ~Executor() = default;

  // The most workers that run() uses; workspace is allotted per worker.
  virtual int workers() const = 0;

  // Calls fn(task, worker) once for every task in [0, tasks), in any order, and returns when all are
  // done. worker is in [0, workers()) and no two calls at a time share one. The first exception that a
  // task throws is rethrown here after the others have ended.
  virtual void run(Index tasks, const std::function<void(Index task, int worker)>& fn) = 0;
};

// Runs everything on the calling thread.
class NF_API SerialExecutor final : public Executor {
 public:
  int workers() const override { return 1; }
  void run(Index tasks, const std::function<void(Index, int)>& fn) override {
    for (Index t = 0; t < tasks; ++t) fn(t, 0);
  }
};

// A pool of `threads` threads, the caller's included (0: one per processor, or NEARFIELD_NUM_THREADS).
NF_API std::unique_ptr<Executor> make_executor(int threads = 0);

}  // namespace nearfield
