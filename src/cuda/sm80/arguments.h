// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// What a kernel is told: plain data, passed by value. Sequences of a packed list beyond the first lie in a table
// in device memory.
#pragma once

#include "cuda/ptx/matrix.h"
#include "nearfield/problem.h"

namespace nearfield::sm80 {

using ptx::Word;

// Strides in elements. Of a packed list: those of [1, tokens, heads, channels], the tokens' in axis[2].
struct View {
  void* data;  // of the virtual token (0, 0, 0); null: absent
  Index origin, batch, axis[kMaxRank], head, channel;
  bool vector;  // rows may be read and written 16 bytes at a time
};

// One sequence.
struct Item {
  Grid grid;
  int query_tile[kMaxRank], key_tile[kMaxRank];
  int pack;                      // query heads of one key head that share the rows of a tile of queries
  Index number;                  // in its list
  Index first_query, first_key;  // its first token of the packed tensors
  Index first_block;             // of the launch
};

// Views behind those of the roles: {lse, delta} of a query, pairs of floats in the workspace.
inline constexpr int kStatistics = kRoles, kViews = kRoles + 1;

// Cumulative lengths in device memory, kept within [0, total]: wrong ones touch nobody else's memory.
struct Offsets {
  const void* data;
  bool wide;  // int64, else int32
  Index total;
};

struct Arguments {
  View view[kViews];
  Item item;          // the only one ...
  const Item* table;  // ... unless this is not null
  Index items;
  Offsets query_offsets, key_offsets;  // of items.h and tails.h
  Index batch, heads, kv_heads, additional;
  int head_dim, value_dim;
  bool packed;
  // A score is scale q.k + bias. The exponential is 2^(factor (score - ...)); where `scaled_first` does not hold, the
  // factor contains the scale.
  float scale, factor;
  bool scaled_first;
  Word drop_below;  // dropout: 0 none, see philox.h
  float keep_scale;
  const std::int64_t* seed;

  NF_HD const View& operator[](Role r) const { return view[static_cast<int>(r)]; }
};

inline NF_HD const Item& item_at(const Arguments& args, Index i) {
  return args.table ? args.table[i] : args.item;
}

// Blocks of an item whose rows are queries, or keys.
NF_HD constexpr Index tiles_of(const Axis& axis, Interval range, int length) {
  return ceil_div(ceil_div(range.size(), axis.dilation), length);
}

}  // namespace nearfield::sm80
