// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The kernels that there are, one per dtype and size of head dims, and how one is started: on a GPU, or emulated on
// the host where they were compiled so.
#pragma once

#include <span>
#include <string>

#include "cuda/sm80/arguments.h"
#include "nearfield/executor.h"

namespace nearfield::sm80 {

enum class Task : int {
  kForward,
  kQueryGradient,  // also writes the statistics that the next two read
  kKeyGradient,    // dK and dV, or dK alone where registers do not hold both
  kValueGradient,  // dV alone
  kBiasGradient,
  kItems,  // of a list whose lengths only the device knows
  kTails,  // of a tensor of a packed list: what belongs to no sequence
};

struct Kernel {
  Task task;
  DType dtype;
  int depth;          // largest head dim
  int rows, columns;  // of owned and streamed tiles
  int threads;
  int shared_bytes;
  const void* entry;  // the launcher's own
};

struct Span {  // memory that a call may touch: what the emulator checks
  const void* begin;
  std::size_t bytes;
  bool writable;
};

// Where kernels run.
class Launcher {
 public:
  virtual ~Launcher() = default;
  virtual std::span<const Kernel> kernels() const = 0;
  virtual std::string device_class() const = 0;  // Backend::device_class()
  // Throws std::runtime_error with the driver's words.
  virtual void launch(const Kernel& kernel, Index blocks, const Arguments& args, std::span<const Span> spans,
                      Executor& executor) const = 0;
  // Items into the memory that kernels read, in their order.
  virtual void upload(std::span<const Item> items, Item* to, Executor& executor) const = 0;
};

}  // namespace nearfield::sm80
