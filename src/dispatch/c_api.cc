// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// c.h: strings and integers in, JSON out; no exception leaves.
#include "nearfield/c.h"

#include <bit>
#include <string>

#include "dispatch/json.h"
#include "nearfield/attention.h"
#include "problem/message.h"
#include "runtime/philox.h"

namespace nearfield {
namespace {

constexpr Index kMostIntervals = Index{1} << 22;
#if defined(__clang__)
constexpr const char* kCompiler = "clang " __clang_version__;
#else
constexpr const char* kCompiler = "gcc " __VERSION__;
#endif

// Reads the words of nf_check one after the other.
class Reader {
 public:
  Reader(const int64_t* words, int64_t count) : at_(words), left_(words ? count : 0) {}
  Index next() {
    if (left_ <= 0) refuse("nearfield", "too few words", "a whole call");
    --left_;
    return *at_++;
  }
  std::vector<Index> list() {
    const Index n = next();
    if (n < 0 || n > left_)
      refuse("nearfield", "a list of " + std::to_string(n) + " words", "at most those that are left");
    std::vector<Index> values(at_, at_ + n);
    at_ += n;
    left_ -= n;
    return values;
  }
  TensorInfo tensor() {
    static constexpr const char* kTypes[] = {"float32", "float64", "bfloat16",     "float16",
                                             "int32",   "int64",   "another dtype"};
    static constexpr const char* kDevices[] = {"cpu", "cuda", "meta", "another device"};
    TensorInfo info;
    info.present = next() != 0;
    info.dtype = kTypes[clamp(next(), 0, 6)];
    const Index device = clamp(next(), 0, 3), index = next();
    info.device = kDevices[device];
    if (device == 1) info.device += ":" + std::to_string(index);
    info.size = list();
    return info;
  }

