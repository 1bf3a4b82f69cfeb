// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/ptx/emulator.h"

#include <ucontext.h>

#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

#include "cuda/ptx/block.h"

namespace nearfield::ptx {
namespace {

constexpr std::size_t kStackBytes = std::size_t{512} << 10;

[[noreturn]] void fail(const std::string& what, std::uint64_t at) {
  char text[32];
  std::snprintf(text, sizeof text, "%#llx", static_cast<unsigned long long>(at));
  throw std::logic_error("[emulator] " + what + " at " + text);
}

}  // namespace

// One fiber per warp, and the scheduler, which is the thread that called run().
struct EmulatedBlock::Fibers {
  struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[kStackBytes]};
    EmulatedBlock* block = nullptr;
    int warp = 0;
    bool done = false;
    std::exception_ptr error;
  };
  ucontext_t scheduler;
  std::vector<Fiber> fiber;
  const Body* body = nullptr;
  std::uint64_t order = 1;

  static void enter(unsigned low, unsigned high) {
    auto* f =
        reinterpret_cast<Fiber*>(static_cast<std::uintptr_t>(low) | static_cast<std::uintptr_t>(high) << 32);
    try {
      Block block{f->block, f->warp};
      (*f->block->fibers_->body)(block);
    } catch (...) { f->error = std::current_exception(); }
    f->done = true;
    swapcontext(&f->context, &f->block->fibers_->scheduler);
  }
};

EmulatedBlock::EmulatedBlock(int warps, std::size_t shared_bytes, const std::vector<Span>& spans,
                             std::vector<Writers>& writers)
    : warps_(warps), shared_(shared_bytes), stamps_((shared_bytes + 3) / 4), spans_(spans), writers_(writers),
      copies_(static_cast<std::size_t>(warps)), on_its_way_((shared_bytes + 15) / 16), fibers_(new Fibers) {
  fibers_->fiber.resize(static_cast<std::size_t>(warps));
}

EmulatedBlock::~EmulatedBlock() = default;

void EmulatedBlock::run(Index block, const Body& body) {
  index = block;
  shared_.assign(shared_.size(), std::byte{0xff});
  on_its_way_.assign(on_its_way_.size(), false);
  ++epoch_;
  fibers_->body = &body;
  for (int w = 0; w < warps_; ++w) {
    copies_[static_cast<std::size_t>(w)].assign(1, {});
    Fibers::Fiber& f = fibers_->fiber[static_cast<std::size_t>(w)];
    f.block = this;
    f.warp = w;
    f.done = false;
    f.error = nullptr;
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.get();
    f.context.uc_stack.ss_size = kStackBytes;
    f.context.uc_link = nullptr;
    const auto at = reinterpret_cast<std::uintptr_t>(&f);
    makecontext(&f.context, reinterpret_cast<void (*)()>(&Fibers::enter), 2, static_cast<unsigned>(at),
                static_cast<unsigned>(at >> 32));
  }
  std::vector<int> order(static_cast<std::size_t>(warps_));
  for (int w = 0; w < warps_; ++w) order[static_cast<std::size_t>(w)] = w;
  for (int ended = 0; ended == 0;) {
    for (std::size_t i = order.size(); i > 1; --i) {
      fibers_->order = fibers_->order * 6364136223846793005u + 1442695040888963407u;
      std::swap(order[i - 1], order[(fibers_->order >> 33) % i]);
    }
    for (const int w : order) {
      Fibers::Fiber& f = fibers_->fiber[static_cast<std::size_t>(w)];
      swapcontext(&fibers_->scheduler, &f.context);
      if (f.error) std::rethrow_exception(f.error);
      ended += f.done;
    }
    ++epoch_;
    if (ended > 0 && ended < warps_)
      fail("some warps ended while others wait at a barrier, block", static_cast<std::uint64_t>(block));
  }
  for (std::size_t i = 0; i < on_its_way_.size(); ++i)
    if (on_its_way_[i]) fail("the block ended before a copy", 16 * i);
}

void EmulatedBlock::barrier(int warp) {
  swapcontext(&fibers_->fiber[static_cast<std::size_t>(warp)].context, &fibers_->scheduler);
}

std::byte* EmulatedBlock::raw(Word offset, std::size_t bytes) {
  if (offset + bytes > shared_.size()) fail("outside of shared memory", offset);
  return shared_.data() + offset;
}

const std::byte* EmulatedBlock::read(int thread, Word offset, std::size_t bytes) {
  if (offset % bytes != 0) fail("unaligned shared read", offset);
  const std::byte* at = raw(offset, bytes);
  for (std::size_t i = offset / 4; i <= (offset + bytes - 1) / 4; ++i) {
    Stamp& s = stamps_[i];
    if (s.write_epoch == epoch_ && s.writer != thread)
      fail("race: read of what another thread wrote", offset);
    s.reader = s.read_epoch == epoch_ && s.reader != thread ? kSeveral : static_cast<std::int16_t>(thread);
    s.read_epoch = epoch_;
  }
  return at;
}

