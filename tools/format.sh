#!/usr/bin/env bash
# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
#
# Layout of every source file: `tools/format.sh` sets it, `tools/format.sh check cpp|python` reports.
# ruff comes from $VENV; clang-format is version 14, since others lay the same style out differently.
set -euo pipefail
cd "$(dirname "$0")/.."

ruff=${VENV:-.venv}/bin/ruff
cpp_sources() {
  find include src bindings tests examples \( -name '*.h' -o -name '*.cc' -o -name '*.cu' \) -print | sort
}

case "${1:-format} ${2:-}" in
  "format ")
    if [ -x "$ruff" ]; then
      "$ruff" check --fix .
      "$ruff" format .
    else
      echo "no ruff in ${VENV:-.venv}: Python files are left alone (make setup installs it)"
    fi
    if command -v clang-format-14 >/dev/null; then
      cpp_sources | xargs clang-format-14 -i
    else
      echo "no clang-format-14: C++ files are left alone"
    fi ;;
  "check cpp") cpp_sources | xargs clang-format-14 --dry-run --Werror ;;
  "check python") "$ruff" check . && "$ruff" format --check . ;;
  *) echo "usage: tools/format.sh [check cpp|check python]" >&2; exit 2 ;;
esac
