// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// A thread block on the host. Warps are fibers: each runs until a barrier, in an order that changes from barrier
// to barrier. What goes wrong on a GPU without a word is an error here (std::logic_error, with the address):
//
//   - an access outside of shared memory, or of the call's tensors and workspace, or a write to an input;
//   - an access that is not aligned;
//   - a race: between two barriers, one thread writes what another one reads or writes;
//   - two blocks that write the same element, or one that reads what another one wrote: their order is not known;
//   - a read of what cp.async has not delivered yet (it reads NaN), a write or another copy to where a copy is still
//     on its way, a block that ends before its copies; copies count as delivered once their group is waited for;
//   - a barrier that not all warps reach.
//
// Shared memory is full of NaN at first.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "cuda/ptx/lanes.h"
#include "nearfield/executor.h"

namespace nearfield::ptx {

struct Block;

// Memory that kernels may touch.
struct Span {
  const std::byte *begin, *end;
  bool writable;
};

// The blocks that wrote the elements of a span in this launch: number + 1 of two bytes each, 0 for none.
using Writers = std::vector<std::atomic<Index>>;

class EmulatedBlock {
 public:
  using Body = std::function<void(Block&)>;

  // writers: one per span, empty where it is not writable; shared by the blocks of a launch.
  EmulatedBlock(int warps, std::size_t shared_bytes, const std::vector<Span>& spans,
                std::vector<Writers>& writers);
  ~EmulatedBlock();
  void run(Index block, const Body& body);

  Index index = 0;

  void barrier(int warp);
  const std::byte* read(int thread, Word offset, std::size_t bytes);
  std::byte* write(int thread, Word offset, std::size_t bytes);
  std::byte* raw(Word offset, std::size_t bytes);
  void check_global(const void* at, std::size_t bytes, std::size_t alignment, bool write);
  void start_copy(int thread, Word offset, const void* from, int bytes);
  void commit(int warp);
  void wait(int warp, int groups);

 private:
  void check_blocks(std::size_t span, const std::byte* at, std::size_t bytes, bool write);

  struct Fibers;
  struct Copy {
    int thread;
    Word offset;
    const std::byte* from;
    int bytes;
  };
  // Who touched four bytes of shared memory last.
  struct Stamp {
    std::uint32_t write_epoch = 0, read_epoch = 0;
    std::int16_t writer = -1, reader = -1;
  };
  static constexpr std::int16_t kSeveral = -2;

  int warps_;
  std::vector<std::byte> shared_;
  std::vector<Stamp> stamps_;
  std::vector<Span> spans_;
  std::vector<Writers>& writers_;
  std::size_t last_span_ = 0;
  std::uint32_t epoch_ = 1;
  std::vector<std::vector<std::vector<Copy>>> copies_;  // per warp: groups, the open one last
  std::vector<bool> on_its_way_;                        // per 16 bytes of shared memory
  std::unique_ptr<Fibers> fibers_;
};

// Runs the blocks of a grid.
void emulate(Index blocks, int warps, std::size_t shared_bytes, const std::vector<Span>& spans,
             Executor& executor, const EmulatedBlock::Body& body);

}  // namespace nearfield::ptx
