# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What the commands of `nearfield` share, info and explain: they tell a user what was wrong."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import SMALL, refused, run
from rich.console import Console

import nearfield as nf
from nearfield import _as_command, _core
from nearfield.tools import cli, tables


def test_info_has_what_a_bug_report_needs(capsys):
    status, out, _ = run(capsys, "info")
    assert status == 0
    for word in (nf.__version__, torch.__version__, _core.info()["cpu_target"], "device class", "processor"):
        assert word in out
    found = json.loads(run(capsys, "info", "--json", "-")[1])
    assert found["nearfield"] == nf.__version__ and all(
        f"backend {b}" in found for b in _core.info()["backends"]
    )


def test_info_comes_with_a_tuner_file_that_cannot_be_read(capsys, monkeypatch):
    words = [sys.executable, "-m", "nearfield", "info", "--json", "-"]
    more = {"NEARFIELD_TUNER": "no_such_file"}
    done = subprocess.run(words, env=os.environ | more, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert done.returncode == 0 and "[tuner] got NEARFIELD_TUNER=no_such_file" in found["fault"]
    assert found["backend cpu"].startswith("device class") and "no_such_file" in found["variables"]


@pytest.mark.parametrize(
    "variables",
    [
        {"NEARFIELD_VERBOSE": "foo"},
        {"NEARFIELD_BF16_ARITHMETIC": "maybe"},
        {"NEARFIELD_VERBOSE": "foo", "NEARFIELD_TUNER": "foo"},
        {"NEARFIELD_VERBOSE": "exec,check", "NEARFIELD_BF16_ARITHMETIC": "1"},
    ],
)
def test_info_says_which_variables_make_calls_fail(variables):
    command = [sys.executable, "-m", "nearfield", "info", "--json", "-"]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
    fault = json.loads(done.stdout).get("fault", "")
    wrong = [f"got {name}={value}," for name, value in variables.items() if value in ("foo", "maybe")]
    assert done.returncode == 0 and all(text in fault for text in wrong) and bool(fault) == bool(wrong)


def test_the_command_has_a_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0 and capsys.readouterr().out == f"nearfield {nf.__version__}\n"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"NEARFIELD_CPU_TARGET": "foo"}, "nearfield: [nearfield] got NEARFIELD_CPU_TARGET=foo, expected"),
        ({"PYTHONPATH": "stopped"}, "nearfield: stopped"),
    ],
)
def test_faults_of_the_import_are_one_line_too(tmp_path, more, says):
    (tmp_path / "torch.py").write_text("raise KeyboardInterrupt\n")
    if "PYTHONPATH" in more:
        more = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(nf.__file__).parents[1]}"}
    words = [sys.executable, "-m", "nearfield", "info"]
    done = subprocess.run(words, env=os.environ | more, capture_output=True, text=True)
    assert done.returncode != 0 and done.stderr.startswith(says) and done.stderr.count("\n") == 1


def test_only_the_command_speaks_in_one_line():
    assert _as_command.is_command(["/usr/bin/nearfield", "info"], [])
    assert _as_command.is_command(["-m"], ["python", "-m", "nearfield.profiler", "-i", "8"])
    assert not _as_command.is_command(["-m"], ["python", "-m", "pytest"])
    assert not _as_command.is_command(["train.py", "nearfield"], ["python", "train.py", "nearfield"])
    assert not _as_command.is_command([], [])


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("alloc_cpu.cpp: can't allocate memory")])
def test_memory_that_is_not_there_is_one_line(capsys, monkeypatch, error):
    def raises(args):
        raise error

    monkeypatch.setattr(cli.info, "run", raises)
    assert "out of memory" in refused(capsys, "info")


def test_explain_has_every_backend_and_what_is_ignored(capsys):
    status, out, _ = run(capsys, "explain", SMALL, "--schedule", "pp", "--persistent")
    assert status == 0
    assert all(backend in out for backend in _core.info()["backends"])
    assert "it runs on CUDA tensors" in out and "general" in out
    assert "kernel_schedule='pp'" in out and "run_persistent_kernel=True" in out
    rows = [json.loads(x) for x in run(capsys, "explain", SMALL + "@cpu,q4x4", "--json", "-")[1].splitlines()]
    assert [r["query_tile"] for r in rows] == [[4, 4]] and rows[0]["kernel"].startswith("general")


def test_explain_knows_no_pairs_that_only_the_device_knows(capsys):
    out = run(capsys, "explain", "att:fwd:f32:b1h1kv1d8:var=4,100,120,40,50")[1]
    assert "pairs known on the device only" in out and "0 visible pairs" not in out and "of dense" not in out
    assert "visible pairs per head" in run(capsys, "explain", SMALL)[1]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([SMALL + "@cpu/nokernel"], "there is none of this name"),
        ([SMALL, SMALL + "@cuda_sm80"], "it runs on CUDA tensors"),
        ([SMALL, "--device", "cuda"], "it runs on CPU tensors"),
    ],
)
def test_explain_fails_where_nothing_runs_a_problem_and_says_why(capsys, words, part):
    status, out, err = run(capsys, "explain", *words)
    assert status == 1 and part in out and f"nothing runs {words[-1 if '@' in words[-1] else 0]}" in err


def test_explain_in_python_tells_what_has_no_effect():
    assert nf.explain(SMALL) + "  without effect: torch_compile=True\n" == nf.explain(
        SMALL, torch_compile=True
    )
    assert "without effect" not in nf.explain(SMALL, torch_compile=False, kernel_schedule=None)
    with pytest.raises(ValueError, match="expected performance arguments"):
        nf.explain(SMALL, q_tile_shape=(4, 4))
    with pytest.raises(ValueError, match="backward_kv_splits"):
        nf.explain(SMALL, backward_kv_splits=0)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["na:fwd"], "problem string"),
        ([SMALL + "@gpu"], "expected one of"),
        ([SMALL, "--threads", 0], "--threads"),
        ([SMALL, "--backward-kv-splits", 0], "backward_kv_splits"),
    ],
)
def test_explain_refuses(capsys, words, part):
    assert part in refused(capsys, "explain", *words)


# ---- tables


@pytest.mark.parametrize("width", [60, 80, 120])
def test_tables_do_not_break_words_on_narrow_terminals(width):
    columns = (
        "problem",
        "phase",
        ">time",
        ">GFLOP/s",
        ">predicted, 1 thread",
        ">scratch, 2 threads",
        "kernel",
    )
    row = ("na:fwd:f32:b1h2kv2d32:24x24:k7x7", "backward", "~12.3 ms", "123.4", "123 us", "843 KiB", "b16")
    out = io.StringIO()
    console = Console(file=out, width=width)
    for part in tables.table("a title", columns, [row]).parts(width):
        console.print(part)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width and out.getvalue().count("a title") == 1
    for word in (*(c.lstrip(">") for c in columns), *row):
        assert any(word in line for line in lines), word
    heads = [line for line in lines if line.strip().startswith("problem")]
    assert len(heads) == sum(line.strip().startswith(row[0]) for line in lines) and (len(heads) > 1) == (
        width < 120
    )
