#!/usr/bin/env bash
# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
#
# Makes this machine able to build and test nearfield, one part at a time, and does nothing that is
# already done:
#
#   tools/setup.sh system   compiler, CMake, Highway, GoogleTest: installed with apt-get by root,
#                           otherwise named, and the script stops; `system docs`: also clang and lld for
#                           wasm32 (in CI always), `system browser`: also Chromium and the fuzzer of clang, if root can
#   tools/setup.sh venv     the virtual environment $VENV with $TORCH and all that tests and demo need;
#                           a torch that is already there is left as it is
#   tools/setup.sh wheel    builds nearfield and installs it into $VENV, if a source has changed
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
python=$venv/bin/python
torch=${TORCH:-torch}

say() { printf '   %s\n' "$*"; }

have_header() { printf '#include <%s>\n' "$1" | c++ -E -x c++ - >/dev/null 2>&1; }

# Names of the Debian packages that are missing. Probes what is used, not what dpkg lists: a compiler
# or CMake from elsewhere is as good.
missing_packages() {
  command -v c++ >/dev/null || echo g++
  command -v cmake >/dev/null || echo cmake
  command -v ninja >/dev/null || echo ninja-build
  command -v ccache >/dev/null || echo ccache
  have_header hwy/highway.h || echo libhwy-dev
  have_header gtest/gtest.h || echo libgtest-dev
  if [ ! -x "$python" ]; then
    ${PYTHON:-python3} -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
  fi
  if [ -n "${CI:-}" ]; then  # elsewhere the layout check and the tests on Arm are left out without these
    command -v clang-format-14 >/dev/null || echo clang-format-14
    command -v aarch64-linux-gnu-g++ >/dev/null || echo g++-aarch64-linux-gnu
    command -v qemu-aarch64 >/dev/null || echo qemu-user
    [ -d /usr/src/googletest ] || echo googletest
  fi
  if [ -n "${CI:-}" ] || [ "$group" = docs ]; then
    command -v clang++ >/dev/null || command -v clang++-14 >/dev/null || echo clang
    command -v wasm-ld >/dev/null || command -v wasm-ld-14 >/dev/null || echo lld
  fi
  if [ "$group" = browser ] && can_install; then  # elsewhere its tests are left out
    command -v chromium >/dev/null || echo chromium
    command -v chromedriver >/dev/null || echo chromium-driver
    has_fuzzer || echo "libclang-rt-$($(command -v clang++ || echo clang++-14) -dumpversion | cut -d. -f1)-dev"
    [ -n "$(find /usr/share/fonts -name '*.ttf' -print -quit 2>/dev/null)" ] || echo fonts-dejavu-core
  fi
}

# Whether clang++, if there is one, has the library of its fuzzer.
has_fuzzer() {
  local clang
  clang=$(command -v clang++ || command -v clang++-14) || return 0
  echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }' |
    "$clang" -fsanitize=fuzzer,address -x c++ - -o /dev/null 2>/dev/null
}

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

setup_system() {
  local group=${1:-} missing
  missing=$(missing_packages | tr '\n' ' ')
  [ -n "$missing" ] || { say "system packages are there"; return; }
  if ! can_install; then
    echo "Missing: $missing" >&2
    echo "Install these packages (Debian names) and try again: apt-get install $missing" >&2
    exit 1
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  for _ in 1 2; do  # a clang that is installed tells which fuzzer goes with it
    [ -n "$missing" ] || break
    say "apt-get install $missing"
    # shellcheck disable=SC2086
    apt-get install -q -y --no-install-recommends $missing
    missing=$(missing_packages | tr '\n' ' ')
  done
  [ -z "$missing" ] || { echo "Still missing after apt-get: $missing" >&2; exit 1; }
}

# What pyproject.toml asks for, torch aside.
requirements() {
  "$python" - <<'PY'
try:
    import tomllib
except ImportError:  # Python 3.10
    from pip._vendor import tomli as tomllib
with open("pyproject.toml", "rb") as f:
    toml = tomllib.load(f)
extras = toml["project"]["optional-dependencies"]
wanted = toml["build-system"]["requires"] + toml["project"]["dependencies"] + sum(extras.values(), [])
print("\n".join(sorted({w for w in wanted if not w.startswith("torch")})))
PY
}

setup_venv() {
  if [ ! -x "$python" ]; then
    say "creating $venv"
    "${PYTHON:-python3}" -m venv "$venv"
  fi
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    { echo "$python: nearfield needs Python 3.10 or newer" >&2; exit 1; }
  local stamp=$venv/.nearfield-requirements wanted version
  wanted="$(requirements)"
  if ! version=$("$python" -c 'import importlib.metadata as m; print(m.version("torch"))' 2>/dev/null); then
    say "pip install $torch"
    "$python" -m pip install --disable-pip-version-check "$torch"
  elif [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    say "$venv is up to date (torch $version)"
    cmake_from_pip
    return
  else
    say "using torch $version of $venv"
  fi
  say "pip install the rest"
  version=$("$python" -c 'import importlib.metadata as m; print(m.version("torch"))')
  # shellcheck disable=SC2086
  "$python" -m pip install --disable-pip-version-check "torch==$version" $wanted
  cmake_from_pip
  echo "$wanted" > "$stamp"
}

# A distribution's CMake may be too old; the Makefile puts $VENV/bin first in PATH.
cmake_from_pip() {
  local version
  version=$(cmake --version | sed -n 's/^cmake version \([0-9]*\.[0-9]*\).*/\1/p')
  if [ "$(printf '%s\n3.25\n' "$version" | sort -V | head -1)" != 3.25 ]; then
    say "CMake $version is too old: pip install cmake"
    "$python" -m pip install --disable-pip-version-check 'cmake>=3.25'
  fi
}

# pip's record of where the installed nearfield came from; nothing if that was not here. It is given the
# time at which the build began, so that a source that is newer tells.
record() {
  "$python" - <<'PY'
import importlib.metadata as m
import json
import pathlib

try:
    files = m.files("nearfield") or []
except m.PackageNotFoundError:
    files = []
for record in (pathlib.Path(f.locate()) for f in files if f.name == "direct_url.json"):
    if json.loads(record.read_text())["url"] == pathlib.Path.cwd().as_uri():
        print(record)
PY
}

wheel_is_fresh() {
  local origin
  origin=$(record)
  [ -n "$origin" ] || return 1
  [ -z "$(find CMakeLists.txt pyproject.toml cmake src include bindings python \
            -name __pycache__ -prune -o -newer "$origin" -print -quit)" ]
}

setup_wheel() {
  if wheel_is_fresh; then
    say "the installed build is up to date"
    return
  fi
  mkdir -p build
  touch build/.wheel-begin
  # The name that CMake would choose, instead of Python's own: a compiler cache goes by names.
  export CXX=${CXX:-c++}
  "$python" -m pip install --disable-pip-version-check --no-build-isolation --no-deps --force-reinstall --verbose .
  touch -r build/.wheel-begin "$(record)"
}

case ${1:-} in
  system) setup_system "${2:-}" ;;
  venv | wheel) "setup_$1" ;;
  fuzzer) has_fuzzer ;;  # for tools/test.sh
  *) sed -n '5,13s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