std::byte* EmulatedBlock::write(int thread, Word offset, std::size_t bytes) {
  if (offset % bytes != 0) fail("unaligned shared write", offset);
  std::byte* at = raw(offset, bytes);
  if (on_its_way_[offset / 16]) fail("race: write where a copy is still on its way", offset);
  for (std::size_t i = offset / 4; i <= (offset + bytes - 1) / 4; ++i) {
    Stamp& s = stamps_[i];
    // Halves of a word may belong to two threads.
    if (bytes >= 4 && s.write_epoch == epoch_ && s.writer != thread) fail("race: two threads write", offset);
    if (s.read_epoch == epoch_ && s.reader != thread) fail("race: write of what another thread read", offset);
    s.write_epoch = epoch_;
    s.writer = static_cast<std::int16_t>(thread);
  }
  return at;
}

void EmulatedBlock::check_global(const void* p, std::size_t bytes, std::size_t alignment, bool write) {
  const auto* at = static_cast<const std::byte*>(p);
  const auto inside = [&](const Span& s) {
    return s.begin <= at && at + bytes <= s.end && (s.writable || !write);
  };
  if (reinterpret_cast<std::uintptr_t>(at) % alignment != 0)
    fail("unaligned access", reinterpret_cast<std::uintptr_t>(at));
  if (last_span_ < spans_.size() && inside(spans_[last_span_]))
    return check_blocks(last_span_, at, bytes, write);
  for (std::size_t i = 0; i < spans_.size(); ++i)
    if (inside(spans_[i])) {
      last_span_ = i;
      return check_blocks(i, at, bytes, write);
    }
  fail(write ? "write outside of the outputs" : "read outside of the tensors",
       reinterpret_cast<std::uintptr_t>(at));
}

void EmulatedBlock::check_blocks(std::size_t span, const std::byte* at, std::size_t bytes, bool write) {
  Writers& writers = writers_[span];
  if (writers.empty()) return;
  const auto first = static_cast<std::size_t>(at - spans_[span].begin);
  for (std::size_t i = first / 2; i <= (first + bytes - 1) / 2; ++i) {
    const Index before = write ? writers[i].exchange(index + 1) : writers[i].load();
    if (before != 0 && before != index + 1)
      fail(write ? "two blocks write" : "read of what another block wrote",
           reinterpret_cast<std::uintptr_t>(at));
  }
}

void EmulatedBlock::start_copy(int thread, Word offset, const void* from, int bytes) {
  const auto at = reinterpret_cast<std::uintptr_t>(from);
  if (bytes < 0 || bytes > 16 || at % 16 != 0) fail("cp.async of an unaligned source or a wrong size", at);
  if (bytes > 0 && last_span_ <= spans_.size()) {  // in two steps: spans need not end aligned
    const auto* p = static_cast<const std::byte*>(from);
    for (int i = 0; i < bytes; i += 2) check_global(p + i, 2, 2, false);
  }
  std::memset(write(thread, offset, 16), 0xff, 16);
  on_its_way_[offset / 16] = true;
  copies_[static_cast<std::size_t>(thread / kLanes)].back().push_back(
      {thread, offset, static_cast<const std::byte*>(from), bytes});
}

void EmulatedBlock::commit(int warp) { copies_[static_cast<std::size_t>(warp)].emplace_back(); }

void EmulatedBlock::wait(int warp, int groups) {
  auto& list = copies_[static_cast<std::size_t>(warp)];
  while (static_cast<int>(list.size()) - 1 > groups) {
    for (const Copy& c : list.front()) {
      on_its_way_[c.offset / 16] = false;
      std::byte* to = write(c.thread, c.offset, 16);
      std::memset(to, 0, 16);
      if (c.bytes > 0) std::memcpy(to, c.from, static_cast<std::size_t>(c.bytes));
    }
    list.erase(list.begin());
  }
}

void emulate(Index blocks, int warps, std::size_t shared_bytes, const std::vector<Span>& spans,
             Executor& executor, const EmulatedBlock::Body& body) {
  std::vector<Writers> writers;
  for (const Span& s : spans)
    writers.emplace_back(s.writable ? static_cast<std::size_t>(s.end - s.begin + 1) / 2 : 0);
  std::vector<std::unique_ptr<EmulatedBlock>> of_worker(static_cast<std::size_t>(executor.workers()));
  executor.run(blocks, [&](Index block, int worker) {
    auto& own = of_worker[static_cast<std::size_t>(worker)];
    if (!own) own = std::make_unique<EmulatedBlock>(warps, shared_bytes, spans, writers);
    own->run(block, body);
  });
}

}  // namespace nearfield::ptx
