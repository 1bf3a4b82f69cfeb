#!/usr/bin/env bash
# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
#
# What can be known of the CUDA kernels without a GPU: `make cuda-check`. Registers, stack and spills against the
# budget; the kernels on the host, under the emulator, in the conformance harness; geometry.h under nvcc.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
. tools/steps.sh
jobs=${JOBS:-$(nproc)}

emulated() {
  cmake --preset release && cmake --build --preset release -j "$jobs" --target cuda_emulated_test cuda_test &&
    ctest --preset release -j "$jobs" -R "cuda_(test|emulated)"
}

step "CUDA kernels, emulated" emulated
if command -v nvcc >/dev/null; then
  step "CUDA kernels, compiled" python3 tests/cuda/compile_gate.py
  step "geometry under nvcc" tests/cuda/run.sh
else
  skip "CUDA kernels, compiled" "no nvcc"
fi
summary
