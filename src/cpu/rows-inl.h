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

// n channels from element `at` on, zeros up to pitch_of(n). Returns x * 0 summed over the row:
// 0 if every channel is finite, else NaN.
template <class T>
HWY_INLINE Vector<T> load_row(const GridView& v, Index at, Index n, T* HWY_RESTRICT row) {
  const Tag<T> d;
  const Vector<T> zero = hn::Zero(d);
  Vector<T> check = zero;
  Index c = 0;
  constexpr DType kOwn = sizeof(T) == 8 ? DType::kFloat64 : DType::kFloat32;
  if (v.dtype == kOwn && v.channel == 1) {
    const T* from = static_cast<const T*>(v.data) + at;
    for (; c + kWidth<T> <= n; c += kWidth<T>) {
      const Vector<T> x = hn::LoadU(d, from + c);
      check = hn::MulAdd(x, zero, check);
      hn::Store(x, d, row + c);
    }
  }
  const Index tail = c, pitch = static_cast<Index>(pitch_of<T>(n));
  for (Index i = c; i < pitch; i += kWidth<T>) hn::Store(zero, d, row + i);
  if (c == n) return check;
  if (v.dtype == DType::kBFloat16 && v.channel == 1) {
    const auto* from = static_cast<const std::uint16_t*>(v.data) + at;
    for (; c < n; ++c) row[c] = static_cast<T>(bfloat16_to_float(from[c]));
  } else if (v.dtype == DType::kFloat16 && v.channel == 1) {
    const auto* from = static_cast<const Float16*>(v.data) + at;
    for (; c < n; ++c) row[c] = static_cast<T>(from[c]);
  } else {
    for (; c < n; ++c) row[c] = static_cast<T>(load_element(v.data, v.dtype, at + c * v.channel));
  }
  for (Index i = tail; i < n; i += kWidth<T>) check = hn::MulAdd(hn::Load(d, row + i), zero, check);
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
  constexpr DType kOwn = sizeof(T) == 8 ? DType::kFloat64 : DType::kFloat32;
  for (int l = 0; l < tile.count; ++l) {
    const Index at = lane_at(job, tile, view, l, head);
    const T* row = acc + static_cast<std::size_t>(l) * pitch;
    if (view.dtype == kOwn && view.channel == 1) {
      std::copy(row, row + channels, static_cast<T*>(view.data) + at);
    } else if (view.dtype == DType::kBFloat16 && view.channel == 1) {
      auto* to = static_cast<std::uint16_t*>(view.data) + at;
      for (Index c = 0; c < channels; ++c) to[c] = float_to_bfloat16(static_cast<float>(row[c]));
    } else {
      for (Index c = 0; c < channels; ++c)
        store_element(view.data, view.dtype, at + c * view.channel, static_cast<double>(row[c]));
    }
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
