// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "device.h"

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "nearfield/stream.h"

namespace nearfield::testing {
namespace {

constexpr std::size_t kGuard = 64, kAlignment = 256;

void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

// Memory of the host and what stands for it on the device.
class Copy {
 public:
  Copy(const void* host, std::size_t bytes) : host_(static_cast<const std::byte*>(host)), bytes_(bytes) {
    const std::size_t lead = reinterpret_cast<std::uintptr_t>(host) % kAlignment;
    check(cudaMalloc(&block_, lead + bytes + kGuard), "allocating memory");
    at_ = static_cast<std::byte*>(block_) + lead;
    check(cudaMemcpy(at_, host_, bytes, cudaMemcpyHostToDevice), "copying to the device");
    check(cudaMemset(at_ + bytes, 0x5a, kGuard), "writing the guard");
  }
  ~Copy() { cudaFree(block_); }
  Copy(const Copy&) = delete;
  Copy& operator=(const Copy&) = delete;

  std::byte* at() const { return at_; }
  void back(std::byte* to) const {
    std::vector<std::byte> guard(kGuard);
    check(cudaMemcpy(to, at_, bytes_, cudaMemcpyDeviceToHost), "copying to the host");
    check(cudaMemcpy(guard.data(), at_ + bytes_, kGuard, cudaMemcpyDeviceToHost), "copying to the host");
    for (const std::byte b : guard)
      if (b != std::byte{0x5a}) throw std::runtime_error("a kernel wrote behind its memory");
  }

 private:
  const std::byte* host_;
  std::size_t bytes_;
  void* block_ = nullptr;
  std::byte* at_ = nullptr;
};

std::size_t bytes_of(const TensorView& t) {
  Index reach = t.elements() > 0 ? 1 : 0;
  for (int i = 0; i < t.rank && reach > 0; ++i)
    reach += (t.size[static_cast<std::size_t>(i)] - 1) * t.stride[static_cast<std::size_t>(i)];
  return static_cast<std::size_t>(reach * size_of(t.dtype));
}

}  // namespace

void run_on_device(const Problem& problem, const Choice& choice, const Tensors& tensors,
                   std::byte* workspace) {
  Tensors there = tensors;
  std::vector<std::pair<std::unique_ptr<Copy>, std::byte*>> copies;
  const auto copied = [&](const void* host, std::size_t bytes) {
    copies.emplace_back(std::make_unique<Copy>(host, bytes),
                        static_cast<std::byte*>(const_cast<void*>(host)));
    return copies.back().first->at();
  };
  for (TensorView& t : there.view)
    if (t.present()) t.data = copied(t.data, bytes_of(t));
  if (tensors.seed) there.seed = reinterpret_cast<const std::int64_t*>(copied(tensors.seed, 8));
  if (problem.offsets) {
    const std::size_t bytes =
        static_cast<std::size_t>(problem.offsets->sequences + 1) * (tensors.wide_offsets ? 8 : 4);
    there.query_offsets = copied(tensors.query_offsets, bytes);
    there.key_offsets = copied(tensors.key_offsets, bytes);
  }
  const std::size_t scratch = choice.plan->workspace_bytes(1);
  std::vector<std::byte> own;
  if (!workspace) {
    own.assign(scratch + 1, std::byte{0xff});
    workspace = own.data();
  }
  StreamExecutor stream(nullptr);
  run(problem, choice, there, stream, copied(workspace, scratch));
  check(cudaDeviceSynchronize(), "running kernels");
  for (const auto& [copy, host] : copies) copy->back(host);
}

}  // namespace nearfield::testing
