#!/usr/bin/env bash
# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
#
# Builds the site into build/site, strictly: a warning is an error. First geometry.h for the explorer page, as
# WebAssembly; then mkdocs (mkdocs.yml, tools/site/hooks.py). Needs what tools/setup.sh installs.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}

newest() { for name in "$@"; do command -v "$name" && return; done; echo "none of $*: make setup" >&2; return 1; }

# The linker is named by its path: clang looks for wasm-ld, Debian's has a version behind its name.
wasm() {
  local clang linker
  clang=$(newest clang++ clang++-14)
  linker=$(newest wasm-ld wasm-ld-14)
  mkdir -p build/wasm
  "$clang" --target=wasm32 -std=c++20 -O2 -mbulk-memory -ffreestanding -nostdinc++ -fno-exceptions -fno-rtti \
    -fvisibility=hidden -Wall -Wextra -Werror -Ibindings/wasm/freestanding -Iinclude \
    -c -o build/wasm/geometry.o bindings/wasm/geometry.cc
  "$linker" --no-entry --export-dynamic --strip-all -o build/wasm/geometry.wasm build/wasm/geometry.o
}

wasm
# The theme prints an appeal about the future of mkdocs, which is no warning about these pages.
NO_MKDOCS_2_WARNING=1 "$venv/bin/python" -m mkdocs build --strict --clean --quiet
if grep -rnE '<(script|link|img|iframe)[^>]* (src|href)="?(https?:)?//' build/site --include='*.html'; then
  echo "FAILED: these pages load something from elsewhere" >&2
  exit 1
fi
echo "build/site/index.html: $(find build/site -name '*.html' | wc -l) pages"
