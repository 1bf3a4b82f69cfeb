// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
//   nearfield-bench [OPTION...] FILE|PROBLEM...
//
// Times problems, given as strings or as files with lines `NAME PROBLEM`, and prints a table; every row ends
// with the call that repeats it, `nearfield-bench CALL`. A sample is the mean of the calls that fill some
// milliseconds, between two readings of the FMA peak.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <set>
#include <sstream>
#include <thread>

#include "errors.h"
#include "nearfield/c.h"
#include "record.h"

namespace nearfield::bench {
namespace {

constexpr const char* kUsage = R"(usage: nearfield-bench [OPTION...] FILE|PROBLEM...
  --threads N,...     default: one per processor; several numbers are timed in turns
  --samples N         of each call (7)
  --sample-ms N       milliseconds that the calls of a sample fill (20)
  --budget SECONDS    for the samples of one call, which then may be fewer (2)
  --only NAME,...     of the files' names
  --directions fwd,bwd
  --with SUFFIX,...   time each problem also as PROBLEM@SUFFIX, in turns, e.g. `--with cpu`
  --forced            only those, not the planner's choice
  --errors            compare with the reference backend
  --json FILE         append a line of JSON for every row
  --process N         a number for these lines
)";

using Clock = std::chrono::steady_clock;

struct Options {
  int samples = 7, process = 0;
  std::vector<int> threads{0};  // 0: one per processor
  double budget = 2, sample_ms = 20;
  bool errors = false, forced = false;
  std::string json;
  std::set<std::string> only, directions;
  std::vector<std::string> with, inputs;
};

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');)
    if (!part.empty()) parts.push_back(part);
  return parts;
}

Options parse(int argc, char** argv) {
  Options o;
  const auto fail = [](const std::string& what) {
    std::cerr << "nearfield-bench: " << what << "\n" << kUsage;
    std::exit(2);
  };
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word.rfind("--", 0) != 0) {
      o.inputs.push_back(word);
      continue;
    }
    if (word == "--errors") {
      o.errors = true;
      continue;
    }
    if (word == "--forced") {
      o.forced = true;
      continue;
    }
    if (i + 1 == argc) fail("got " + word + " at the end, expected a value behind it");
    const std::string value = argv[++i];
    const std::vector<std::string> list = split(value);
    if (word == "--threads") {
      o.threads.clear();
      for (const std::string& number : list) o.threads.push_back(std::atoi(number.c_str()));
      if (o.threads.empty()) fail("got no number behind --threads");
    } else if (word == "--samples") o.samples = std::max(1, std::atoi(value.c_str()));
    else if (word == "--process") o.process = std::atoi(value.c_str());
    else if (word == "--budget") o.budget = std::atof(value.c_str());
    else if (word == "--sample-ms") o.sample_ms = std::atof(value.c_str());
    else if (word == "--json") o.json = value;
    else if (word == "--only") o.only = {list.begin(), list.end()};
    else if (word == "--directions") o.directions = {list.begin(), list.end()};
    else if (word == "--with") o.with = list;
    else fail("got " + word + ", expected an option");
  }
  if (o.inputs.empty()) fail("got no problem, expected a file or a problem string");
  return o;
}

struct Named {
  std::string name, call;
};

std::vector<Named> read(const Options& o) {
  std::vector<Named> all;
  for (const std::string& input : o.inputs) {
    std::ifstream file(input);
    if (!file) {
      all.push_back({"", input});
      continue;
    }
    for (std::string line; std::getline(file, line);) {
      std::istringstream words(line.substr(0, line.find('#')));
      Named n;
      if (!(words >> n.name)) continue;
      if (!(words >> n.call))
        throw std::invalid_argument("got `" + line + "` in " + input + ", expected NAME PROBLEM");
      if (o.only.empty() || o.only.count(n.name)) all.push_back(n);
    }
  }
  return all;
}

std::string_view word_of(Direction d) { return d == Direction::kForward ? "fwd" : "bwd"; }

// The instruction set in use, for the FMA peak.
std::string cpu_target() {
  for (const Backend* b : backends())
    if (b->name() == "cpu" && !b->targets().empty()) return b->targets()[0];
  return "scalar";
}

// Seconds so far that threads of this process were ready to run and had no core; 0 where nobody counts.
double waited() {
  double total = 0;
  std::error_code none;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task", none)) {
    double ran = 0, stood = 0;
    if (std::ifstream(task.path() / "schedstat") >> ran >> stood) total += stood;
  }
  return total * 1e-9;
}

// One way to run one problem: what is timed.
class Contestant {
 public:
  Contestant(const std::string& text, Executor& executor) : call_(parse_call(text)), executor_(executor) {
    choice_ = make_plan(call_.problem, call_.options);
    workspace_.resize(choice_.plan->workspace_bytes(executor.workers()));
  }
  int threads() const { return executor_.workers(); }
  void operator()(const Tensors& tensors) {
    run(call_.problem, choice_, tensors, executor_, workspace_.data());
  }
  void describe(Record& r) const {
    const std::string kernel = choice_.plan->kernel.substr(0, choice_.plan->kernel.rfind(','));
    r.kernel = std::string(choice_.backend->name()) + " " + kernel;
    if (choice_.plan->seconds > 0 && std::isfinite(choice_.plan->seconds))
      r.predicted = choice_.plan->seconds / executor_.workers();
    r.workspace = workspace_.size();
    r.flops = useful_flops(call_.problem);
  }