 private:
  const int64_t* at_;
  int64_t left_;
};

std::string flag(bool x) { return x ? "true" : "false"; }

// One number per axis of every layout.
template <class Get>
std::string axes(const Problem& p, const Layout& layout, const Get& get) {
  std::vector<Index> values;
  for (int a = 0; a < p.rank; ++a) values.push_back(get(layout, static_cast<std::size_t>(a)));
  return numbers(values);
}

// What a problem string says, taken apart.
std::string fields(const Problem& p) {
  constexpr const char* kCausal[] = {"none", "tl", "br", "dont_care"};
  std::string layouts;
  for (const Layout& l : p.layouts) {
    layouts += layouts.empty() ? "{" : ", {";
    layouts += "\"extent\": " + axes(p, l, [](const Layout& x, std::size_t a) { return x.extent[a]; });
    layouts +=
        ", \"query_extent\": " + axes(p, l, [](const Layout& x, std::size_t a) { return x.query_extent[a]; });
    layouts += ", \"window\": " + axes(p, l, [](const Layout& x, std::size_t a) { return x.window[a]; });
    layouts += ", \"stride\": " + axes(p, l, [](const Layout& x, std::size_t a) { return x.stride[a]; });
    layouts += ", \"dilation\": " + axes(p, l, [](const Layout& x, std::size_t a) { return x.dilation[a]; });
    layouts +=
        ", \"causal\": " + axes(p, l, [](const Layout& x, std::size_t a) { return Index{x.causal[a]}; }) +
        "}";
  }
  bool strides = false;
  for (const auto& list : p.strides) strides = strides || !list.empty();
  return "{\"operation\": " + quoted(p.operation == Operation::kAttention ? "att" : "na") +
         ", \"direction\": " + quoted(p.direction == Direction::kForward ? "fwd" : "bwd") +
         ", \"dtype\": " + quoted(name_of(p.dtype)) + ", \"batch\": " + std::to_string(p.batch) +
         ", \"heads\": " + std::to_string(p.heads) + ", \"kv_heads\": " + std::to_string(p.kv_heads) +
         ", \"head_dim\": " + std::to_string(p.head_dim) + ", \"value_dim\": " + std::to_string(p.value_dim) +
         ", \"causal_type\": " + quoted(kCausal[static_cast<int>(p.causal_type)]) +
         ", \"varlen\": " + flag(p.varlen) + ", \"layouts\": [" + layouts +
         "], \"additional\": " + std::to_string(p.additional) +
         ", \"query_layout\": " + flag(p.query_layout) +
         ", \"ranges\": " + flag(p.query_range || p.key_range) + ", \"strides\": " + flag(strides) +
         ", \"offsets\": " + flag(p.offsets.has_value()) +
         ", \"tail\": " + numbers({p.tail_query, p.tail_key}) + ", \"dropout\": " + number(p.dropout) +
         ", \"bias\": " + flag(p.bias) + ", \"lse\": " + flag(p.lse) +
         ", \"nondeterministic\": " + flag(p.nondeterministic) +
         ", \"scale\": " + (p.scale ? number(*p.scale) : "null") +
         ", \"precision\": " + std::to_string(static_cast<int>(p.precision)) + "}";
}

// What the planner predicts for the host, if it does.
std::string predictions(const Problem& p) {
  std::shared_ptr<const Plan> plan;
  try {
    plan = make_plan(p, {}).plan;
  } catch (const Unsupported&) {
    return "";  // no plan, no prediction
  }
  if (plan->candidates.empty()) return "";
  std::string json = ", \"seconds\": " + number(plan->seconds) + ", \"kernels\": [";
  for (const Candidate& c : plan->candidates) {
    json += (&c == plan->candidates.data() ? "" : ", ") + ("{\"name\": " + quoted(c.kernel)) +
            ", \"seconds\": " + number(c.seconds) + ", \"counts\": [";
    for (std::size_t i = 0; i < c.counts.size(); ++i) json += (i == 0 ? "" : ", ") + number(c.counts[i]);
    json += "]}";
  }
  return json + "]";
}

// `of` on every axis of a problem with one token layout, as JSON: begin and end; zeros where one is empty.
// boxes: `count` boxes one after the other, the first of queries and the second of keys.
template <class Fn>
std::string per_axis(const char* name, const char* text, const int64_t* boxes, int numbers, int count,
                     const Fn& of) {
  const Problem p = parse_problem(text_argument(text));
  if (!boxes || numbers != 2 * p.rank * count)
    refuse(name, std::to_string(numbers) + " numbers",
           "begin and end of each of " + std::to_string(p.rank) + " axes" + (count > 1 ? ", twice" : ""));
  if (p.varlen) refuse(name, "a varlen problem", "one token layout");
  const Grid grid = grid_of(p, 0);
  bool empty = false;
  Interval found[kMaxRank];
  for (int a = 0; a < p.rank; ++a) {
    const Axis& axis = grid.axis[kMaxRank - p.rank + a];
    Interval box[2];
    for (int i = 0; i < count; ++i) {
      const Index extent = i == 0 ? axis.query_extent : axis.key_extent;
      box[i] = {boxes[2 * (i * p.rank + a)], boxes[2 * (i * p.rank + a) + 1]};
      if (box[i].begin < 0 || box[i].end < box[i].begin || box[i].end > extent)
        refuse(name, "shard " + std::to_string(box[i].begin) + "-" + std::to_string(box[i].end),
               "0 <= begin <= end <= " + std::to_string(extent));
    }
    found[a] = of(axis, box);
    empty = empty || found[a].empty();
  }
  std::string json;
  for (int a = 0; a < p.rank; ++a)
    json += (a ? ", [" : "[") + std::to_string(empty ? 0 : found[a].begin) + ", " +
            std::to_string(empty ? 0 : found[a].end) + "]";
  return "[" + json + "]";
}

}  // namespace
}  // namespace nearfield

using namespace nearfield;

