// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "plan/tuner.h"

#include <atomic>
#include <fstream>
#include <mutex>
#include <sstream>

#include "plan/json_line.h"
#include "plan/kernel_name.h"
#include "problem/message.h"
#include "runtime/environment.h"

namespace nearfield {
namespace {

constexpr const char* kHint = "`nearfield optimize` writes such files";

std::string key_of(std::string_view problem, std::string_view device, std::string_view version,
                   std::string_view backend) {
  std::string key;
  for (const std::string_view part : {problem, device, version, backend}) key += std::string(part) + "\n";
  return key;
}

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (file && file.peek() == std::ifstream::traits_type::eof() && !file.bad()) return "";  // << would fail
  text << file.rdbuf();
  if (!file || !text) refuse("tuner", "NEARFIELD_TUNER=" + path, "a file that can be read", kHint);
  return text.str();
}

struct Active {
  std::atomic<bool> none{false};  // known to be: no lock for calls without a tuner
  std::mutex mutex;
  bool read = false;
  std::shared_ptr<const Tuner> of_environment, set;
};
Active& active() {
  static Active* const state = new Active;
  return *state;
}

}  // namespace

std::string tuner_problem(const Problem& p, Index sequence) {
  Problem one = p;
  one.batch = 1;
  one.varlen = false;
  one.layouts = {p.layouts[static_cast<std::size_t>(sequence)]};
  one.tail_query = one.tail_key = 0;
  one.lse = false;
  one.scale.reset();
  for (auto& strides : one.strides) strides.clear();
  return to_string(one);
}

Tuner::Tuner(std::string_view text, const std::string& name) {
  static std::atomic<std::int64_t> count{0};
  id_ = ++count;
  int number = 0;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(line.size() == text.size() ? text.size() : line.size() + 1);
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = name + ":" + std::to_string(number);
    std::map<std::string, std::string> fields;
    try {
      fields = parse_json_line(line);
    } catch (const std::invalid_argument& e) {
      refuse("tuner", where + ", " + e.what(), "a JSON object on every line", kHint);
    }
    if (!fields.contains("nearfield_tuner"))
      refuse("tuner", where + " without \"nearfield_tuner\"", "a line of a tuner file", kHint);
    if (fields["nearfield_tuner"] != "1")
      refuse("tuner", where + " of format " + fields["nearfield_tuner"], "format 1", "optimise anew");
    for (const char* field : {"problem", "device", "version", "choice"})
      if (!fields.contains(field))
        refuse("tuner", where + " without \"" + field + "\"", "problem, device, version and choice", kHint);
    // Other versions may know problems and kernels that this one does not.
    if (fields["version"] != NF_VERSION) continue;
    Choice choice;
    choice.where = where;
    std::string problem;
    try {
      const Call call = parse_call(fields["problem"] + "@" + fields["choice"]);
      if (sequences(call.problem) == 1) problem = tuner_problem(call.problem, 0);
      choice.options = call.options;
      split_kernel(choice.options);
    } catch (const std::invalid_argument& e) {
      refuse("tuner", where + ", " + e.what(), "a problem and a choice that this version knows", kHint);
    }
    if (problem != fields["problem"])
      refuse("tuner", where + " with problem " + fields["problem"], "one sequence as tuner files name it",
             problem.empty() ? "" : "that is " + problem);
    if (choice.options.kernel.empty() && !choice.options.query_tile && !choice.options.key_tile)
      refuse("tuner", where + " with choice " + fields["choice"], "a kernel or tiles, `cpu/b16` say");
    const std::string key = key_of(problem, fields["device"], fields["version"], choice.options.backend);
    choices_[key] = std::move(choice);
  }
}

const Tuner::Choice* Tuner::find(const std::string& problem, const Backend& backend) const {
  const auto found = choices_.find(key_of(problem, backend.device_class(), NF_VERSION, backend.name()));
  return found == choices_.end() ? nullptr : &found->second;
}

std::shared_ptr<const Tuner> active_tuner() {
  Active& a = active();
  if (a.none.load(std::memory_order_relaxed)) return nullptr;
  const std::lock_guard lock(a.mutex);
  if (a.set) return a.set;
  if (!a.read) {
    const std::string path = environment("NEARFIELD_TUNER");
    if (!path.empty()) a.of_environment = std::make_shared<const Tuner>(text_of(path), path);
    a.read = true;  // not after an error: every call says so
  }
  a.none = !a.of_environment;
  return a.of_environment;
}

std::int64_t tuner_in_use() {
  const std::shared_ptr<const Tuner> tuner = active_tuner();
  return tuner ? tuner->id() : 0;
}

void set_tuner(std::shared_ptr<const Tuner> tuner) {
  Active& a = active();
  const std::lock_guard lock(a.mutex);
  a.set = std::move(tuner);
  a.none = false;
}

SequenceOptions::SequenceOptions(const PlanOptions& common, const Problem& p, const Backend& backend)
    : common_(common) {
  if (!common.tuner || !common.kernel.empty() || common.query_tile || common.key_tile) return;
  bool any = false;
  for (Index i = 0; i < sequences(p); ++i) {
    const Tuner::Choice* choice = common.tuner->find(tuner_problem(p, i), backend);
    own_.push_back(common);
    where_.emplace_back(choice ? choice->where : "");
    if (!choice) continue;
    any = true;
    own_.back().kernel = choice->options.kernel;
    own_.back().query_tile = choice->options.query_tile;
    own_.back().key_tile = choice->options.key_tile;
    if (!choice->options.query_tile && !choice->options.key_tile) continue;
    PlanOptions tiles = own_.back();  // kernels are the backend's to check: lists may have several
    tiles.kernel.clear();
    if (const auto reason = backend.refusal(p, tiles))
      refuse("tuner", choice->where + ": " + *reason,
             "tiles that " + std::string(backend.name()) + " can use", "remove the line, or optimise anew");
  }
  if (any) return;
  own_.clear();
  where_.clear();
}

}  // namespace nearfield
