# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Tuner files through PyTorch, the search that writes them, and the environment's log and trace. No times.

tests/cpp/tuner_test.cc has the laws of the file itself.
"""

import csv
import json
import os
import random
import subprocess
import sys

import pytest
import torch

import nearfield as nf
from nearfield import _core
from nearfield._tuner import tuner_text
from nearfield.tools import CommandError, cli, measure, optimizer, running, turns

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


WRITER = """
import sys
from nearfield.tools import optimizer
for i in range(30):
    problem = f"na:fwd:f32:b1h1kv1d16:{sys.argv[2]}x{i + 20}:k3x5"
    line = optimizer.Line(problem, "cpu/b16", "cpu/b16", 1.0, 1.0, problem, 1, 2)
    optimizer.write(sys.argv[1], [line])
"""


def test_two_processes_write_one_file_and_lose_nothing(tmp_path):
    file = tmp_path / "tuner.jsonl"
    words = [sys.executable, "-c", WRITER, str(file)]
    for process in [subprocess.Popen([*words, rows]) for rows in ("9", "10")]:
        assert process.wait() == 0
    problems = [json.loads(x)["problem"] for x in file.read_text().splitlines()]
    assert len(problems) == len(set(problems)) == 60
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tuner.jsonl"]


def searched(monkeypatch, factors, seed, noise=0.2):
    """What a search says whose kernels take `factors` of the default's time, in samples that are off by up
    to `noise` and now and then by half."""
    rng = random.Random(seed)

    def timed(own, *rest):
        samples = turns.SAMPLES if len(own) > 2 else turns.DUEL_SAMPLES

        def one(c):
            factor = 1.0 if c.default else factors(c)
            return factor * (1 + noise * rng.random() + 0.5 * (rng.random() < 0.1))

        fma = {"fma1": [1.0, 1.0], "fma": [1.0, 1.0]}
        return {c: [{"s": one(c), "waited": 0.0, **fma} for _ in range(samples)] for c in own}

    monkeypatch.setattr(optimizer, "timed", timed)
    return optimizer.search([PROBLEM], 0.1, 1)[0]


def test_noise_does_not_win(monkeypatch):
    lines = [searched(monkeypatch, lambda c: 1.0, seed) for seed in range(200)]
    assert all(x.choice == x.default and x.spread > 0 for x in lines)


def test_a_faster_kernel_wins(monkeypatch):
    lines = [
        searched(monkeypatch, lambda c: 0.7 if c.suffix == "cpu/m32" else 1.0, seed) for seed in range(20)
    ]
    assert all(x.choice == "cpu/m32" and x.seconds < x.default_seconds and not x.noisy for x in lines)
    line = searched(monkeypatch, lambda c: 0.98, 0, noise=1e-6)  # clearly, but not by enough
    assert line.choice == line.default


def test_samples_that_waited_for_a_core_do_not_count():
    fma = {"fma1": [1.0, 1.0], "fma": [2.0, 2.0]}
    fair, waited = ({"s": s, "waited": w, **fma} for s, w in ((1.0, 0.0), (2.0, 0.5)))
    summary = measure.summary([fair] * 3 + [waited] * 4, 2, least=3)
    assert summary.seconds == summary.high == 1.0 and not summary.noisy
    summary = measure.summary([fair] * 2 + [waited] * 5, 2, least=3)
    assert summary.seconds == 2.0 and summary.noisy


def test_what_a_call_forces_is_not_tuned(tmp_path, capsys):
    file = tmp_path / "tuner.jsonl"
    words = [
        PROBLEM + "@cpu/m16",
        PROBLEM + "@reference",
        "--budget",
        "0.02",
        "--threads",
        "1",
        "-o",
        str(file),
    ]
    assert cli.main(["optimize", *words]) == 0
    out = capsys.readouterr().out
    assert f"{PROBLEM}@cpu/m16 is not tuned" in out and f"{PROBLEM}@reference is not tuned" in out
    assert "NEARFIELD_TUNER" not in out and file.read_text() == ""
    assert cli.main(["optimize", PROBLEM + "@cpu", *words]) == 0  # the backend that serves it anyway
    assert [json.loads(x)["measured"] for x in file.read_text().splitlines()] == [PROBLEM]
    assert cli.main(["optimize", PROBLEM + "@gpu", *words]) == 1


def test_what_is_found_before_a_stop_is_written(tmp_path, capsys, monkeypatch):
    def search_one(problem, call, *rest):
        if problem != PROBLEM:
            raise KeyboardInterrupt
        return line(problem)

    monkeypatch.setattr(optimizer, "_search_one", search_one)
    file = tmp_path / "tuner.jsonl"
    assert cli.main(["optimize", PROBLEM, PROBLEM.replace("9x", "8x"), "-o", str(file)]) == 130
    out, err = capsys.readouterr()
    assert [json.loads(x)["problem"] for x in file.read_text().splitlines()] == [PROBLEM]
    assert f"1 line in {file}" in out and "stopped" in err


def test_optimize_looks_at_its_file_before_the_block(tmp_path):
    for path in (tmp_path / "no" / "file", tmp_path):
        with pytest.raises(ValueError, match="cannot write"), nf.optimize(path):
            raise AssertionError("the block must not run")


def test_the_command_writes_a_file(tmp_path, capsys):
    file = tmp_path / "tuner.jsonl"
    words = [PROBLEM, "--backprop", "--budget", "0.02", "--threads", "1", "-o", str(file)]
    assert cli.main(["optimize", *words]) == 0
    assert f"NEARFIELD_TUNER={file}" in capsys.readouterr().out and len(file.read_text().splitlines()) == 2
    file.write_text("{}")
    assert cli.main(["optimize", *words]) == 1
    assert "nearfield_tuner" in capsys.readouterr().err
    for budget in ("0", "nan", "inf"):
        assert cli.main(["optimize", PROBLEM, "--budget", budget]) == 1


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
    assert [r[0] for r in by["dispatch"]] == [forward, backward, dense]  # plans are kept
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


def test_the_log_of_what_is_forced_can_be_explained(capsys):
    program = "import torch, nearfield as nf\nx = torch.zeros(1, 9, 6, 1, 8)\n"
    program += "nf.na2d(x, x, x, 3, q_tile_shape=(2, 4))\nnf.na2d(x, x, x, 3, backend='cpu')\n"
    more = {"NEARFIELD_VERBOSE": "dispatch", "NEARFIELD_TRACE": "/dev/full"}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **more}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = list(csv.reader(x for x in done.stderr.splitlines() if x.startswith("nearfield,dispatch")))
    assert [r[2].partition("@")[2] for r in rows] == ["cpu,q2x4", "cpu"]
    for row in rows:
        assert cli.main(["explain", row[2]]) == 0
    assert done.stderr.count("got NEARFIELD_TRACE=/dev/full, expected a file that can be written") == 1


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
