// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The way from the functions of nearfield/torch.h to the two operators (bindings/torch/ops.cc), with
// autograd. The operators are in libnearfield_torch.so, which registers them when it is loaded; a
// program that uses this header needs a symbol of it, so linking the library is all (a forgotten one is
// an error of the linker, not of the first call).
#pragma once

#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <sstream>
#include <tuple>

#include "nearfield/torch/arguments.h"

// The names of the backends in the order of the operators' numbers, from 1 on: "cuda_sm90 ... reference".
extern "C" const char* nf_torch_backends();
// The function that a number means to the operators.
extern "C" const char* nf_torch_function(int64_t function);
// What is wrong with lengths of packed sequences (request.h, check_lengths); null if nothing is.
extern "C" const char* nf_torch_check_lengths(const char* op, const char* name, const int64_t* lengths,
                                              int64_t n, int64_t total, const char* packed);

namespace nearfield {

namespace torch_detail {

// A permission to every call that is made while one lives, process-wide.
template <class Kind>
class Permission {
 public:
  Permission() { ++living(); }
  ~Permission() { --living(); }
  Permission(const Permission&) = delete;
  Permission& operator=(const Permission&) = delete;

 protected:
  static std::atomic<int>& living() {
    static std::atomic<int> count{0};
    return count;
  }
};

}  // namespace torch_detail

// While one lives, backends may use faster kernels that add in varying order, so that results differ in
// the last bits from run to run. PyTorch's deterministic algorithms overrule it.
struct AllowNondeterministic : torch_detail::Permission<AllowNondeterministic> {
  static bool allowed() { return living() > 0 && !at::globalContext().deterministicAlgorithms(); }
};

// While one lives, bfloat16 tensors may be multiplied as bf16 numbers, the softmax's weights rounded to
// bf16, and summed in float32, where the processor has an instruction for it. Still deterministic.
struct AllowBf16Arithmetic : torch_detail::Permission<AllowBf16Arithmetic> {
  static bool allowed() { return living() > 0; }
};

namespace torch_detail {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using MaybeTensor = std::optional<at::Tensor>;

enum Function : int64_t { kNa1d, kNa2d, kNa3d, kAttention, kMultiDimensional, kSpatioTemporal, kVarlen };

// A call besides the tensors that have gradients: the rest of the schema, in its order.
struct Call : torch::CustomClassHolder {
  MaybeTensor seed, offsets_query, offsets_key;
  std::vector<int64_t> axes;  // window, stride, dilation, causal of each axis
  std::vector<int64_t> grids, ranges, tiles;
  std::optional<double> scale;
  double dropout_p = 0;
  int64_t function = 0, causal_type = 0, backend = 0, flags = 0;

  std::string op() const { return nf_torch_function(function); }
};

// query, key, value, additional keys and values, bias: what has gradients.
struct Inputs {
  at::Tensor query, key, value;
  MaybeTensor additional_keys, additional_values, bias;

  // f(name, tensor) of every one that is there.
  template <class F>
  void for_each(F&& f) {
    f("query", query);
    f("key", key);
    f("value", value);
    if (additional_keys) f("additional_keys", *additional_keys);
    if (additional_values) f("additional_values", *additional_values);
    if (bias) f("bias", *bias);
  }
};

// The arguments behind grad_out ... lse, the same for both operators.
#define NF_SHARED_TYPES                                                                                    \
  const MaybeTensor&, const MaybeTensor&, const MaybeTensor&, const MaybeTensor&, const MaybeTensor&,      \
      const MaybeTensor&, at::OptionalIntArrayRef, at::OptionalSymIntArrayRef, at::OptionalSymIntArrayRef, \
      at::OptionalIntArrayRef, std::optional<double>, double, int64_t, int64_t, int64_t, int64_t
using Forward = std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                   NF_SHARED_TYPES);
using Backward = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>(
    const at::Tensor&, const MaybeTensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
    const at::Tensor&, const at::Tensor&, NF_SHARED_TYPES);
#undef NF_SHARED_TYPES

template <class Signature>
auto find_operator(const char* name) {
  nf_torch_backends();  // keeps the library in the program
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

// Calls an operator below autograd, `first` being its arguments before the additional keys.
template <class Operator, class... First>
auto call_operator(const Operator& op, const Inputs& in, const Call& call, const First&... first) {
  const at::AutoDispatchBelowADInplaceOrView below;
  const auto list = [](const std::vector<int64_t>& numbers) {  // none instead of an empty one
    return numbers.empty() ? at::OptionalIntArrayRef() : at::OptionalIntArrayRef(numbers);
  };
  const auto symbolic = [](const std::vector<int64_t>& numbers) {
    return numbers.empty() ? at::OptionalSymIntArrayRef()
                           : at::OptionalSymIntArrayRef(c10::fromIntArrayRefSlow(numbers));
  };
  return op.call(first..., in.additional_keys, in.additional_values, in.bias, call.seed, call.offsets_query,
                 call.offsets_key, list(call.axes), symbolic(call.grids), symbolic(call.ranges),
                 list(call.tiles), call.scale, call.dropout_p, call.function, call.causal_type, call.backend,
                 call.flags);
}

inline std::tuple<at::Tensor, at::Tensor> forward(const Inputs& in, const Call& call) {
  static const auto op = find_operator<Forward>("nearfield::forward");
  return call_operator(op, in, call, in.query, in.key, in.value);
}

// The operator's five gradients: of the additional keys and values side by side, shape [0] where there
// is nothing.
inline variable_list backward(const at::Tensor& grad_out, const MaybeTensor& grad_lse, const Inputs& in,
                              const at::Tensor& out, const at::Tensor& lse, const Call& call) {
  static const auto op = find_operator<Backward>("nearfield::backward");
  const auto [query, key, value, additional, bias] =
      call_operator(op, in, call, grad_out, grad_lse, in.query, in.key, in.value, out, lse);
  return {query, key, value, additional, bias};
}

using CallPointer = c10::intrusive_ptr<Call>;

inline MaybeTensor at_or_none(const variable_list& list, std::size_t i) { return if_defined(list[i]); }

inline CallPointer call_of(const AutogradContext* ctx) {
  return c10::static_intrusive_pointer_cast<Call>(ctx->saved_data.at("call").toCapsule());
}

// The backward operator where someone may differentiate it again: refused, with a reason.
struct BackwardFunction : torch::autograd::Function<BackwardFunction> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& grad_out, const MaybeTensor& grad_lse,
                               const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                               const at::Tensor& out, const at::Tensor& lse,
                               const MaybeTensor& additional_keys, const MaybeTensor& additional_values,
                               const MaybeTensor& bias, const CallPointer& call) {
    ctx->saved_data["call"] = c10::IValue::make_capsule(call);
    const Inputs in{query, key, value, additional_keys, additional_values, bias};
    return torch_detail::backward(grad_out, grad_lse, in, out, lse, *call);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list&) {
    refuse_kind(call_of(ctx)->op(), "a second differentiation", "first derivatives only",
                "the backward pass of nearfield is not differentiable (drop create_graph=True; "
                "torch.func.jvp of the forward pass works)");
  }
};

