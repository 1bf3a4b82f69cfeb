// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Fills tokens [first_query, first_query + number) of view[0], a packed tensor [1, tokens, heads, head_dim], with
// `scale`, but none before the last of the offsets where there are any. One element per thread.
#pragma once

#include "cuda/sm80/items.h"

namespace nearfield::sm80 {

inline constexpr int kTailThreads = 128;

template <class E>
NF_DEVICE void tails(ptx::Block& block, const Arguments& args) {
  const View& view = args.view[0];
  NF_LANES(lane) {
    const Index i = block.index() * kTailThreads + block.warp * ptx::kLanes + lane;
    if (i >= args.item.number * args.heads * args.head_dim) continue;
    const Index token = args.item.first_query + i / (args.heads * args.head_dim);
    if (args.query_offsets.data && token < offset_at(block, args.query_offsets, args.items)) continue;
    block.store(static_cast<typename E::Storage*>(view.data) + token * view.axis[2] +
                    i / args.head_dim % args.heads * view.head + i % args.head_dim * view.channel,
                ptx::from_float(E{}, args.scale));
  }
}

}  // namespace nearfield::sm80
