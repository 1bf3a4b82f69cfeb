// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The CUDA backends on a device: kernels are started on the stream of the call, nothing waits, nothing is allocated.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>

#include "cuda/cuda.h"
#include "cuda/sm80/lists.h"
#include "cuda/sm80/run.h"
#include "nearfield/stream.h"
#include "plan/absent.h"

namespace nearfield {
namespace {

using sm80::Kernel;

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // the next call is not to find it
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error) + " (" +
                           cudaGetErrorName(error) + ")");
}

std::string version_text(int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); }

struct Devices {
  std::string absence;  // why there is none that kernels run on, or nothing
  int least = 0;        // 10 major + minor: the lowest compute capability of those that they run on
};

Devices find_devices() {
  int driver = 0, runtime = 0, count = 0, most = 0, least = 0;
  cudaRuntimeGetVersion(&runtime);
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return {"there is no CUDA driver"};
  if (driver / 1000 < runtime / 1000)
    return {"the driver is one of CUDA " + version_text(driver) + ", this build wants that of " +
            version_text(runtime)};
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    cudaGetLastError();
    return {std::string("there is no GPU: ") + cudaGetErrorString(error)};
  }
  for (int i = 0; i < count; ++i) {
    int major = 0, minor = 0;
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, i) == cudaSuccess &&
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, i) == cudaSuccess) {
      const int capability = 10 * major + minor;
      most = std::max(most, capability);
      if (capability >= 80) least = least == 0 ? capability : std::min(least, capability);
    }
  }
  if (least > 0) return {"", least};
  return {"there is no GPU of compute capability 8.0 or later, but one of " + std::to_string(most / 10) +
          "." + std::to_string(most % 10)};
}

const Devices& devices() {  // the first question starts CUDA in this process
  static const Devices found = find_devices();
  return found;
}
std::string_view absence() { return devices().absence; }

class DeviceLauncher final : public sm80::Launcher {
 public:
  DeviceLauncher() {
    for (const auto add : {sm80::list_forward_bf16, sm80::list_forward_f16, sm80::list_forward_f32,
                           sm80::list_backward_bf16, sm80::list_backward_f16, sm80::list_backward_f32})
      add(list_);
  }
  std::span<const Kernel> kernels() const override { return list_; }
  // Of several sorts of GPUs the oldest: a plan does not know which one it is for.
  std::string device_class() const override { return "sm" + std::to_string(devices().least); }

  void launch(const Kernel& kernel, Index blocks, const sm80::Arguments& args, std::span<const sm80::Span>,
              Executor& executor) const override {
    if (blocks > kMaxExtent) throw std::runtime_error("the call has more blocks than a grid of a GPU");
    allow_shared_memory(kernel);
    void* arguments[] = {const_cast<sm80::Arguments*>(&args)};
    check(cudaLaunchKernel(kernel.entry, dim3(static_cast<unsigned>(blocks)),
                           dim3(static_cast<unsigned>(kernel.threads)), arguments,
                           static_cast<std::size_t>(kernel.shared_bytes), stream_of(executor)),
          "starting a kernel");
  }

  void upload(std::span<const sm80::Item> items, sm80::Item* to, Executor& executor) const override {
    check(static_cast<cudaError_t>(
              sm80::copy_items(items.data(), static_cast<Index>(items.size()), to, stream_of(executor))),
          "copying the list of sequences");
  }

 private:
  static cudaStream_t stream_of(Executor& executor) {
    const auto* stream = dynamic_cast<const StreamExecutor*>(&executor);
    if (!stream)
      throw std::invalid_argument("[run] got an executor of host threads, expected a StreamExecutor");
    return static_cast<cudaStream_t>(stream->stream());
  }

  // More than 48 KiB are asked for once per kernel and device.
  void allow_shared_memory(const Kernel& kernel) const {
    if (kernel.shared_bytes <= 48 << 10) return;
    int device = 0;
    check(cudaGetDevice(&device), "asking for the device");
    const std::lock_guard lock(mutex_);
    if (!allowed_.insert({device, kernel.entry}).second) return;
    const cudaError_t error =
        cudaFuncSetAttribute(kernel.entry, cudaFuncAttributeMaxDynamicSharedMemorySize, kernel.shared_bytes);
    if (error != cudaSuccess) allowed_.erase({device, kernel.entry});
    check(error, "asking for shared memory");
  }

  std::vector<Kernel> list_;
  mutable std::mutex mutex_;
  mutable std::set<std::pair<int, const void*>> allowed_;
};

}  // namespace

const Backend& cuda_sm80_backend() {
  static const DeviceLauncher launcher;
  static const std::unique_ptr<Backend> backend = sm80::make_backend(launcher, Device::kCuda, absence);
  return *backend;
}

const Backend& cuda_sm90_backend() {
  static const Absent backend("cuda_sm90", Device::kCuda,
                              "this build has no kernels for Hopper alone; cuda_sm80 runs there");
  return backend;
}

}  // namespace nearfield
