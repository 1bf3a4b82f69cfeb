// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// (layer L2.) Measured choices of kernels and tiles, instead of predicted ones: a tuner file has a line of JSON for each,
//
//   {"nearfield_tuner": 1, "problem": "na:fwd:f32:b1h8kv8d32:64x64:k7x7", "device": "zen4", "version": "0.1.0",
//    "choice": "cpu/s2", ...}
//
// `problem` is one sequence alone (tuner_problem()), so that a sequence is computed alike alone, in a batch and in a
// list; `device` is the class of the device (Backend::device_class()), `version` the library's. Lines for other
// devices and versions do not count here, and later lines replace earlier ones. What is forced by the caller is not
// tuned. A choice counts where its backend is the one that serves the call: the table alone chooses backends.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "nearfield/plan.h"

namespace nearfield {

// What a sequence of a problem is called in a tuner file: batch 1, not packed, and without what no kernel depends on
// (strides, scale, whether lse is asked for).
std::string tuner_problem(const Problem& problem, Index sequence);

class NF_API Tuner {
 public:
  // name: of the file, for messages. Throws std::invalid_argument where a line is broken or of something else.
  Tuner(std::string_view text, const std::string& name);

  struct Choice {
    PlanOptions options;  // backend, kernel, tiles
    std::string where;    // "FILE:LINE"
  };
  const Choice* find(const std::string& tuner_problem, const Backend& backend) const;
  std::size_t size() const { return choices_.size(); }
  std::int64_t id() const { return id_; }  // differs between all tuners of a process

 private:
  std::unordered_map<std::string, Choice> choices_;  // by problem, device, version and backend
  std::int64_t id_;
};

// The one in use: set_tuner()'s, or that of the file which NEARFIELD_TUNER names, or none. The file is read once;
// throws std::invalid_argument where it cannot be.
std::shared_ptr<const Tuner> active_tuner();
void set_tuner(std::shared_ptr<const Tuner> tuner);  // null: the environment's again

// The options of each sequence of a call: the caller's, or with what the tuner says of it. Throws
// std::invalid_argument, with the line of the file, where those are tiles that the backend refuses.
class NF_API SequenceOptions {
 public:
  SequenceOptions(const PlanOptions& common, const Problem& problem, const Backend& backend);
  const PlanOptions& of(Index sequence) const {
    return own_.empty() ? common_ : own_[static_cast<std::size_t>(sequence)];
  }
  // Where the choice for a sequence comes from; empty: not from a tuner.
  std::string where(Index sequence) const {
    return where_.empty() ? "" : where_[static_cast<std::size_t>(sequence)];
  }
  bool tuned() const { return !own_.empty(); }

 private:
  PlanOptions common_;
  std::vector<PlanOptions> own_;
  std::vector<std::string> where_;
};

}  // namespace nearfield
