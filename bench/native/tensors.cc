// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "tensors.h"

#include <bit>
#include <cstring>
#include <stdexcept>

namespace nearfield::bench {
namespace {

#if defined(__aarch64__)
using Half = __fp16;  // g++ before 13 knows it by this name only
#else
using Half = _Float16;
#endif

std::size_t bytes_of(const TensorView& t) {
  Index last = 0;
  for (int i = 0; i < t.rank; ++i) {
    if (t.size[i] == 0) return 0;
    if (t.stride[i] < 0) throw std::invalid_argument("[bench] got a negative stride, expected none");
    last += (t.size[i] - 1) * t.stride[i];
  }
  return static_cast<std::size_t>((last + 1) * size_of(t.dtype));
}

Tensor allocate(DType dtype, const std::vector<Index>& shape, const std::vector<Index>& strides) {
  Tensor t;
  t.view = TensorView(nullptr, dtype, shape.data(), strides.empty() ? nullptr : strides.data(),
                      static_cast<int>(shape.size()));
  const std::size_t bytes = bytes_of(t.view);
  t.memory.reset(new (std::align_val_t{64}) std::byte[bytes + 1]);
  std::memset(t.memory.get(), 0, bytes);
  t.view.data = t.memory.get();
  return t;
}

// The sum of four draws from -32 .. 31, in units of 1/32: variance 1.3, eight significant bits.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  float next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    const auto draw = [&](int shift) { return static_cast<int>((state_ >> shift) & 63) - 32; };
    return static_cast<float>(draw(34) + draw(40) + draw(46) + draw(52)) / 32.0f;
  }

 private:
  std::uint64_t state_;
};

void set(const TensorView& t, Index at, float x) {
  switch (t.dtype) {
    case DType::kFloat32: static_cast<float*>(t.data)[at] = x; return;
    case DType::kFloat64: static_cast<double*>(t.data)[at] = static_cast<double>(x); return;
    case DType::kBFloat16:
      static_cast<std::uint16_t*>(t.data)[at] =
          static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(x) >> 16);
      return;
    case DType::kFloat16: static_cast<Half*>(t.data)[at] = static_cast<Half>(x); return;
  }
}

bool is_input(Role role, Direction direction) {
  if (direction == Direction::kForward) return role < Role::kOut;
  return role < Role::kGradQuery;
}

}  // namespace

double element(const TensorView& t, Index at) {
  switch (t.dtype) {
    case DType::kFloat32: return static_cast<double>(static_cast<const float*>(t.data)[at]);
    case DType::kFloat64: return static_cast<const double*>(t.data)[at];
    case DType::kBFloat16:
      return static_cast<double>(std::bit_cast<float>(
          static_cast<std::uint32_t>(static_cast<const std::uint16_t*>(t.data)[at]) << 16));
    case DType::kFloat16: break;
  }
  return static_cast<double>(static_cast<const Half*>(t.data)[at]);
}

void for_each_element(const TensorView& t, const std::function<void(Index)>& fn) {
  if (t.elements() == 0) return;
  std::array<Index, kMaxTensorRank> at{};
  Index offset = 0;
  while (true) {
    fn(offset);
    int axis = t.rank - 1;
    for (; axis >= 0; --axis) {
      offset += t.stride[axis];
      if (++at[axis] < t.size[axis]) break;
      offset -= t.size[axis] * t.stride[axis];
      at[axis] = 0;
    }
    if (axis < 0) return;
  }
}

Tensor make_tensor(const Problem& p, Role role, bool random) {
  Tensor t = allocate(dtype_of(p, role), shape_of(p, role), p.strides[static_cast<std::size_t>(role)]);
  Random numbers(static_cast<std::uint64_t>(role) + 1);
  if (random) for_each_element(t.view, [&](Index at) { set(t.view, at, numbers.next()); });
  return t;
}

Inputs::Inputs(const Problem& p, Executor& executor) {
  for (int r = 0; r < kRoles; ++r) {
    const Role role = static_cast<Role>(r);
    if (!shape_of(p, role).empty())
      tensor[static_cast<std::size_t>(r)] = make_tensor(p, role, is_input(role, p.direction));
  }
  if (p.direction == Direction::kForward) return;
  Problem forward = p;
  forward.direction = Direction::kForward;
  forward.lse = true;
  for (std::size_t r = static_cast<std::size_t>(Role::kGradOut); r < kRoles; ++r) forward.strides[r].clear();
  run(forward, make_plan(forward), views(), executor);
}

Tensors Inputs::views() const {
  Tensors all;
  for (std::size_t r = 0; r < kRoles; ++r) all.view[r] = tensor[r].view;
  all.seed = &seed;
  return all;
}

Tensor copy_box(const TensorView& from, const std::vector<Index>& begin, const std::vector<Index>& shape) {
  Tensor copy = allocate(DType::kFloat64, shape, {});
  TensorView part = from;
  Index first = 0;
  for (std::size_t a = 0; a < begin.size(); ++a) first += begin[a] * from.stride[a + 1];
  for (std::size_t i = 0; i < shape.size(); ++i) part.size[i] = shape[i];
  double* to = static_cast<double*>(copy.view.data);
  for_each_element(part, [&](Index at) { *to++ = element(from, first + at); });
  return copy;
}

}  // namespace nearfield::bench
