// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Weights to and from Python, for any torch::nn module.
//
//   nearfield::load_state_dict(*model, "weights.pt");   // torch.save(model.state_dict(), "weights.pt")
//   nearfield::save_state_dict(*model, "weights.pt");   // model.load_state_dict(torch.load("weights.pt"))
#pragma once

#include <torch/nn/module.h>

#include "nearfield/torch/tensor_file.h"

namespace nearfield {

// Parameters and buffers by name, as Python's state_dict; they share the module's memory.
inline TensorsByName state_dict(const torch::nn::Module& module) {
  TensorsByName tensors;
  for (const auto& p : module.named_parameters()) tensors[p.key()] = p.value().detach();
  for (const auto& b : module.named_buffers()) tensors[b.key()] = b.value().detach();
  return tensors;
}

// Copies tensors into the module's of the same name, converting dtype and device. Every name must be in both
// and have one shape; otherwise std::invalid_argument says what differs, and the module is as before.
inline void load_state_dict(torch::nn::Module& module, const TensorsByName& tensors) {
  using torch_detail::tuple_text;
  TensorsByName mine = state_dict(module);
  std::string missing, unexpected, differing;
  const auto add = [](std::string& list, const std::string& x) { list += (list.empty() ? "" : ", ") + x; };
  for (const auto& [name, tensor] : mine) {
    const auto found = tensors.find(name);
    if (found == tensors.end()) add(missing, name);
    else if (found->second.sizes() != tensor.sizes())
      add(differing, name + " " + tuple_text(found->second.sizes()) + " for " + tuple_text(tensor.sizes()));
  }
  for (const auto& [name, tensor] : tensors)
    if (!mine.contains(name)) add(unexpected, name);
  std::string got;
  if (!missing.empty()) add(got, "no " + missing);
  if (!unexpected.empty()) add(got, "unknown names " + unexpected);
  if (!differing.empty()) add(got, "shapes " + differing);
  if (!got.empty()) torch_detail::refuse("load_state_dict", got, "the names and shapes of the module");
  const at::NoGradGuard no_grad;
  for (auto& [name, tensor] : mine) tensor.copy_(tensors.at(name));
}

inline void load_state_dict(torch::nn::Module& module, const std::string& path) {
  load_state_dict(module, load_tensors(path));
}

inline void save_state_dict(const torch::nn::Module& module, const std::string& path) {
  save_tensors(state_dict(module), path);
}

}  // namespace nearfield
