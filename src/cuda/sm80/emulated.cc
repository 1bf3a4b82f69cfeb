// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/sm80/emulated.h"

#include <algorithm>
#include <vector>

#include "cuda/sm80/instances.h"
#include "cuda/sm80/run.h"

namespace nearfield {
namespace {

using namespace sm80;
using Body = void (*)(ptx::Block&, const Arguments&);

struct Make {
  std::vector<Kernel>& list;
  template <class B, class S>
  void operator()(Task task) const {
    const Body body = &B::template run<S>;
    list.push_back({task, dtype_of(typename S::E{}), S::kDepth, S::kRows, S::kColumns, S::kThreads,
                    static_cast<int>(S::kBytes), reinterpret_cast<const void*>(body)});
  }
};

template <class E>
void add(std::vector<Kernel>& list) {
  add_forward<E>(Make{list});
  add_backward<E>(Make{list});
}

class Emulated final : public Launcher {
 public:
  Emulated() {
    add<ptx::BF16>(list_);
    add<ptx::F16>(list_);
    add<ptx::F32>(list_);
  }
  std::span<const Kernel> kernels() const override { return list_; }
  std::string device_class() const override { return "emulated"; }

  void launch(const Kernel& kernel, Index blocks, const Arguments& args, std::span<const Span> spans,
              Executor& executor) const override {
    std::vector<ptx::Span> memory;
    for (const Span& s : spans) {
      const auto* begin = static_cast<const std::byte*>(s.begin);
      memory.push_back({begin, begin + s.bytes, s.writable});
    }
    const auto body = reinterpret_cast<Body>(const_cast<void*>(kernel.entry));
    ptx::emulate(blocks, kernel.threads / ptx::kLanes, static_cast<std::size_t>(kernel.shared_bytes), memory,
                 executor, [&](ptx::Block& block) { body(block, args); });
  }

  void upload(std::span<const Item> items, Item* to, Executor&) const override {
    std::copy(items.begin(), items.end(), to);
  }

 private:
  std::vector<Kernel> list_;
};

}  // namespace

const Backend& emulated_sm80_backend() {
  static const Emulated launcher;
  static const std::unique_ptr<Backend> backend = make_backend(launcher, Device::kCpu);
  return *backend;
}

}  // namespace nearfield
