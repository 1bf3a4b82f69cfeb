// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Where a block stands: which sequence, batch entry, head, dilation group and tile; what its rows see, by
// geometry.h; and tables, in shared memory, of everything that depends on a row or a column alone. Nothing here
// depends on the dtype but the strides of tables.
//
// A position counts within a dilation group; a token is residue + dilation * position.
#pragma once

#include "cuda/sm80/shape.h"
#include "runtime/philox.h"

namespace nearfield::sm80 {

using ptx::Block;
using ptx::PerLane;
using ptx::Shared;

enum class Owner { kQueries, kKeys };

inline constexpr Index kNoRow = INT64_MIN;
inline constexpr Word kNoColumn = 0xffffffffu;

struct Frame {
  Axis axis[kMaxRank];                      // of the dilation group
  Interval run[kMaxRank], span[kMaxRank];   // positions owned, and what they meet
  Index residue[kMaxRank], step[kMaxRank];  // of the streamed side
  Index stride[3][kMaxRank], base[3];       // elements, of the streamed tensors, and of the statistics
  Index item, batch, head;                  // the first query head, or the key head
  int tiles[kMaxRank];                      // streamed
  int shape[kMaxRank];                      // tokens of a streamed tile
  bool additional;                          // the rows are additional keys
};

// A streamed tile: a box of positions, or a run of additional keys.
struct Tile {
  int origin[kMaxRank], room[kMaxRank];  // first position; positions within the span
  bool whole;                            // every column is a token of the span
  bool additional;
};

NF_DEVICE Index stride_of(const Arguments& args, const View& view, const Grid& grid, bool queries, int axis) {
  if (!args.packed) return view.axis[axis];
  Index stride = view.axis[2];
  for (int a = kMaxRank - 1; a > axis; --a)
    stride *= (queries ? grid.axis[a].queries : grid.axis[a].keys).size();
  return stride;
}
NF_DEVICE Index base_of(const Arguments& args, const View& view, Index first_token, Index batch, Index head) {
  return view.origin + batch * view.batch + head * view.head + (args.packed ? first_token * view.axis[2] : 0);
}
NF_DEVICE Index additional_base(const View& view, Index batch, Index head) {
  return view.origin + batch * view.batch + head * view.head;
}

NF_DEVICE Index item_of(const Arguments& args, Index block) {
  if (!args.table) return 0;
  Index low = 0, high = args.items - 1;
  while (low < high) {  // the last that begins at or before the block
    const Index mid = (low + high + 1) / 2;
    if (args.table[mid].first_block <= block) low = mid;
    else high = mid - 1;
  }
  return low;
}

// What one axis of the frame is; every lane below kMaxRank writes its own.
template <Owner kOwner, class S>
NF_DEVICE void place(Block& block, const Arguments& args, int a) {
  constexpr bool kQueries = kOwner == Owner::kQueries;
  Frame& f = block.object<Frame>(S::kFrame);
  const Index number = item_of(args, block.index());
  const Item& item = item_at(args, number);
  const int* own = kQueries ? item.query_tile : item.key_tile;
  const auto count = [&](int i) {
    const Axis& along = item.grid.axis[i];
    return tiles_of(along, kQueries ? along.queries : along.keys, own[i]);
  };
  const Index of_group = count(0) * count(1) * count(2), layout_tiles = item.grid.groups() * of_group;
  Index tiles = layout_tiles;
  if (!kQueries) tiles += ceil_div(args.additional, S::kRows);
  const Index heads = kQueries ? args.heads / item.pack : args.kv_heads;
  Index at = block.index() - item.first_block;
  if (at >= tiles * heads * args.batch) {  // of a list whose lengths only the device knows
    f.run[a] = {0, 0};
    return;
  }
  const Index tile = at % tiles, head = at / tiles % heads, batch = at / tiles / heads;

  Axis axis = item.grid.axis[a];
  const bool additional = tile >= layout_tiles;
  Index residue = 0, step = 1;
  if (additional) {
    const Index begin = (tile - layout_tiles) * S::kRows;
    f.run[a] =
        a == kMaxRank - 1 ? Interval{begin, min_of(begin + S::kRows, args.additional)} : Interval{0, 1};
    f.span[a] = axis.queries;
  } else {
    Index g = tile / of_group, c = tile % of_group;
    NF_NO_UNROLL
    for (int i = kMaxRank - 1; i >= a; --i) {
      residue = g % item.grid.axis[i].dilation;
      g /= item.grid.axis[i].dilation;
      at = c % count(i);
      c /= count(i);
    }
    step = axis.dilation;
    axis = group(axis, residue);
    const Interval range = kQueries ? axis.queries : axis.keys;
    const Index begin = range.begin + at * own[a];
    const Interval run{begin, min_of(begin + own[a], range.end)};
    f.run[a] = run;
    f.span[a] = run.empty() ? Interval{0, 0} : kQueries ? hull(axis, run) : inverse_hull(axis, run);
  }
  f.axis[a] = axis;
  f.residue[a] = residue;
  f.step[a] = step;
  f.shape[a] = kQueries ? item.key_tile[a] : item.query_tile[a];
  f.tiles[a] = static_cast<int>(ceil_div(f.span[a].size(), f.shape[a]));
  constexpr Role kFirst = kQueries ? Role::kKey : Role::kQuery,
                 kSecond = kQueries ? Role::kValue : Role::kGradOut;
  f.stride[0][a] = stride_of(args, args[kFirst], item.grid, !kQueries, a);
  f.stride[1][a] = stride_of(args, args[kSecond], item.grid, !kQueries, a);
  f.stride[2][a] = stride_of(args, args.view[kStatistics], item.grid, !kQueries, a);
  if (a > 0) return;
  f.item = number;
  f.batch = batch;
  f.head = kQueries ? head * item.pack : head;
  f.additional = additional;
  // The first head of those that the block meets: the key head, or the first query head of the group.
  const Index met =
      kQueries ? head * item.pack / (args.heads / args.kv_heads) : head * (args.heads / args.kv_heads);
  const Index first = kQueries ? item.first_key : item.first_query;
  f.base[0] = base_of(args, args[kFirst], first, batch, met);
  f.base[1] = base_of(args, args[kSecond], first, batch, met);
  f.base[2] = base_of(args, args.view[kStatistics], first, batch, met);
}

// Row of a tile -> position along each axis and packed head; false if there is none.
NF_DEVICE bool row_place(const Frame& f, const int* shape, int pack, int row, Index position[kMaxRank],
                         int& head) {
  const int volume = shape[0] * shape[1] * shape[2], t = row % volume;
  head = row / volume;
  position[0] = f.run[0].begin + t / (shape[1] * shape[2]);
  position[1] = f.run[1].begin + t / shape[2] % shape[1];
  position[2] = f.run[2].begin + t % shape[2];
  return head < pack && position[0] < f.run[0].end && position[1] < f.run[1].end &&
         position[2] < f.run[2].end;
}

// Element of channel 0 of a row in one of the owned tensors; kNoRow if there is no such row.
template <Owner kOwner, class S>
NF_DEVICE Index row_address(const Arguments& args, const Frame& f, Role role, Role additional_role, int row) {
  constexpr bool kQueries = kOwner == Owner::kQueries;
  const Item& item = item_at(args, f.item);
  Index position[kMaxRank];
  int head = 0;
  if (!kQueries && f.additional) {
    if (row >= f.run[2].size()) return kNoRow;
    const View& view = args[additional_role];
    return additional_base(view, f.batch, f.head) + (f.run[2].begin + row) * view.axis[2];
  }
  if (!row_place(f, kQueries ? item.query_tile : item.key_tile, kQueries ? item.pack : 1, row, position,
                 head))
    return kNoRow;
  const View& view = args[role];
  Index at = base_of(args, view, kQueries ? item.first_query : item.first_key, f.batch, f.head + head);
  for (int a = 0; a < kMaxRank; ++a)
    at += (f.residue[a] + f.step[a] * position[a]) * stride_of(args, view, item.grid, kQueries, a);
  return at;
}

NF_DEVICE Word raster_step(const Axis& axis, bool queries) {
  return static_cast<Word>(queries ? axis.query_extent : axis.key_extent);
}
// Raster of a token of the item's whole layout.
NF_DEVICE Word raster_of(const Item& item, bool queries, const Index token[kMaxRank]) {
  Word at = 0;
  for (int a = 0; a < kMaxRank; ++a)
    at = at * raster_step(item.grid.axis[a], queries) + static_cast<Word>(token[a]);
  return at;
}

// Intervals, dropout and bias of a row. Intervals of rows that are not there are empty.
template <Owner kOwner, class S>
NF_DEVICE bool fill_row(Block& block, const Arguments& args, int lane, int row, int (&interval)[6]) {
  constexpr bool kQueries = kOwner == Owner::kQueries;
  const Frame& f = block.object<Frame>(S::kFrame);
  const Item& item = item_at(args, f.item);
  Index position[kMaxRank], token[kMaxRank], bias = 0;
  int head = 0;
  bool valid;
  Word raster = 0;
  if (!kQueries && f.additional) {
    valid = row < f.run[2].size();
    for (int a = 0; a < kMaxRank; ++a) token[a] = item.grid.axis[a].key_extent - (a < 2 ? 1 : 0);
    token[2] += f.run[2].begin + row;  // behind the last token
    raster = raster_of(item, false, token);
  } else {
    valid = row_place(f, kQueries ? item.query_tile : item.key_tile, kQueries ? item.pack : 1, row, position,
                      head);
    for (int a = 0; a < kMaxRank; ++a) token[a] = f.residue[a] + f.step[a] * position[a];
    raster = raster_of(item, kQueries, token);
    const View& view = args[Role::kBias];
    if (view.data) {
      bias = view.origin + (kQueries ? f.head + head : 0) * view.head;
      for (int a = 0; a < kMaxRank; ++a)
        bias += view.axis[a] * (f.axis[a].window - 1 + (kQueries ? -position[a] : position[a]));
    }
  }
  for (int a = 0; a < kMaxRank; ++a) {
    Interval seen = f.span[a];
    if (!valid) {
      seen = {seen.begin, seen.begin};
    } else if (kQueries) {
      seen = visible(f.axis[a], position[a]);
    } else if (!f.additional) {
      Axis near = f.axis[a];  // no query outside of the span sees any of the rows
      near.queries = f.span[a];
      seen = seen_by(near, position[a]);
    }
    interval[2 * a] = static_cast<int>(seen.begin);
    interval[2 * a + 1] = static_cast<int>(max_of(seen.begin, seen.end));
  }
  for (int i = 0; i < 6; ++i) Shared<int>{S::kRowInterval}.set(block, lane, 6 * row + i, interval[i]);
  Shared<Word>{S::kRowRaster}.set(block, lane, row, raster);
  Shared<Index>{S::kRowBias}.set(block, lane, row, bias);
  return valid;
}

// The box that some row of the warp sees, and the one that all of them see.
template <class S>
NF_DEVICE void fill_warp_box(Block& block, PerLane<int, 6>& interval, PerLane<bool, 1>& valid) {
  NF_UNROLL
  for (int i = 0; i < 12; ++i) {
    const int a = i / 4, end = i % 2;
    const bool of_all = i % 4 >= 2;
    // The hull's begin and the core's end are least values, found as largest ones of the negative.
    const bool least = (end == 0) != of_all;
    PerLane<int, 1> x;
    NF_LANES(lane) {
      const int v = interval.of(lane)[2 * a + end];
      x.of(lane)[0] = !valid.of(lane)[0] ? INT32_MIN + 1 : least ? -v : v;
    }
    const int most = ptx::warp_max(x);
    NF_LANES(lane) {
      if (lane == 0) Shared<int>{S::kWarpBox}.set(block, lane, 12 * block.warp + i, least ? -most : most);
    }
  }
}

template <Owner kOwner, class S>
NF_DEVICE void fill_column(Block& block, const Arguments& args, int lane, int column) {
  constexpr bool kQueries = kOwner == Owner::kQueries;
  const Frame& f = block.object<Frame>(S::kFrame);
  const Item& item = item_at(args, f.item);
  const int local[kMaxRank] = {column / (f.shape[1] * f.shape[2]), column / f.shape[2] % f.shape[1],
                               column % f.shape[2]};
  const bool valid = local[0] < f.shape[0];
  Index address[3] = {0, 0, 0}, bias = 0;
  Word raster = 0;
  for (int a = 0; a < kMaxRank; ++a) {
    for (int i = 0; i < 3; ++i) address[i] += f.stride[i][a] * f.step[a] * local[a];
    raster = raster * raster_step(item.grid.axis[a], !kQueries) + static_cast<Word>(f.step[a] * local[a]);
    bias += args[Role::kBias].axis[a] * (kQueries ? local[a] : -local[a]);
  }
  Shared<Index>{S::kColumnAddress}.set(block, lane, column, address[0]);
  Shared<Index>{S::kColumnAddress}.set(block, lane, S::kColumns + column, address[1]);
  Shared<Index>{S::kColumnStatistics}.set(block, lane, column, address[2]);
  Shared<Index>{S::kColumnBias}.set(block, lane, column, bias);
  Shared<Word>{S::kColumnRaster}.set(block, lane, column, raster);
  Shared<Word>{S::kColumnPlace}.set(
      block, lane, column, valid ? static_cast<Word>(local[0] << 20 | local[1] << 10 | local[2]) : kNoColumn);
}

// Bits of the columns 8j + 2t + e (bit 2j + e) whose place along the axis is below `length`.
template <class S>
NF_DEVICE Word columns_below(const Frame& f, int axis, int t, int length) {
  const int inner = axis == 0   ? f.shape[1] * f.shape[2]
                    : axis == 1 ? f.shape[2]
                                : 1,
            volume = f.shape[0] * f.shape[1] * f.shape[2];
  Word bits = 0;
  NF_NO_UNROLL
  for (int i = 0; i < S::kColumns / 4; ++i) {
    const int column = 8 * (i / 2) + 2 * t + i % 2;
    if (column < volume && column / inner % f.shape[axis] < length) bits |= Word{1} << i;
  }
  return bits;
}

NF_DEVICE int mask_table_at(const Frame& f, int axis) {
  return 4 * ((axis > 0 ? f.shape[0] + 1 : 0) + (axis > 1 ? f.shape[1] + 1 : 0));
}

// False, for all threads, if the block has nothing to do.
template <Owner kOwner, class S>
NF_DEVICE bool prologue(Block& block, const Arguments& args) {
  static_assert(sizeof(Frame) <= S::kFrameBytes && S::kWarpRows <= ptx::kLanes && S::kColumns <= 128);
  NF_LANES(lane) {
    if (block.warp == 0 && lane < kMaxRank) place<kOwner, S>(block, args, lane);
  }
  block.barrier();
  const Frame& f = block.object<Frame>(S::kFrame);
  if (f.run[0].empty() || f.run[1].empty() || f.run[2].empty()) return false;
  PerLane<int, 6> interval;
  PerLane<bool, 1> valid;
  NF_LANES(lane) {
    valid.of(lane)[0] = false;
    if (lane < S::kWarpRows)
      valid.of(lane)[0] =
          fill_row<kOwner, S>(block, args, lane, block.warp * S::kWarpRows + lane, interval.of(lane));
    const int thread = block.warp * ptx::kLanes + lane;
    for (int c = thread; c < S::kColumns; c += S::kThreads) fill_column<kOwner, S>(block, args, lane, c);
    NF_NO_UNROLL
    for (int a = 0; a < kMaxRank; ++a) NF_NO_UNROLL
    for (int i = thread; i < 4 * (f.shape[a] + 1); i += S::kThreads)
      Shared<Word>{S::kMaskTable}.set(block, lane, mask_table_at(f, a) + i,
                                      columns_below<S>(f, a, i % 4, i / 4));
  }
  fill_warp_box<S>(block, interval, valid);
  block.barrier();
  return true;
}

// Tile number i of the span, the last axis fastest, and behind them the runs of additional keys.
template <class S>
NF_DEVICE Tile tile_at(const Arguments& args, const Frame& f, int i, int layout_tiles) {
  Tile t;
  t.additional = i >= layout_tiles;
  if (t.additional) {
    t.origin[0] = t.origin[1] = 0;
    t.origin[2] = (i - layout_tiles) * S::kColumns;
    t.room[0] = t.room[1] = 1;
    t.room[2] = static_cast<int>(min_of(args.additional - t.origin[2], S::kColumns));
    t.whole = t.room[2] == S::kColumns;
    return t;
  }
  t.whole = f.shape[0] * f.shape[1] * f.shape[2] == S::kColumns;
  NF_UNROLL
  for (int a = kMaxRank - 1; a >= 0; --a) {
    const int at = i % f.tiles[a] * f.shape[a];
    i /= f.tiles[a];
    t.origin[a] = static_cast<int>(f.span[a].begin) + at;
    t.room[a] = static_cast<int>(min_of(f.span[a].size() - at, f.shape[a]));
    t.whole = t.whole && t.room[a] == f.shape[a];
  }
  return t;
}

NF_DEVICE int layout_tiles(const Frame& f) { return f.tiles[0] * f.tiles[1] * f.tiles[2]; }

// What the rows of a warp see of a tile.
template <class S>
NF_DEVICE Cover cover_of(Block& block, const Tile& t) {
  bool full = t.whole, any = true;
  NF_UNROLL
  for (int a = 0; a < kMaxRank; ++a) {
    const auto at = [&](int i) {
      return static_cast<Index>(Shared<int>{S::kWarpBox}.get(block, 0, 12 * block.warp + 4 * a + i));
    };
    const Interval keys{t.origin[a], t.origin[a] + t.room[a]}, some{at(0), at(1)};
    if (t.additional) {  // seen by every row that there is
      any = any && some.begin <= some.end;
      continue;
    }
    any = any && !intersect(some, keys).empty();
    full = full && Interval{at(2), at(3)}.contains(keys);
  }
  return !any ? Cover::kSkip : full ? Cover::kFull : Cover::kPartial;
}

// The columns that a row sees of a partial tile: bit 2j + e is column 8j + 2t + e, lane = 4g + t.
template <class S>
NF_DEVICE Word visible_columns(Block& block, const Frame& f, const Tile& tile, int lane, int row) {
  const int t = lane & 3;
  if (tile.additional) {  // the first room[2] of them
    Word bits = 0;
    NF_UNROLL
    for (int i = 0; i < S::kColumns / 4; ++i)
      if (8 * (i / 2) + 2 * t + i % 2 < tile.room[2]) bits |= Word{1} << i;
    return bits;
  }
  Word bits = 0xffffffffu;
  NF_UNROLL
  for (int a = 0; a < kMaxRank; ++a) {
    const Shared<int> interval{S::kRowInterval};
    const int low = interval.get(block, lane, 6 * row + 2 * a) - tile.origin[a],
              high = interval.get(block, lane, 6 * row + 2 * a + 1) - tile.origin[a];
    const auto below = [&](int x) {
      x = x < 0 ? 0 : x > f.shape[a] ? f.shape[a] : x;
      return Shared<Word>{S::kMaskTable}.get(block, lane, mask_table_at(f, a) + 4 * x + t);
    };
    bits &= below(high) & ~below(low);
  }
  return bits;
}

}  // namespace nearfield::sm80
