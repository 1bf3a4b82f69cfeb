// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "prepare.h"

#include <bit>
#include <cstddef>
#include <mutex>
#include <stdexcept>
#include <unordered_map>
#include <utility>

#include "nearfield/request.h"

namespace nearfield::torch_ops {
namespace {

std::string dtype_name(ScalarType t) {
  switch (t) {
    case ScalarType::Float: return "float32";
    case ScalarType::Double: return "float64";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::Half: return "float16";
    case ScalarType::Int: return "int32";
    case ScalarType::Long: return "int64";
    case ScalarType::Bool: return "bool";
    case ScalarType::ComplexFloat: return "complex64";
    case ScalarType::ComplexDouble: return "complex128";
    case ScalarType::ComplexHalf: return "complex32";
    case ScalarType::Byte: return "uint8";
    case ScalarType::Char: return "int8";
    case ScalarType::Short: return "int16";
    case ScalarType::UInt16: return "uint16";
    case ScalarType::UInt32: return "uint32";
    case ScalarType::UInt64: return "uint64";
    case ScalarType::Float8_e5m2: return "float8_e5m2";
    case ScalarType::Float8_e4m3fn: return "float8_e4m3fn";
    case ScalarType::Float8_e5m2fnuz: return "float8_e5m2fnuz";
    case ScalarType::Float8_e4m3fnuz: return "float8_e4m3fnuz";
    case ScalarType::Float8_e8m0fnu: return "float8_e8m0fnu";
    default: return "number " + std::to_string(static_cast<int>(t));
  }
}

TensorInfo info_of(const Tensor& t) {
  TensorInfo info;
  info.present = true;
  info.dtype = dtype_name(t.scalar_type());
  info.device = t.is_cpu()    ? "cpu"
                : t.is_cuda() ? "cuda:" + std::to_string(t.get_device_index())
                              : "a device that is not served";
  const auto size = t.sizes(), stride = t.strides();
  info.size.assign(size.begin(), size.end());
  info.stride.assign(stride.begin(), stride.end());
  return info;
}

TensorInfo info_of(const std::optional<Tensor>& t) { return t ? info_of(*t) : TensorInfo(); }

// Cumulative lengths where the host can read them; make_problem() checks the tensor itself.
std::vector<Index> offsets_of(const Tensor& t) {
  const ScalarType type = t.scalar_type();
  std::vector<Index> values;
  if ((type != ScalarType::Int && type != ScalarType::Long) || t.dim() != 1 || !t.is_cpu()) return values;
  for (int64_t i = 0; i < t.size(0); ++i)
    values.push_back(type == ScalarType::Int ? static_cast<const int32_t*>(t.data_ptr())[i * t.stride(0)]
                                             : static_cast<const int64_t*>(t.data_ptr())[i * t.stride(0)]);
  return values;
}

Request request_of(const Arguments& a) {
  CallWords words;
  words.function = a.function;
  words.causal_type = a.causal_type;
  words.flags = a.flags;
  words.axes = a.axes;
  words.ranges = a.ranges;
  words.grids = a.grids;
  Request r;
  decode(words, r);
  r.query = info_of(a.query);
  r.key = info_of(a.key);
  r.value = info_of(a.value);
  r.additional_key = info_of(a.additional_keys);
  r.additional_value = info_of(a.additional_values);
  r.scale = a.scale;
  r.dropout = a.dropout_p;
  r.bias = info_of(a.bias);
  r.lse_wanted = true;
  if (a.offsets_query || a.offsets_key) {
    if (r.operation != Operation::kAttention)
      throw std::invalid_argument("[" + r.op + "] got cumulative lengths, expected token layouts in `grids`");
    r.varlen = true;
    r.cumulative_query = info_of(a.offsets_query);
    r.cumulative_key = info_of(a.offsets_key);
    if (a.offsets_query) r.query_offsets = offsets_of(*a.offsets_query);
    if (a.offsets_key) r.key_offsets = offsets_of(*a.offsets_key);
  }
  return r;
}

Device device_of(const Arguments& a) { return a.query.is_cuda() ? Device::kCuda : Device::kCpu; }

PlanOptions plan_options(const Arguments& a, const Request& r) {
  PlanOptions options;
  options.op = r.op;
  const auto table = backends();
  if (a.backend < 0 || a.backend > static_cast<int64_t>(table.size()))
    throw std::invalid_argument("[" + r.op + "] got backend number " + std::to_string(a.backend) +
                                ", expected 0 to " + std::to_string(table.size()));
  if (a.backend > 0) options.backend = table[static_cast<std::size_t>(a.backend) - 1]->name();
  if (!a.tiles.empty() && a.tiles.size() != 12)
    throw std::invalid_argument("[" + r.op + "] got " + std::to_string(a.tiles.size()) +
                                " tile numbers, expected none or 12");
  const std::size_t first = r.direction == Direction::kForward ? 0 : 6;
  const auto tile = [&](std::size_t at) -> std::optional<TileShape> {
    if (a.tiles.empty() || a.tiles[at] == 0) return std::nullopt;
    return TileShape{a.tiles[at], a.tiles[at + 1], a.tiles[at + 2]};
  };
  options.query_tile = tile(first);
  options.key_tile = tile(first + 3);
  return options;
}

// Backward tiles are refused already by forward, where the caller named them.
void check_backward_tiles(const Arguments& a, Request r, Problem p) {
  if (a.tiles.size() != 12 || (a.tiles[6] == 0 && a.tiles[9] == 0)) return;
  r.direction = p.direction = Direction::kBackward;
  make_plan(p, plan_options(a, r), device_of(a));
}

Prepared prepared(const Arguments& a, const Incoming* incoming) {
  Request r = request_of(a);
  if (incoming) {
    r.direction = Direction::kBackward;
    r.out = info_of(incoming->out);
    r.lse = info_of(incoming->lse);
    r.grad_out = info_of(incoming->grad_out);
    r.grad_lse = info_of(incoming->grad_lse);
  }
  Prepared call{r.op, make_problem(r), {}};
  call.choice = make_plan(call.problem, plan_options(a, r), device_of(a));
  if (!incoming) check_backward_tiles(a, r, call.problem);
  return call;
}

// All that prepared() looks at, as numbers. Most calls repeat an earlier one, and in a model every call finds the
// caches full of something else: one look-up touches far less memory than strings, checks and plans do.
class Key {
 public:
  Key(const Arguments& a, const Incoming* incoming) {
    words_.reserve(96);
    for (const int64_t n : {tuner_in_use(), a.function, a.causal_type, a.backend, a.flags})
      words_.push_back(n);
    add(a.scale.value_or(0.0));
    add(a.dropout_p);
    words_.push_back(a.scale.has_value());
    for (const Ints* list : {&a.axes, &a.grids, &a.ranges, &a.tiles}) add(*list);
    for (const Tensor* t : {&a.query, &a.key, &a.value}) add(*t);
    for (const auto* t : {&a.additional_keys, &a.additional_values, &a.bias}) add(*t);
    words_.push_back(incoming != nullptr);
    if (!incoming) return;
    for (const Tensor* t : {&incoming->out, &incoming->lse, &incoming->grad_out}) add(*t);
    add(incoming->grad_lse);
  }
  // Another thread may have changed the tuner since the key was made.
  void set_tuner(int64_t tuner) { words_.front() = tuner; }
  std::size_t words() const { return words_.size(); }
  friend bool operator==(const Key&, const Key&) = default;

