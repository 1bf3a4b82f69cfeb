// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/sm80/run.h"

#include <cmath>
#include <cstdint>
#include <stdexcept>

#include "cuda/sm80/plan.h"
#include "plan/grid_view.h"
#include "plan/tuner.h"

namespace nearfield::sm80 {
namespace {

constexpr Index kTailBlocks = 1024;  // enough for any device; a thread fills more elements if there are more

// Rows of 16-byte chunks: unit channel stride, and every row begins on a multiple of 16 bytes. Axes of extent 1
// have any stride.
bool by_vectors(const TensorView& t) {
  const Index chunk = 16 / size_of(t.dtype);
  if (t.stride[static_cast<std::size_t>(t.rank) - 1] != 1 && t.size[static_cast<std::size_t>(t.rank) - 1] > 1)
    return false;
  for (int i = 0; i < t.rank - 1; ++i)
    if (t.size[static_cast<std::size_t>(i)] > 1 && t.stride[static_cast<std::size_t>(i)] % chunk != 0)
      return false;
  return reinterpret_cast<std::uintptr_t>(t.data) % 16 == 0;
}

View view_of(const Problem& p, const TensorView& t, Role role) {
  View v{};
  if (!t.present()) return v;
  const bool lse = role == Role::kLse || role == Role::kGradLse;
  if (p.varlen) {  // axes in raster order behind a sequence's first token: the kernels' part
    v = {t.data, 0, t.stride[0], {0, 0, t.stride[1]}, t.stride[2], lse ? 0 : t.stride[3], false};
  } else {
    const GridView g = grid_view(p, t, role, 0, 0);
    v = {g.data, g.origin, g.batch, {g.axis[0], g.axis[1], g.axis[2]}, g.head, g.channel, false};
  }
  const bool rows = !lse && role != Role::kBias && role != Role::kGradBias;
  v.vector = rows && by_vectors(t);
  return v;
}

Span span_of(const TensorView& t, bool writable) {
  Index reach = t.elements() > 0 ? 1 : 0;
  for (int i = 0; i < t.rank && reach > 0; ++i)
    reach += (t.size[static_cast<std::size_t>(i)] - 1) * t.stride[static_cast<std::size_t>(i)];
  return {t.data, static_cast<std::size_t>(reach * size_of(t.dtype)), writable};
}

class Backend80 final : public Backend {
 public:
  Backend80(const Launcher& launcher, Device device, std::string_view (*absence)())
      : launcher_(launcher), device_(device), absence_(absence) {}
  std::string_view name() const override { return "cuda_sm80"; }
  Device device() const override { return device_; }
  std::string device_class() const override {
    return absence_ && !absence_().empty() ? Backend::device_class() : launcher_.device_class();
  }

  std::optional<std::string> refusal(const Problem& p, const PlanOptions& options) const override {
    if (absence_ && !absence_().empty()) return std::string(absence_());
    return sm80::refusal(launcher_.kernels(), p, options);
  }

  Plan plan(const Problem& p, const PlanOptions& options) const override {
    Plan plan;
    plan.backend = name();
    PlanOptions own = options;
    // Lists whose lengths only the device knows have no problem of their own to be tuned for, and the bits of others.
    if (p.operation == Operation::kAttention) own.tuner = nullptr;
    sm80::plan(launcher_.kernels(), p, SequenceOptions(own, p, *this), plan);
    return plan;
  }

  void run(const Problem& p, const Plan& plan, const Tensors& tensors, Executor& executor,
           std::byte* workspace) const override {
    const auto& own = *static_cast<const OwnPlan*>(plan.own.get());
    try {
      Call call(launcher_, p, own, tensors, executor, workspace);
      if (p.direction == Direction::kForward) {
        call.launch(own.kernels.forward, true);
      } else {
        call.launch(own.kernels.query_gradient, true);
        call.launch(own.kernels.key_gradient, false);
        call.launch(own.kernels.value_gradient, false);
        if (p.bias) call.launch_bias(own.kernels.bias_gradient);
      }
      call.fill_tails();
    } catch (const std::runtime_error& e) {
      throw std::runtime_error("[run] " + to_string(p) + ": " + e.what());
    }
  }

