// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The sequences of a packed list whose lengths only the device knows: args.item, with their lengths in it, into
// args.table. Each has as many blocks (item.first_block of the second) as the longest could need; those that it does
// not need end at once. One sequence per thread.
#pragma once

#include "cuda/ptx/block.h"
#include "cuda/sm80/arguments.h"

namespace nearfield::sm80 {

inline constexpr int kItemThreads = 128;

NF_DEVICE Index offset_at(ptx::Block& block, const Offsets& o, Index i) {
  const Index x = o.wide ? block.load(static_cast<const std::int64_t*>(o.data) + i)
                         : static_cast<Index>(block.load(static_cast<const std::int32_t*>(o.data) + i));
  return clamp(x, 0, o.total);
}

NF_DEVICE void items(ptx::Block& block, const Arguments& args) {
  NF_LANES(lane) {
    const Index i = block.index() * kItemThreads + block.warp * ptx::kLanes + lane;
    if (i >= args.items) continue;
    Item item = args.item;
    item.number = i;
    item.first_block = i * args.item.first_block;
    item.first_query = offset_at(block, args.query_offsets, i);
    item.first_key = offset_at(block, args.key_offsets, i);
    const Axis& longest = args.item.grid.axis[2];
    const Index queries = offset_at(block, args.query_offsets, i + 1) - item.first_query,
                keys = offset_at(block, args.key_offsets, i + 1) - item.first_key;
    item.grid.axis[2] =
        Axis(longest.rule, clamp(queries, 0, longest.query_extent), clamp(keys, 0, longest.key_extent));
    block.store(const_cast<Item*>(args.table) + i, item);
  }
}

}  // namespace nearfield::sm80