  struct Hash {
    std::size_t operator()(const Key& key) const {
      uint64_t h = 0;
      for (const int64_t w : key.words_) {
        h = (h ^ static_cast<uint64_t>(w)) * 0x9e3779b97f4a7c15u;
        h ^= h >> 32;
      }
      return h;
    }
  };

 private:
  void add(double x) { words_.push_back(std::bit_cast<int64_t>(x)); }
  void add(const Ints& list) {
    words_.push_back(static_cast<int64_t>(list.size()));
    words_.insert(words_.end(), list.begin(), list.end());
  }
  void add(const Tensor& t) {
    const auto size = t.sizes(), stride = t.strides();
    const int64_t place = t.is_cpu() ? -1 : t.is_cuda() ? t.get_device_index() : -2;
    for (const int64_t n : {static_cast<int64_t>(t.scalar_type()), place, static_cast<int64_t>(size.size())})
      words_.push_back(n);
    words_.insert(words_.end(), size.begin(), size.end());
    words_.insert(words_.end(), stride.begin(), stride.end());
  }
  void add(const std::optional<Tensor>& t) {
    if (t) add(*t);
    else words_.push_back(-1);
  }

  std::vector<int64_t> words_;
};

}  // namespace

std::shared_ptr<const Prepared> prepare(const Arguments& a, const Incoming* incoming) {
  constexpr std::size_t kWords = std::size_t{1} << 19;  // kept at most: 4 MiB, about
  if (a.offsets_query || a.offsets_key) return std::make_shared<const Prepared>(prepared(a, incoming));
  static std::mutex& mutex = *new std::mutex;
  static auto& kept = *new std::unordered_map<Key, std::shared_ptr<const Prepared>, Key::Hash>;
  static std::size_t words = 0;
  Key key(a, incoming);
  {
    const std::lock_guard lock(mutex);
    const auto found = kept.find(key);
    if (found != kept.end()) return found->second;
  }
  auto call = std::make_shared<const Prepared>(prepared(a, incoming));
  const Plan& plan = *call->choice.plan;
  key.set_tuner(plan.tuner);
  const std::size_t more = 2 * key.words() + (sizeof(Prepared) + sizeof(Plan) + plan.problem.size() +
                                              sizeof(Layout) * call->problem.layouts.size() +
                                              2 * sizeof(TileShape) * plan.query_tiles.size()) /
                                                 sizeof(int64_t);
  if (more > kWords / 4) return call;  // it would throw out too much else
  const std::lock_guard lock(mutex);
  if (words + more > kWords) {
    kept.clear();
    words = 0;
  }
  if (kept.try_emplace(std::move(key), call).second) words += more;
  return call;
}

}  // namespace nearfield::torch_ops
