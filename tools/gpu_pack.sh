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
# the machine's. Steps that fail, or hang, do not stop the others; NEARFIELD_PACK_SECONDS (570) is for all of them,
# and none gets more than what is left.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
# shellcheck source=tools/steps.sh
. tools/steps.sh
only_build=""
[ "${1:-}" != --build ] || { only_build=1; NEARFIELD_PACK_SECONDS=${NEARFIELD_PACK_SECONDS:-3600}; shift; }
out=${1:-build/gpu/results}
python=${PYTHON:-python3}
jobs=${JOBS:-$(nproc)}
seconds=${NEARFIELD_PACK_SECONDS:-570}
build=build/gpu/build
package=$PWD/build/gpu/package
test=$package/nearfield/cuda_device_test
mkdir -p "$out" "$package"
marker=$(mktemp)

# within MOST RESERVE COMMAND...   at most MOST seconds, and so many that RESERVE are left to the pack
within() {
  local most=$1 left=$((seconds - SECONDS - $2))
  [ "$left" -lt "$most" ] || left=$most
  [ "$left" -gt 5 ] || { echo "no time left"; return 1; }
  timeout -k 5 "$left" "${@:3}"
}
# Only for the GPU of this machine: one architecture takes half the time. Without one, for those that are shipped.
configure() {
  local gpu=${NEARFIELD_GPU:-}
  [ -n "$gpu" ] || gpu=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d .)
  within 60 200 cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DNEARFIELD_TORCH=ON \
    -DNEARFIELD_CUDA=ON ${gpu:+-DCMAKE_CUDA_ARCHITECTURES="$gpu-real"} -DPython_EXECUTABLE="$(command -v "$python")" "$@"
}
libraries() {
  local from=${NEARFIELD_PREBUILT:-}
  if [ -z "$from" ]; then
    configure -DNEARFIELD_TESTS=OFF &&
      within 300 200 cmake --build "$build" -j "$jobs" --target nearfield nearfield_torch || return
    from=$build
  fi
  if ! [ "$from" -ef "$package/nearfield" ]; then
    rm -rf "$package/nearfield"
    cp -r python/nearfield "$package/nearfield" &&
      find -L "$from" -name 'libnearfield*.so*' -exec cp -L {} "$package/nearfield/" \; || return
  fi
  PYTHONPATH=$package within 60 0 "$python" -c '
import nearfield, torch
print(nearfield.__file__, nearfield.info())
print(nearfield.explain("na:fwd:bf16:b1h8kv8d64:64x64:k7x7", device="cuda"))
torch.ops.nearfield.forward'
}
has_gtest() { printf '#include <gtest/gtest.h>\n' | c++ -E -x c++ - >/dev/null 2>&1; }
harness() {  # the C++ harness, for the device
  if [ -n "${NEARFIELD_PREBUILT:-}" ]; then
    cp "$NEARFIELD_PREBUILT/cuda_device_test" "$package/nearfield/"
  else
    configure -DNEARFIELD_TESTS=ON &&
      within 200 260 cmake --build "$build" -j "$jobs" --target cuda_device_test &&
      cp "$build/tests/cpp/cuda_device_test" "$package/nearfield/"
  fi
}
# Every list of the conformance harness, aligned and not, and random problems, over the cores.
conformance() {
  local status=0 pids=() i
  within 150 260 "$test" --gtest_brief=1 --gtest_filter='-*RandomSweep' & pids+=($!)
  NEARFIELD_TEST_LEAD=16 within 150 260 "$test" --gtest_brief=1 --gtest_filter='-*RandomSweep' & pids+=($!)
  for i in 1 2 3 4 5 6 7 8; do
    NEARFIELD_TEST_LEAD=$((i % 2 * 15 + 1)) NEARFIELD_TEST_SEED=${i}00000 NEARFIELD_TEST_SWEEP=100 \
      within 150 260 "$test" --gtest_brief=1 --gtest_filter='*RandomSweep' & pids+=($!)
  done
  for i in "${pids[@]}"; do wait "$i" || { status=$?; echo "a part ended with status $status"; }; done
  [ "$status" != 0 ] || echo "OK: the conformance harness on the device"
  return "$status"
}
# The C++ harness where it is there: PyTorch has much that a tool has to watch, too.
sanitizer() {
  local check=("$python" bench/gpu/check.py --small)
  [ ! -x "$test" ] || check=("$test" --gtest_brief=1 --gtest_filter='*.Windows3D:*.AdditionalKeys:*.VarlenWindows:*.Bias')
  within 100 15 compute-sanitizer --tool "$1" --error-exitcode 1 "${check[@]}" &&
    echo "OK: compute-sanitizer found nothing"
}
speed() {
  local left=$((seconds - SECONDS - 60))
  within 330 20 "$python" bench/gpu/speed.py --out "$out/gpu.json" --seconds $((left < 270 ? left : 270))
}
finish() {  # logs in one file, then the steps, then the table
  find build/log -name '*.log' -newer "$marker" -exec tail -n +1 {} + > "$out/log.txt"
  rm -f "$marker"
  local status=0
  (summary) || status=$?
  [ ! -f "$out/gpu.json" ] || timeout 60 "$python" bench/gpu/speed.py --show "$out/gpu.json"
  exit "$status"
}

nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem --format=csv,noheader || true
export STEP_TAIL=30 PYTHONPATH=$package PYTHONUNBUFFERED=1
export LD_LIBRARY_PATH=$package/nearfield${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
rm -f "$out/gpu.json"
step "libraries" libraries || finish
if [ -n "${NEARFIELD_PREBUILT:-}" ] && ! [ -x "$NEARFIELD_PREBUILT/cuda_device_test" ]; then
  skip "harness" "$NEARFIELD_PREBUILT has no cuda_device_test"
elif [ -z "${NEARFIELD_PREBUILT:-}" ] && ! has_gtest; then
  skip "harness" "no GoogleTest here"
elif ! [ "${NEARFIELD_PREBUILT:-}" -ef "$package/nearfield" ]; then
  step "harness" harness
fi
[ -z "$only_build" ] || finish
if [ -x "$test" ]; then
  step "conformance on the device" conformance
else
  skip "conformance on the device" "no cuda_device_test"
fi
step "PyTorch on the device" within 170 230 "$python" bench/gpu/check.py
step "speed" speed
if command -v compute-sanitizer >/dev/null; then
  step "compute-sanitizer: memcheck" sanitizer memcheck
  step "compute-sanitizer: racecheck" sanitizer racecheck
else
  skip "compute-sanitizer" "not installed"
fi
finish
