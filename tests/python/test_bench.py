# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The bench works: a short run on tiny problems, and the laws of what is made of its lines. No times."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nearfield import _core

BENCH = Path(__file__).parents[2] / "bench"
sys.path.insert(0, str(BENCH))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The lines and the output of a run of one process."""
    folder = tmp_path_factory.mktemp("bench")
    command = [sys.executable, BENCH / "run.py", "smoke", "--quick", "--samples", "2", "--budget", "0.2"]
    command += ["--threads", "1", "--peers", "sdpa,tile-sdpa,gather", "--no-mkl512"]
    command += ["--out", folder / "run.jsonl", "--settings", folder / "settings.json", "--native", ""]
    command += ["--markdown", folder / "run.md"]
    done = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, env={**os.environ, "COLUMNS": "300"}
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (folder / "run.jsonl").read_text().splitlines()]
    return folder, lines, done.stdout


def rows_of(lines, by):
    return {(r["name"], r["direction"]): r for r in lines if r["kind"] == "row" and r["by"] == by}


def test_every_row_is_complete(run):
    _, lines, _ = run
    ours = rows_of(lines, "nearfield")
    assert set(ours) == {(n, d) for n in ("dense", "image") for d in ("fwd", "bwd")}
    for row in ours.values():
        assert row["flops"] == _core.problem(row["problem"])["flops"]
        assert row["kernel"].startswith("cpu ") and row["workspace"] > 0
        assert 0 <= row["error"] < 1e-5 and row["error_of"] == "all"
        for sample in row["samples"]:
            assert sample["s"] > 0 and min(sample["fma"] + sample["fma1"]) > 0.1
    machine = next(x for x in lines if x["kind"] == "machine")
    assert machine["threads"] == 1 and machine["target"] == _core.info()["cpu_target"]


def test_peers_agree_or_say_why_not(run):
    _, lines, _ = run
    assert set(rows_of(lines, "sdpa")) == set(rows_of(lines, "nearfield"))
    assert (
        set(rows_of(lines, "tile-sdpa"))
        == set(rows_of(lines, "gather"))
        == {("image", "fwd"), ("image", "bwd")}
    )
    assert all("no peer" not in x["why"] for x in lines if x["kind"] == "absent")


def test_the_table_ends_with_the_problem(run):
    folder, lines, out = run
    for row in rows_of(lines, "nearfield").values():
        assert sum(row["problem"] in line for line in out.splitlines()) == 1
        assert f"`{row['problem']}` |" in (folder / "run.md").read_text()


NATIVE = sorted(BENCH.parent.glob("build/*/nearfield-bench"))


@pytest.mark.skipif(not NATIVE, reason="nearfield-bench is not built")
def test_the_tool_writes_the_same_lines(tmp_path):
    from report import Results, cells

    out = tmp_path / "run.jsonl"
    options = ["--samples", "2", "--threads", "1", "--errors", "--with", "cpu,reference,cuda_sm80"]
    command = [NATIVE[-1], *options, "--json", out, BENCH / "problems" / "smoke.txt"]
    subprocess.run([str(c) for c in command], check=True, capture_output=True)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    rows = rows_of(lines, "nearfield-bench")
    assert set(rows) == {(n, d) for n in ("dense", "image") for d in ("fwd", "bwd")}
    for row in rows.values():
        assert row["flops"] == _core.problem(row["problem"])["flops"] and 0 <= row["error"] < 1e-5
    assert all(r["error"] < 1e-6 for r in rows_of(lines, "@reference").values())
    assert {x["by"] for x in lines if x["kind"] == "absent"} == {"@cuda_sm80"}
    assert len(cells(Results(out))[1]) == 4 and Results(out).peers == []


@pytest.mark.skipif(not NATIVE, reason="nearfield-bench is not built")
def test_variants_run(tmp_path):
    command = [sys.executable, BENCH / "variants.py", BENCH / "problems" / "smoke.txt", "--bench", NATIVE[-1]]
    command += ["--processes", "1", "--budget", "0.05", "--times", tmp_path / "x.jsonl", "--threads", "2"]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert {(r["run"], r["name"].partition(",")[2], r["threads"]) for r in rows} == {
        *((run, "", n) for run in ("threads", "avx2") for n in (1, 2)),
        *(("types", v, 2) for v in ("", "bf16", "f16", "prec")),
    }
    assert sum(line.startswith(("| dense |", "| image |")) for line in done.stdout.splitlines()) == 4


def test_ratios_of_variants_are_those_of_processes(tmp_path):
    from variants import Times, table

    seconds = {0: (0.02, 0.010), 1: (0.03, 0.010), 2: (0.06, 0.015)}  # one thread, both
    lines = [
        row("nearfield-bench", sample(s, both=100.0 * n), kernel="cpu b16")
        | {"process": i, "run": "threads", "threads": n}
        for i, by_threads in seconds.items()
        for s, n in zip(by_threads, (1, 2), strict=True)
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (cells,) = table(Times(tmp_path / "x.jsonl"), 2)
    assert cells[:7] == ["x", "fwd", "10", "50.0", "20", "50.0", "3.00"]


def test_a_large_problem_is_compared_on_a_sample():
    from peers.ours import Nearfield
    from worker import tensors_of

    from nearfield.tools.problems import Problem

    for tail in ("64x32:k7x9:d1x3:c01", "2048:k31:s16"):
        texts = {d: f"na:{d}:f32:b2h4kv2d32v24:{tail}" for d in ("fwd", "bwd")}
        ours = Nearfield(Problem("large", texts))
        ours.load(*tensors_of(ours.problem))
        for direction in texts:
            error, of = ours.error(direction)
            assert 1e-9 < error < 1e-5 and "queries" in of


def sample(seconds, one=100.0, both=200.0):
    return {"s": seconds, "fma1": [one, one], "fma": [both, both]}


def row(by, *samples, **more):
    common = {"kind": "row", "name": "x", "direction": "fwd", "process": 0, "problem": "p", "threads": 2}
    return {**common, "by": by, "flops": 1e9, "setting": {}, "samples": list(samples), **more}


def test_the_best_process_counts_and_samples_without_all_cores_do_not():
    from report import figure

    slow = row("nearfield", sample(0.02), sample(0.021), sample(0.022))
    fast = row("nearfield", sample(0.01), sample(0.011), sample(0.012), sample(0.001, both=150.0))
    f = figure([slow, fast])
    assert f.seconds == 0.011 and f.dropped == 1 and f.processes == 2 and not f.noisy
    assert math.isclose(f.share, 1 / 0.011 / 200) and math.isclose(f.runner_up, 0.021 / 0.011 - 1)
    assert figure([row("nearfield", sample(0.01, both=150.0))]).noisy
    assert figure([row("nearfield", sample(0.01) | {"waited": 0.2})]).noisy
    assert not figure([row("nearfield", sample(0.01) | {"waited": 0.02})]).noisy
    assert figure([row("nearfield")]) is None


def test_the_planner_is_judged_by_forced_kernels(tmp_path):
    from report import Results, planner

    lines = [row("nearfield-bench", sample(0.01), kernel="cpu b16", predicted=0.012)]
    lines += [row("@cpu/b16", sample(0.0101), kernel="cpu b16", predicted=0.012)]
    lines += [row("@cpu/s2", sample(0.008), kernel="cpu s2", predicted=0.02)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)))
    chosen, predicted = planner(Results(tmp_path / "x.jsonl"))
    assert chosen.startswith("fastest kernel chosen: 0 of 1; not: x fwd (1.25 of @cpu/s2)")
    assert predicted.startswith("predicted within 30 %: 2 of 3; not: x fwd cpu s2 (2.50)")


@pytest.mark.parametrize(
    ("times", "word"),
    [((0.010, 0.010), ""), ((0.0102, 0.0106), ""), ((0.02, 0.02), "slower"), ((0.005, 0.005), "faster")],
)
def test_no_verdict_inside_the_spread(times, word):
    from compare import verdict
    from report import figure

    before = figure([row("nearfield", *(sample(t) for t in (0.009, 0.010, 0.0112)))])
    assert verdict(before, figure([row("nearfield", *map(sample, times))]))[2] == word


BENCH_FILES = sorted(f for f in (BENCH / "problems").glob("*.txt") if f.stem != "calibrate")


@pytest.mark.parametrize("file", BENCH_FILES, ids=lambda p: p.stem)
def test_problem_files_are_canonical_and_have_both_directions(file):
    from nearfield.tools.problems import read

    for problem in read(file):
        if file.stem == "gpu":  # within a pack's ten minutes
            problem.texts.setdefault("bwd", problem.texts["fwd"].replace(":fwd:", ":bwd:"))
        assert set(problem.texts) == {"fwd", "bwd"}, problem.name
        for text in problem.texts.values():
            assert _core.problem(text)["problem"] == text
        assert problem.texts["fwd"].replace(":fwd:", ":bwd:") == problem.texts["bwd"]


def test_the_planner_is_calibrated_on_canonical_problems_of_its_own():
    import forced

    from nearfield.tools.problems import read

    file = BENCH / "problems" / "calibrate.txt"
    lines = [line.split()[1] for line in forced.lines([file], both=True, most_flops=math.inf)]
    assert len(lines) == len(set(lines)) > 200
    for text in lines:
        said = _core.problem(text)
        assert said["problem"] == text and len(said["kernels"]) >= 1, text
    judged = {text for f in BENCH_FILES for problem in read(f) for text in problem.texts.values()}
    assert not judged & set(lines)


def gpu_bench(*arguments):
    done = subprocess.run(
        [sys.executable, *(str(a) for a in arguments)], cwd=BENCH / "gpu", capture_output=True, text=True
    )
    return done.returncode, done.stdout if done.returncode == 0 else done.stdout + done.stderr


def test_the_gpu_bench_runs_on_the_host_too(tmp_path):
    """speed.py as far as a machine without a GPU can: nothing is timed, but every line is run."""
    out = tmp_path / "gpu.json"
    status, text = gpu_bench("speed.py", "smoke", "--device", "cpu", "--rounds", "2", "--out", out)
    assert status == 0, text
    run = json.loads(out.read_text())
    assert [(r["name"], r["direction"]) for r in run["rows"]] == [
        (name, d) for name in ("dense", "image") for d in ("fwd", "bwd")
    ]
    assert set(run["host_us"]) == {"operator", "na2d", "attention", "sdpa"}
    for row in run["rows"]:
        assert row["flops"] == _core.problem(row["problem"])["flops"]
        assert {"nearfield", "flash"} <= set(row["ms"]) and min(row["ms"].values()) > 0
        assert "cudnn" not in row["ms"] and ("flex" in row["ms"]) == (row["direction"] == "fwd")
    assert run["rows"][2]["bound"] == pytest.approx(256 / 25)
    assert all("differs" not in n for n in run["notes"]), run["notes"]
    status, table = gpu_bench("speed.py", "--show", out)
    assert status == 0 and text.endswith(table)

    run["rows"] = [run["rows"][2] | {"flops": 2e9, "ms": {"nearfield": 2.0, "cudnn": 10.24, "flex": 5.0}}]
    out.write_text(json.dumps(run))
    last = gpu_bench("speed.py", "--show", out)[1].splitlines()[-1]
    assert " ".join(last.split()) == "image fwd 2.000 1.0 10.240 - 5.000 5.12 10.24 0.50 2.50"


def test_the_gpu_check_finds_what_is_wrong(tmp_path):
    status, text = gpu_bench("check.py", "--small", "--device", "cpu", "--seconds", "0")
    assert status == 1 and "no time for 9 more" in text
    sys.path.insert(0, str(BENCH / "gpu"))
    import check

    dtypes = {torch.float32: 2e-5}
    (name, function, shapes), *_ = check.calls(True, "cpu")
    assert list(check.findings(name, function, shapes, "cpu", dtypes)) == []

    def off(*args, **kw):
        out, lse = function(*args, **kw)
        return (out if kw.get("backend") else out + 1e-3), lse

    (line,) = check.findings(name, off, shapes, "cpu", dtypes)
    assert line.startswith(f"{name} torch.float32 out: error")
