// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Memory that the next step of a task reads or writes, asked for while this one computes: a prefetch per iteration of
// an inner loop, spread evenly over the step, keeps the caches' fill buffers busy without ever filling them up.
#pragma once

#include <cstddef>

namespace nearfield::cpu {

class Feed {
 public:
  void clear() { count_ = next_ = 0, done_ = step_ = total_ = 0; }

  // Memory that does not fit the list is left to the hardware.
  void add(const void* begin, std::size_t bytes) {
    if (count_ == kMost || bytes == 0) return;
    range_[count_++] = {static_cast<const char*>(begin), bytes};
    total_ += bytes;
  }

  // The loops to come have so many iterations in all.
  void spread(std::size_t iterations) {
    step_ = iterations == 0 ? 0 : (total_ + iterations - 1) / iterations;
    if (step_ > kLine) step_ = kLine;
  }

  // Where the next n iterations prefetch, `step` bytes apart; `idle` where nothing is left.
  const char* take(std::size_t n, const void* idle, std::size_t& step) {
    if (next_ == count_) return step = 0, static_cast<const char*>(idle);
    const char* at = range_[next_].begin + done_;
    step = step_;
    done_ += n * step_;
    if (done_ >= range_[next_].bytes) ++next_, done_ = 0;
    return at;
  }

 private:
  struct Range {
    const char* begin;
    std::size_t bytes;
  };
  static constexpr int kMost = 128;
  static constexpr std::size_t kLine = 64;
  Range range_[kMost];
  int count_ = 0, next_ = 0;
  std::size_t done_ = 0, step_ = 0, total_ = 0;
};

}  // namespace nearfield::cpu
