// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Tiles in shared memory: gathered from memory row by row, wherever the rows lie, and multiplied.
//
// Rows and channels that are not there are zero: channels up to a multiple of 16, which is what products read.
#pragma once

#include "cuda/sm80/frame.h"

namespace nearfield::sm80 {

using ptx::Accumulator;
using ptx::Factor;

// address(lane, row): element of channel 0, kNoRow for a row of zeros. By cp.async where the tensor allows it: the
// caller commits and waits.
template <class S, class Address>
NF_DEVICE void load_rows(Block& block, const View& view, Word tile, int rows, int width,
                         const Address& address) {
  using E = typename S::E;
  using Storage = typename E::Storage;
  const int chunks = (width + 15) / 16 * E::kBytes;  // 16 bytes each
  NF_LANES(lane) {
    const int thread = ptx::fresh(block.warp * ptx::kLanes + lane);
    if (view.vector) {
      NF_UNROLL_BY(4)
      for (int i = thread; i < rows * S::kChunks; i += S::kThreads) {
        const int row = i / S::kChunks, chunk = i % S::kChunks;
        if (chunk >= chunks) continue;
        const Index at = address(lane, row);
        const int left = (width - chunk * E::kChunk) * E::kBytes;
        const int bytes = at == kNoRow || left < 0 ? 0 : left < 16 ? left : 16;
        const Storage* from =
            static_cast<const Storage*>(view.data) + (bytes > 0 ? at + chunk * E::kChunk : 0);
        block.copy16(lane, chunk_at<S>(tile, row, chunk), from, bytes);
      }
    } else {
      const int depth = chunks * E::kChunk;
      NF_NO_UNROLL
      for (int i = thread; i < rows * depth; i += S::kThreads) {
        const int row = i / depth, channel = i % depth;
        const Index at = address(lane, row);
        Storage x = 0;
        if (at != kNoRow && channel < width)
          x = block.load(static_cast<const Storage*>(view.data) + at + channel * view.channel);
        block.set<Storage>(lane,
                           chunk_at<S>(tile, row, channel / E::kChunk) + channel % E::kChunk * E::kBytes, x);
      }
    }
  }
}

// Whether a column of a tile of the layout is a token of the span.
template <class S>
NF_DEVICE bool in_tile(Block& block, const Tile& t, int lane, int column) {
  if (t.whole) return true;
  const Word p = Shared<Word>{S::kColumnPlace}.get(block, lane, column);
  return p != kNoColumn && static_cast<int>(p >> 20) < t.room[0] &&
         static_cast<int>(p >> 10 & 1023) < t.room[1] && static_cast<int>(p & 1023) < t.room[2];
}

// One of the two streamed tensors; `base` is the element of position 0 of its head. additional: the tensor that
// takes its place there.
template <class S>
NF_DEVICE void load_columns(Block& block, const Frame& f, const Tile& t, const View& view, int which,
                            Index base, const View& additional, Index additional_at, Word tile, int width) {
  if (t.additional) {
    load_rows<S>(block, additional, tile, S::kColumns, width, [&](int, int column) {
      return column < t.room[2] ? additional_at + (t.origin[2] + column) * additional.axis[2] : kNoRow;
    });
    return;
  }
  for (int a = 0; a < kMaxRank; ++a) base += (f.residue[a] + f.step[a] * t.origin[a]) * f.stride[which][a];
  load_rows<S>(block, view, tile, S::kColumns, width, [&](int lane, int column) {
    if (!in_tile<S>(block, t, lane, column)) return kNoRow;
    return base + Shared<Index>{S::kColumnAddress}.get(block, lane, which * S::kColumns + column);
  });
}

// Addresses of the rows of an owned tensor, and its tile. A barrier lies between the two, and before the next use.
template <Owner kOwner, class S>
NF_DEVICE void address_rows(Block& block, const Arguments& args, Role role, Role additional) {
  const Frame& f = block.object<Frame>(S::kFrame);
  NF_LANES(lane) {
    NF_NO_UNROLL
    for (int row = block.warp * ptx::kLanes + lane; row < S::kRows; row += S::kThreads)
      Shared<Index>{S::kRowAddress}.set(block, lane, row,
                                        row_address<kOwner, S>(args, f, role, additional, row));
  }
}
// A group of copies of its own: a block that meets nothing starts no other one, and only groups are waited for.
template <class S>
NF_DEVICE void load_owned(Block& block, const View& view, Word tile, int width) {
  load_rows<S>(block, view, tile, S::kRows, width,
               [&](int lane, int row) { return Shared<Index>{S::kRowAddress}.get(block, lane, row); });
  block.commit();
}

// s = rows of the warp . columns, over `width` channels.
template <class S>
NF_DEVICE void dot_products(Block& block, Accumulator (&s)[S::kBlocks16][S::kColumns / 8], Word owned,
                            Word streamed, int width) {
  using E = typename S::E;
  NF_UNROLL
  for (int m = 0; m < S::kBlocks16; ++m) NF_UNROLL
  for (int n = 0; n < S::kColumns / 8; ++n) NF_LANES(lane) {
      NF_UNROLL
      for (int i = 0; i < 4; ++i) s[m][n].of(lane)[i] = 0.0f;
    }
  const int steps = (width + E::kStep - 1) / E::kStep, first = block.warp * S::kWarpRows;
  PerLane<int, 1> me;
  ptx::fresh_lanes(me);
  NF_UNROLL_BY(2)
  for (int k = 0; k < steps; ++k) {
    Factor<E, 4> a[S::kBlocks16];
    NF_UNROLL
    for (int m = 0; m < S::kBlocks16; ++m) {
      PerLane<Word, 4> raw;
      ptx::ldmatrix(block, raw,
                    [&](int l) { return chunk_at<S>(owned, first + 16 * m + (l & 15), 2 * k + (l >> 4)); });
      ptx::prepare(a[m], raw);
    }
    NF_UNROLL
    for (int n = 0; n < S::kColumns / 16; ++n) {
      PerLane<Word, 4> raw;
      Factor<E, 4> b;
      ptx::ldmatrix(block, raw, [&](int lane) {
        const int l = me.of(lane)[0];
        return chunk_at<S>(streamed, 16 * n + (l & 7) + (l >> 4 << 3), 2 * k + (l >> 3 & 1));
      });
      ptx::prepare(b, raw);
      NF_UNROLL
      for (int m = 0; m < S::kBlocks16; ++m) {
        ptx::multiply(s[m][2 * n], a[m], b, 0);
        ptx::multiply(s[m][2 * n + 1], a[m], b, 1);
      }
    }
  }
}

// A B operand whose k runs down a tile: rows step * kStep on, channels 16 n on.
template <class S>
NF_DEVICE void load_transposed(Block& block, [[maybe_unused]] const PerLane<int, 1>& me,
                               PerLane<Word, 4>& raw, Word tile, int step, int n) {
  using E = typename S::E;
  if constexpr (E::kBytes == 2) {
    ptx::ldmatrix_transposed(
        block, raw, [&](int l) { return chunk_at<S>(tile, E::kStep * step + (l & 15), 2 * n + (l >> 4)); });
  } else {
    NF_LANES(lane) {
      NF_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int row = E::kStep * step + 2 * (lane & 3) + i % 2,
                  channel = 16 * n + 8 * (i / 2) + (lane >> 2);
        raw.of(lane)[i] = block.get<Word>(lane, chunk_at<S>(tile, row, channel / 4) + channel % 4 * 4);
      }
    }
  }
}

