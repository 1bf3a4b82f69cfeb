// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
//   s_j = scale q.k_j + bias_j     p_j = exp(s_j - m)     o = sum_j p_j v_j / sum_j p_j     lse = m + ln sum_j p_j
//
// A block owns the queries of one box (of `pack` heads that share their keys) and meets the keys in tiles laid
// from the begin of what the box sees: no grid of tiles, no padding, no permutation. Online softmax: m is the
// largest score so far, sums are rescaled when it grows (Dao, FlashAttention-2, 2023, section 3.1).
//
// One tile of K and one of V in shared memory; V is copied while S = Q K^T is computed, the next K while O += P V
// is: two barriers per tile. Each warp decides by itself whether its rows skip a tile, mask it or take it whole.
// Shapes: Q [kRows, D], K [kColumns, D], V [kColumns, Dv]; S, P [kRows, kColumns] and O [kRows, Dv] in registers.
// P is rounded to the dtype, sums are float32.
#pragma once

#include "cuda/sm80/scores.h"

namespace nearfield::sm80 {

template <class S>
struct Softmax {
  // Largest score: times the factor for 16-bit types, which saves a product per element; float32 keeps it as it
  // is, so that scores near the largest number do not overflow. And the lane's part of the sum.
  PerLane<float, 2> largest[S::kBlocks16], sum[S::kBlocks16];
};

// Scores -> weights, in place, and what the sums so far are to be multiplied with.
template <class S>
NF_DEVICE void weigh(const Arguments& args, Softmax<S>& x, Accumulator (&s)[S::kBlocks16][S::kColumns / 8],
                     Accumulator (&sum)[S::kBlocks16][S::kDepth / 8]) {
  constexpr bool kWide = S::E::kBytes == 4;
  NF_UNROLL
  for (int m = 0; m < S::kBlocks16; ++m) {
    PerLane<float, 2> most;
    NF_LANES(lane) {
      NF_UNROLL
      for (int i = 0; i < 2; ++i) {
        float v = s[m][0].of(lane)[2 * i];
        NF_UNROLL
        for (int n = 0; n < S::kColumns / 8; ++n) {
          v = fmaxf(v, s[m][n].of(lane)[2 * i]);
          v = fmaxf(v, s[m][n].of(lane)[2 * i + 1]);
        }
        most.of(lane)[i] = fmaxf(kWide ? v : v * args.factor, x.largest[m].of(lane)[i]);
      }
    }
    ptx::quad_max(most, 0);
    ptx::quad_max(most, 1);
    NF_LANES(lane) {
      NF_UNROLL
      for (int i = 0; i < 2; ++i) {
        const float top = most.of(lane)[i], base = top == minus_infinity() ? 0.0f : top;
        const float change = x.largest[m].of(lane)[i] - base,
                    rescale = ptx::exp2<kWide>(kWide ? change * kLog2e : change);
        x.largest[m].of(lane)[i] = top;
        float part = x.sum[m].of(lane)[i] * rescale;
        NF_UNROLL
        for (int n = 0; n < S::kColumns / 8; ++n) NF_UNROLL
        for (int e = 2 * i; e < 2 * i + 2; ++e) {
          float& v = s[m][n].of(lane)[e];
          v = ptx::exp2<kWide>(kWide ? (v - base) * kLog2e : ptx::fused(v, args.factor, -base));
          part += v;
        }
        x.sum[m].of(lane)[i] = part;
        NF_UNROLL
        for (int n = 0; n < S::kDepth / 8; ++n) {
          sum[m][n].of(lane)[2 * i] *= rescale;
          sum[m][n].of(lane)[2 * i + 1] *= rescale;
        }
      }
    }
  }
}

// lse, and what O is multiplied with in the end.
template <class S>
NF_DEVICE void finish(Block& block, const Arguments& args, const Frame& f, Softmax<S>& x,
                      PerLane<float, 2> (&factor)[S::kBlocks16]) {
  constexpr bool kWide = S::E::kBytes == 4;
  const View& view = args[Role::kLse];
  NF_UNROLL
  for (int m = 0; m < S::kBlocks16; ++m) {
    ptx::quad_sum(x.sum[m], 0);
    ptx::quad_sum(x.sum[m], 1);
    NF_LANES(lane) {
      NF_UNROLL
      for (int i = 0; i < 2; ++i) {
        const float sum = x.sum[m].of(lane)[i], top = x.largest[m].of(lane)[i];
        factor[m].of(lane)[i] = sum == 0.0f ? 0.0f : args.keep_scale / sum;
        if (!view.data || (lane & 3) != 0) continue;
        const Index at =
            row_address<Owner::kQueries, S>(args, f, Role::kLse, Role::kLse, row_of<S>(block, m, i, lane));
        if (at == kNoRow) continue;
        const float lse = sum == 0.0f ? minus_infinity() : (kWide ? top : top * kLn2) + logf(sum);
        block.store(static_cast<float*>(view.data) + at, lse);
      }
    }
  }
}

template <class S>
NF_DEVICE void forward(Block& block, const Arguments& args) {
  if (!prologue<Owner::kQueries, S>(block, args)) return;
  const Frame& f = block.object<Frame>(S::kFrame);
  const View &view_k = args[Role::kKey], &view_v = args[Role::kValue], &view_ak = args[Role::kAdditionalKey],
             &view_av = args[Role::kAdditionalValue];
  const Index kv_head = f.head / (args.heads / args.kv_heads);
  constexpr Word kKeys = S::kStreamed, kValues = S::kStreamed + S::kStreamedBytes;
  const int layout = layout_tiles(f),
            tiles = layout + static_cast<int>(ceil_div(args.additional, S::kColumns));
  address_rows<Owner::kQueries, S>(block, args, Role::kQuery, Role::kQuery);
  block.barrier();
  load_owned<S>(block, args[Role::kQuery], S::kOwned, args.head_dim);

  Accumulator sum[S::kBlocks16][S::kDepth / 8];
  clear<S>(sum);
  Softmax<S> softmax;
  NF_UNROLL
  for (int m = 0; m < S::kBlocks16; ++m) NF_LANES(lane) {
      NF_UNROLL
      for (int i = 0; i < 2; ++i) {
        softmax.largest[m].of(lane)[i] = minus_infinity();
        softmax.sum[m].of(lane)[i] = 0.0f;
      }
    }

  // The round before the first tile only loads its keys: one copy of that code.
  NF_NO_UNROLL
  for (int i = -1; i < tiles; ++i) {
    Cover cover = Cover::kSkip;
    Accumulator s[S::kBlocks16][S::kColumns / 8];
    if (i >= 0) {
      block.wait<0>();
      block.barrier();  // K is there, and nobody reads V any more
      const Tile tile = tile_at<S>(args, f, i, layout);
      load_columns<S>(block, f, tile, view_v, 1, f.base[1], view_av,
                      additional_base(view_av, f.batch, kv_head), kValues, args.value_dim);
      block.commit();
      cover = cover_of<S>(block, tile);
      if (args.drop_below && cover != Cover::kSkip) draw<Owner::kQueries, S>(block, args, f, tile, f.head);
      if (cover != Cover::kSkip) dot_products<S>(block, s, S::kOwned, kKeys, args.head_dim);
      block.wait<0>();
      block.barrier();  // V is there, and nobody reads K any more
    }
    if (i + 1 < tiles) {
      load_columns<S>(block, f, tile_at<S>(args, f, i + 1, layout), view_k, 0, f.base[0], view_ak,
                      additional_base(view_ak, f.batch, kv_head), kKeys, args.head_dim);
      block.commit();
    }
    if (cover == Cover::kSkip) continue;
    const Tile tile = tile_at<S>(args, f, i, layout);
    finish_scores<Owner::kQueries, S>(block, args, f, tile, f.head, cover == Cover::kFull, s);
    weigh<S>(args, softmax, s, sum);
    // Dropped as operands: registers would not hold all weights and what else there is to do to them.
    accumulate<S>(block, sum, s, kValues, args.value_dim, false, [&](int m, int k, auto& weights) {
      if (!args.drop_below) return;
      NF_LANES(lane) {
        keep_only(weights, k, lane, kept_columns<S>(block, lane, m, 0), kept_columns<S>(block, lane, m, 1));
      }
    });
  }

  PerLane<float, 2> factor[S::kBlocks16];
  block.wait<0>();
  finish<S>(block, args, f, softmax, factor);
  block.barrier();
  address_rows<Owner::kQueries, S>(block, args, Role::kOut, Role::kOut);
  write_rows<S>(block, sum, factor, args[Role::kOut], S::kOwned, args.value_dim);
}

}  // namespace nearfield::sm80
