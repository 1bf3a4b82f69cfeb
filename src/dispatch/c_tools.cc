// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// c.h for the tools: plans, tiles, tuner, trace, the machine's peak.
#include "dispatch/json.h"
#include "nearfield/attention.h"
#include "nearfield/c.h"
#include "plan/tiles.h"
#include "plan/tuner.h"
#include "runtime/fma.h"
#include "runtime/trace.h"

namespace nearfield {
namespace {

constexpr double kMostCovers = 1 << 20;  // of a list of tile pairs

std::vector<Index> own_axes(const TileShape& shape, int rank) { return {shape.end() - rank, shape.end()}; }

std::string answer_text(const Answer& a, int rank) {
  std::string json = "{\"backend\": " + quoted(a.backend->name()) +
                     ", \"device\": " + quoted(a.backend->device() == Device::kCpu ? "cpu" : "cuda") +
                     ", \"chosen\": " + (a.chosen ? "true" : "false");
  if (a.refusal) return json + ", \"refusal\": " + quoted(*a.refusal) + "}";
  const Plan& plan = *a.plan;
  json += ", \"kernel\": " + quoted(plan.kernel) + ", \"waste\": " + number(plan.waste) +
          ", \"shared_bytes\": " + std::to_string(plan.shared_bytes) +
          ", \"private_bytes\": " + std::to_string(plan.private_bytes) + ", \"note\": " + quoted(plan.note);
  if (!plan.query_tiles.empty())
    json += ", \"query_tile\": " + numbers(own_axes(plan.query_tiles[0], rank)) +
            ", \"key_tile\": " + numbers(own_axes(plan.key_tiles[0], rank));
  if (plan.seconds > 0) json += ", \"seconds\": " + number(plan.seconds);
  json += ", \"kernels\": {";
  for (const Candidate& c : plan.candidates)
    json += (&c == plan.candidates.data() ? "" : ", ") + quoted(c.kernel) + ": " + number(c.seconds);
  return json + "}}";
}

// The tiles of a call: those that it names, else those of the plan.
struct Tiles {
  TileShape query, key;
};
Tiles tiles_of(const Call& call, Index sequence) {
  const PlanOptions& o = call.options;
  if (o.query_tile && o.key_tile) return {*o.query_tile, *o.key_tile};
  const auto plan = make_plan(call.problem, o).plan;
  if (plan->query_tiles.empty())
    refuse("tiles", "kernel " + plan->kernel, "one that works in tiles",
           "name both tiles, `@cpu,q4x4,kv1x16`");
  return {plan->query_tile(sequence), plan->key_tile(sequence)};
}

// Tile pairs of one axis, all dilation groups: the counts of the axes multiply.
struct AxisCounts {
  double all = 0, seen = 0, full = 0;
  AxisCounts(const Axis& axis, Index query_length, Index key_length) {
    for (Index g = 0; g < axis.dilation; ++g) {
      const Axis own = group(axis, g);
      const double keys = static_cast<double>(ceil_div(own.keys.size(), key_length));
      for (Index q = own.queries.begin; q < own.queries.end; q += query_length) {
        const Interval run{q, min_of(q + query_length, own.queries.end)};
        const auto tile = [&](Index key) { return (key - own.keys.begin) / key_length; };
        const Interval h = hull(own, run), c = core(own, run);
        all += keys;
        if (h.empty()) continue;
        const Index first = tile(h.begin), last = tile(h.end - 1);
        seen += static_cast<double>(last - first + 1);
        for (Index t = first; t <= last; ++t) {
          const Index begin = own.keys.begin + t * key_length;
          if (c.contains(Interval{begin, min_of(begin + key_length, own.keys.end)})) full += 1;
        }
      }
    }
  }
};

std::string tiles_text(const Call& call, Index sequence, Index number_of_group, bool rows) {
  const Problem& p = call.problem;
  if (sequence < 0 || sequence >= sequences(p))
    refuse("tiles", "sequence " + std::to_string(sequence), "0 to " + std::to_string(sequences(p) - 1));
  const auto [query, key] = tiles_of(call, sequence);
  const Grid grid = grid_of(p, sequence);
  if (number_of_group < 0 || number_of_group >= grid.groups())
    refuse("tiles", "dilation group " + std::to_string(number_of_group),
           "0 to " + std::to_string(grid.groups() - 1));
  double all = 1, seen = 1, full = 1, volume = 1;
  for (std::size_t a = 0; a < kMaxRank; ++a) {
    if (query[a] < 1 || key[a] < 1) refuse("tiles", "a tile of no tokens", "lengths from 1 on");
    const AxisCounts counts(grid.axis[a], query[a], key[a]);
    all *= counts.all;
    seen *= counts.seen;
    full *= counts.full;
    volume *= static_cast<double>(query[a] * key[a]);
  }
  Index residue[kMaxRank];
  const Grid own = group(grid, number_of_group, residue);
  const TileGrid queries{own.queries(), query}, keys{own.keys(), key};
  std::vector<Index> query_count, key_count, first;
  for (int a = kMaxRank - p.rank; a < kMaxRank; ++a) {
    query_count.push_back(queries.count(a));
    key_count.push_back(keys.count(a));
    first.push_back(residue[a]);
  }
  const double useful = pairs(grid);
  std::string json = "{\"query_tile\": " + numbers(own_axes(query, p.rank)) +
                     ", \"key_tile\": " + numbers(own_axes(key, p.rank)) +
                     ", \"query_count\": " + numbers(query_count) + ", \"key_count\": " + numbers(key_count) +
                     ", \"groups\": " + std::to_string(grid.groups()) +
                     ", \"first_token\": " + numbers(first) + ", \"skipped\": " + number(all - seen) +
                     ", \"partial\": " + number(seen - full) + ", \"full\": " + number(full) +
                     ", \"computed\": " + number(seen * volume) +
                     ", \"waste\": " + number(useful > 0 ? seen * volume / useful : 1.0);
  if (!rows) return json + "}";
  if (static_cast<double>(queries.count()) * static_cast<double>(keys.count()) > kMostCovers)
    refuse("tiles", std::to_string(queries.count()) + " x " + std::to_string(keys.count()) + " tiles",
           "at most 2**20 pairs to list");
  json += ", \"cover\": [";
  for (Index q = 0; q < queries.count(); ++q) {
    std::string row;
    for (Index k = 0; k < keys.count(); ++k) {
      const Cover c = cover(own, queries.box(q), keys.box(k));
      row += c == Cover::kSkip ? '.' : c == Cover::kFull ? '#' : '+';
    }
    json += (q ? ", " : "") + quoted(row);
  }
  return json + "]}";
}

}  // namespace
}  // namespace nearfield

