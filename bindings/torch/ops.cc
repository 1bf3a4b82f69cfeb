// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Two operators, forward and backward: torch tensors -> Problem and plan (prepare.h) -> run. No arithmetic.
// Built on PyTorch's stable ABI (torch >= 2.10); whatever is thrown here reaches Python as a ValueError
// with its text.
//
//   axes     per axis: window, stride, dilation, causal; empty for attention
//   grids    varlen neighborhoods: per sequence extents, windows, strides, dilations, causals
//   ranges   per axis: extent of the global layout, first query and first key present [, extent of the queries']
//   tiles    empty, or three axes each of the query and key tile, forward and then backward; 0: not given
//   backend  0: the best one; i: the i-th of nf_info's list
//   function, causal_type, flags: nearfield/request.h, CallWords
#include <sys/mman.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <new>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "executor.h"
#include "nearfield/attention.h"
#include "nearfield/stream.h"
#include "prepare.h"
#include "stream.h"

namespace nearfield::torch_ops {
namespace {

int32_t torch_dtype(DType t) {
  switch (t) {
    case DType::kFloat64: return aoti_torch_dtype_float64();
    case DType::kBFloat16: return aoti_torch_dtype_bfloat16();
    case DType::kFloat16: return aoti_torch_dtype_float16();
    default: return aoti_torch_dtype_float32();
  }
}

// Memory of this size mostly comes fresh from the system, page by page as it is first written to: a fifth of the time
// of a call with short windows, unless the pages are large.
constexpr int64_t kLarge = 8 << 20;

void prefer_huge_pages([[maybe_unused]] void* memory, [[maybe_unused]] int64_t bytes) {
#ifdef MADV_HUGEPAGE
  constexpr std::uintptr_t kPage = 2 << 20;
  const auto begin = (reinterpret_cast<std::uintptr_t>(memory) + kPage - 1) / kPage * kPage;
  const auto end =
      (reinterpret_cast<std::uintptr_t>(memory) + static_cast<std::uintptr_t>(bytes)) / kPage * kPage;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // a wish: whatever the answer
#endif
}

// Dense and uninitialised, where `like` lies. Not torch::stable::new_empty: it takes a way through the dispatcher
// that costs a small call several microseconds where the caches are cold.
Tensor empty(const Tensor& like, const Ints& size, int32_t dtype) {
  Ints stride(size.size());
  int64_t step = 1;
  for (std::size_t i = size.size(); i-- > 0; step *= std::max<int64_t>(size[i], 1)) stride[i] = step;
  int32_t device = 0;
  AtenTensorHandle made = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device));
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(static_cast<int64_t>(size.size()), size.data(), stride.data(), dtype, device,
                               static_cast<int32_t>(like.get_device_index()), &made));
  Tensor t(made);
  const int64_t bytes = t.numel() * static_cast<int64_t>(t.element_size());
  if (bytes >= kLarge && t.is_cpu()) prefer_huge_pages(t.data_ptr(), bytes);
  return t;
}

// Borrows the tensor's memory; its shape has been checked.
TensorView view_of(const Tensor& t, DType dtype) {
  return TensorView(t.data_ptr(), dtype, t.sizes().data(), t.strides().data(), static_cast<int>(t.dim()));
}

// An output of the problem, uninitialised: run() writes every element.
Tensor add_output(const Problem& p, Role role, const Tensor& like, Tensors& tensors) {
  const std::vector<Index> shape = shape_of(p, role);
  const DType dtype = dtype_of(p, role);
  Tensor t = empty(like, shape, torch_dtype(dtype));
  tensors[role] = view_of(t, dtype);
  return t;
}

void add_inputs(const Problem& p, const std::string& op, const Arguments& a, Tensors& tensors) {
  tensors[Role::kQuery] = view_of(a.query, p.dtype);
  tensors[Role::kKey] = view_of(a.key, p.dtype);
  tensors[Role::kValue] = view_of(a.value, p.dtype);
  if (p.bias) tensors[Role::kBias] = view_of(*a.bias, p.dtype);
  if (p.dropout > 0) {
    if (!a.seed || a.seed->scalar_type() != ScalarType::Long || a.seed->numel() != 1 ||
        a.seed->is_cpu() != a.query.is_cpu() ||
        (!a.query.is_cpu() && a.seed->get_device_index() != a.query.get_device_index()))
      throw std::invalid_argument("[" + op + "] got dropout_p without its seed, expected an int64 tensor " +
                                  "of one number on the device of query");
    tensors.seed = static_cast<const int64_t*>(a.seed->data_ptr());
  }
  if (p.offsets) {  // make_problem() has seen their sizes
    const auto data = [&](const std::optional<Tensor>& t) -> const void* {
      if (t->stride(0) == 1 || t->numel() <= 1) return t->data_ptr();
      throw std::invalid_argument("[" + op +
                                  "] got cumulative lengths with gaps, expected a contiguous tensor");
    };
    tensors.query_offsets = data(a.offsets_query);
    tensors.key_offsets = data(a.offsets_key);
    tensors.wide_offsets = a.offsets_query->scalar_type() == ScalarType::Long;
    if (a.offsets_key->scalar_type() != a.offsets_query->scalar_type())
      throw std::invalid_argument("[" + op + "] got cumulative lengths of two dtypes, expected one");
  }
  if (p.additional == 0) return;
  tensors[Role::kAdditionalKey] = view_of(*a.additional_keys, p.dtype);
  tensors[Role::kAdditionalValue] = view_of(*a.additional_values, p.dtype);
}

