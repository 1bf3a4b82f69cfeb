# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Tuner files through PyTorch, the search that writes them, and the environment's log and trace. No times.

tests/cpp/tuner_test.cc has the laws of the file itself.
"""

import csv
import json
import os
import subprocess
import sys

import pytest
import torch

import nearfield as nf
from nearfield import _core
from nearfield._tuner import tuner_text
from nearfield.tools import CommandError, cli, optimizer, running

PROBLEM = "na:fwd:f32:b1h2kv2d16:9x20:k3x5"


def tensors(batch=1):
    return torch.randn(3, batch, 9, 20, 2, 16).unbind()


def kernel(problem=PROBLEM):
    return next(a["kernel"] for a in _core.plan(problem) if a["chosen"])


@pytest.mark.parametrize("choice", ["cpu/b16", "cpu/m32", "cpu/general", "cpu,q1x16"])
def test_a_choice_counts_alone_in_batches_and_in_lists(tmp_path, choice):
    q, k, v = tensors(batch=3)
    expected = nf.na2d(q, k, v, (3, 5), backend="reference")
    file = tmp_path / "tuner.jsonl"
    file.write_text(running.tuner_line(PROBLEM, choice) + "\n")
    before = kernel()
    with nf.tuner_file(file):
        assert kernel().startswith(choice.partition("/")[2] or "general")
        assert "tuner file" in nf.explain(PROBLEM)
        whole = nf.na2d(q, k, v, (3, 5))
        alone = [nf.na2d(x, y, z, (3, 5)) for x, y, z in zip(q.split(1), k.split(1), v.split(1), strict=True)]
        assert torch.equal(whole, torch.cat(alone))
        packed = [t.flatten(0, 2)[None] for t in (q, k, v)]
        layouts = nf.varlen.generate_multi_dim_varlen_parameters(
            [(9, 20)] * 3, 16, "cpu", torch.float32, False, window_size_list=[(3, 5)] * 3
        )
        assert torch.equal(
            nf.multi_dimensional_attention_varlen(*packed, layouts)[0].reshape(whole.shape), whole
        )
    assert kernel() == before
    torch.testing.assert_close(whole, expected, rtol=1e-5, atol=1e-5)


def test_tuners_nest_and_end(tmp_path):
    before = kernel()
    with tuner_text(running.tuner_line(PROBLEM, "cpu/m16"), "outer"):
        with tuner_text(running.tuner_line(PROBLEM, "cpu/m32"), "inner"):
            assert kernel().startswith("m32")
        with pytest.raises(ValueError, match="broken:1"), tuner_text("{", "broken"):
            pass
        assert kernel().startswith("m16")
    assert kernel() == before
    with (
        pytest.raises(ValueError, match="expected a tuner file that can be read"),
        nf.tuner_file(tmp_path / "no"),
    ):
        pass
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="expected a tuner file that can be read"):
        with nf.tuner_file(tmp_path / "binary"):
            pass


def test_optimize_searches_what_the_block_called(tmp_path):
    file = tmp_path / "tuner.jsonl"
    q, k, v = (t.requires_grad_() for t in tensors(batch=2))
    with nf.optimize(file, seconds=0.05):
        nf.na2d(q, k, v, (3, 5)).sum().backward()
        nf.attention(torch.randn(1, 8, 2, 16), *torch.randn(2, 1, 8, 2, 16))
    lines = [json.loads(x) for x in file.read_text().splitlines()]
    problems = {line["problem"]: line for line in lines}
    assert set(problems) == {PROBLEM, PROBLEM.replace("fwd", "bwd"), "att:fwd:f32:b1h2kv2d16:8,8"}
    assert "b2h2" in problems[PROBLEM]["measured"]
    info = _core.info()
    for line in lines:
        assert line["device"] == _core.device_class("cpu") and line["version"] == info["version"]
        assert line["seconds"] <= line["default_seconds"] and line["choice"].startswith("cpu")
    with nf.tuner_file(file):
        chosen = problems[PROBLEM]["choice"].partition("/")[2] or "general"
        assert kernel().startswith(chosen)
        first = nf.na2d(q, k, v, (3, 5))
        assert torch.equal(first, nf.na2d(q, k, v, (3, 5)))  # deterministic given the file


def test_optimize_searches_nothing_after_an_error(tmp_path):
    with pytest.raises(KeyError), nf.optimize(tmp_path / "t"):
        raise KeyError
    assert not (tmp_path / "t").exists()
    with pytest.raises(ValueError, match="seconds"), nf.optimize(tmp_path / "t", seconds=0):
        pass
    (tmp_path / "t").write_text("not mine\n")
    with pytest.raises(ValueError, match="t:1"), nf.optimize(tmp_path / "t"):
        raise AssertionError("the block must not run")
    assert (tmp_path / "t").read_text() == "not mine\n"


def line(problem, choice="cpu/b16"):
    return optimizer.Line(problem, choice, "cpu/b16", 1.0, 1.0, problem, 1, 2)


def test_files_keep_what_they_have_on_other_problems(tmp_path):
    file = tmp_path / "tuner.jsonl"
    other = PROBLEM.replace("9x20", "9x21")
    optimizer.write(file, [line(PROBLEM), line(other)])
    optimizer.write(file, [line(PROBLEM, "cpu/m16")])
    assert [json.loads(x)["choice"] for x in file.read_text().splitlines()] == ["cpu/m16", "cpu/b16"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tuner.jsonl"]
    with pytest.raises(CommandError, match="cannot write"):
        optimizer.write(tmp_path / "no" / "file", [])


def test_the_command_writes_a_file(tmp_path, capsys):
    file = tmp_path / "tuner.jsonl"
    words = [PROBLEM, "--backprop", "--budget", "0.02", "--threads", "1", "-o", str(file)]
    assert cli.main(["optimize", *words]) == 0
    assert f"NEARFIELD_TUNER={file}" in capsys.readouterr().out and len(file.read_text().splitlines()) == 2
    file.write_text("{}")
    assert cli.main(["optimize", *words]) == 1
    assert "nearfield_tuner" in capsys.readouterr().err
    assert cli.main(["optimize", PROBLEM, "--budget", "0"]) == 1


# ---- the environment

PROGRAM = """
import torch, nearfield as nf
q = torch.randn(1, 9, 20, 2, 16, requires_grad=True)
for _ in range(2):
    nf.na2d(q, q, q, (3, 5)).sum().backward()
