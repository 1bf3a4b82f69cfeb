// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// (layer L0.) Which problems a process runs, each once: into the file that NEARFIELD_TRACE names, and into a list while
// one is collected. The file has a line `NAME PROBLEM` for each, written when it first runs, so that it outlives a
// crash; bench, profiler and optimiser read it. Lines are appended. A name is made of the problem alone, the same
// for both directions, so that processes may share a file.
#pragma once

#include <atomic>
#include <string>
#include <vector>

namespace nearfield {

namespace trace_detail {
extern std::atomic<bool> on;
}

// Whether anybody wants to know; one load.
inline bool tracing() { return trace_detail::on.load(std::memory_order_relaxed); }
void trace(const std::string& problem);

// Collects from now on. The list is in the order of first calls; ends the collection.
void begin_collection();
std::vector<std::string> end_collection();

}  // namespace nearfield