// What is not finite becomes 0.
template <class E>
NF_DEVICE void only_finite(PerLane<Word, 4>& raw) {
  NF_LANES(lane) {
    NF_UNROLL
    for (int i = 0; i < 4; ++i) {
      Word& x = raw.of(lane)[i];
      if constexpr (E::kBytes == 4) {
        if ((x & 0x7f800000u) == 0x7f800000u) x = 0;
      } else {
        constexpr Word kTop = std::is_same_v<E, ptx::BF16> ? 0x7f80u : 0x7c00u;
        if ((x & kTop) == kTop) x &= 0xffff0000u;
        if ((x >> 16 & kTop) == kTop) x &= 0xffffu;
      }
    }
  }
}

// Sets weights in an A operand of step `step` to 0 whose bits are not set: bit 2n + e of the word of a row is column
// 8n + 2t + e of the tile.
template <class E>
NF_DEVICE void keep_only(Factor<E, 4>& a, int step, int lane, Word first_row, Word second_row) {
  NF_UNROLL
  for (int i = 0; i < 4; ++i) {
    const Word row = i % 2 ? second_row : first_row;
    if constexpr (E::kBytes == 2) {
      const Word two = row >> (4 * step + 2 * (i / 2));
      a.bits.of(lane)[i] &= (two & 1 ? 0xffffu : 0u) | (two & 2 ? 0xffff0000u : 0u);
    } else if (!(row >> (2 * step + i / 2) & 1)) {
      a.bits.of(lane)[i] = a.rest.of(lane)[i] = 0;
    }
  }
}

struct Nothing {
  template <class A>
  NF_DEVICE void operator()(int, int, A&) const {}
};