extern "C" {

void nf_free(char* text) { delete[] text; }

char* nf_info(void) {
  return guarded([] {
    std::vector<std::string> table;
    std::string targets;
    for (const Backend* b : backends()) {
      table.emplace_back(b->name());
      const std::vector<std::string> list = b->targets();
      if (list.empty()) continue;
      targets += ", " + quoted(table.back() + "_target") + ": " + quoted(list[0]);
      targets += ", " + quoted(table.back() + "_targets") + ": " + names(list);
    }
    const auto functions = function_names();
    return "{\"version\": " + quoted(version()) + ", \"backends\": " + names(table) + targets +
           ", \"functions\": " + names({functions.begin(), functions.end()}) +
           ", \"compiler\": " + quoted(kCompiler) + "}";
  });
}

char* nf_device_class(const char* backend) {
  return guarded([&] {
    const std::string name = text_argument(backend);
    for (const Backend* b : backends())
      if (b->name() == name) return quoted(b->device_class());
    refuse("nearfield", "backend `" + name + "`", "one of those of nf_info");
  });
}

char* nf_problem(const char* text) {
  return guarded([&] {
    const Problem p = parse_problem(text_argument(text));
    return "{\"problem\": " + quoted(to_string(p)) + ", \"rank\": " + std::to_string(p.rank) +
           ", \"sequences\": " + std::to_string(sequences(p)) + ", \"pairs\": " + number(visible_pairs(p)) +
           ", \"flops\": " + number(useful_flops(p)) + ", \"sparsity\": " + number(sparsity(p)) +
           ", \"fields\": " + fields(p) + predictions(p) + "}";
  });
}

char* nf_explain(const char* call, int device) {
  return guarded(
      [&] { return quoted(explain(text_argument(call), device == 1 ? Device::kCuda : Device::kCpu)); });
}

char* nf_intervals(const char* text, int64_t sequence, int axis) {
  return guarded([&] {
    const Problem p = parse_problem(text_argument(text));
    if (sequence < 0 || sequence >= sequences(p))
      refuse("intervals", "sequence " + std::to_string(sequence), "0 to " + std::to_string(sequences(p) - 1));
    if (axis < 0 || axis >= p.rank)
      refuse("intervals", "axis " + std::to_string(axis), "0 to " + std::to_string(p.rank - 1));
    const Axis whole = grid_of(p, sequence).axis[kMaxRank - p.rank + axis];
    if (whole.queries.size() > kMostIntervals)
      refuse("intervals", std::to_string(whole.queries.size()) + " queries", "at most 2**22");
    std::string begin, end;
    for (Index q = whole.queries.begin; q < whole.queries.end; ++q) {
      const Index residue = q % whole.dilation;
      const Interval keys = visible(group(whole, residue), q / whole.dilation);
      const char* comma = begin.empty() ? "" : ", ";
      begin += comma + std::to_string(residue + keys.begin * whole.dilation);
      end += comma + std::to_string(keys.empty() ? residue + keys.begin * whole.dilation
                                                 : residue + (keys.end - 1) * whole.dilation + 1);
    }
    return "{\"dilation\": " + std::to_string(whole.dilation) + ", \"begin\": [" + begin + "], \"end\": [" +
           end + "]}";
  });
}

char* nf_needed_keys(const char* text, const int64_t* shard, int numbers) {
  return guarded([&] {
    return per_axis("needed_keys", text, shard, numbers, 1,
                    [](const Axis& a, const Interval* box) { return needed_keys(a, box[0]); });
  });
}

char* nf_inner_queries(const char* text, const int64_t* box, int numbers) {
  return guarded([&] {
    return per_axis("inner_queries", text, box, numbers, 2,
                    [](const Axis& a, const Interval* b) { return inner_queries(a, b[0], b[1]); });
  });
}

char* nf_check(const int64_t* words, int64_t count) {
  return guarded([&] {
    Reader reader(words, count);
    Request r;
    for (TensorInfo* t : {&r.query, &r.key, &r.value, &r.additional_key, &r.additional_value, &r.bias,
                          &r.cumulative_query, &r.cumulative_key})
      *t = reader.tensor();
    const bool has_scale = reader.next() != 0;
    const double scale = std::bit_cast<double>(reader.next());
    if (has_scale) r.scale = scale;
    r.dropout = std::bit_cast<double>(reader.next());
    CallWords call;
    call.function = reader.next();
    call.causal_type = reader.next();
    call.flags = reader.next();
    call.axes = reader.list();
    call.ranges = reader.list();
    call.grids = reader.list();
    decode(call, r);
    if (r.cumulative_query.present || r.cumulative_key.present) r.varlen = true;
    return quoted(to_string(make_problem(r)));
  });
}

char* nf_check_lengths(const char* op, const char* name, const int64_t* lengths, int64_t n, int64_t total,
                       const char* packed) {
  return guarded([&] {
    if (n < 0 || (n > 0 && !lengths)) refuse("nearfield", "lengths without memory", "n numbers");
    check_lengths(text_argument(op), text_argument(name), {lengths, static_cast<std::size_t>(n)}, total,
                  text_argument(packed));
    return std::to_string(n);
  });
}

void nf_kept(int64_t seed, double p, int64_t batch, int64_t head, const int64_t* query, const int64_t* key,
             int64_t n, uint8_t* kept) {
  const Dropout dropout(p, seed, batch, head);
  for (int64_t i = 0; i < n; ++i)
    kept[i] = dropout.kept(static_cast<std::uint32_t>(query[i]), static_cast<std::uint32_t>(key[i])) ? 1 : 0;
}

}  // extern "C"
