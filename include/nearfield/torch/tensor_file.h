// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Files with tensors by name, as Python's torch.save writes a state_dict or another dictionary of tensors
// and torch.load(path, weights_only=True) reads it.
//
// libtorch has both halves, but torch::pickle_load takes no OrderedDict, which every state_dict is, and
// torch::pickle_save writes type tags, which weights_only=True refuses. So the pickle is read by unpickle.h.
#pragma once

#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/jit/serialization/pickler.h>

#include <fstream>

#include "nearfield/torch/unpickle.h"

namespace nearfield {

// Tensors on the CPU. Throws std::invalid_argument where the file is none of torch.save or holds anything
// else, c10::Error where it is damaged.
inline TensorsByName load_tensors(const std::string& path) {
  return torch_detail::TensorUnpickler(path).load();
}

// Throws std::runtime_error where the file cannot be written.
inline void save_tensors(const TensorsByName& tensors, const std::string& path) {
  c10::Dict<std::string, at::Tensor> dict;
  for (const auto& [name, tensor] : tensors) dict.insert(name, tensor.detach().resolve_conj().resolve_neg());
  std::string pickle, archive;
  torch::jit::Pickler pickler([&](const char* data, std::size_t size) { pickle.append(data, size); }, nullptr,
                              nullptr, nullptr, nullptr, /*tag_aggregates=*/false);
  pickler.protocol();
  pickler.pushIValue(dict);
  pickler.stop();
  {
    caffe2::serialize::PyTorchStreamWriter writer([&](const void* data, std::size_t size) {
      archive.append(static_cast<const char*>(data), size);
      return size;
    });
    writer.writeRecord("data.pkl", pickle.data(), pickle.size());
    for (std::size_t i = 0; i < pickler.tensorData().size(); ++i) {
      const auto data = torch::jit::getWriteableTensorData(pickler.tensorData()[i]);
      writer.writeRecord("data/" + std::to_string(i), data.data(), data.sizeInBytes());
    }
    writer.writeEndOfFile();
  }
  std::ofstream file(path, std::ios::binary);
  file.write(archive.data(), static_cast<std::streamsize>(archive.size()));
  file.close();
  if (!file) throw std::runtime_error("[save_tensors] cannot write " + path);
}

}  // namespace nearfield
