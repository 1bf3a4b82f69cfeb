#!/usr/bin/env bash
# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
#
# `make bench`: sets the machine up, builds, and times nearfield beside its peers. Without arguments the
# problems of the speed targets with all peers, then those where a cliff could be, alone: an hour on two
# cores. Arguments are bench/run.py's.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
. tools/steps.sh

venv=${VENV:-.venv}
build() {
  cmake -S . -B build/bench -G Ninja -DCMAKE_BUILD_TYPE=Release -DNEARFIELD_BENCH=ON &&
    cmake --build build/bench -j "${JOBS:-$(nproc)}"
}
step "setup: system packages" tools/setup.sh system || exit 1
step "setup: $venv" tools/setup.sh venv || exit 1
step "build: Python package" tools/setup.sh wheel || exit 1
step "build: nearfield-bench" build || exit 1
if [ $# -gt 0 ]; then
  exec "$venv/bin/python" bench/run.py "$@"
fi
"$venv/bin/python" bench/run.py speed &&
  "$venv/bin/python" bench/run.py no_cliff --peers none --append --plot build/bench/run.png
