// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Memory of one tensor under test: any dtype, any strides, with guards. Values go in and out as
// float64 in raster order.
#pragma once

#include <cstddef>
#include <vector>

#include "nearfield/tensor.h"
#include "random.h"

namespace nearfield::testing {

// The nearest value of the dtype, ties to even.
double rounded(double x, DType dtype);

class Memory {
 public:
  Memory() = default;  // absent
  // Every byte is 0xff: NaN in every dtype. An output ends in guard elements that nobody may write; an
  // input does not, so that the address sanitizer sees reads behind its end. Both start off the
  // alignment of a vector, by one element (NEARFIELD_TEST_LEAD: by another number of them).
  Memory(DType dtype, std::vector<Index> size, std::vector<Index> stride = {}, bool output = false);

  bool present() const { return !size_.empty(); }
  const std::vector<Index>& size() const { return size_; }
  Index elements() const;
  TensorView view() const;

  double get(Index i) const;    // i: raster order
  void set(Index i, double x);  // rounds
  std::vector<double> values() const;
  void fill_normal(Rng& rng, double spread = 1.0);
  const std::vector<std::byte>& bytes() const { return bytes_; }
  // True if every byte that belongs to no element is as it was at first.
  bool guards_intact() const;

 private:
  Index offset(Index i) const;  // of element i, in elements from the start of bytes_
  template <class Fn>
  void for_each_offset(const Fn& fn) const;  // of every element, in raster order

  DType dtype_ = DType::kFloat32;
  std::vector<Index> size_, stride_;
  std::vector<std::byte> bytes_;
};

}  // namespace nearfield::testing
