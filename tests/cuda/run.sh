#!/usr/bin/env bash
# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
#
# Compiles geometry.h under nvcc for every architecture that we ship or gate, and runs the result: with
# a GPU it compares device and host, without one it says so.
set -euo pipefail
cd "$(dirname "$0")/../.."

mkdir -p build/cuda
nvcc -std=c++20 -Iinclude -Xcompiler -Wall,-Wextra \
  -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a \
  -gencode arch=compute_100,code=sm_100 -gencode arch=compute_120,code=sm_120 \
  tests/cuda/geometry_compile.cu -o build/cuda/geometry_compile
build/cuda/geometry_compile
