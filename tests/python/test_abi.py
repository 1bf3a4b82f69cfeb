# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The libraries need nothing that an older PyTorch does not have: one binary serves torch >= 2.10."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import nearfield

PACKAGE = Path(nearfield.__file__).parent
SHIM = Path(__file__).with_name("torch-2.10-shim.txt")


def _run(tool, *args):
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not installed")
    return subprocess.run([tool, *args], capture_output=True, text=True, check=True).stdout


def _library(name):
    path = PACKAGE / name
    assert path.exists(), f"{name} is not beside the package"
    return str(path)


def _needed(name):
    return set(re.findall(r"NEEDED.*\[(.+)\]", _run("readelf", "-d", _library(name))))


def test_no_symbol_of_the_unstable_abi():
    for name in ("libnearfield_torch.so", "libnearfield.so"):
        undefined = _run("nm", "-DC", "--undefined-only", _library(name))
        assert not re.findall(r".*\b(?:c10|at|caffe2)::.*", undefined), name


def test_every_shim_function_exists_in_torch_2_10():
    known = {line for line in SHIM.read_text().split("\n") if line and not line.startswith("#")}
    symbols = re.findall(r" U (\S+)", _run("nm", "-D", "--undefined-only", _library("libnearfield_torch.so")))
    used = {s.split("@")[0] for s in symbols if re.match(r"(aoti_)?torch_", s)}
    assert used, "the operators use no shim function: is this the right library?"
    assert used <= known, sorted(used - known)


def test_the_core_does_not_know_torch():
    needed = _needed("libnearfield.so")
    assert not [n for n in needed if re.search("torch|c10|cuda|python", n)], needed
    assert "torch" not in _run("nm", "-D", "--undefined-only", _library("libnearfield.so"))


def test_the_operators_need_no_python_library():
    """One wheel for every Python."""
    needed = _needed("libnearfield_torch.so")
    assert not [n for n in needed if re.search("python|torch_cuda|c10_cuda|cudart", n)], needed
    assert any(n.startswith("libnearfield.so") for n in needed), needed
    assert not re.findall(
        r" U (Py\w+)", _run("nm", "-D", "--undefined-only", _library("libnearfield_torch.so"))
    )


def test_libraries_name_no_absolute_path():
    """rpath entries are relative to the library, or there are none."""
    for name in ("libnearfield_torch.so", "libnearfield.so"):
        paths = re.findall(r"R(?:UN)?PATH.*\[(.*)\]", _run("readelf", "-d", _library(name)))
        for entry in ":".join(paths).split(":"):
            assert not entry or entry.startswith("$ORIGIN"), (name, entry)


def test_only_what_is_meant_is_exported():
    defined = _run("nm", "-DC", "--defined-only", _library("libnearfield.so")).splitlines()
    names = [line.split(maxsplit=2)[2] for line in defined if len(line.split(maxsplit=2)) == 3]
    # Of the others (W, V, u: inline functions, vtables, type information) the linker keeps one copy.
    strong = [n for line, n in zip(defined, names, strict=False) if line.split()[1] in "TBDR"]
    foreign = [n for n in strong if not re.search(r"nearfield|^nf_|^_(init|fini|edata|end|_bss_start)", n)]
    assert not foreign, foreign[:20]
