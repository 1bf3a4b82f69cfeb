// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Fills tokens [first_query, first_query + number) of view[0], a packed tensor [1, tokens, heads, head_dim], with
// `scale`, but none before the last of the offsets where there are any. first_block: of how many blocks.
#pragma once

#include "cuda/sm80/items.h"

namespace nearfield::sm80 {

inline constexpr int kTailThreads = 128;

template <class E>
NF_DEVICE void tails(ptx::Block& block, const Arguments& args) {
  const View& view = args.view[0];
  const Index end = args.item.first_query + args.item.number, of_token = args.heads * args.head_dim;
  const Index used = args.query_offsets.data ? offset_at(block, args.query_offsets, args.items) : 0;
  const Index begin = used > args.item.first_query ? used : args.item.first_query;
  NF_LANES(lane) {
    for (Index i = block.index() * kTailThreads + block.warp * ptx::kLanes + lane;
         i < (end - begin) * of_token; i += args.item.first_block * kTailThreads)
      block.store(static_cast<typename E::Storage*>(view.data) + (begin + i / of_token) * view.axis[2] +
                      i / args.head_dim % args.heads * view.head + i % args.head_dim * view.channel,
                  ptx::from_float(E{}, args.scale));
  }
}

}  // namespace nearfield::sm80
