// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// A thread block as one of its warps sees it: number, barrier, shared and global memory, cp.async. Shared memory
// is addressed by byte offsets from its begin.
//
//   cp.async: copy16 starts copying 16 bytes of which `bytes` come from memory and the rest are 0; source and
//   destination are aligned to 16 bytes. commit ends a group; wait<N> until at most N groups are on their way.
//   What one thread copied the others see after a barrier behind the wait.
#pragma once

#include "cuda/ptx/lanes.h"

#if defined(NF_EMULATED)
#include "cuda/ptx/emulator.h"
#endif

namespace nearfield::ptx {

#if defined(__CUDACC__)

struct Block {
  char* shared;
  int warp;

  NF_DEVICE Index index() const { return static_cast<Index>(blockIdx.x); }
  NF_DEVICE void barrier() { __syncthreads(); }

  template <class T>
  NF_DEVICE T get(int, Word offset) const {
    return *reinterpret_cast<const T*>(shared + offset);
  }
  template <class T>
  NF_DEVICE void set(int, Word offset, T x) {
    *reinterpret_cast<T*>(shared + offset) = x;
  }
  // A struct that all threads look at.
  template <class T>
  NF_DEVICE T& object(Word offset) {
    return *reinterpret_cast<T*>(shared + offset);
  }

  template <class T>
  NF_DEVICE T load(const T* from) const {
    return *from;
  }
  template <class T>
  NF_DEVICE void store(T* to, T x) {
    *to = x;
  }

  NF_DEVICE Word shared_address(Word offset) const {
    return static_cast<Word>(__cvta_generic_to_shared(shared)) + offset;
  }
  NF_DEVICE void copy16(int, Word offset, const void* from, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(offset)), "l"(from),
                 "r"(bytes)
                 : "memory");
  }
  NF_DEVICE void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
  template <int N>
  NF_DEVICE void wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
  }
};

#else

// The same on the host; `lane` says which thread of the warp it is.
struct Block {
  EmulatedBlock* all;
  int warp;

  int thread(int lane) const { return warp * kLanes + lane; }
  Index index() const { return all->index; }
  void barrier() { all->barrier(warp); }

  template <class T>
  T get(int lane, Word offset) const {
    T x;
    std::memcpy(&x, all->read(thread(lane), offset, sizeof(T)), sizeof(T));
    return x;
  }
  template <class T>
  void set(int lane, Word offset, T x) {
    std::memcpy(all->write(thread(lane), offset, sizeof(T)), &x, sizeof(T));
  }
  template <class T>
  T& object(Word offset) {
    return *reinterpret_cast<T*>(all->raw(offset, sizeof(T)));
  }
  template <class T>
  T load(const T* from) const {
    all->check_global(from, sizeof(T), alignof(T), false);
    T x;
    std::memcpy(&x, from, sizeof(T));
    return x;
  }
  template <class T>
  void store(T* to, T x) {
    all->check_global(to, sizeof(T), alignof(T), true);
    std::memcpy(to, &x, sizeof(T));
  }
  void copy16(int lane, Word offset, const void* from, int bytes) {
    all->start_copy(thread(lane), offset, from, bytes);
  }
  void commit() { all->commit(warp); }
  template <int N>
  void wait() {
    all->wait(warp, N);
  }
};

#endif

// n things of one type in shared memory, from a byte offset on.
template <class T>
struct Shared {
  Word offset;
  NF_DEVICE T get(const Block& block, int lane, int i) const {
    return block.get<T>(lane, offset + static_cast<Word>(i) * sizeof(T));
  }
  NF_DEVICE void set(Block& block, int lane, int i, T x) const {
    block.set<T>(lane, offset + static_cast<Word>(i) * sizeof(T), x);
  }
};

}  // namespace nearfield::ptx
