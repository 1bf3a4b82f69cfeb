// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Memory that the next tile will touch, fetched a few cache lines at a time between two pieces of
// arithmetic: a long burst would fill the core's miss buffers and stall the loads of the work at hand.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nearfield::cpu {

inline constexpr std::size_t kLine = 64;  // bytes of a cache line

// n lines towards the L2 cache, to be read. Any address will do.
inline void fetch_lines(const std::byte* p, std::ptrdiff_t n) {
  for (; n > 0; --n, p += kLine) __builtin_prefetch(p, 0, 2);
}

// The same to be written. The instruction is a no-op for a processor that does not know it.
#if defined(__x86_64__)
__attribute__((noinline, target("prfchw")))
#endif
inline void
fetch_lines_to_write(const std::byte* p, std::ptrdiff_t n) {
  for (; n > 0; --n, p += kLine) __builtin_prefetch(p, 1, 2);
}

class Ahead {
 public:
  void clear() { pieces_ = at_ = 0, lines_ = pace_ = 0; }
  // `count` runs of `bytes`, `stride` bytes apart. What does not fit the list is left to the hardware.
  void add(const void* first, std::size_t bytes, std::ptrdiff_t stride, std::ptrdiff_t count, bool write) {
    if (pieces_ == kPieces || bytes == 0 || count <= 0) return;
    if (stride == static_cast<std::ptrdiff_t>(bytes)) {
      bytes *= static_cast<std::size_t>(count);
      count = 1;
    }
    const std::size_t skip = reinterpret_cast<std::uintptr_t>(first) % kLine,
                      lines = (skip + bytes + kLine - 1) / kLine;
    piece_[pieces_] = {static_cast<const std::byte*>(first) - skip, static_cast<std::ptrdiff_t>(lines),
                       stride, count, write};
    if (pieces_++ == at_) begin();
    lines_ += static_cast<std::ptrdiff_t>(lines) * count;
  }
  // All of it is to be fetched by `times` calls of fetch_some().
  void spread(std::ptrdiff_t times) { pace_ = times > 0 ? (lines_ + times - 1) / times : 0; }
  void fetch_some() { fetch(pace_); }

  // The next n lines.
  void fetch(std::ptrdiff_t n) {
    n = n < lines_ ? n : lines_;
    lines_ -= n;
    while (n > 0) {
      const std::ptrdiff_t run = n < left_ ? n : left_;
      n -= run;
      left_ -= run;
      if (write_) fetch_lines_to_write(next_, run);
      else fetch_lines(next_, run);
      next_ += run * static_cast<std::ptrdiff_t>(kLine);
      if (left_ == 0) step();
    }
  }

 private:
  static constexpr int kPieces = 192;
  struct Piece {
    const std::byte* first;
    std::ptrdiff_t lines, stride, count;
    bool write;
  };
  Piece piece_[kPieces];
  int pieces_ = 0, at_ = 0;
  const std::byte* next_ = nullptr;
  std::ptrdiff_t left_ = 0;  // lines of the run at hand
  bool write_ = false;
  std::ptrdiff_t lines_ = 0, pace_ = 0;

  void begin() {
    next_ = piece_[at_].first;
    left_ = piece_[at_].lines;
    write_ = piece_[at_].write;
  }
  void step() {
    Piece& p = piece_[at_];
    p.first += p.stride;
    if (--p.count == 0) ++at_;
    if (at_ < pieces_) begin();
  }
};

}  // namespace nearfield::cpu
