#!/usr/bin/env bash
# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
#
# Everything that must hold before a change lands: `make test`. With --full also what takes longer.
# All steps run, whatever fails; the last lines say what did.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
. tools/steps.sh

full=${1:-}
venv=${VENV:-.venv}
jobs=${JOBS:-$(nproc)}
[ -n "${CI:-}" ] && werror=ON || werror=OFF

have() { command -v "$1" >/dev/null; }

# build PRESET [-D...]: configure and build
build() {
  cmake --preset "$1" "${@:2}" && cmake --build --preset "$1" -j "$jobs"
}

sanitized() {
  build "$1" -DCMAKE_COMPILE_WARNING_AS_ERROR="$werror" && ctest --preset "$1" -j "$jobs"
}

# python_tests [PYTEST ARGUMENTS]. Worker threads wait without spinning: two processes share the cores.
python_tests() {
  OMP_WAIT_POLICY=PASSIVE "$venv/bin/python" -m pytest -q -n 2 "$@" tests/python
}
long_python_tests() ( export NEARFIELD_TEST_FULL=1; python_tests )

on_target() (
  export NEARFIELD_CPU_TARGET=$1
  ctest --preset release -j "$jobs" && python_tests -k cpu
)

# The NEON kernels compile. Highway's headers are reached through a folder of their own, since the rest
# of the host's include directory is not the target's.
compile_neon() {
  local out=build/aarch64 hwy file
  mkdir -p "$out/include"
  hwy=$(echo '#include <hwy/highway.h>' | c++ -M -x c++ - | grep -o '[^ ]*/hwy/highway.h') || return
  ln -sfn "$(dirname "$hwy")" "$out/include/hwy"
  for file in src/cpu/*.cc; do
    echo "$file"
    ${ccache:-} aarch64-linux-gnu-g++ -std=c++20 -O1 -DNDEBUG -Iinclude -Isrc -isystem "$out/include" \
      -c "$file" -o "$out/$(basename "$file").o" || return
  done
  echo "OK: compiled"
}
have ccache && ccache=ccache

# A bounded run of the fuzzer; the target alone is built, with clang.
fuzz() {
  cmake -S . -B build/fuzz -G Ninja -DCMAKE_CXX_COMPILER="$clang" -DNEARFIELD_TESTS=ON -DNEARFIELD_FUZZ=ON &&
    cmake --build build/fuzz --target fuzz_problem -j "$jobs" && (cd build/fuzz && ctest -L fuzz)
}
clang=$(command -v clang++ || command -v clang++-14 || true)

step "setup: system packages" tools/setup.sh system || exit 1
step "setup: $venv" tools/setup.sh venv || exit 1
step "layers" python3 tools/check_layers.py
step "lint: ruff" tools/format.sh check python
if have clang-format-14; then
  step "lint: clang-format" tools/format.sh check cpp
else
  skip "lint: clang-format" "no clang-format-14"
fi

step "build: C++" build release &&
  step "C++ tests" ctest --preset release -j "$jobs"
if step "build: Python package" tools/setup.sh wheel; then
  step "Python tests" ${full:+long_}python_tests
  step "C++ modules on libtorch" tests/torch_cpp/run.sh
fi
step "C++ tests, asan and ubsan" sanitized asan
step "install tests" tests/install/run.sh build/release
if have nvcc; then
  step "geometry under nvcc" tests/cuda/run.sh
else
  skip "geometry under nvcc" "no nvcc"
fi

if [ -n "$full" ]; then
  step "C++ tests, tsan" sanitized tsan
  for target in avx2 sse4 scalar; do
    step "tests on $target" on_target "$target"
  done
  step "wheel into an empty environment" tests/install/wheel.sh
  if [ -n "$clang" ]; then
    step "fuzzing the problem string" fuzz
  else
    skip "fuzzing the problem string" "no clang++"
  fi
  if have aarch64-linux-gnu-g++; then
    step "CPU kernels for NEON" compile_neon
  else
    skip "CPU kernels for NEON" "no aarch64-linux-gnu-g++"
  fi
fi
summary
