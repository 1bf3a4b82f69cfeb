// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// A Request is a call as the user made it: shapes, dtypes and devices of the tensors, and the
// arguments. make_problem() checks every rule on them and gives the Problem; it is the one validator
// of the project, whichever language the call came from. It reads no data, so it also serves tensors
// that have none (fake, meta).
//
// Messages: `[op] got X, expected Y; hint`.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nearfield/problem.h"

namespace nearfield {

// Shape and kind of one tensor. rank 0 with present = true is a scalar tensor (and refused).
struct TensorInfo {
  bool present = false;
  std::string dtype;                // the field's name, "float32", "int64", ...
  std::string device = "cpu";       // "cpu", "cuda:0", ...
  std::vector<Index> size, stride;  // stride in elements; empty: dense
};

struct Request {
  std::string op;  // the function the user called; opens every message
  Operation operation = Operation::kNeighborhood;
  Direction direction = Direction::kForward;
  int rank = 1;                                         // of the token layout
  TensorInfo query, key, value;                         // [B, *layout, H|Hkv, D|Dv]
  TensorInfo additional_key, additional_value;          // [B, S, Hkv, D|Dv]
  TensorInfo bias;                                      // [H, 2k-1, ...], one entry per axis
  TensorInfo out, lse, grad_out, grad_lse;              // backward only
  std::vector<Index> window, stride, dilation, causal;  // neighborhood: one per axis (causal 0 or 1)
  // A window of -1 is the whole axis, and on axes of extent 1 window, stride, dilation and causality are
  // ignored: multi_dimensional_attention and its kin.
  bool lenient_windows = false;
  CausalType causal_type = CausalType::kNone;  // attention
  std::optional<double> scale;
  double dropout = 0.0;
  bool lse_wanted = false, nondeterministic = false;
  Precision precision = Precision::kFull;
  // What of the global layout is present; both or neither. extents: of the global layout, and of the queries'
  // where that is another one (or empty).
  std::vector<Index> global_extent, query_begin, key_begin, global_query_extent;
  // Varlen: the tensors of cumulative offsets (attention), with their values where the host can read them
  // and bounds on the lengths if the caller gave any; or one layout per sequence.
  bool varlen = false;
  TensorInfo cumulative_query, cumulative_key;
  std::vector<Index> query_offsets, key_offsets;
  std::optional<Index> max_query, max_key;
  std::vector<Layout> layouts;
};

NF_API Problem make_problem(const Request& request);

NF_API TensorInfo info_of(const TensorView& view);

// The rule on lengths of packed sequences before they become offsets: none is negative, and together they are
// the tokens of `packed` ("query" or "key"). name: of the argument. Throws std::invalid_argument.
NF_API void check_lengths(std::string_view op, std::string_view name, std::span<const Index> lengths,
                          Index total, std::string_view packed);

// The arguments of a call besides its tensors, as operators of other languages carry them: numbers.
struct CallWords {
  Index function = 0;       // index into function_name()
  Index causal_type = 0;    // CausalType
  Index flags = 0;          // 1 nondeterministic, 2 tf32 allowed, 4 bf16 arithmetic allowed
  std::vector<Index> axes;  // per axis: window, stride, dilation, causal (empty for attention)
  // Per axis: global extent, first query and first key present, and, on all axes or none, the global extent of
  // the queries' own layout. Or empty.
  std::vector<Index> ranges;
  std::vector<Index> grids;  // varlen, per sequence: extents, windows, strides, dilations, causals;
                             // in attention: nothing, or the two maximal lengths
};

// "na1d", "na2d", "na3d", "attention", ...: CallWords::function is an index into them.
NF_API std::span<const std::string_view> function_names();
// Throws std::invalid_argument beyond the last.
NF_API std::string_view function_name(Index function);
// Sets op, operation, rank and everything in `words`; the tensors are the caller's to fill in, and with
// cumulative offsets `varlen`.
NF_API void decode(const CallWords& words, Request& request);

}  // namespace nearfield
