// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// What a plan of the tuned kernels keeps for its runs.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/band.h"

namespace nearfield::cpu {

struct OwnPlan {
  std::vector<std::optional<Cut>> cuts;  // one per sequence, or one if they are all alike; nothing: general
  Plan general;                          // for those sequences, and backward for what is not finite
  const Cut& of(Index sequence) const { return *cuts[at(sequence)]; }
  bool by_general(Index sequence) const { return !cuts[at(sequence)]; }
  bool some_general() const {
    return std::any_of(cuts.begin(), cuts.end(), [](const auto& cut) { return !cut; });
  }

 private:
  std::size_t at(Index sequence) const { return cuts.size() == 1 ? 0 : static_cast<std::size_t>(sequence); }
};

// The sequences that the tuned kernels run; for each sequence and batch entry, whether the general path runs it.
std::vector<Sequence> tuned_sequences(const Problem& problem, const OwnPlan& own, const Tensors& tensors);
std::vector<char> general_entries(const Problem& problem, const OwnPlan& own);

// Backward: bytes of the keys that bands share, of one batch entry; and how many entries run at once.
std::size_t shared_bytes_per_entry(const Problem& problem, const OwnPlan& own);
Index entries_at_once(const Problem& problem, std::size_t bytes_per_entry);

// base: the shared scratch memory; scratch: that of the first worker. Both aligned.
void run_tuned_backward(const Problem& problem, const Plan& plan, const OwnPlan& own, const Tensors& tensors,
                        Executor& executor, std::byte* base, std::byte* scratch);

}  // namespace nearfield::cpu
