// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
//   dbias[head, position] = sum over the batch and the pairs of that relative position of ds (backward.h)
//
// A block owns one entry of the table and goes through all queries, each thread through its own in the same order
// every time: no atomics. Its dot products are plain ones: tables of biases are small, and so are their windows.
// Cost: pairs (D + Dv) FMA, and queries times positions tests.
#pragma once

#include "cuda/ptx/matrix.h"
#include "cuda/sm80/arguments.h"
#include "runtime/philox.h"

namespace nearfield::sm80 {

inline constexpr int kBiasThreads = 128;

template <class E>
NF_DEVICE float dot(ptx::Block& block, const View& a, Index at_a, const View& b, Index at_b, int width) {
  using Storage = typename E::Storage;
  float sum = 0.0f;
  for (int c = 0; c < width; ++c)
    sum = ptx::fused(
        ptx::to_float(E{}, block.load(static_cast<const Storage*>(a.data) + at_a + c * a.channel)),
        ptx::to_float(E{}, block.load(static_cast<const Storage*>(b.data) + at_b + c * b.channel)), sum);
  return sum;
}

template <class E>
NF_DEVICE void bias_gradient(ptx::Block& block, const Arguments& args) {
  using Storage = typename E::Storage;
  const Grid& grid = args.item.grid;
  Index positions = 1;
  for (int a = 0; a < kMaxRank; ++a) positions *= 2 * grid.axis[a].window - 1;
  const Index head = block.index() / positions, kv_head = head / (args.heads / args.kv_heads);
  Index entry[kMaxRank], rest = block.index() % positions;
  for (int a = kMaxRank - 1; a >= 0; --a) {
    entry[a] = rest % (2 * grid.axis[a].window - 1);
    rest /= 2 * grid.axis[a].window - 1;
  }
  const auto at = [&](const View& v, Index batch, const Index token[kMaxRank], Index h) {
    return v.origin + batch * v.batch + h * v.head + token[0] * v.axis[0] + token[1] * v.axis[1] +
           token[2] * v.axis[2];
  };
  const View &table = args[Role::kBias], &own = args[Role::kGradBias];
  const Index of_entry = entry[0] * table.axis[0] + entry[1] * table.axis[1] + entry[2] * table.axis[2];
  const float bias = ptx::to_float(
      E{}, block.load(static_cast<const Storage*>(table.data) + table.origin + head * table.head + of_entry));
  const Box queries = grid.queries();
  const Index count = queries.volume() * args.batch;

  ptx::PerLane<float, 1> part;
  NF_LANES(lane) {
    float sum = 0.0f;
    for (Index i = block.warp * ptx::kLanes + lane; i < count; i += kBiasThreads) {
      Index query[kMaxRank], key[kMaxRank], left = i;
      bool seen = true;
      for (int a = kMaxRank - 1; a >= 0; --a) {
        const Axis& axis = grid.axis[a];
        const Index n = queries.axis[a].size(), q = queries.axis[a].begin + left % n;
        left /= n;
        const Index residue = q % axis.dilation, k = q / axis.dilation + entry[a] - (axis.window - 1);
        seen = seen && visible(group(axis, residue), q / axis.dilation).contains(k);
        query[a] = q;
        key[a] = residue + axis.dilation * k;
      }
      if (!seen) continue;
      const float* statistics = static_cast<const float*>(args.view[kStatistics].data) +
                                2 * at(args.view[kStatistics], left, query, head);
      const float lse = block.load(statistics), delta = block.load(statistics + 1);
      if (lse == __builtin_huge_valf()) continue;
      const float score =
          ptx::fused(dot<E>(block, args[Role::kQuery], at(args[Role::kQuery], left, query, head),
                            args[Role::kKey], at(args[Role::kKey], left, key, kv_head), args.head_dim),
                     args.scale, bias);
      const float from_value =
          dot<E>(block, args[Role::kGradOut], at(args[Role::kGradOut], left, query, head), args[Role::kValue],
                 at(args[Role::kValue], left, key, kv_head), args.value_dim);
      float keep = 1.0f;
      if (args.drop_below) {
        Index extent_q[kMaxRank], extent_k[kMaxRank];
        for (int a = 0; a < kMaxRank; ++a) {
          extent_q[a] = grid.axis[a].query_extent;
          extent_k[a] = grid.axis[a].key_extent;
        }
        const Word number = philox(static_cast<Word>(left), static_cast<Word>(head), raster(query, extent_q),
                                   raster(key, extent_k), static_cast<std::uint64_t>(block.load(args.seed)));
        keep = number >= args.drop_below ? args.keep_scale : 0.0f;
      } else {
        keep = args.keep_scale;
      }
      sum += ptx::exp2<true>((score - lse) * 1.4426950408889634f) * (keep * from_value - delta);
    }
    part.of(lane)[0] = sum;
  }
  const float of_warp = ptx::warp_sum(part);
  NF_LANES(lane) {
    if (lane == 0) block.set<float>(lane, static_cast<Word>(block.warp) * 4, of_warp);
  }
  block.barrier();
  NF_LANES(lane) {
    if (block.warp == 0 && lane == 0) {
      float sum = 0.0f;
      for (int w = 0; w < kBiasThreads / ptx::kLanes; ++w)
        sum += block.get<float>(lane, static_cast<Word>(w) * 4);
      block.store(static_cast<Storage*>(own.data) + own.origin + head * own.head + entry[0] * own.axis[0] +
                      entry[1] * own.axis[1] + entry[2] * own.axis[2],
                  ptx::from_float(E{}, sum));
    }
  }
}

}  // namespace nearfield::sm80