 private:
  class Call {
   public:
    Call(const Launcher& launcher, const Problem& p, const OwnPlan& own, const Tensors& tensors,
         Executor& executor, std::byte* workspace)
        : launcher_(launcher), p_(p), own_(own), tensors_(tensors), executor_(executor) {
      const auto at = reinterpret_cast<std::uintptr_t>(workspace);
      workspace_ = workspace + ((at + 15) / 16 * 16 - at);
      for (int r = 0; r < kRoles; ++r) {
        const Role role = static_cast<Role>(r);
        const TensorView& t = tensors[role];
        args_.view[r] = view_of(p, t, role);
        const bool written = p.direction == Direction::kForward ? role == Role::kOut || role == Role::kLse
                                                                : role >= Role::kGradQuery;
        if (t.present()) spans_.push_back(span_of(t, written));
      }
      args_.items = p.offsets ? p.offsets->sequences : sequences(p);
      if (p.offsets) {
        args_.query_offsets = {tensors.query_offsets, tensors.wide_offsets, p.offsets->total_query};
        args_.key_offsets = {tensors.key_offsets, tensors.wide_offsets, p.offsets->total_key};
        for (const void* offsets : {tensors.query_offsets, tensors.key_offsets})
          spans_.push_back(
              {offsets, static_cast<std::size_t>(args_.items + 1) * (tensors.wide_offsets ? 8 : 4), false});
      }
      args_.batch = p.batch;
      args_.heads = p.heads;
      args_.kv_heads = p.kv_heads;
      args_.additional = p.additional;
      args_.head_dim = static_cast<int>(p.head_dim);
      args_.value_dim = static_cast<int>(p.value_dim);
      args_.packed = p.varlen;
      args_.scale = static_cast<float>(p.effective_scale());
      args_.scaled_first = p.dtype == DType::kFloat32 || p.bias || !(args_.scale > 0);
      args_.factor = 1.4426950408889634f * (args_.scaled_first ? 1.0f : args_.scale);
      const double threshold = std::floor(p.dropout * 0x1p32);
      args_.drop_below = static_cast<Word>(threshold);
      args_.keep_scale = static_cast<float>(1.0 / (1.0 - p.dropout));
      args_.seed = tensors.seed;
      if (tensors.seed) spans_.push_back({tensors.seed, 8, false});
      std::byte* next = workspace_;
      if (p.direction == Direction::kBackward) {  // {lse, delta} as [batch, heads, tokens]
        std::vector<Index> size = shape_of(p, Role::kGradOut);
        size.pop_back();
        std::vector<Index> stride(size.size());
        Index tokens = 1;
        for (std::size_t a = size.size() - 1; a-- > 1; tokens *= size[a]) stride[a] = tokens;
        stride.back() = tokens;
        stride[0] = tokens * p.heads;
        const TensorView rows(next, DType::kFloat32, size.data(), stride.data(),
                              static_cast<int>(size.size()));
        args_.view[kStatistics] = view_of(p, rows, Role::kLse);
        const std::size_t bytes = static_cast<std::size_t>(own.tokens * p.batch * p.heads) * 8;
        spans_.push_back({next, bytes, true});
        next += (bytes + 15) / 16 * 16;
      }
      tables_ = reinterpret_cast<Item*>(next);
    }

    // own_queries: whose tiles the kernel's blocks own.
    void launch(const Kernel* kernel, bool own_queries) {
      if (!kernel) return;
      if (p_.offsets) return launch_offsets(kernel, own_queries);
      if (p_.layouts.empty()) return;
      std::vector<Item> items;
      Index blocks = 0, first_query = 0, first_key = 0;
      for (Index i = 0; i < sequences(p_); ++i) {
        Item item{};
        const Cut& cut = (own_queries ? own_.of_queries : own_.of_keys)[static_cast<std::size_t>(i)];
        item.grid = grid_of(p_, i);
        item.pack = cut.pack;
        Index tiles = item.grid.groups();
        for (int a = 0; a < kMaxRank; ++a) {
          const auto at = static_cast<std::size_t>(a);
          item.query_tile[a] = static_cast<int>(cut.query[at]);
          item.key_tile[a] = static_cast<int>(cut.key[at]);
          const Axis& axis = item.grid.axis[a];
          tiles *= tiles_of(axis, own_queries ? axis.queries : axis.keys,
                            own_queries ? item.query_tile[a] : item.key_tile[a]);
        }
        if (!own_queries) tiles += ceil_div(p_.additional, kernel->rows);
        item.number = i;
        item.first_query = first_query;
        item.first_key = first_key;
        item.first_block = blocks;
        blocks += tiles * p_.batch * (own_queries ? p_.heads / cut.pack : p_.kv_heads);
        if (p_.varlen) {
          first_query += query_tokens(p_, i);
          first_key += key_tokens(p_, i);
        }
        items.push_back(item);
      }
      if (blocks == 0) return;
      args_.item = items[0];
      args_.table = nullptr;
      if (items.size() > 1) {  // a table per kind of owner: a launch may still read the other
        Item* table = tables_ + (own_queries ? 0 : items.size());
        launcher_.upload(items, table, executor_);
        args_.table = table;
      }
      launcher_.launch(*kernel, blocks, args_, spans_, executor_);
    }

