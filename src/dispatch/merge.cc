// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// merge_attentions on views: plain loops, float64 inside.
#include <cmath>
#include <limits>
#include <vector>

#include "nearfield/attention.h"
#include "problem/message.h"
#include "runtime/convert.h"

namespace nearfield {
namespace {

std::vector<Index> shape(const TensorView& t) { return {t.size.begin(), t.size.begin() + t.rank}; }

void check_merge(std::span<const TensorView> outs, std::span<const TensorView> lses, const TensorView& out,
                 const TensorView& lse) {
  constexpr const char* kOp = "merge_attentions";
  if (outs.size() < 2 || outs.size() != lses.size())
    refuse(kOp, std::to_string(outs.size()) + " outputs and " + std::to_string(lses.size()) + " lse tensors",
           "two or more, as many of both");
  if (out.rank < 2)
    refuse(kOp, "an output of rank " + std::to_string(out.rank), "[..., heads, value head_dim]");
  std::vector<Index> without_channels = shape(out);
  without_channels.pop_back();
  for (const TensorView& t : outs)
    if (shape(t) != shape(out) || t.dtype != out.dtype)
      refuse(kOp, "an output of shape " + shape_text(shape(t)) + ", " + std::string(name_of(t.dtype)),
             shape_text(shape(out)) + ", " + std::string(name_of(out.dtype)) + ", that of the merged one");
  for (const TensorView& t : lses)
    if (shape(t) != without_channels || t.dtype != lse_dtype(out.dtype))
      refuse(kOp, "an lse of shape " + shape_text(shape(t)) + ", " + std::string(name_of(t.dtype)),
             shape_text(without_channels) + ", " + std::string(name_of(lse_dtype(out.dtype))));
  for (const TensorView* t : {&out, &lse})
    for (int i = 0; i < t->rank && t->elements() > 0; ++i)
      if (t->size[static_cast<std::size_t>(i)] > 1 && t->stride[static_cast<std::size_t>(i)] == 0)
        refuse(kOp, "a merged tensor with stride 0", "outputs whose elements have memory of their own");
  for (const std::span<const TensorView>& list : {outs, lses, std::span(&out, 1), std::span(&lse, 1)})
    for (const TensorView& t : list)
      if (t.present() && t.elements() > 0 && t.data == nullptr)
        refuse(kOp, "a tensor without memory", "a pointer to its first element");
  if (shape(lse) != without_channels || lse.dtype != lse_dtype(out.dtype))
    refuse(kOp, "a merged lse of shape " + shape_text(shape(lse)), shape_text(without_channels));
}

}  // namespace

void merge_attentions(std::span<const TensorView> outs, std::span<const TensorView> lses,
                      const TensorView& out, const TensorView& lse) {
  check_merge(outs, lses, out, lse);
  const int rank = lse.rank;
  const auto element = [rank](const TensorView& t, Index i) {  // of the i-th row in raster order
    Index at = 0;
    for (int a = rank - 1; a >= 0; --a) {
      const auto axis = static_cast<std::size_t>(a);
      at += i % t.size[axis] * t.stride[axis];
      i /= t.size[axis];
    }
    return at;
  };
  const auto last = static_cast<std::size_t>(rank);
  const Index channels = out.size[last];
  std::vector<double> weight(outs.size()), sum(static_cast<std::size_t>(channels));
  for (Index i = 0; i < lse.elements(); ++i) {
    double largest = -std::numeric_limits<double>::max(), total = 0;
    for (std::size_t n = 0; n < outs.size(); ++n) {
      weight[n] = load_element(lses[n].data, lses[n].dtype, element(lses[n], i));
      largest = std::fmax(largest, weight[n]);
    }
    for (double& w : weight) total += w = std::exp(w - largest);
    std::fill(sum.begin(), sum.end(), 0.0);
    for (std::size_t n = 0; n < outs.size(); ++n) {
      if (weight[n] == 0) continue;
      const Index at = element(outs[n], i);
      for (Index c = 0; c < channels; ++c)
        sum[static_cast<std::size_t>(c)] +=
            weight[n] / total * load_element(outs[n].data, outs[n].dtype, at + c * outs[n].stride[last]);
    }
    const Index at = element(out, i);
    for (Index c = 0; c < channels; ++c)
      store_element(out.data, out.dtype, at + c * out.stride[last], sum[static_cast<std::size_t>(c)]);
    store_element(lse.data, lse.dtype, element(lse, i),
                  total == 0 ? -std::numeric_limits<double>::infinity() : largest + std::log(total));
  }
}

}  // namespace nearfield