// Scratch memory that the process keeps for the next call: fresh pages cost more than a small problem. One caller
// at a time has it; another one, or a call that needs more than kMost, asks PyTorch's allocator.
class KeptScratch {
 public:
  explicit KeptScratch(int64_t bytes) {
    if (bytes > kMost || busy_.exchange(true, std::memory_order_acquire)) return;
    mine_ = true;
    if (bytes <= size_) return;
    delete[] memory_;
    memory_ = new (std::nothrow) std::byte[static_cast<std::size_t>(bytes)];
    size_ = memory_ ? bytes : 0;
  }
  ~KeptScratch() {
    if (mine_) busy_.store(false, std::memory_order_release);
  }
  KeptScratch(const KeptScratch&) = delete;
  KeptScratch& operator=(const KeptScratch&) = delete;

  std::byte* data() const { return mine_ ? memory_ : nullptr; }

 private:
  static constexpr int64_t kMost = 64 << 20;
  inline static std::atomic<bool> busy_{false};
  inline static std::byte* memory_ = nullptr;  // never freed: a thread may be at work when the process ends
  inline static int64_t size_ = 0;
  bool mine_ = false;
};

void run_on_host(const Problem& p, const Choice& choice, const Tensors& tensors, const Tensor& like) {
  constexpr double kAlone = 4e-5;  // predicted seconds below which a second thread would come too late
  const double seconds = choice.plan->seconds;
  TorchExecutor executor(seconds > 0 && seconds < kAlone ? 1 : threads());
  const auto bytes =
      std::max<int64_t>(static_cast<int64_t>(choice.plan->workspace_bytes(executor.workers())), 1);
  const KeptScratch kept(bytes);
  if (kept.data()) return run(p, choice, tensors, executor, kept.data());
  const Tensor workspace = empty(like, Ints{bytes}, aoti_torch_dtype_uint8());
  run(p, choice, tensors, executor, static_cast<std::byte*>(workspace.data_ptr()));
}

// Enqueued on the current stream; memory from PyTorch's allocator, so that graphs can be captured.
void run_on_device(const Problem& p, const Choice& choice, const Tensors& tensors, const Tensor& like) {
  const auto device = static_cast<int32_t>(like.get_device_index());
  const torch::stable::accelerator::DeviceGuard guard(device);
  StreamExecutor stream(current_stream(device));
  const auto bytes = static_cast<int64_t>(choice.plan->workspace_bytes(stream.workers()));
  const Tensor workspace = empty(like, Ints{bytes + 1}, aoti_torch_dtype_uint8());
  run(p, choice, tensors, stream, static_cast<std::byte*>(workspace.data_ptr()));
}

void run_where_it_lies(const Problem& p, const Choice& choice, const Tensors& tensors, const Tensor& like) {
  if (like.is_cuda()) run_on_device(p, choice, tensors, like);
  else run_on_host(p, choice, tensors, like);
}

std::tuple<Tensor, Tensor> forward(Tensor query, Tensor key, Tensor value,
                                   std::optional<Tensor> additional_keys,
                                   std::optional<Tensor> additional_values, std::optional<Tensor> bias,
                                   std::optional<Tensor> seed, std::optional<Tensor> offsets_query,
                                   std::optional<Tensor> offsets_key, std::optional<Ints> axes,
                                   std::optional<Ints> grids, std::optional<Ints> ranges,
                                   std::optional<Ints> tiles, std::optional<double> scale, double dropout_p,
                                   int64_t function, int64_t causal_type, int64_t backend, int64_t flags) {
  const Arguments a{query,
                    key,
                    value,
                    additional_keys,
                    additional_values,
                    bias,
                    seed,
                    offsets_query,
                    offsets_key,
                    axes.value_or(Ints{}),
                    grids.value_or(Ints{}),
                    ranges.value_or(Ints{}),
                    tiles.value_or(Ints{}),
                    scale,
                    dropout_p,
                    function,
                    causal_type,
                    backend,
                    flags};
  const auto call = prepare(a, nullptr);
  const Problem& p = call->problem;
  Tensors tensors;
  add_inputs(p, call->op, a, tensors);
  Tensor out = add_output(p, Role::kOut, query, tensors);
  Tensor lse = add_output(p, Role::kLse, query, tensors);
  run_where_it_lies(p, call->choice, tensors, query);
  return {out, lse};
}