 private:
  Call call_;
  Executor& executor_;
  Choice choice_;
  std::vector<std::byte> workspace_;
};

class Bench {
 public:
  explicit Bench(const Options& o) : o_(o), target_(cpu_target()) {
    for (const int threads : o.threads) executors_.push_back(make_executor(threads));
    if (!o.json.empty() && !(json_ = std::fopen(o.json.c_str(), "a")))
      throw std::invalid_argument("got --json " + o.json + ", expected a file that can be written");
    if (nf_fma(target_.c_str(), 1, 1) <= 0)
      throw std::invalid_argument("got CPU target " + target_ + ", expected one whose FMA peak can be read");
    std::printf("%s, threads:", target_.c_str());
    for (const auto& executor : executors_) std::printf(" %d", executor->workers());
    std::printf("\n");
    print_header(stdout);
  }
  ~Bench() {
    if (json_) std::fclose(json_);
  }

  void measure(const Named& named) {
    const Problem problem = parse_call(named.call).problem;
    if (!o_.directions.empty() && !o_.directions.count(std::string(word_of(problem.direction)))) return;
    std::vector<Record> records;
    std::vector<Contestant> contestants;
    std::vector<double> first;  // seconds of the first call
    Tensors tensors;
    const Inputs inputs(problem, *executors_[0]);
    tensors = inputs.views();
    std::vector<std::string> calls;
    if (!o_.forced) calls.push_back(named.call);
    for (const std::string& suffix : o_.with) calls.push_back(named.call + "@" + suffix);
    for (std::size_t i = 0; i < calls.size() * executors_.size(); ++i) {
      const std::string& call = calls[i / executors_.size()];
      Executor& executor = *executors_[i % executors_.size()];
      Record r;
      r.name = named.name;
      r.direction = word_of(problem.direction);
      r.by = call == named.call ? "nearfield-bench" : call.substr(named.call.size());
      r.problem = call;
      r.threads = executor.workers();
      r.process = o_.process;
      try {
        Contestant contestant(call, executor);
        const double seconds = time(contestant, tensors, 1);
        contestant.describe(r);
        if (o_.errors) {
          const Error error = error_of(problem, tensors, executor);
          r.error = error.largest;
          r.error_of = error.of;
        }
        contestants.push_back(std::move(contestant));
        first.push_back(seconds);
        records.push_back(r);
      } catch (const std::exception& e) {
        if (call == named.call) throw;
        r.refusal = e.what();
        write(r);
      }
    }
    take_samples(contestants, first, records, tensors);
    for (const Record& r : records) write(r);
  }

 private:
  void take_samples(std::vector<Contestant>& contestants, const std::vector<double>& first,
                    std::vector<Record>& records, const Tensors& tensors) {
    std::vector<int> calls, count;
    for (std::size_t i = 0; i < contestants.size(); ++i) {
      const bool slow = first[i] > o_.sample_ms * 5e-3;  // so that one more call would say no more
      const double warm = slow ? first[i] : std::max(time(contestants[i], tensors, 1), 1e-7);
      calls.push_back(static_cast<int>(std::clamp(o_.sample_ms * 1e-3 / warm, 1.0, 1000.0)));
      count.push_back(
          std::clamp(static_cast<int>(o_.budget / std::max(warm, o_.sample_ms * 1e-3)), 1, o_.samples));
    }
    std::map<int, double> before = peaks();
    for (int i = 0; i < o_.samples; ++i) {
      for (std::size_t c = 0; c < contestants.size(); ++c) {
        if (i >= count[c]) continue;
        const double stood = waited(), seconds = time(contestants[c], tensors, calls[c]),
                     share = (waited() - stood) / (seconds * calls[c]);
        std::map<int, double> after = peaks();
        const int n = contestants[c].threads();
        records[c].samples.push_back({seconds, {before[1], after[1]}, {before[n], after[n]}, share});
        before = std::move(after);
      }
    }
  }

  static double time(Contestant& c, const Tensors& tensors, int calls) {
    const auto begin = Clock::now();
    for (int i = 0; i < calls; ++i) c(tensors);
    return std::chrono::duration<double>(Clock::now() - begin).count() / calls;
  }

  // FMA peak by number of threads, of one and of all that are timed.
  std::map<int, double> peaks() const {
    std::map<int, double> read{{1, nf_fma(target_.c_str(), 1, 2)}};
    for (const auto& executor : executors_)
      if (const int n = executor->workers(); !read.count(n)) read[n] = nf_fma(target_.c_str(), n, 2);
    return read;
  }

  void write(const Record& r) {
    print_line(stdout, r);
    if (json_) print_json(json_, r);
  }

  const Options& o_;
  std::vector<std::unique_ptr<Executor>> executors_;
  std::string target_;
  std::FILE* json_ = nullptr;
};

}  // namespace
}  // namespace nearfield::bench

int main(int argc, char** argv) {
  using namespace nearfield::bench;
  const Options options = parse(argc, argv);
  try {
    Bench bench(options);
    for (const Named& named : read(options)) bench.measure(named);
  } catch (const std::exception& e) {
    std::cerr << "nearfield-bench: " << e.what() << "\n";
    return 1;
  }
  return 0;
}
