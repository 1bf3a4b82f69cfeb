// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "runtime/trace.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <mutex>
#include <system_error>
#include <unordered_set>

#include "runtime/environment.h"

namespace nearfield {
namespace {

// A program that changes its folder goes on with the same file.
std::string absolute(const std::string& path) {
  std::error_code error;
  const std::filesystem::path whole = std::filesystem::absolute(path, error);
  return path.empty() || error ? path : whole.string();
}

struct Trace {
  std::mutex mutex;
  std::string path = absolute(environment("NEARFIELD_TRACE"));
  std::unordered_set<std::string> written;
  bool collecting = false;
  std::vector<std::string> collected;
};

Trace& state() {
  static Trace* const trace = new Trace;  // never destroyed: threads may outlive static objects
  return *trace;
}

// FNV-1a of the problem without its direction, lse and strides, which differ between the passes of one call.
std::string name_of_problem(const std::string& problem) {
  std::string text = problem;
  for (const char* word : {":fwd", ":bwd", ":lse"}) {
    const std::size_t at = text.find(word);
    if (at != std::string::npos) text.erase(at, 4);
  }
  const std::size_t strides = text.find(":str=");
  if (strides != std::string::npos) text.erase(strides, text.find(':', strides + 1) - strides);
  std::uint64_t hash = 14695981039346656037u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  char name[20];
  std::snprintf(name, sizeof name, "t%012llx", static_cast<unsigned long long>(hash >> 16));
  return name;
}

}  // namespace

namespace trace_detail {
std::atomic<bool> on{!state().path.empty()};
}

void trace(const std::string& problem) {
  Trace& t = state();
  const std::lock_guard lock(t.mutex);
  if (t.collecting && std::find(t.collected.begin(), t.collected.end(), problem) == t.collected.end())
    t.collected.push_back(problem);
  if (t.path.empty() || !t.written.insert(problem).second) return;
  const std::string line = name_of_problem(problem) + " " + problem + "\n";
  std::FILE* const file = std::fopen(t.path.c_str(), "a");
  if (!file || std::fwrite(line.data(), 1, line.size(), file) != line.size() || std::fflush(file) != 0) {
    std::fprintf(stderr,
                 "[nearfield] got NEARFIELD_TRACE=%s, expected a file that can be written; no trace\n",
                 t.path.c_str());
    t.path.clear();  // a call does not fail for its trace
    trace_detail::on = t.collecting;
  }
  if (file) std::fclose(file);
}

void begin_collection() {
  Trace& t = state();
  const std::lock_guard lock(t.mutex);
  t.collected.clear();
  t.collecting = true;
  trace_detail::on = true;
}

std::vector<std::string> end_collection() {
  Trace& t = state();
  const std::lock_guard lock(t.mutex);
  t.collecting = false;
  trace_detail::on = !t.path.empty();
  return std::move(t.collected);
}

}  // namespace nearfield
