// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// nearfield for programs that use PyTorch from C++ (libtorch): the functions of the Python package on
// at::Tensor with autograd, and torch::nn modules. The one public header that includes PyTorch's.
//
//   #include "nearfield/torch.h"
//
//   nearfield::NeighborhoodAttention2D layer(64, 4, 7);           // channels, heads, window
//   at::Tensor y = layer(torch::randn({1, 32, 32, 64}));          // [B, X, Y, C]
//   at::Tensor out = nearfield::na2d(q, k, v, 7, {.dilation = 2});  // [B, X, Y, heads, channels]
//
//   find_package(nearfield REQUIRED COMPONENTS torch)              # CMake; finds PyTorch too
//   target_link_libraries(program PRIVATE nearfield::torch)
//
// for a nearfield that pip installed with -DCMAKE_PREFIX_PATH of what
// `python -c "import nearfield; print(nearfield.cmake_prefix_path)"` prints. Names, defaults and errors
// are those of Python; where Python returns lse on demand, there is a second function, `..._with_lse`.
// Parameters have Python's names, and state_dicts go both ways (state_dict.h). A Python extension links
// the library of the package it is used with, so that there is one copy of the operators.
#pragma once

#include "nearfield/torch/attention.h"     // Attention
#include "nearfield/torch/functional.h"    // na1d, na2d, na3d, attention, multi_dimensional_attention, ...
#include "nearfield/torch/merge.h"         // merge_attentions
#include "nearfield/torch/neighborhood.h"  // NeighborhoodAttention1D, 2D, 3D
#include "nearfield/torch/rope.h"          // rope, rope_tables, apply_rope
#include "nearfield/torch/state_dict.h"    // save_state_dict, load_state_dict
#include "nearfield/torch/tensor_file.h"   // save_tensors, load_tensors
#include "nearfield/torch/varlen.h"        // generate_varlen_parameters, generate_multi_dim_varlen_parameters
