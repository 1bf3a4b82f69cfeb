#!/usr/bin/env bash
# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
#
# nearfield/torch.h against the nearfield that is installed in $VENV: builds a program as an outsider
# would, and compares what it computes with Python.
set -euo pipefail
cd "$(dirname "$0")/../.."

python=${VENV:-.venv}/bin/python
out=build/torch_cpp
prefix=$("$python" -c 'import nearfield; print(nearfield.cmake_prefix_path)')
cmake -G Ninja -S tests/torch_cpp -B "$out" -DCMAKE_PREFIX_PATH="$prefix" \
  -DCMAKE_CXX_COMPILER_LAUNCHER="$(command -v ccache || true)" -DCMAKE_COMPILE_WARNING_AS_ERROR="${CI:+ON}"
cmake --build "$out"
NEARFIELD_TORCH_CPP=$PWD/$out/torch_cpp "$python" -m pytest -q -p no:cacheprovider tests/torch_cpp
