// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// torch_cpp FOLDER: what test_torch_cpp.py compares with Python. Reads FOLDER/inputs.pt and weights,
// writes FOLDER/outputs.pt and weights, and prints errors and representations, one line each. Laws that
// need no Python are checked here.
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/forward_grad.h>

#include <cstdio>
#include <functional>
#include <iostream>

#include "nearfield/torch.h"
#define main example  // examples/torch_module.cc, compiled here: PyTorch's headers take their time
#include "../../examples/torch_module.cc"
#undef main

using namespace nearfield;  // together with torch::, as in a user's program
using at::Tensor;
using Tensors = std::map<std::string, Tensor>;
using Result = std::vector<Tensor>;

namespace {

Result both(const OutAndLse& pair) { return {std::get<0>(pair), std::get<1>(pair)}; }

// ---- Cases: the tensors of one name in inputs.pt -> results, which Python computes too.

const std::map<std::string, std::function<Result(const Tensors&)>> kFunctions = {
    {"na1d",
     [](const Tensors& t) {
       return both(na1d_with_lse(t.at("query"), t.at("key"), t.at("value"), 5,
                                 {.dilation = 2, .is_causal = true, .scale = 0.3}));
     }},
    {"na2d",
     [](const Tensors& t) {
       return both(na2d_with_lse(t.at("query"), t.at("key"), t.at("value"), {3, 4},
                                 {.stride = {1, 2},
                                  .dilation = {2, 1},
                                  .is_causal = {false, true},
                                  .additional_keys = t.at("additional_keys"),
                                  .additional_values = t.at("additional_values")}));
     }},
    {"na3d",
     [](const Tensors& t) {
       return both(na3d_with_lse(t.at("query"), t.at("key"), t.at("value"), {2, 3, 3},
                                 {.is_causal = {true, false, false}, .backend = "reference"}));
     }},
    {"bias and dropout",
     [](const Tensors& t) {
       torch::manual_seed(5);
       return both(na2d_with_lse(t.at("query"), t.at("key"), t.at("value"), 3,
                                 {.bias = t.at("bias"), .dropout_p = 0.4}));
     }},
    {"attention",
     [](const Tensors& t) {
       torch::manual_seed(6);
       return both(attention_with_lse(t.at("query"), t.at("key"), t.at("value"),
                                      {.causal_type = CausalType::kBottomRight, .dropout_p = 0.2}));
     }},
    {"lengths",
     [](const Tensors& t) {
       return both(attention_with_lse(t.at("query"), t.at("key"), t.at("value"),
                                      {.causal_type = CausalType::kTopLeft,
                                       .seqlens_Q = t.at("seqlens_Q"),
                                       .seqlens_KV = t.at("seqlens_KV")}));
     }},
    {"offsets",
     [](const Tensors& t) {
       const auto p = generate_varlen_parameters(t.at("query"), t.at("key"), t.at("value"), t.at("seqlens_Q"),
                                                 t.at("seqlens_KV"));
       return both(attention_with_lse(t.at("query"), t.at("key"), t.at("value"),
                                      {.cumulative_seqlen_Q = p.cumulative_seqlen_Q,
                                       .cumulative_seqlen_KV = p.cumulative_seqlen_KV,
                                       .max_seqlen_Q = p.max_seqlen_Q,
                                       .max_seqlen_KV = p.max_seqlen_KV}));
     }},
    {"multi-dimensional",
     [](const Tensors& t) {
       return both(multi_dimensional_attention_with_lse(
           t.at("query"), t.at("key"), t.at("value"), {.window_size = {-1, 3}, .is_causal = {true, false}}));
     }},
    {"spatio-temporal",
     [](const Tensors& t) {
       return both(spatio_temporal_attention_with_lse(t.at("query"), t.at("key"), t.at("value"),
                                                      {.window_size = {2, 3, -1}}));
     }},
    {"layouts",
     [](const Tensors& t) {
       const auto metadata =
           generate_multi_dim_varlen_parameters({{3, 4}, {5, 2}}, {{3, 3}, -1}, {1, {2, 1}});
       return both(
           multi_dimensional_attention_varlen_with_lse(t.at("query"), t.at("key"), t.at("value"), metadata));
     }},
    {"merge",
     [](const Tensors& t) {
       return both(merge_attentions({t.at("a"), t.at("b")}, {t.at("lse_a"), t.at("lse_b")}));
     }},
    {"rope",
     [](const Tensors& t) -> Result {
       const Tensor& x = t.at("x");
       return {
           rope(x), rope(x, 500.0, {.offset = {3, 1.5}}),
           rope(x, 10000.0, {.factor = {2, 1}, .scaling = "ntk"}),
           apply_rope(x.to(at::kBFloat16), rope_tables({4, 5}, 8, 100.0, {.factor = {2}})).to(at::kFloat)};
     }},
};

// ---- Modules: weights come from Python and go back.

Attention plain(AttentionOptions options, bool train = false) {
  Attention module(std::move(options));
  module->train(train);
  return module;
}

const std::map<std::string, std::function<Result(const Tensors&)>> kPlainModules = {
    {"Attention rope 1-D causal",
     [](const Tensors& t) {
       auto m = plain(AttentionOptions(24, 3).use_rope(true).is_causal(true).rope_spatial_dims({7}));
       return both(m->forward_with_lse(t.at("query"), t.at("key"), t.at("value")));
     }},
    {"Attention rope 2-D norm",
     [](const Tensors& t) {
       auto m = plain(
           AttentionOptions(24, 3).apply_qk_norm(true).use_rope(true).rope_base(100.0).rope_spatial_dims(
               {4, 5}));
       return both(m->forward_with_lse(t.at("query"), t.at("key"), t.at("value")));
     }},
    {"Attention rope 3-D float64",
     [](const Tensors& t) {
       auto m = plain(AttentionOptions(24, 2).use_rope(true).rope_spatial_dims({2, 3, 4}));
       return both(m->forward_with_lse(t.at("query"), t.at("key"), t.at("value")));
     }},
    {"Attention additional",
     [](const Tensors& t) {
       auto m = plain(AttentionOptions(24, 4).use_rope(true).is_causal(true).rope_spatial_dims({7}));
       return both(m->forward_with_lse(t.at("query"), t.at("key"), t.at("value"), t.at("additional_keys"),
                                       t.at("additional_values")));
     }},
    {"Attention dropout",
     [](const Tensors& t) {
       auto m = plain(AttentionOptions(24, 4).apply_qk_norm(true).attn_dropout(0.3).num_kv_heads(2), true);
       torch::manual_seed(7);
       return both(m->forward_with_lse(t.at("query"), t.at("key"), t.at("value")));
     }},
};

template <class Module>
Result with_weights(const std::string& folder, const std::string& name, Module module, const Tensors& t,
                    bool train) {
  module->train(train);
  load_state_dict(*module, folder + "/" + name + ".pt");
  torch::manual_seed(8);
  const Tensor given = t.contains("additional_keys") ? t.at("additional_keys") : Tensor();
  const Tensor values = t.contains("additional_values") ? t.at("additional_values") : Tensor();
  const auto [out, lse] = module->forward_with_lse(t.at("x"), given, values);
  save_state_dict(*module, folder + "/" + name + ".back.pt");
  (out.square().sum() + lse.sum()).backward();
  Result result = {out, lse};
  for (const Tensor& p : module->parameters()) result.push_back(p.grad());
  return result;
}

using Weighted = std::function<Result(const std::string&, const std::string&, const Tensors&)>;
using NA = NeighborhoodAttentionOptions;
const std::map<std::string, Weighted> kWeightedModules = {
    {"NA1D",
     [](const auto& folder, const auto& name, const Tensors& t) {
       NeighborhoodAttention1D m(NA(12, 3, 3).is_causal(true).qkv_bias(false).qk_scale(0.5));
       return with_weights(folder, name, m, t, false);
     }},
    {"NA2D",
     [](const auto& folder, const auto& name, const Tensors& t) {
       NeighborhoodAttention2D m(
           NA(16, 4, {3, 5}).stride({1, 2}).num_kv_heads(2).proj_drop(0.5).attn_drop(0.2).rel_pos_bias(true));
       return with_weights(folder, name, m, t, true);
     }},
    {"NA3D",
     [](const auto& folder, const auto& name, const Tensors& t) {
       NeighborhoodAttention3D m(NA(8, 2, {2, 3, 3}).dilation({1, 1, 2}).backend("cpu"));
       return with_weights(folder, name, m, t, false);
     }},
};

// ---- What is compared as text.

void print_error(const char* name, const std::function<void()>& f) {
  try {
    f();
    std::cout << "error:" << name << ":none\n";
  } catch (const c10::Error& e) {
    std::cout << "error:" << name << ":NotImplementedError:" << e.what_without_backtrace() << "\n";
  } catch (const std::invalid_argument& e) {
    std::cout << "error:" << name << ":ValueError:" << e.what() << "\n";
  } catch (const std::exception& e) { std::cout << "error:" << name << ":other:" << e.what() << "\n"; }
}

void print_errors(const std::string& folder) {
  const Tensor x = at::zeros({1, 6, 6, 2, 4}), y = at::zeros({1, 6, 2, 4}), c = at::zeros({1, 6, 24});
  const Tensor lengths = at::full({2}, 4, at::kInt);
  print_error("window", [&] { na2d(x, x, x, 9); });
  print_error("rank", [&] { na2d(y, y, y, 3); });
  print_error("axes", [&] { na2d(x, x, x, 3, {.stride = {1, 1, 1}}); });
  print_error("dtype", [&] { na2d(x, x.to(at::kDouble), x, 3); });
  print_error("backend", [&] { na2d(x, x, x, 3, {.backend = "tpu"}); });
  print_error("refused backend", [&] { na2d(x, x, x, 3, {.backend = "cuda_sm80"}); });
  print_error("sparse", [&] { na2d(x.to_sparse(), x, x, 3); });
  print_error("one additional", [&] { na2d(x, x, x, 3, {.additional_keys = y}); });
  print_error("tile", [&] { na2d(x, x, x, 3, {.q_tile_shape = {0, 1}}); });
  print_error("lengths alone", [&] { attention(y, y, y, {.seqlens_Q = lengths}); });
  print_error("lengths", [&] { attention(y, y, y, {.seqlens_Q = lengths, .seqlens_KV = lengths}); });
  print_error("rank of a layout", [&] { multi_dimensional_attention(c, c, c); });
  print_error("merge", [&] { merge_attentions({y}, {y.select(-1, 0)}); });
  print_error("rope", [&] { rope(at::zeros({1, 6, 2, 3})); });
  print_error("rope base", [&] { rope(y, 0.0); });
  print_error("rope base of a module", [&] { Attention(AttentionOptions(24, 4).rope_base(-1.5)); });
  print_error("heads", [&] { NeighborhoodAttention2D(10, 3, 3); });
  print_error("kv heads", [&] { NeighborhoodAttention2D(NA(12, 4, 3).num_kv_heads(3)); });
  print_error("stride", [&] { NeighborhoodAttention2D(NA(12, 4, 3).stride(4)); });
  print_error("channels", [&] { NeighborhoodAttention1D(12, 4, 3)(c); });
  print_error("dropout", [&] { Attention(AttentionOptions(24, 4).attn_dropout(1.5)); });
  print_error("no layout", [&] { Attention(AttentionOptions(24, 4).use_rope(true)); });
  print_error("odd head_dim", [&] {
    Attention(AttentionOptions(24, 4).use_rope(true).rope_spatial_dims({2, 3}));
  });
  print_error("wrong layout",
              [&] { Attention(AttentionOptions(24, 4).use_rope(true).rope_spatial_dims({5}))(c, c, c); });
  print_error("second differentiation", [&] {
    const Tensor q = at::ones({1, 4, 1, 2}).requires_grad_();
    const Tensor g = torch::autograd::grad({na1d(q, q, q, 3).sum()}, {q}, {}, true, /*create_graph=*/true)[0];
    g.sum().backward();
  });
  print_error("state_dict", [&] {  // of another module; C++ only
    NeighborhoodAttention2D wide(24, 2, 3);
    load_state_dict(*wide, folder + "/NA2D.pt");
  });
  print_error("no dictionary", [&] { load_tensors(folder + "/list.pt"); });
  print_error("no tensor", [&] { load_tensors(folder + "/number.pt"); });
  print_error("no file", [&] { load_tensors("nowhere.pt"); });
  print_error("no archive", [&] { load_tensors(folder + "/said.txt"); });
  print_error("deep", [&] { load_tensors(folder + "/deep.pt"); });
  print_error("unwritable", [&] { save_tensors({}, folder + "/none/x.pt"); });

  std::cout << "repr:NA1D:" << c10::str(NeighborhoodAttention1D(12, 3, 3)) << "\n";
  NeighborhoodAttention2D everything(NA(16, 4, {3, 5})
                                         .is_causal({true, false})
                                         .num_kv_heads(2)
                                         .attn_drop(0.2)
                                         .rel_pos_bias(true)
                                         .backend("cpu"));
  std::cout << "repr:NA2D:" << c10::str(everything) << "\n";
  std::cout << "repr:Attention:" << c10::str(Attention(AttentionOptions(24, 4).num_kv_heads(2))) << "\n";
}

// ---- Laws.

int checks = 0, failures = 0;
void check(bool holds, const char* what) {
  ++checks;
  if (holds) return;
  ++failures;
  std::cout << "FAILED: " << what << "\n";
}

void laws() {
  torch::manual_seed(1);
  const Tensor q = at::randn({2, 9, 2, 4}, at::kDouble).requires_grad_();
  const Tensor k = at::randn({2, 9, 2, 4}, at::kDouble).requires_grad_();
  const auto lse_alone = [&] { return std::get<1>(na1d_with_lse(q, k, k, 3)).sum(); };
  const Tensor g = torch::autograd::grad({lse_alone()}, {q})[0];
  const double h = 1e-6;  // central difference along a direction: of lse, whose output is not used
  const Tensor d = at::randn_like(q);
  const auto at_step = [&](double s) {
    return std::get<1>(na1d_with_lse((q + s * d).detach(), k, k, 3)).sum().item<double>();
  };
  check(std::abs((g * d).sum().item<double>() - (at_step(h) - at_step(-h)) / (2 * h)) < 1e-6,
        "dq of lse alone");

  const Tensor loss = na1d(q, k, k, 3).square().sum();
  const auto once = torch::autograd::grad({loss}, {q, k}, {}, /*retain_graph=*/true);
  const auto twice = torch::autograd::grad({loss}, {q, k});
  check(at::equal(once[0], twice[0]) && at::equal(once[1], twice[1]), "retain_graph");
  check(!na1d(q.detach(), k.detach(), k.detach(), 3).requires_grad(), "no gradient wanted, none kept");
  {
    const at::NoGradGuard no_grad;
    check(!na1d(q, k, k, 3).requires_grad(), "no_grad");
  }

  const Tensor w = at::randn({1, 9, 2, 4});
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
  at::autocast::set_autocast_enabled(at::kCPU, true);
  check(na1d(w, w, w, 3).scalar_type() == at::kBFloat16, "autocast");
  check(na1d(q, q, q, 3).scalar_type() == at::kDouble, "autocast leaves float64");
  at::autocast::set_autocast_enabled(at::kCPU, false);

  bool refused = false;
  const uint64_t level = torch::autograd::ForwardADLevel::get_next_idx();
  try {
    const Tensor dual = at::_make_dual(w, w, static_cast<int64_t>(level));
    na1d(dual, w, w, 3);
  } catch (const c10::NotImplementedError&) { refused = true; }
  torch::autograd::ForwardADLevel::release_idx(level);
  check(refused, "forward mode is refused");

  NeighborhoodAttention2D layer(NA(8, 2, 3).rel_pos_bias(true));
  const auto copy = std::dynamic_pointer_cast<NeighborhoodAttention2DImpl>(layer->clone());
  const Tensor x = at::randn({1, 5, 5, 8});
  check(at::equal(layer(x), copy->forward(x)), "a clone computes the same");
  layer->reset_parameters();
  check(!at::equal(layer(x), copy->forward(x)), "and has weights of its own");
  layer->to(at::kDouble);
  check(layer(x.to(at::kDouble)).scalar_type() == at::kDouble, "a module in float64");

  Attention turning(AttentionOptions(8, 2).use_rope(true).rope_spatial_dims({5, 5}));
  check(turning->buffers().empty() && turning->parameters().empty(), "tables are in no state_dict");
  const auto turning_copy = std::dynamic_pointer_cast<AttentionImpl>(turning->clone());
  check(at::equal(turning(x, x, x), turning_copy->forward(x, x, x)), "a clone turns alike");
  const Tensor zero = at::zeros({1, 5, 5, 8}, at::kHalf).requires_grad_();
  const Tensor still = Attention(AttentionOptions(8, 2).apply_qk_norm(true))(zero, zero, zero);
  still.sum().backward();
  check(still.isfinite().all().item<bool>() && zero.grad().isfinite().all().item<bool>(),
        "zeros under the norm");
  Tensors some = {{"half", at::ones({2, 3}, at::kHalf).t()},
                  {"flags", at::ones({2}, at::kBool)},
                  {"empty", Tensor(at::empty({0, 3}))}};
  some["shared"] = some["half"].select(0, 1);
  save_tensors(some, "some.pt");
  const Tensors back = load_tensors("some.pt");
  bool same = back.size() == some.size();
  for (const auto& [name, tensor] : some)
    same = same && back.at(name).scalar_type() == tensor.scalar_type() && at::equal(back.at(name), tensor);
  check(same && back.at("shared").storage().is_alias_of(back.at("half").storage()), "tensors there and back");
  {
    const AllowNondeterministic allow;
    check(AllowNondeterministic::allowed(), "nondeterminism allowed");
  }
  check(!AllowNondeterministic::allowed(), "and forbidden again");
  {
    const AllowBf16Arithmetic outer;
    {
      const AllowBf16Arithmetic inner;
      check(AllowBf16Arithmetic::allowed() && !AllowNondeterministic::allowed(), "bf16 arithmetic allowed");
    }
    check(AllowBf16Arithmetic::allowed(), "and still");
    const Tensor x = at::randn({1, 9, 2, 8}).to(at::kBFloat16).set_requires_grad(true);
    na1d(x, x, x, 3).sum().backward();
    check(x.grad().defined() && x.grad().isfinite().all().item<bool>(), "a step with bf16 arithmetic");
  }
  check(!AllowBf16Arithmetic::allowed(), "and bf16 arithmetic forbidden again");
}

// Outputs, and gradients of sum(results_i * cotangent_i) for every floating input.
void run_case(const std::string& name, Tensors given, const std::function<Result(const Tensors&)>& f,
              Tensors& outputs) {
  for (auto& [key, tensor] : given)
    if (tensor.is_floating_point()) tensor.requires_grad_();
  const Result results = f(given);
  Tensor loss = at::zeros({}, at::kDouble);
  for (std::size_t i = 0; i < results.size(); ++i) {
    outputs.emplace(name + "/" + std::to_string(i), results[i].detach());
    const Tensor finite = results[i].masked_fill(results[i].isinf(), 0).to(at::kDouble);
    if (finite.requires_grad()) loss = loss + (finite * finite.detach().cos()).sum();
  }
  if (loss.requires_grad()) loss.backward();
  for (const auto& [key, tensor] : given)
    if (tensor.is_floating_point() && tensor.grad().defined())
      outputs.emplace(name + "/d" + key, tensor.grad());
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::cerr << "usage: torch_cpp FOLDER\n";
    return 2;
  }
  const std::string folder = arguments[1];
  std::map<std::string, Tensors> inputs;
  for (const auto& [key, tensor] : load_tensors(folder + "/inputs.pt"))
    inputs[key.substr(0, key.find('/'))][key.substr(key.find('/') + 1)] = tensor;
  Tensors outputs;
  for (const auto& [name, f] : kFunctions) run_case(name, inputs.at(name), f, outputs);
  for (const auto& [name, f] : kPlainModules) run_case(name, inputs.at(name), f, outputs);
  for (const auto& [name, f] : kWeightedModules) {
    const Result results = f(folder, name, inputs.at(name));
    for (std::size_t i = 0; i < results.size(); ++i)
      outputs.emplace(name + "/" + std::to_string(i), results[i].detach());
  }
  const Tensors views = load_tensors(folder + "/views.pt");
  for (const auto& [name, tensor] : views) outputs.emplace("views/" + name, tensor);
  const Tensor complex = at::complex(at::ones({3}), at::ones({3}) * 2).conj();
  save_tensors({{"conjugate", complex}, {"negative", at::imag(complex)}}, folder + "/views.back.pt");
  for (const auto& [name, tensor] : load_tensors(folder + "/views.back.pt"))
    check(tensor.equal(views.at(name)), "conjugates and negatives, saved and loaded again");
  torch::manual_seed(9);
  NeighborhoodAttention1D fresh(NA(12, 3, 3).num_kv_heads(1));
  save_state_dict(*fresh, folder + "/fresh.pt");
  print_errors(folder);
  laws();
  save_tensors(outputs, folder + "/outputs.pt");
  const int status = example();
  std::cout << (failures || status ? "FAILED: " : "OK: ") << checks - failures << " of " << checks
            << " laws hold\n";
  return failures || status;
}
