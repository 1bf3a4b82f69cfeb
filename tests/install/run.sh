#!/usr/bin/env bash
# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
#
# tests/install/run.sh BUILD_DIR: outsiders can use what `cmake --install` puts in place. BUILD_DIR holds
# a static build; a shared one is made here (a compiler cache makes that cheap).
set -euo pipefail
cd "$(dirname "$0")/../.."

static=$1
out=build/install
jobs=${JOBS:-$(nproc)}
launcher=$(command -v ccache || true)
cmake_build() {  # DIRECTORY SOURCE ARGUMENTS...
  cmake -G Ninja -S "$2" -B "$1" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER_LAUNCHER="$launcher" \
    -DCMAKE_CUDA_COMPILER_LAUNCHER="$launcher" "${@:3}"
  cmake --build "$1" -j "$jobs"
}

# find_package on a prefix of its own, moved after the installation: nothing in it may be absolute.
consume() {  # NAME BUILD_DIR
  echo "--- find_package, $1"
  rm -rf "$out/$1-prefix" "$out/$1-moved" "$out/$1-consumer"
  cmake --install "$2" --prefix "$out/$1-prefix" >/dev/null
  mv "$out/$1-prefix" "$out/$1-moved"
  if grep -rn "$PWD" "$out/$1-moved" --include='*.cmake'; then
    echo "FAILED: the installed files name the source tree"
    return 1
  fi
  cmake_build "$out/$1-consumer" tests/install/find_package -DCMAKE_PREFIX_PATH="$PWD/$out/$1-moved"
  "$out/$1-consumer/consumer"
}

consume static "$static"
cmake_build build/shared . -DBUILD_SHARED_LIBS=ON -DNEARFIELD_TORCH=OFF
consume shared build/shared

echo "--- add_subdirectory"
cmake_build build/subdirectory tests/install/add_subdirectory -DNEARFIELD_SOURCE_DIR="$PWD"
build/subdirectory/consumer
echo "OK: find_package (static, shared) and add_subdirectory"
