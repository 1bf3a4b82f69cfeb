// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// A Problem is everything about a call but its data: what is attended, by whom, in which dtype. It
// prints as one canonical line and is parsed back from it, so tests, benches, the tuner, logs and bug
// reports all speak the same name:
//
//   Problem p = parse_problem("na:fwd:bf16:b1h8kv8d64:64x64:k7x7");
//   to_string(p);                                  // the same line
//   grid_of(p, 0);                                 // its geometry, three axes
//
// Grammar: (na|att):(fwd|bwd):DTYPE:bBhHkvGdD[vDV]:GRIDS:kK:sS:dD:cC[:OPT]*
//   na    GRIDS one token layout, `64x64`; K, S, D one number per axis, `7x7`; C one digit per axis, `10`
//   att   GRIDS `LQ,LKV`; C one of 0, tl, br; no k, s, d
//   varlen  grids, and parameters that differ per grid, joined by `+`; one value serves all
//   offsets known only on the device  GRIDS `var=N,TOTALQ,TOTALKV,MAXQ,MAXKV`
//   OPT   add=S  q=RANGES  kv=RANGES  qgrid=LAYOUT  tail=Q,KV  drop=P  bias  lse  nondet  scale=X
//         prec=tf32|bf16  str=NAME~S,S,...[~NAME~...]
// Ranges are half open, one per axis: `q=8-16x0-48`. Defaults are left out; unknown options are errors.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nearfield/tensor.h"

namespace nearfield {

enum class Operation : int { kNeighborhood, kAttention };
enum class Direction : int { kForward, kBackward };
enum class CausalType : int { kNone, kTopLeft, kBottomRight, kDontCare };
// Arithmetic that changes bits, opt-in: a permission, of which a backend makes use where it can. bf16: the
// products of bf16 inputs take bf16 factors (the weights are rounded to bf16) and are summed in float32.
enum class Precision : int { kFull, kTF32, kBF16 };

// The tensors of a call, in the order in which the string names their strides.
enum class Role : int {
  kQuery,
  kKey,
  kValue,
  kAdditionalKey,
  kAdditionalValue,
  kBias,  // of relative position, [H, 2k-1, ...]: by key minus query in steps of the dilation, plus k-1
  kOut,
  kLse,
  kGradOut,
  kGradLse,
  kGradQuery,
  kGradKey,
  kGradValue,
  kGradAdditionalKey,
  kGradAdditionalValue,
  kGradBias,
};
inline constexpr int kRoles = 16;
NF_API std::string_view name_of(Role role);  // "q", "k", "v", "ak", "av", "o", "lse", "do", ...

// One token layout and what its queries see, per axis, slowest first; entries past the rank are
// unused. For attention (rank 1) only the two extents count.
struct Layout {
  std::array<Index, kMaxRank> extent{};        // keys
  std::array<Index, kMaxRank> query_extent{};  // == extent unless qgrid or attention
  std::array<Index, kMaxRank> window{1, 1, 1}, stride{1, 1, 1}, dilation{1, 1, 1};
  std::array<bool, kMaxRank> causal{};
  friend bool operator==(const Layout&, const Layout&) = default;
};

// Offsets that only the device can read: no Layout list, but bounds on it.
struct DeviceOffsets {
  Index sequences = 0, total_query = 0, total_key = 0, max_query = 0, max_key = 0;
  friend bool operator==(const DeviceOffsets&, const DeviceOffsets&) = default;
};

struct Problem {
  Operation operation = Operation::kNeighborhood;
  Direction direction = Direction::kForward;
  DType dtype = DType::kFloat32;
  Index batch = 1;
  Index heads = 1, kv_heads = 1;  // heads % kv_heads == 0: consecutive heads share one
  Index head_dim = 1, value_dim = 1;
  int rank = 1;
  CausalType causal_type = CausalType::kNone;  // attention only
  bool varlen = false;
  std::vector<Layout> layouts;                // one, or one per sequence if varlen
  std::optional<DeviceOffsets> offsets;       // instead of layouts
  Index additional = 0;                       // additional keys that every query sees
  std::optional<Box> query_range, key_range;  // what is present, in global tokens; axes past rank unused
  bool query_layout = false;                  // the queries have a layout of their own (qgrid)
  Index tail_query = 0, tail_key = 0;         // packed tokens behind the last sequence
  double dropout = 0.0;
  bool bias = false;
  bool lse = false;  // forward: lse is asked for; backward: it has a gradient
  bool nondeterministic = false;
  std::optional<double> scale;  // default head_dim ** -0.5
  Precision precision = Precision::kFull;
  // Strides in elements (batch, axes, heads, channel) of the tensors that are not dense; else empty.
  std::array<std::vector<Index>, kRoles> strides;

  NF_API double effective_scale() const;
  friend bool operator==(const Problem&, const Problem&) = default;
};

// Both throw std::invalid_argument with a message that quotes the offending part.
NF_API Problem parse_problem(std::string_view text);
NF_API std::string to_string(const Problem& problem);

// Throws std::invalid_argument unless every rule of a problem holds; `op` opens the message.
NF_API void check(const Problem& problem, std::string_view op);

// Sizes of a tensor of the problem, [B, *layout, heads, channels] (the packed [1, total, ...] if varlen);
// empty if the problem has no such tensor (no additional keys, no gradients forward, ...).
NF_API std::vector<Index> shape_of(const Problem& problem, Role role);
inline DType dtype_of(const Problem& p, Role role) {
  return role == Role::kLse || role == Role::kGradLse ? lse_dtype(p.dtype) : p.dtype;
}

// The geometry of sequence i: three axes, leading ones of extent 1.
NF_API Grid grid_of(const Problem& problem, Index i);
inline Index sequences(const Problem& p) { return static_cast<Index>(p.layouts.size()); }

// Tokens present of sequence i (the product of its axes).
NF_API Index query_tokens(const Problem& problem, Index i);
NF_API Index key_tokens(const Problem& problem, Index i);

// Visible pairs per query head, additional keys included, over batch and sequences.
NF_API double visible_pairs(const Problem& problem);
// Useful floating-point operations: 2 (D + Dv) per pair and head forward, 2.5 times that backward.
NF_API double useful_flops(const Problem& problem);
// Present keys per visible key: what dense attention would waste. 1 for dense problems.
NF_API double sparsity(const Problem& problem);

}  // namespace nearfield
