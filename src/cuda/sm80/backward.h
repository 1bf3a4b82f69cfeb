// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
//   p = exp(scale q.k + bias - lse)     delta = do.o - dlse     ds = p (m do.v - delta)
//   dq = scale sum_j ds k               dk = scale sum_q ds q   dv = sum_q m p do
//
// m: 1, or what dropout makes of it. Two kernels, one whose blocks own queries (dQ; it also leaves {lse, delta} in
// the workspace) and one whose blocks own keys (dK and dV; what they meet are the queries that see them, by the
// inverse intervals of geometry.h, and all query heads of their group): seven products against the five of one
// kernel for everything, but no sum has two writers: no atomics, the same bits every time.
//
// Both are one text. X0, X1 are the owned tiles (Q, dO or K, V), Y0, Y1 the streamed ones (K, V or Q, dO):
//
//   S = X0 Y0^T     dP = X1 Y1^T     sum0 += dS Y0     sum1 += m P Y1 (keys only)
//
// A masked pair has p = ds = 0 whatever its numbers are. That 0 times a K or Q that is not finite is not 0 is seen in
// S, which then has such a column: it is left out of the product with Y0.
#pragma once

#include "cuda/sm80/scores.h"

namespace nearfield::sm80 {

struct Statistics {
  float lse, delta;  // lse: +inf of a query that sees nothing
};

NF_DEVICE bool finite(float x) { return x - x == 0.0f; }

// delta of the warp's rows, into the workspace and shared memory.
template <class S>
NF_DEVICE void row_statistics(Block& block, const Arguments& args) {
  using E = typename S::E;
  using Storage = typename E::Storage;
  const Frame& f = block.object<Frame>(S::kFrame);
  const View &grad = args[Role::kGradOut], &out = args[Role::kOut], &grad_lse = args[Role::kGradLse];
  NF_NO_UNROLL
  for (int i = 0; i < S::kWarpRows; ++i) {
    const int row = block.warp * S::kWarpRows + i;
    const Index at = row_address<Owner::kQueries, S>(args, f, Role::kGradOut, Role::kGradOut, row),
                at_out = row_address<Owner::kQueries, S>(args, f, Role::kOut, Role::kOut, row);
    PerLane<float, 1> part;
    NF_LANES(lane) {
      float sum = 0.0f;
      if (at != kNoRow)
        for (int c = lane; c < args.value_dim; c += ptx::kLanes)
          sum = ptx::fused(
              ptx::to_float(E{}, block.load(static_cast<const Storage*>(grad.data) + at + c * grad.channel)),
              ptx::to_float(E{},
                            block.load(static_cast<const Storage*>(out.data) + at_out + c * out.channel)),
              sum);
      part.of(lane)[0] = sum;
    }
    Statistics s{ptx::warp_sum(part), 0.0f};
    s = {-minus_infinity(), s.lse};
    NF_LANES(lane) {
      if (lane == 0) {
        if (at != kNoRow) {
          const float lse = block.load(static_cast<const float*>(args[Role::kLse].data) +
                                       row_address<Owner::kQueries, S>(args, f, Role::kLse, Role::kLse, row));
          if (grad_lse.data)
            s.delta -=
                block.load(static_cast<const float*>(grad_lse.data) +
                           row_address<Owner::kQueries, S>(args, f, Role::kGradLse, Role::kGradLse, row));
          s.lse = lse == minus_infinity() ? -lse : lse;
          const View& own = args.view[kStatistics];
          const Item& item = item_at(args, f.item);
          Index position[kMaxRank];
          int head = 0;
          row_place(f, item.query_tile, item.pack, row, position, head);
          Index to = base_of(args, own, item.first_query, f.batch, f.head + head);
          for (int a = 0; a < kMaxRank; ++a)
            to += (f.residue[a] + f.step[a] * position[a]) * stride_of(args, own, item.grid, true, a);
          float* memory = static_cast<float*>(own.data) + 2 * to;
          block.store(memory, s.lse);
          block.store(memory + 1, s.delta);
        }
        const Shared<float> shared{S::kRowStatistics};
        shared.set(block, lane, 2 * row, s.lse);
        shared.set(block, lane, 2 * row + 1, s.delta);
      }
    }
  }
}

// {lse, delta} of the queries of a streamed tile.
template <class S>
NF_DEVICE void load_statistics(Block& block, const Arguments& args, const Frame& f, const Tile& t,
                               Index head) {
  Index base = f.base[2] + head * args.view[kStatistics].head;
  for (int a = 0; a < kMaxRank; ++a) base += (f.residue[a] + f.step[a] * t.origin[a]) * f.stride[2][a];
  NF_LANES(lane) {
    for (int c = block.warp * ptx::kLanes + lane; c < S::kColumns; c += S::kThreads) {
      Statistics s{-minus_infinity(), 0.0f};
      if (in_tile<S>(block, t, lane, c)) {
        const float* from = static_cast<const float*>(args.view[kStatistics].data) +
                            2 * (base + Shared<Index>{S::kColumnStatistics}.get(block, lane, c));
        s = {block.load(from), block.load(from + 1)};
      }
      Shared<float>{S::kStatistics}.set(block, lane, 2 * c, s.lse);
      Shared<float>{S::kStatistics}.set(block, lane, 2 * c + 1, s.delta);
    }
  }
}

// Scores and dP -> P and dS, in place.
template <Owner kOwner, class S>
NF_DEVICE void gradients(Block& block, const Arguments& args, Accumulator (&s)[S::kBlocks16][S::kColumns / 8],
                         Accumulator (&dp)[S::kBlocks16][S::kColumns / 8]) {
  constexpr bool kWide = S::E::kBytes == 4, kQueries = kOwner == Owner::kQueries;
  NF_UNROLL
  for (int m = 0; m < S::kBlocks16; ++m) NF_LANES(lane) {
      NF_UNROLL
      for (int i = 0; i < 2; ++i) {
        const int row = row_of<S>(block, m, i, lane);
        Word kept = 0xffffffffu;
        if (args.drop_below) kept = kept_columns<S>(block, lane, m, i);
        Statistics stat{0.0f, 0.0f};
        if (kQueries)
          stat = {Shared<float>{S::kRowStatistics}.get(block, lane, 2 * row),
                  Shared<float>{S::kRowStatistics}.get(block, lane, 2 * row + 1)};
        NF_UNROLL
        for (int x = 0; x < S::kColumns / 4; ++x) {
          float &p = s[m][x / 2].of(lane)[2 * i + x % 2], &d = dp[m][x / 2].of(lane)[2 * i + x % 2];
          if (!kQueries) {
            const int column = 8 * (x / 2) + 2 * (lane & 3) + x % 2;
            stat = {Shared<float>{S::kStatistics}.get(block, lane, 2 * column),
                    Shared<float>{S::kStatistics}.get(block, lane, 2 * column + 1)};
          }
          const bool gone = p == minus_infinity() || stat.lse == -minus_infinity();
          const float weight = ptx::exp2<kWide>(kWide ? (p - stat.lse) * kLog2e
                                                      : ptx::fused(p, args.factor, -stat.lse * kLog2e));
          const float keep = kept >> x & 1 ? args.keep_scale : 0.0f;
          d = gone ? 0.0f : weight * (keep * d - stat.delta);
          p = gone ? 0.0f : weight * keep;
        }
      }
    }
}

// kFirst, kSecond: which of the two sums of keys.
template <Owner kOwner, class S, bool kFirst, bool kSecond>
NF_DEVICE void backward(Block& block, const Arguments& args) {
  constexpr bool kQueries = kOwner == Owner::kQueries;
  static_assert(kFirst || (kSecond && !kQueries));
  if (!prologue<kOwner, S>(block, args)) return;
  const Frame& f = block.object<Frame>(S::kFrame);
  constexpr Role kX0 = kQueries ? Role::kQuery : Role::kKey, kX1 = kQueries ? Role::kGradOut : Role::kValue,
                 kY0 = kQueries ? Role::kKey : Role::kQuery, kY1 = kQueries ? Role::kValue : Role::kGradOut,
                 kMoreX0 = kQueries ? kX0 : Role::kAdditionalKey,
                 kMoreX1 = kQueries ? kX1 : Role::kAdditionalValue;
  const View &more_k = args[Role::kAdditionalKey], &more_v = args[Role::kAdditionalValue];
  constexpr Word kTileX0 = S::kOwned, kTileX1 = S::kOwned + S::kOwnedBytes, kTileY0 = S::kStreamed,
                 kTileY1 = S::kStreamed + S::kStreamedBytes;
  const bool more = !kQueries && f.additional;

  address_rows<kOwner, S>(block, args, kX1, kMoreX1);
  if (kQueries) row_statistics<S>(block, args);
  block.barrier();
  load_owned<S>(block, more ? more_v : args[kX1], kTileX1, args.value_dim);
  block.barrier();
  address_rows<kOwner, S>(block, args, kX0, kMoreX0);
  block.barrier();
  load_owned<S>(block, more ? more_k : args[kX0], kTileX0, args.head_dim);

  const int layout = layout_tiles(f), group = static_cast<int>(args.heads / args.kv_heads),
            tiles =
                kQueries ? layout + static_cast<int>(ceil_div(args.additional, S::kColumns)) : layout * group;
  const Index kv_head = f.head / group;  // of rows of queries
  const auto load = [&](int i) {
    const int head =
        kQueries ? 0 : i / layout;  // a tile of rows of keys may meet none: then i is never asked for
    const Tile t = tile_at<S>(args, f, kQueries ? i : i % layout, layout);
    load_columns<S>(block, f, t, args[kY0], 0, f.base[0] + head * args[kY0].head, more_k,
                    kQueries ? additional_base(more_k, f.batch, kv_head) : 0, kTileY0, args.head_dim);
    load_columns<S>(block, f, t, args[kY1], 1, f.base[1] + head * args[kY1].head, more_v,
                    kQueries ? additional_base(more_v, f.batch, kv_head) : 0, kTileY1, args.value_dim);
    block.commit();
    if (!kQueries) load_statistics<S>(block, args, f, t, head);
  };
  Accumulator sum0[S::kBlocks16][S::kDepth / 8], sum1[S::kBlocks16][S::kDepth / 8];
  if constexpr (kFirst) clear<S>(sum0);
  if constexpr (kSecond) clear<S>(sum1);
  NF_NO_UNROLL
  for (int i = -1;;) {             // the first time round only loads: one copy of its code
    if (++i > 0) block.barrier();  // nobody reads the tiles any more
    if (i < tiles) load(i);
    else break;
    block.wait<0>();
    block.barrier();
    const Tile tile = tile_at<S>(args, f, kQueries ? i : i % layout, layout);
    const Cover cover = cover_of<S>(block, tile);
    if (cover != Cover::kSkip) {
      const Index head = kQueries ? f.head : f.head * group + i / layout;
      Accumulator s[S::kBlocks16][S::kColumns / 8], dp[S::kBlocks16][S::kColumns / 8];
      if (args.drop_below) draw<kOwner, S>(block, args, f, tile, head);
      dot_products<S>(block, s, kTileX0, kTileY0, args.head_dim);
      PerLane<bool, 1> odd;
      NF_LANES(lane) {
        float probe = 0.0f;
        NF_UNROLL
        for (int m = 0; m < S::kBlocks16; ++m) NF_UNROLL
        for (int n = 0; n < S::kColumns / 8; ++n) NF_UNROLL
        for (int e = 0; e < 4; ++e) probe = ptx::fused(s[m][n].of(lane)[e], 0.0f, probe);
        odd.of(lane)[0] = !finite(probe);
      }
      const bool leave_out = ptx::warp_any(odd);
      finish_scores<kOwner, S>(block, args, f, tile, head, cover == Cover::kFull, s);
      dot_products<S>(block, dp, kTileX1, kTileY1, args.value_dim);
      gradients<kOwner, S>(block, args, s, dp);
      if constexpr (kSecond) accumulate<S>(block, sum1, s, kTileY1, args.value_dim, false);
      if constexpr (kFirst) accumulate<S>(block, sum0, dp, kTileY0, args.head_dim, leave_out);
    }
  }
  block.wait<0>();

  PerLane<float, 2> factor[S::kBlocks16];
  const auto write = [&](auto& sum, float by, Role role, Role additional, Word tile) {
    NF_UNROLL
    for (int m = 0; m < S::kBlocks16; ++m) NF_LANES(lane) factor[m].of(lane)[0] = factor[m].of(lane)[1] = by;
    block.barrier();
    address_rows<kOwner, S>(block, args, role, additional);
    write_rows<S>(block, sum, factor, args[more ? additional : role], tile,
                  role == Role::kGradValue ? args.value_dim : args.head_dim);
  };
  if constexpr (kQueries) {
    write(sum0, args.scale, Role::kGradQuery, Role::kGradQuery, kTileX0);
  } else {
    if constexpr (kFirst) write(sum0, args.scale, Role::kGradKey, Role::kGradAdditionalKey, kTileX0);
    if constexpr (kSecond) write(sum1, 1.0f, Role::kGradValue, Role::kGradAdditionalValue, kTileX1);
  }
}

}  // namespace nearfield::sm80
