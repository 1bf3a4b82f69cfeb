#!/usr/bin/env bash
# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
#
# Everything to be done on a machine with a GPU, in under ten minutes; the table comes last.
#
#   tools/gpu_pack.sh [FOLDER]          results and logs: build/gpu/results, or FOLDER
#   tools/gpu_pack.sh --build [FOLDER]  only what needs no GPU: builds, loads what was built, and stops
#
# Wants nvcc 13, CMake 3.25, ninja and a python3 (PYTHON) with PyTorch 2.10 or newer built for CUDA. No network, no
# Highway (the `cpu` backend is a stub then, and the oracle is `reference`); with GoogleTest also the C++ harness.
# NEARFIELD_PREBUILT names a folder with libnearfield.so, libnearfield_torch.so and cuda_device_test to use instead
# of building: that of another machine's --build, build/gpu/package/nearfield. NEARFIELD_GPU: 80, 90, ... instead of
# the machine's. Steps that fail do not stop the others.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
# shellcheck source=tools/steps.sh
. tools/steps.sh
only_build=""
[ "${1:-}" != --build ] || { only_build=1; shift; }
out=${1:-build/gpu/results}
python=${PYTHON:-python3}
jobs=${JOBS:-$(nproc)}
build=build/gpu/build
package=$PWD/build/gpu/package
mkdir -p "$out" "$package"

# Only for the GPU of this machine: one architecture takes half the time. Without one, for those that are shipped.
configure() {
  local gpu=${NEARFIELD_GPU:-}
  [ -n "$gpu" ] || gpu=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d .)
  cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DNEARFIELD_TORCH=ON \
    -DNEARFIELD_CUDA=ON ${gpu:+-DCMAKE_CUDA_ARCHITECTURES="$gpu-real"} -DPython_EXECUTABLE="$(command -v "$python")" "$@"
}
libraries() {
  local from=${NEARFIELD_PREBUILT:-}
  if [ -z "$from" ]; then
    configure -DNEARFIELD_TESTS=OFF && cmake --build "$build" -j "$jobs" --target nearfield nearfield_torch || return
    from=$build
  fi
  if ! [ "$from" -ef "$package/nearfield" ]; then
    rm -rf "$package/nearfield"
    cp -r python/nearfield "$package/nearfield" &&
      find -L "$from" -name 'libnearfield*.so*' -exec cp -L {} "$package/nearfield/" \; || return
  fi
  PYTHONPATH=$package "$python" -c '
import nearfield, torch
print(nearfield.info(), nearfield.explain("na:fwd:bf16:b1h8kv8d64:64x64:k7x7", device="cuda"))
torch.ops.nearfield.forward'
}
harness() {  # the C++ harness, for the device
  if [ "${NEARFIELD_PREBUILT:-}" -ef "$package/nearfield" ]; then
    [ -x "$package/nearfield/cuda_device_test" ]
  elif [ -n "${NEARFIELD_PREBUILT:-}" ]; then
    cp "$NEARFIELD_PREBUILT/cuda_device_test" "$package/nearfield/"
  else
    configure -DNEARFIELD_TESTS=ON && cmake --build "$build" -j "$jobs" --target cuda_device_test &&
      cp "$build/tests/cpp/cuda_device_test" "$package/nearfield/"
  fi
}
# Every list of the conformance harness, aligned and not, and random problems, over the cores.
conformance() {
  local test=$package/nearfield/cuda_device_test status=0 pids=() i
  export LD_LIBRARY_PATH=$package/nearfield${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  "$test" --gtest_brief=1 --gtest_filter=-*RandomSweep & pids+=($!)
  NEARFIELD_TEST_LEAD=16 "$test" --gtest_brief=1 --gtest_filter=-*RandomSweep & pids+=($!)
  for i in 1 2 3 4 5 6 7 8; do
    NEARFIELD_TEST_LEAD=$((i % 2 * 15 + 1)) NEARFIELD_TEST_SEED=${i}00000 NEARFIELD_TEST_SWEEP=100 \
      "$test" --gtest_brief=1 --gtest_filter=*RandomSweep & pids+=($!)
  done
  for i in "${pids[@]}"; do wait "$i" || status=1; done
  [ "$status" != 0 ] || echo "OK: the conformance harness on the device"
  return "$status"
}
on_device() { PYTHONPATH=$package PYTHONUNBUFFERED=1 timeout "$1" "$python" "${@:2}"; }
sanitizer() {  # compute-sanitizer of one tool over a few tiny problems
  PYTHONPATH=$package timeout 120 compute-sanitizer --tool "$1" --error-exitcode 1 "$python" bench/gpu/check.py --small
}
speed() { on_device 330 bench/gpu/speed.py --out "$out/gpu.json"; }

nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem --format=csv,noheader || true
export STEP_TAIL=30
step "libraries" libraries || summary
step "harness" harness || true
[ -z "$only_build" ] || summary
if [ -x "$package/nearfield/cuda_device_test" ]; then
  step "conformance on the device" conformance
else
  skip "conformance on the device" "no GoogleTest here, and no prebuilt cuda_device_test"
fi
step "PyTorch on the device" on_device 180 bench/gpu/check.py
if command -v compute-sanitizer >/dev/null; then
  step "compute-sanitizer: memcheck" sanitizer memcheck
  step "compute-sanitizer: racecheck" sanitizer racecheck
else
  skip "compute-sanitizer" "not installed"
fi
step "speed" speed
cp -r build/log "$out/"
[ ! -f build/log/speed.log ] || cat build/log/speed.log
summary