x = torch.randn(1, 6, 2, 8)
nf.attention(x, x, x)
"""


def test_log_trace_and_tuner_of_the_environment(tmp_path, capsys):
    (tmp_path / "tuner.jsonl").write_text(running.tuner_line(PROBLEM, "cpu/m16"))
    more = {"NEARFIELD_VERBOSE": "dispatch,exec,check", "NEARFIELD_TRACE": str(tmp_path / "trace.txt")}
    more |= {"NEARFIELD_TUNER": str(tmp_path / "tuner.jsonl")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, **more}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = list(csv.reader(x for x in done.stderr.splitlines() if x.startswith("nearfield,")))
    by = {topic: [r[2:] for r in rows if r[1] == topic] for topic in ("dispatch", "exec", "check")}
    forward, backward = PROBLEM + ":lse", PROBLEM.replace("fwd", "bwd") + ":str=do~0,0,0,0,0"  # of sum()
    dense = "att:fwd:f32:b1h2kv2d8:6,6:lse"
    assert [r[0].partition("@")[0] for r in by["dispatch"]] == [forward, backward, dense]  # plans are kept
    assert [r[0] for r in by["exec"]] == [forward, backward] * 2 + [dense]
    assert by["exec"][0][1] == "cpu" and by["exec"][0][2].startswith("m16") and float(by["exec"][0][4]) > 0
    assert by["check"] == [
        ["na2d", forward],
        ["na2d", backward],
        ["attention", dense],
    ]  # and what was checked

    lines = (tmp_path / "trace.txt").read_text().splitlines()
    names, problems = zip(*(x.split() for x in lines), strict=True)
    assert problems == (forward, backward, dense) and names[0] == names[1] != names[2]
    words = ["--samples", "1", "--budget", "0.01", "--threads", "1", "--no-error", "--json", "-"]
    assert cli.main(["profile", str(tmp_path / "trace.txt"), *words]) == 0  # it can be replayed
    assert [json.loads(x)["problem"] for x in capsys.readouterr().out.splitlines()] == [
        running.dense(p) for p in problems
    ]


@pytest.mark.parametrize(
    ("variable", "value", "part"),
    [
        ("NEARFIELD_VERBOSE", "exce", "expected some of dispatch"),
        ("NEARFIELD_TUNER", "/no/such", "can be read"),
    ],
)
def test_a_wrong_variable_is_said(variable, value, part):
    program = "import torch, nearfield as nf\nx = torch.zeros(1, 9, 1, 8)\nnf.na1d(x, x, x, 3)"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, variable: value}, capture_output=True, text=True
    )
    assert done.returncode != 0 and part in done.stderr
