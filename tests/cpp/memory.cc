// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "memory.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

namespace nearfield::testing {
namespace {

constexpr Index kGuard = 16;  // elements behind

// Elements before: NEARFIELD_TEST_LEAD, 1 if unset. 16 of them keep the alignment of memory.
Index lead() {
  static const char* text = std::getenv("NEARFIELD_TEST_LEAD");
  static const Index n = text ? std::atoll(text) : 1;
  return n;
}

struct SmallFloat {
  int digits, least, most;  // stored fraction bits, exponents of the smallest and largest normal number
};
constexpr SmallFloat kHalf{10, -14, 15}, kBrain{7, -126, 127};

std::uint16_t encode(double x, SmallFloat f) {
  const int top = f.most + f.most + 1;  // the exponent field of infinity
  const auto sign = static_cast<std::uint16_t>(std::signbit(x) ? 0x8000 : 0);
  if (std::isnan(x)) return static_cast<std::uint16_t>(sign | (top << f.digits) | (1 << (f.digits - 1)));
  x = std::fabs(x);
  int e = std::isinf(x) ? f.most + 1 : x == 0 ? f.least : std::max(std::ilogb(x), f.least);
  if (e <= f.most) {
    // In units of the last place; a carry into the next binade comes out right by itself.
    const auto units = static_cast<int>(std::nearbyint(std::ldexp(x, f.digits - e)));
    const int bits = units + ((e - f.least) << f.digits);
    if (bits < top << f.digits) return static_cast<std::uint16_t>(sign | bits);
  }
  return static_cast<std::uint16_t>(sign | (top << f.digits));
}

double decode(std::uint16_t bits, SmallFloat f) {
  const int top = f.most + f.most + 1, e = (bits & 0x7fff) >> f.digits,
            fraction = bits & ((1 << f.digits) - 1);
  double x;
  if (e == top)
    x = fraction ? std::numeric_limits<double>::quiet_NaN() : std::numeric_limits<double>::infinity();
  else if (e == 0) x = std::ldexp(fraction, f.least - f.digits);
  else x = std::ldexp(fraction + (1 << f.digits), e - 1 + f.least - f.digits);
  return bits & 0x8000 ? -x : x;
}

template <class T>
T peek(const std::byte* at) {
  T x;
  std::memcpy(&x, at, sizeof x);
  return x;
}

double load(const std::byte* at, DType t) {
  switch (t) {
    case DType::kFloat32: return static_cast<double>(peek<float>(at));
    case DType::kFloat64: return peek<double>(at);
    case DType::kBFloat16: return decode(peek<std::uint16_t>(at), kBrain);
    case DType::kFloat16: return decode(peek<std::uint16_t>(at), kHalf);
  }
  return 0;
}

void store(std::byte* at, DType t, double x) {
  const auto narrow = static_cast<float>(x);
  std::uint16_t bits = 0;
  switch (t) {
    case DType::kFloat32: std::memcpy(at, &narrow, sizeof narrow); return;
    case DType::kFloat64: std::memcpy(at, &x, sizeof x); return;
    case DType::kBFloat16: bits = encode(x, kBrain); break;
    case DType::kFloat16: bits = encode(x, kHalf); break;
  }
  std::memcpy(at, &bits, sizeof bits);
}

}  // namespace

double rounded(double x, DType dtype) {
  std::byte memory[8];
  store(memory, dtype, x);
  return load(memory, dtype);
}

Memory::Memory(DType dtype, std::vector<Index> size, std::vector<Index> stride, bool output)
    : dtype_(dtype), size_(std::move(size)), stride_(std::move(stride)) {
  if (stride_.empty()) {
    stride_.resize(size_.size());
    Index step = 1;
    for (std::size_t i = size_.size(); i-- > 0; step *= std::max<Index>(size_[i], 1)) stride_[i] = step;
  }
  Index reach = lead() + 1;
  for (std::size_t i = 0; i < size_.size(); ++i) reach += size_[i] > 0 ? (size_[i] - 1) * stride_[i] : 0;
  if (elements() == 0) reach = lead();
  bytes_.assign(static_cast<std::size_t>((reach + (output ? kGuard : 0)) * size_of(dtype)), std::byte{0xff});
}

Index Memory::elements() const {
  Index n = 1;
  for (const Index s : size_) n *= s;
  return n;
}

TensorView Memory::view() const {
  if (!present()) return {};
  return TensorView(bytes_.data() + lead() * size_of(dtype_), dtype_, size_.data(), stride_.data(),
                    static_cast<int>(size_.size()));
}

Index Memory::offset(Index i) const {
  Index at = lead();
  for (std::size_t a = size_.size(); a-- > 0; i /= size_[a]) at += i % size_[a] * stride_[a];
  return at;
}

double Memory::get(Index i) const { return load(bytes_.data() + offset(i) * size_of(dtype_), dtype_); }
void Memory::set(Index i, double x) { store(bytes_.data() + offset(i) * size_of(dtype_), dtype_, x); }

template <class Fn>
void Memory::for_each_offset(const Fn& fn) const {
  if (elements() == 0) return;
  std::vector<Index> at(size_.size());
  for (Index offset = lead();;) {
    fn(offset);
    std::size_t a = size_.size();
    for (; a > 0; --a) {  // the next element: no division, which would take longer than all else
      offset += stride_[a - 1];
      if (++at[a - 1] < size_[a - 1]) break;
      offset -= size_[a - 1] * stride_[a - 1];
      at[a - 1] = 0;
    }
    if (a == 0) return;
  }
}

std::vector<double> Memory::values() const {
  std::vector<double> all;
  all.reserve(static_cast<std::size_t>(elements()));
  for_each_offset([&](Index at) { all.push_back(load(bytes_.data() + at * size_of(dtype_), dtype_)); });
  return all;
}

void Memory::fill_normal(Rng& rng, double spread) {
  for_each_offset(
      [&](Index at) { store(bytes_.data() + at * size_of(dtype_), dtype_, spread * rng.normal()); });
}

bool Memory::guards_intact() const {
  const auto width = static_cast<std::size_t>(size_of(dtype_));
  std::vector<char> owned(bytes_.size() / width);  // by element
  for_each_offset([&](Index at) { owned[static_cast<std::size_t>(at)] = 1; });
  for (std::size_t i = 0; i < owned.size(); ++i)
    for (std::size_t b = 0; b < width && !owned[i]; ++b)
      if (bytes_[i * width + b] != std::byte{0xff}) return false;
  return true;
}

}  // namespace nearfield::testing