    void launch_offsets(const Kernel* kernel, bool own_queries) {
      const Cut& cut = (own_queries ? own_.of_queries : own_.of_keys)[0];
      Problem longest = p_;
      longest.offsets.reset();
      longest.layouts.assign(1, Layout{});
      longest.layouts[0].query_extent[0] = p_.offsets->max_query;
      longest.layouts[0].extent[0] = p_.offsets->max_key;
      Item item{};
      item.grid = grid_of(longest, 0);
      item.pack = cut.pack;
      for (int a = 0; a < kMaxRank; ++a) {
        item.query_tile[a] = static_cast<int>(cut.query[static_cast<std::size_t>(a)]);
        item.key_tile[a] = static_cast<int>(cut.key[static_cast<std::size_t>(a)]);
      }
      const Axis& axis = item.grid.axis[kMaxRank - 1];
      item.first_block = tiles_of(axis, own_queries ? axis.queries : axis.keys,
                                  (own_queries ? item.query_tile : item.key_tile)[kMaxRank - 1]) *
                         (own_queries ? p_.heads / cut.pack : p_.kv_heads);
      if (item.first_block == 0 || args_.items == 0) return;
      Item* table = tables_ + (own_queries ? 0 : args_.items);
      args_.item = item;
      args_.table = table;
      std::vector<Span> spans = spans_;
      spans.push_back({table, static_cast<std::size_t>(args_.items) * sizeof(Item), true});
      for (const Kernel& k : launcher_.kernels())
        if (k.task == Task::kItems && k.dtype == p_.dtype)
          launcher_.launch(k, ceil_div(args_.items, k.rows), args_, spans, executor_);
      launcher_.launch(*kernel, args_.items * item.first_block, args_, spans_, executor_);
    }

    void launch_bias(const Kernel* kernel) {
      args_.item.grid = grid_of(p_, 0);
      args_.item.number = 0;
      Index positions = 1;
      for (const Axis& a : args_.item.grid.axis) positions *= 2 * a.window - 1;
      args_.table = nullptr;
      launcher_.launch(*kernel, positions * p_.heads, args_, spans_, executor_);
    }

    // Outputs of the packed tokens that belong to no sequence: out 0, lse -inf, gradients 0.
    void fill_tails() {
      for (int r = 0; r < kRoles; ++r) {
        const Role role = static_cast<Role>(r);
        const TensorView& t = tensors_[role];
        const bool lse = role == Role::kLse, keys = role == Role::kGradKey || role == Role::kGradValue;
        const bool written =
            p_.direction == Direction::kForward ? role == Role::kOut || lse : role >= Role::kGradQuery;
        const Index known = keys ? p_.tail_key : p_.tail_query;
        const Index tail =
            p_.offsets && t.present() ? t.size[1] : known;  // of which the device knows the begin
        if (!written || !t.present() || tail == 0 || !p_.varlen) continue;
        Arguments args{};
        args.view[0] = {t.data, 0, 0, {0, 0, t.stride[1]}, t.stride[2], lse ? 0 : t.stride[3], false};
        args.heads = t.size[2];
        args.head_dim = lse ? 1 : static_cast<int>(t.size[3]);
        args.item.first_query = t.size[1] - tail;
        args.item.number = tail;
        args.scale = lse ? -HUGE_VALF : 0.0f;
        args.items = args_.items;
        args.query_offsets = keys ? args_.key_offsets : args_.query_offsets;
        for (const Kernel& k : launcher_.kernels())
          if (k.task == Task::kTails && k.dtype == t.dtype) {
            args.item.first_block = min_of(ceil_div(tail * args.heads * args.head_dim, k.rows), kTailBlocks);
            launcher_.launch(k, args.item.first_block, args, spans_, executor_);
          }
      }
    }

   private:
    const Launcher& launcher_;
    const Problem& p_;
    const OwnPlan& own_;
    const Tensors& tensors_;
    Executor& executor_;
    std::byte* workspace_;
    Item* tables_ = nullptr;
    Arguments args_{};
    std::vector<Span> spans_;
  };

  const Launcher& launcher_;
  Device device_;
  std::string_view (*absence_)();
};

}  // namespace

std::unique_ptr<Backend> make_backend(const Launcher& launcher, Device device,
                                      std::string_view (*absence)()) {
  return std::make_unique<Backend80>(launcher, device, absence);
}

}  // namespace nearfield::sm80
