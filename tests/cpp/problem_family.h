// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Random legal problems, of two kinds: anything the grammar can say (never run), and small ones that
// the backends of the host serve (run against the oracle).
#pragma once

#include <ostream>

#include "nearfield/problem.h"
#include "random.h"

namespace nearfield {

inline void PrintTo(const Problem& problem, std::ostream* stream) {
  *stream << to_string(problem);
}  // GoogleTest

namespace testing {

Problem random_problem(Rng& rng);
Problem random_runnable_problem(Rng& rng);

// The problem as a person might write it: options in any order, defaults spelled out now and then.
std::string spell(const Problem& problem, Rng& rng);

}  // namespace testing
}  // namespace nearfield
