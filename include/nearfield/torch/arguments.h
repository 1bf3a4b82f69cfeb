// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Arguments of the functions and modules of nearfield/torch.h, and the one form of their errors,
// `[op] got X, expected Y; hint`: std::invalid_argument (Python's ValueError), or
// c10::NotImplementedError. The operators check all values; here is what they cannot see.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <array>
#include <charconv>
#include <concepts>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace nearfield {

// One value for every axis of a token layout, or one per axis: 7, {7, 13}, std::vector<int64_t>{7, 13}.
template <class T>
class PerAxis {
 public:
  PerAxis() = default;  // not given
  template <class U>
  requires std::integral<U> &&(std::same_as<U, bool> == std::same_as<T, bool>)PerAxis(U every)
      : values_{static_cast<T>(every)}, scalar_(true) {}
  PerAxis(std::initializer_list<T> each) : values_(each) {}
  PerAxis(std::vector<T> each) : values_(std::move(each)) {}

  bool given() const { return !values_.empty(); }
  // One value per axis; throws where there are not `rank`.
  std::vector<T> expand(const std::string& op, const std::string& name, std::size_t rank) const;

 private:
  std::vector<T> values_;
  bool scalar_ = false;
};

namespace torch_detail {

inline std::string message(const std::string& op, const std::string& got, const std::string& expected,
                           const std::string& hint = "") {
  return "[" + op + "] got " + got + ", expected " + expected + (hint.empty() ? "" : "; " + hint);
}

[[noreturn]] inline void refuse(const std::string& op, const std::string& got, const std::string& expected,
                                const std::string& hint = "") {
  throw std::invalid_argument(message(op, got, expected, hint));
}

[[noreturn]] inline void refuse_kind(const std::string& op, const std::string& got,
                                     const std::string& expected, const std::string& hint) {
  C10_THROW_ERROR(NotImplementedError, message(op, got, expected, hint));
}

// As Python prints a tuple: (1, 2), (1,).
template <class Numbers>
std::string tuple_text(const Numbers& numbers) {
  std::string text = "(";
  for (std::size_t i = 0; i < numbers.size(); ++i) text += (i ? ", " : "") + std::to_string(numbers[i]);
  return text + (numbers.size() == 1 ? ",)" : ")");
}

// As Python prints a float: 0.5, 10000.0, 1e-05.
inline std::string float_text(double x) {
  std::array<char, 32> buffer;
  const double size = x < 0 ? -x : x;
  const bool fixed = size == 0 || (size >= 1e-4 && size < 1e16);
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), x,
                                 fixed ? std::chars_format::fixed : std::chars_format::scientific)
                       .ptr;
  std::string text(buffer.data(), end);
  return fixed && text.find('.') == std::string::npos ? text + ".0" : text;
}

inline std::string dtype_text(at::ScalarType type) {
  switch (type) {
    case at::kFloat: return "float32";
    case at::kDouble: return "float64";
    case at::kBFloat16: return "bfloat16";
    case at::kHalf: return "float16";
    case at::kInt: return "int32";
    case at::kLong: return "int64";
    case at::kBool: return "bool";
    default: return c10::toString(type);
  }
}

// A dense tensor; an undefined one is none, as Python's None.
inline void check_tensor(const std::string& op, const std::string& name, const at::Tensor& tensor,
                         bool optional = false) {
  if (!tensor.defined() && optional) return;
  if (!tensor.defined()) refuse(op, name + " that is undefined", "a tensor");
  const bool nested = tensor.is_nested();
  if (nested || tensor.layout() != at::kStrided)
    refuse_kind(op, std::string("a ") + (nested ? "nested" : "sparse") + " tensor as " + name, "a dense one",
                "use .to_dense(), or pad it");
}

inline std::optional<at::Tensor> if_defined(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

// float64 work in float64, all other in float32.
inline at::ScalarType working_dtype(at::ScalarType type) {
  return type == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace torch_detail

template <class T>
std::vector<T> PerAxis<T>::expand(const std::string& op, const std::string& name, std::size_t rank) const {
  if (scalar_) return std::vector<T>(rank, values_[0]);
  if (values_.size() != rank)
    torch_detail::refuse(op, name + " of length " + std::to_string(values_.size()), std::to_string(rank),
                         "give one number, or one per axis");
  return values_;
}

}  // namespace nearfield