struct AttendFunction : torch::autograd::Function<AttendFunction> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& query, const at::Tensor& key,
                               const at::Tensor& value, const MaybeTensor& additional_keys,
                               const MaybeTensor& additional_values, const MaybeTensor& bias,
                               const CallPointer& call) {
    const Inputs in{query, key, value, additional_keys, additional_values, bias};
    const auto [out, lse] = torch_detail::forward(in, *call);
    const auto saved = [](const MaybeTensor& t) { return t.value_or(at::Tensor()); };
    ctx->save_for_backward(
        {query, key, value, saved(additional_keys), saved(additional_values), saved(bias), out, lse});
    ctx->saved_data["call"] = c10::IValue::make_capsule(call);
    ctx->set_materialize_grads(false);
    return {out, lse};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    variable_list result(7);  // one per argument of forward
    if (!gradients[0].defined() && !gradients[1].defined()) return result;
    const variable_list s = ctx->get_saved_variables();
    const Inputs in{s[0], s[1], s[2], at_or_none(s, 3), at_or_none(s, 4), at_or_none(s, 5)};
    const at::Tensor grad_out = gradients[0].defined() ? gradients[0] : at::zeros_like(s[6]);
    const MaybeTensor grad_lse = at_or_none(gradients, 1);
    const CallPointer call = call_of(ctx);
    const variable_list five =
        at::GradMode::is_enabled()
            ? BackwardFunction::apply(grad_out, grad_lse, in.query, in.key, in.value, s[6], s[7],
                                      in.additional_keys, in.additional_values, in.bias, call)
            : torch_detail::backward(grad_out, grad_lse, in, s[6], s[7], *call);
    std::copy_n(five.begin(), 3, result.begin());
    if (in.additional_keys) {
      const int64_t dim = in.additional_keys->size(-1);
      result[3] = five[3].narrow(-1, 0, dim);
      result[4] = five[3].narrow(-1, dim, five[3].size(-1) - dim);
    }
    if (in.bias) result[5] = five[4];
    return result;
  }
};

// float32 and 16-bit tensors in autocast's dtype where it is on for their device.
inline void autocast(Inputs& in) {
  const at::DeviceType device = in.query.device().type();
  if (!at::autocast::is_autocast_available(device) || !at::autocast::is_autocast_enabled(device)) return;
  const at::ScalarType dtype = at::autocast::get_autocast_dtype(device);
  in.for_each([&](const char*, at::Tensor& t) {
    if (t.is_floating_point() && t.scalar_type() != at::kDouble) t = t.to(dtype);
  });
}

// (out, lse) of one call.
inline std::tuple<at::Tensor, at::Tensor> attend(Inputs in, CallPointer call) {
  const std::string op = call->op();
  bool differentiate = false;
  in.for_each([&](const char* name, const at::Tensor& t) {
    check_tensor(op, name, t);
    if (t._fw_grad(/*level=*/0).defined())
      refuse_kind(op, std::string(name) + " with a tangent", "none",
                  "forward-mode differentiation is there in Python");
    differentiate |= at::GradMode::is_enabled() && t.requires_grad();
  });
  autocast(in);
  if (!differentiate) return forward(in, *call);
  const variable_list outputs = AttendFunction::apply(in.query, in.key, in.value, in.additional_keys,
                                                      in.additional_values, in.bias, call);
  return {outputs[0], outputs[1]};
}

// The number of a backend; "" is 0, the best one.
inline int64_t backend_number(const std::string& op, const std::string& name) {
  if (name.empty()) return 0;
  std::istringstream names(nf_torch_backends());
  std::string list, other;
  for (int64_t number = 1; names >> other; ++number) {
    if (other == name) return number;
    list += (list.empty() ? "" : ", ") + other;
  }
  refuse(op, "backend '" + name + "'", "one of " + list, "\"\" takes the best one");
}

}  // namespace torch_detail

}  // namespace nearfield
