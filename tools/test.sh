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

# The fuzz tests try a quarter as often, --full: as often as without sanitizers.
sanitized() (
  [ -n "$full" ] || export NEARFIELD_TEST_FUZZ=25
  build "$1" -DCMAKE_COMPILE_WARNING_AS_ERROR="$werror" && ctest --preset "$1" -j "$jobs"
)

# python_tests [PYTEST ARGUMENTS]. Worker threads wait without spinning: two processes share the cores.
python_tests() {
  OMP_WAIT_POLICY=PASSIVE "$venv/bin/python" -m pytest -q -n 2 "$@" tests/python
}
browser_tests() { "$venv/bin/python" -m pytest -q -p no:cacheprovider tests/browser; }
long_python_tests() ( export NEARFIELD_TEST_FULL=1; python_tests )

# Everything again on one SIMD target; the C++ conformance harness runs on each of them in every ctest.
on_target() (
  export NEARFIELD_CPU_TARGET=$1
  ctest --preset release -j "$jobs" -L quick && python_tests -k cpu
)
has_target() {
  NEARFIELD_CPU_TARGET=$1 build/release/tests/cpp/conformance_test --gtest_list_tests >/dev/null
}

# No spills, no reloads in the inner loops. What g++ 12 makes of them is known; other compilers err elsewhere.
hot_loops() {
  python3 tests/disassembly/hot_loops_test.py && python3 tests/disassembly/hot_loops.py "$1/src/libnearfield.a"
}
is_gcc_12() { "$1" -v 2>&1 | grep -q '^gcc version 12\.'; }

# The conformance harness on NEON under an emulator; --full: every C++ test there, and the harness in plain C++.
on_arm() {
  local build=(--target conformance_test) tests=(-R conformance_neon)
  [ -z "$full" ] || build=() tests=()
  cmake --preset aarch64 -DCMAKE_COMPILE_WARNING_AS_ERROR="$werror" &&
    cmake --build --preset aarch64 -j "$jobs" "${build[@]}" && ctest --preset aarch64 -j "$jobs" "${tests[@]}"
}

# A bounded run of the fuzzer; the target alone is built, with clang.
fuzz() {
  cmake -S . -B build/fuzz -G Ninja -DCMAKE_CXX_COMPILER="$clang" -DNEARFIELD_TESTS=ON -DNEARFIELD_FUZZ=ON &&
    cmake --build build/fuzz --target fuzz_problem -j "$jobs" && (cd build/fuzz && ctest -L fuzz)
}
clang=$(command -v clang++ || command -v clang++-14 || true)

step "setup: system packages" tools/setup.sh system ${full:+browser} || exit 1
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
if ! have wasm-ld && ! have wasm-ld-14; then
  skip "the site" "no wasm-ld (Debian: lld, clang)"
elif step "the site" tools/docs.sh && [ -n "$full" ]; then
  if have chromium && have chromedriver; then
    step "the site in a browser" browser_tests
  else
    skip "the site in a browser" "no chromium, no chromedriver (Debian: chromium, chromium-driver)"
  fi
fi
step "C++ tests, asan and ubsan" sanitized asan
step "install tests" tests/install/run.sh build/release
if have nvcc; then
  step "geometry under nvcc" tests/cuda/run.sh
  step "CUDA kernels, compiled" python3 tests/cuda/compile_gate.py
  [ -z "$full" ] ||
    step "CUDA kernels, newer GPUs" python3 tests/cuda/compile_gate.py --gpus 100,120
else
  skip "geometry under nvcc" "no nvcc"
fi

if ! is_gcc_12 "${CXX:-c++}"; then
  skip "hot loops" "${CXX:-c++} is not g++ 12"
elif ! have objdump; then
  skip "hot loops" "no objdump"
else
  step "hot loops" hot_loops build/release
fi
if ! have aarch64-linux-gnu-g++; then
  skip "C++ tests on NEON" "no aarch64-linux-gnu-g++"
elif ! have qemu-aarch64 || [ ! -d /usr/src/googletest ]; then
  skip "C++ tests on NEON" "no qemu-aarch64, or no sources of GoogleTest (Debian: qemu-user, googletest)"
elif step "C++ tests on NEON" on_arm && is_gcc_12 aarch64-linux-gnu-g++; then
  step "hot loops on NEON" hot_loops build/aarch64
fi

if [ -n "$full" ]; then
  step "C++ tests, tsan" sanitized tsan
  for target in avx512 avx2 sse4 scalar; do
    if has_target "$target"; then
      step "tests on $target" on_target "$target"
    else
      skip "tests on $target" "this machine has none"
    fi
  done
  step "wheel into an empty environment" tests/install/wheel.sh
  if [ -z "$clang" ]; then
    skip "fuzzing the problem string" "no clang++"
  elif ! tools/setup.sh fuzzer; then
    skip "fuzzing the problem string" "clang++ has no fuzzer (Debian: libclang-rt-14-dev)"
  else
    step "fuzzing the problem string" fuzz
  fi
fi
summary
