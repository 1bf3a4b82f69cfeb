#!/usr/bin/env bash
# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
#
# `make example`: sets the machine up, builds, and trains the digits example.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
. tools/steps.sh

venv=${VENV:-.venv}
step "setup: system packages" tools/setup.sh system || exit 1
step "setup: $venv" tools/setup.sh venv || exit 1
step "build: Python package" tools/setup.sh wheel || exit 1
printf '== [%4ds] examples/digits/train.py --out %s\n' "$SECONDS" "${OUT:-build/demo}"
"$venv/bin/python" examples/digits/train.py --out "${OUT:-build/demo}" "$@" || exit 1
printf '== [%4ds] done: the picture is in %s\n' "$SECONDS" "${OUT:-build/demo}"