// sum += w . columns, over `width` channels. finite: leave out of it what is not: 0 times it is to be 0.
// change(m, step, operand): what is done to weights on the way.
template <class S, class Change = Nothing>
NF_DEVICE void accumulate(Block& block, Accumulator (&sum)[S::kBlocks16][S::kDepth / 8],
                          Accumulator (&w)[S::kBlocks16][S::kColumns / 8], Word tile, int width, bool finite,
                          const Change& change = {}) {
  using E = typename S::E;
  PerLane<int, 1> me;
  ptx::fresh_lanes(me);
  NF_UNROLL
  for (int k = 0; k < S::kColumns / E::kStep; ++k) {
    Factor<E, 4> a[S::kBlocks16];
    NF_UNROLL
    for (int m = 0; m < S::kBlocks16; ++m) {
      ptx::weights(a[m], w[m], k);
      change(m, k, a[m]);
    }
    NF_UNROLL
    for (int n = 0; n < S::kDepth / 16; ++n) {
      if (16 * n >= width) break;
      PerLane<Word, 4> raw;
      Factor<E, 4> b;
      load_transposed<S>(block, me, raw, tile, k, n);
      if (finite) only_finite<E>(raw);
      ptx::prepare(b, raw);
      NF_UNROLL
      for (int m = 0; m < S::kBlocks16; ++m) {
        ptx::multiply(sum[m][2 * n], a[m], b, 0);
        ptx::multiply(sum[m][2 * n + 1], a[m], b, 1);
      }
    }
  }
}

template <class S>
NF_DEVICE void clear(Accumulator (&sum)[S::kBlocks16][S::kDepth / 8]) {
  NF_UNROLL
  for (int m = 0; m < S::kBlocks16; ++m) NF_UNROLL
  for (int n = 0; n < S::kDepth / 8; ++n) NF_LANES(lane) {
      NF_UNROLL
      for (int i = 0; i < 4; ++i) sum[m][n].of(lane)[i] = 0.0f;
    }
}

// Rounds the sums times factor[m][row] and writes them through a tile of shared memory, which nobody reads any
// more: rows of memory are written 16 bytes at a time.
template <class S>
NF_DEVICE void write_rows(Block& block, Accumulator (&sum)[S::kBlocks16][S::kDepth / 8],
                          PerLane<float, 2> (&factor)[S::kBlocks16], const View& view, Word tile, int width) {
  using E = typename S::E;
  using Storage = typename E::Storage;
  NF_UNROLL
  for (int m = 0; m < S::kBlocks16; ++m) NF_UNROLL
  for (int n = 0; n < S::kDepth / 8; ++n) NF_LANES(lane) {
      NF_UNROLL
      for (int i = 0; i < 2; ++i) {
        const float f = factor[m].of(lane)[i];
        const float x = sum[m][n].of(lane)[2 * i] * f, y = sum[m][n].of(lane)[2 * i + 1] * f;
        const int row = block.warp * S::kWarpRows + 16 * m + 8 * i + (lane >> 2),
                  channel = 8 * n + 2 * (lane & 3);
        const Word at = chunk_at<S>(tile, row, channel / E::kChunk) + channel % E::kChunk * E::kBytes;
        if constexpr (E::kBytes == 2) {
          block.set<Word>(lane, at, ptx::pack(E{}, x, y));
        } else {
          block.set<float>(lane, at, x);
          block.set<float>(lane, at + 4, y);
        }
      }
    }
  block.barrier();
  NF_LANES(lane) {
    const int thread = block.warp * ptx::kLanes + lane;
    struct alignas(16) Chunk {
      Storage x[E::kChunk];
    };
    NF_NO_UNROLL
    for (int i = thread; i < S::kRows * S::kChunks; i += S::kThreads) {
      const int row = i / S::kChunks, channel = i % S::kChunks * E::kChunk;
      const Index at = Shared<Index>{S::kRowAddress}.get(block, lane, row);
      if (at == kNoRow || channel >= width) continue;
      const Word from = chunk_at<S>(tile, row, i % S::kChunks);
      Storage* to = static_cast<Storage*>(view.data) + at + channel * view.channel;
      if (view.vector && channel + E::kChunk <= width) {
        block.store(reinterpret_cast<Chunk*>(to), block.get<Chunk>(lane, from));
      } else {
        NF_NO_UNROLL
        for (int c = 0; c < E::kChunk && channel + c < width; ++c)
          block.store(to + c * view.channel, block.get<Storage>(lane, from + c * E::kBytes));
      }
    }
  }
}

}  // namespace nearfield::sm80