using namespace nearfield;

extern "C" {

char* nf_plan(const char* text, int device) {
  return guarded([&] {
    const Call call = parse_call(text_argument(text));
    check(call.problem, "plan");
    std::string json;
    for (const Answer& a :
         answers(backends(), call.problem, call.options, device == 1 ? Device::kCuda : Device::kCpu))
      json += (json.empty() ? "" : ", ") + answer_text(a, call.problem.rank);
    return "[" + json + "]";
  });
}

char* nf_tiles(const char* text, int64_t sequence, int64_t group, int rows) {
  return guarded([&] { return tiles_text(parse_call(text_argument(text)), sequence, group, rows != 0); });
}

char* nf_tuner_problems(const char* text) {
  return guarded([&] {
    const Problem p = parse_problem(text_argument(text));
    std::vector<std::string> list;
    for (Index i = 0; i < sequences(p); ++i) list.push_back(tuner_problem(p, i));
    return names(list);
  });
}

char* nf_tuner(const char* text, const char* name) {
  return guarded([&] {
    if (!text) {
      set_tuner(nullptr);
      return std::string("0");
    }
    auto tuner = std::make_shared<const Tuner>(text, text_argument(name));
    const std::size_t size = tuner->size();
    set_tuner(std::move(tuner));
    return std::to_string(size);
  });
}

char* nf_collect(int begin) {
  return guarded([&] {
    if (begin) begin_collection();
    return names(begin ? std::vector<std::string>() : end_collection());
  });
}

double nf_fma(const char* target, int threads, double milliseconds) {
  return target ? fma_peak(target, threads, milliseconds) : -1;
}

}  // extern "C"
