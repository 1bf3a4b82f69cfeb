// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// How a problem will be run: which backend and kernel, on which tiles, with how much scratch memory,
// and why the other backends were passed over. A Plan is a pure function of the problem, the options,
// the device class and the library version: never of threads, batch packing or a timing.
//
//   std::puts(nearfield::explain("na:fwd:f32:b1h8kv8d32:64x64:k7x7").c_str());   // attention.h
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nearfield/executor.h"
#include "nearfield/problem.h"

namespace nearfield {

// Tokens of a tile along each axis, slowest first; leading ones are 1 for lower ranks.
using TileShape = std::array<Index, kMaxRank>;

class Tuner;  // src/plan/tuner.h
// Number of the tuner in use, 0 for none: with another one the same problem and options may be planned otherwise,
// and only then.
NF_API std::int64_t tuner_in_use();

struct PlanOptions {
  std::string op = "nearfield";  // who asks: opens messages
  std::string backend;           // empty: the first of the table that can
  std::string kernel;            // of that backend; empty: the one that is predicted to be fastest
  std::optional<TileShape> query_tile, key_tile;
  std::shared_ptr<const Tuner>
      tuner;  // set by choose(): the measured choices that count where nothing is forced
};

enum class Device : int { kCpu, kCuda };

// A kernel of the backend that could run the problem.
struct Candidate {
  std::string kernel;
  double seconds = 0;          // predicted, of a call on one thread
  std::vector<double> counts;  // what the prediction weighs and sums: the backend's business
};

struct Plan {
  std::string problem;  // the string of what it was made for
  std::string backend, kernel;
  std::vector<TileShape> query_tiles, key_tiles;  // one per sequence; one if they are all alike
  double waste = 1.0;                             // computed pairs / useful pairs
  std::size_t shared_bytes = 0;                   // scratch of the call ...
  std::size_t private_bytes = 0;                  // ... and of each worker
  double seconds = 0;  // predicted, of a call on one thread; 0 where the backend does not predict
  std::vector<Candidate> candidates;  // what it was chosen from
  std::int64_t tuner = 0;             // tuner_in_use() as it was made
  std::string note;                   // what the user may want to know, e.g. rounding of P
  std::shared_ptr<const void> own;    // the backend's: what it need not work out again

  std::size_t workspace_bytes(int workers) const {
    return shared_bytes + private_bytes * static_cast<std::size_t>(workers);
  }
  const TileShape& query_tile(Index sequence) const {
    return query_tiles[query_tiles.size() == 1 ? 0 : static_cast<std::size_t>(sequence)];
  }
  const TileShape& key_tile(Index sequence) const {
    return key_tiles[key_tiles.size() == 1 ? 0 : static_cast<std::size_t>(sequence)];
  }
};

// The tensors of a call by role; absent ones have rank 0.
struct Tensors {
  std::array<TensorView, kRoles> view{};
  const std::int64_t* seed = nullptr;  // of dropout: one number, where the tensors are
  // Where only the device knows the lengths (DeviceOffsets): the cumulative ones of queries and keys, there.
  const void *query_offsets = nullptr, *key_offsets = nullptr;
  bool wide_offsets = false;  // int64, else int32
  TensorView& operator[](Role r) { return view[static_cast<std::size_t>(r)]; }
  const TensorView& operator[](Role r) const { return view[static_cast<std::size_t>(r)]; }
};

// One way to run problems. Adding one is a folder and a row in src/dispatch/table.cc.
class NF_API Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string_view name() const = 0;
  virtual Device device() const = 0;
  // Machines of one class are planned alike, whatever else they are: "zen4", "sm90". Starts the driver of a GPU.
  virtual std::string device_class() const { return std::string(name()); }
  // Instruction sets that its kernels are compiled for and this machine has, the one in use first.
  virtual std::vector<std::string> targets() const { return {}; }
  // Why this backend cannot serve the problem, in words; nothing if it can.
  virtual std::optional<std::string> refusal(const Problem& problem, const PlanOptions& options) const = 0;
  // Only for problems that it does not refuse.
  virtual Plan plan(const Problem& problem, const PlanOptions& options) const = 0;
  // Runs the direction of the problem. workspace has plan.workspace_bytes(executor.workers()) bytes
  // (any alignment). Reads inputs, writes every element of the outputs.
  virtual void run(const Problem& problem, const Plan& plan, const Tensors& tensors, Executor& executor,
                   std::byte* workspace) const = 0;
};

// The first backend of an ordered table that runs on the device and serves the problem, with its plan;
// throws Unsupported with every backend's reason if none does. Plans are kept in one bounded, locked
// cache: nothing else outlives a call.
struct Choice {
  const Backend* backend = nullptr;
  std::shared_ptr<const Plan> plan;
};
NF_API Choice choose(std::span<const Backend* const> table, const Problem& problem,
                     const PlanOptions& options, Device device);

// The whole table for a problem: each backend with its plan or its reason.
struct Answer {
  const Backend* backend = nullptr;
  std::optional<std::string> refusal;
  std::optional<Plan> plan;  // nothing where it refuses
  bool chosen = false;
};
NF_API std::vector<Answer> answers(std::span<const Backend* const> table, const Problem& problem,
                                   const PlanOptions& options, Device device);

// The same for people.
NF_API std::string explain(std::span<const Backend* const> table, const Problem& problem,
                           const PlanOptions& options, Device device);

// `PROBLEM[@BACKEND[/KERNEL][,qTILE[,kvTILE]]]`, for instance `na:fwd:f32:b1h1kv1d64:64x64:k7x7@cpu,q4x8`.
struct Call {
  Problem problem;
  PlanOptions options;
};
NF_API Call parse_call(std::string_view text);

}  // namespace nearfield