// dQ, dK, dV; the gradients of the additional keys and values side by side, [B, S, Hkv, D + Dv]; that of
// the bias. Those that are not there are of shape [0]: vmap wants a fixed number of tensors.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> backward(
    Tensor grad_out, std::optional<Tensor> grad_lse, Tensor query, Tensor key, Tensor value, Tensor out,
    Tensor lse, std::optional<Tensor> additional_keys, std::optional<Tensor> additional_values,
    std::optional<Tensor> bias, std::optional<Tensor> seed, std::optional<Tensor> offsets_query,
    std::optional<Tensor> offsets_key, std::optional<Ints> axes, std::optional<Ints> grids,
    std::optional<Ints> ranges, std::optional<Ints> tiles, std::optional<double> scale, double dropout_p,
    int64_t function, int64_t causal_type, int64_t backend, int64_t flags) {
  const Arguments a{query,
                    key,
                    value,
                    additional_keys,
                    additional_values,
                    bias,
                    seed,
                    offsets_query,
                    offsets_key,
                    axes.value_or(Ints{}),
                    grids.value_or(Ints{}),
                    ranges.value_or(Ints{}),
                    tiles.value_or(Ints{}),
                    scale,
                    dropout_p,
                    function,
                    causal_type,
                    backend,
                    flags};
  const Incoming incoming{grad_out, grad_lse, out, lse};
  const auto call = prepare(a, &incoming);
  const Problem& p = call->problem;
  Tensors tensors;
  add_inputs(p, call->op, a, tensors);
  tensors[Role::kOut] = view_of(out, p.dtype);
  tensors[Role::kLse] = view_of(lse, lse_dtype(p.dtype));
  tensors[Role::kGradOut] = view_of(grad_out, p.dtype);
  if (grad_lse) tensors[Role::kGradLse] = view_of(*grad_lse, lse_dtype(p.dtype));
  Tensor grad_query = add_output(p, Role::kGradQuery, query, tensors);
  Tensor grad_key = add_output(p, Role::kGradKey, query, tensors);
  Tensor grad_value = add_output(p, Role::kGradValue, query, tensors);
  const Ints none{0};
  const int32_t dtype = torch_dtype(p.dtype);
  Tensor grad_additional =
      empty(query, additional_keys ? Ints{p.batch, p.additional, p.kv_heads, p.head_dim + p.value_dim} : none,
            dtype);
  if (p.additional > 0) {
    const TensorView both = view_of(grad_additional, p.dtype);
    TensorView keys = both, values = both;
    keys.size[3] = p.head_dim;
    values.size[3] = p.value_dim;
    values.data = static_cast<std::byte*>(both.data) + p.head_dim * size_of(p.dtype);
    tensors[Role::kGradAdditionalKey] = keys;
    tensors[Role::kGradAdditionalValue] = values;
  }
  Tensor grad_bias = p.bias ? add_output(p, Role::kGradBias, query, tensors) : empty(query, none, dtype);
  run_where_it_lies(p, call->choice, tensors, query);
  return {grad_query, grad_key, grad_value, grad_additional, grad_bias};
}

#define NF_SHARED_SCHEMA                                                                                    \
  "Tensor? additional_keys, Tensor? additional_values, Tensor? bias, Tensor? seed, Tensor? offsets_query, " \
  "Tensor? offsets_key, int[]? axes, SymInt[]? grids, SymInt[]? ranges, int[]? tiles, float? scale, float " \
  "dropout_p, "                                                                                             \
  "int function, int causal_type, int backend, int flags"

STABLE_TORCH_LIBRARY(NF_TORCH_NS, m) {
  m.def("forward(Tensor query, Tensor key, Tensor value, " NF_SHARED_SCHEMA ") -> (Tensor out, Tensor lse)");
  m.def(
      "backward(Tensor grad_out, Tensor? grad_lse, Tensor query, Tensor key, Tensor value, Tensor out, "
      "Tensor lse, " NF_SHARED_SCHEMA
      ") -> (Tensor grad_query, Tensor grad_key, Tensor grad_value, Tensor grad_additional, Tensor "
      "grad_bias)");
}

STABLE_TORCH_LIBRARY_IMPL(NF_TORCH_NS, CPU, m) {
  m.impl("forward", TORCH_BOX(&forward));
  m.impl("backward", TORCH_BOX(&backward));
}

// Also where the core has no CUDA kernels: its refusal says so.
STABLE_TORCH_LIBRARY_IMPL(NF_TORCH_NS, CUDA, m) {
  m.impl("forward", TORCH_BOX(&forward));
  m.impl("backward", TORCH_BOX(&backward));
}

}  // namespace
}  // namespace nearfield::torch_ops
