// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Between tensors in memory (any dtype, any strides) and the kernels' packed float or double arrays.
#if defined(NEARFIELD_CPU_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NEARFIELD_CPU_ROWS_INL_H_
#undef NEARFIELD_CPU_ROWS_INL_H_
#else
#define NEARFIELD_CPU_ROWS_INL_H_
#endif

#include "cpu/convert-inl.h"
#include "cpu/kernel.h"
#include "cpu/micro-inl.h"
#include "cpu/scratch.h"
#include "runtime/convert.h"

HWY_BEFORE_NAMESPACE();
namespace nearfield::cpu::HWY_NAMESPACE {

inline constexpr Index kUndilated[kMaxRank] = {1, 1, 1}, kNoResidue[kMaxRank] = {0, 0, 0};

inline void token_at(const Index* coord, const Index* dilation, const Index* residue, Index* token) {
  for (int a = 0; a < kMaxRank; ++a) token[a] = residue[a] + coord[a] * dilation[a];
}

// Calls fn(pointer) with element `at` as what it is, where the channels lie next to each other and fn takes
// such pointers: T, or 16-bit floats widened to float. False if it does not.
template <class T, class Fn>
HWY_INLINE bool with_element(const GridView& v, Index at, const Fn& fn) {
  if (v.channel != 1) return false;
  constexpr DType kOwn = sizeof(T) == 8 ? DType::kFloat64 : DType::kFloat32;
  if (v.dtype == kOwn) return fn(static_cast<T*>(v.data) + at), true;
  if constexpr (sizeof(T) == 4) {
    if (v.dtype == DType::kBFloat16) return fn(static_cast<BFloat16Bits*>(v.data) + at), true;
    if (v.dtype == DType::kFloat16) return fn(static_cast<Float16Bits*>(v.data) + at), true;
  }
  return false;
}

// n channels from element `at` on, zeros up to pitch_of(n). Returns x * 0 summed over the row:
// 0 if every channel is finite, else NaN.
template <class T>
HWY_INLINE Vector<T> load_row(const GridView& v, Index at, Index n, T* HWY_RESTRICT row) {
  const Tag<T> d;
  const std::size_t pitch = pitch_of<T>(n);
  Vector<T> check = hn::Zero(d);
  if (with_element<T>(v, at, [&](const auto* from) HWY_ATTR {
        check = widen_row(d, from, static_cast<std::size_t>(n), row, pitch);
      }))
    return check;
  std::fill(row + n, row + pitch, T{0});
  for (Index c = 0; c < n; ++c) row[c] = static_cast<T>(load_element(v.data, v.dtype, at + c * v.channel));
  for (std::size_t c = 0; c < pitch; c += kWidth<T>)
    check = hn::MulAdd(hn::Load(d, row + c), hn::Zero(d), check);
  return check;
}

// The rows of a block, [rows][pitch]. False if some channel is not finite.
template <class T>
bool load_rows(const TileJob& job, const RowBlock& block, const GridView& view, Index head, Index channels,
               const Index* dilation, const Index* residue, std::size_t pitch, T* HWY_RESTRICT rows) {
  const Tag<T> d;
  Vector<T> check = hn::Zero(d);
  for (int i = 0; i < block.runs; ++i) {
    const RowRun& s = block.run[i];
    Index token[kMaxRank];
    token_at(s.token, dilation, residue, token);
    Index at = view.at(job.batch, token, head);
    const Index step = view.axis[2] * dilation[2];
    for (int j = 0; j < s.count; ++j, at += step)
      check =
          hn::Add(check, load_row(view, at, channels, rows + static_cast<std::size_t>(s.start + j) * pitch));
  }
  return hn::AllFalse(d, hn::IsNaN(check));
}

// One number per query row of a block.
template <class T>
void load_row_scalars(const TileJob& job, const RowBlock& block, const GridView& view, Index head,
                      T* values) {
  for (int i = 0; i < block.runs; ++i) {
    const RowRun& s = block.run[i];
    Index token[kMaxRank];
    token_at(s.token, job.dilation, job.residue, token);
    Index at = view.at(job.batch, token, head);
    const Index step = view.axis[2] * job.dilation[2];
    for (int j = 0; j < s.count; ++j, at += step) values[s.start + j] = static_cast<const T*>(view.data)[at];
  }
}

inline Index lane_at(const TileJob& job, const LaneTile& tile, const GridView& view, int lane, Index head) {
  Index token[kMaxRank];
  token_at(tile.coord[lane], job.dilation, job.residue, token);
  return view.at(job.batch, token, head);
}

// The lanes' channels times `scale`, transposed to [channels][kLanes]; unused lanes are 0.
template <class T>
void load_lanes(const TileJob& job, const LaneTile& tile, const GridView& view, Index head, Index channels,
                T scale, T* HWY_RESTRICT line, T* HWY_RESTRICT lanes) {
  if (tile.count < kLanes) std::fill(lanes, lanes + channels * kLanes, T{0});
  for (int l = 0; l < tile.count; ++l) {
    load_row(view, lane_at(job, tile, view, l, head), channels, line);
    for (Index c = 0; c < channels; ++c) lanes[c * kLanes + l] = line[c] * scale;
  }
}

template <class T>
void load_lane_scalars(const TileJob& job, const LaneTile& tile, const GridView& view, Index head,
                       T* values) {
  std::fill(values, values + kLanes, T{0});
  for (int l = 0; l < tile.count; ++l)
    values[l] = static_cast<const T*>(view.data)[lane_at(job, tile, view, l, head)];
}

template <class T>
void store_lane_scalars(const TileJob& job, const LaneTile& tile, const GridView& view, Index head,
                        const T* values) {
  for (int l = 0; l < tile.count; ++l)
    static_cast<T*>(view.data)[lane_at(job, tile, view, l, head)] = values[l];
}

// delta = rowsum(dO * O) - dlse; grad_out is [value_dim][kLanes].
template <class T>
void lane_deltas(const TileJob& job, const LaneTile& tile, Index head, const T* HWY_RESTRICT grad_out,
                 T* HWY_RESTRICT line, T* HWY_RESTRICT delta) {
  const Sequence& seq = *job.sequence;
  const GridView &out = seq[Role::kOut], &grad_lse = seq[Role::kGradLse];
  std::fill(delta, delta + kLanes, T{0});
  for (int l = 0; l < tile.count; ++l) {
    load_row(out, lane_at(job, tile, out, l, head), job.problem->value_dim, line);
    T sum = 0;
    for (Index c = 0; c < job.problem->value_dim; ++c) sum += line[c] * grad_out[c * kLanes + l];
    if (grad_lse.data) sum -= static_cast<const T*>(grad_lse.data)[lane_at(job, tile, grad_lse, l, head)];
    delta[l] = sum;
  }
}

// acc [kLanes][pitch] to the tensor, rounded to its dtype.
template <class T>
void store_lanes(const TileJob& job, const LaneTile& tile, const GridView& view, Index head, Index channels,
                 const T* HWY_RESTRICT acc, std::size_t pitch) {
  const Tag<T> d;
  for (int l = 0; l < tile.count; ++l) {
    const Index at = lane_at(job, tile, view, l, head);
    const T* row = acc + static_cast<std::size_t>(l) * pitch;
    if (with_element<T>(
            view, at, [&](auto* to) HWY_ATTR { narrow_row(d, row, static_cast<std::size_t>(channels), to); }))
      continue;
    for (Index c = 0; c < channels; ++c)
      store_element(view.data, view.dtype, at + c * view.channel, static_cast<double>(row[c]));
  }
}

// Marks the rows that are not finite.
template <class T>
void mark_bad_rows(const RowBlock& block, const T* rows, std::size_t pitch, bool* bad) {
  for (int j = 0; j < block.rows; ++j) {
    T check = 0;
    for (std::size_t c = 0; c < pitch; ++c) check += rows[static_cast<std::size_t>(j) * pitch + c] * T{0};
    bad[j] = bad[j] || check != T{0};
  }
}

// accumulate_rows() without the marked rows: the lanes that see one of them become NaN instead, and no
// other lane does (0 * NaN would be NaN).
template <class T>
void accumulate_around(const Sight<T>& sight, const bool* bad, const T* weights, const T* rows,
                       std::size_t pitch, T* acc, Sight<T>& pieces) {
  pieces.segments = 0;
  bool poisoned[kLanes] = {};
  for (int i = 0; i < sight.segments; ++i) {
    const Segment<T>& s = sight.segment[i];
    for (int j = 0, begin = 0; j <= s.count; ++j) {
      const bool end = j == s.count;
      if (!end && !bad[s.start + j]) continue;
      if (j > begin) {
        Segment<T>& piece = pieces.segment[pieces.segments++];
        piece.start = s.start + begin;
        piece.count = j - begin;
        std::fill(piece.group_begin, piece.group_begin + kGroups, 0);
        std::fill(piece.group_end, piece.group_end + kGroups, piece.count);
      }
      begin = j + 1;
      for (int l = 0; l < kLanes && !end; ++l)
        poisoned[l] =
            poisoned[l] || s.full || (static_cast<T>(j) >= s.begin[l] && static_cast<T>(j) < s.end[l]);
    }
  }
  accumulate_rows(pieces, weights, rows, pitch, acc);
  for (int l = 0; l < kLanes; ++l)
    if (poisoned[l])
      std::fill(acc + static_cast<std::size_t>(l) * pitch, acc + static_cast<std::size_t>(l + 1) * pitch,
                std::numeric_limits<T>::quiet_NaN());
}

}  // namespace nearfield::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
