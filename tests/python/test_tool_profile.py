# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""`nearfield profile` does what its help says. No times."""

import csv
import io
import json
import os
import subprocess
import sys

import pytest
import torch
from commands import SMALL, refused, run

import nearfield as nf
from nearfield import _core
from nearfield.tools import (
    accuracy,
    cli,
    optimizer,
    profile,
    profile_arguments,
)
from nearfield.tools.running import tuner_line

QUICK = ("--samples", 1, "--budget", 0.02, "--warmup-steps", 0, "--threads", 1)


def profiled(capsys, *words):
    status, out, err = run(capsys, "profile", *words, *QUICK, "--json", "-")
    assert status == 0, err
    return [json.loads(line) for line in out.splitlines()]


def test_profile_by_the_flags_of_the_peer(capsys):
    words = "-b 2 -n 4 --heads-kv 2 -d 8 --dim-value 16 -i 6 7 -w 3 5 -s 1 2 --dilation 2 1 -c False True"
    words = [*words.split(), "--backprop", "--add-kv", 3, "--dtype", "fp32"]
    words += ["--backend", "hopper-fna", "--optimize-warmup-steps", 1]
    rows = profiled(capsys, *words)
    assert [r["direction"] for r in rows] == ["fwd", "bwd"]
    for row in rows:
        text = f"na:{row['direction']}:f32:b2h4kv2d8v16:6x7:k3x5:s1x2:d2x1:c01:add=3"
        assert row["problem"] == _core.problem(text)["problem"]
        assert 0 < row["error"] < 1e-5 and row["error_of"] == "all"
        assert row["seconds"] > 0 and row["flops"] == _core.problem(row["problem"])["flops"]
        assert 0 < row["share_of_peak"] < 1.5 and row["waste"] >= 1 and row["scratch_bytes"] > 0


@pytest.mark.parametrize(
    "word, value", [("False", "0"), ("True", "1"), ("0", "0"), ("no", "0"), ("yes", "1")]
)
def test_causal_means_what_it_says(capsys, word, value):
    parser = cli._parser()
    args = parser.parse_args(["profile", "-i", "8", "-w", "3", "-c", word])
    assert profile_arguments.problem_of(args).endswith(f":c{value}")


@pytest.mark.parametrize(
    "problem",
    [
        "att:bwd:f32:b1h2kv1d8v4:9,12+7,5:cbr:tail=2,1",
        "na:fwd:f32:b1h2kv2d8:4x5+5x5:k3x3",
        "na:fwd:f32:b1h1kv1d4:" + "+".join(f"4x{n}" for n in range(3, 90)) + ":k3x3",  # no name of a file
        "na:bwd:f32:b1h2kv1d8:7x7:k3x3:add=3:bias",
        "na:bwd:f64:b1h1kv1d4:9:k5:lse:scale=0.3",
        "na:fwd:f32:b1h1kv1d8:20:k5:qgrid=5",
        "na:fwd:bf16:b1h2kv2d16:24:k5:prec=bf16",
        SMALL + "@cpu/general",
        SMALL + "@cpu,q2x8",
        SMALL + "@reference",
    ],
)
def test_profile_runs_any_problem_that_python_can_call(capsys, problem):
    row = profiled(capsys, problem)[0]
    assert row["problem"] == problem and 0 <= row["error"] < (2e-2 if "bf16" in problem else 1e-5)


def test_profile_compares_with_peers_and_says_who_is_missing(capsys, tmp_path):
    words = [
        "na:bwd:f32:b1h2kv2d8:6x7:k3x3",
        SMALL.replace("k3", "k3") + ":add=2",
        "--compare",
        "sdpa,masked-sdpa,flex",
    ]
    backward, more = profiled(capsys, *words)
    assert set(backward["peers"]) == {"sdpa", "masked-sdpa"} and "backward" in backward["absent"]["flex"]
    assert more["peers"] == {} and set(more["absent"]) == {"sdpa", "masked-sdpa", "flex"}
    words = [
        SMALL,
        "na:bwd:f32:b1h2kv1d8:6x7:k3x3",
        *QUICK,
        "--compare",
        "sdpa",
        "--csv",
        tmp_path / "rows.csv",
    ]
    status, out, _ = run(capsys, "profile", *words)
    assert status == 0 and "x sdpa" in out and "both" in out and f"nearfield profile {SMALL}" in out
    rows = list(csv.DictReader(io.StringIO((tmp_path / "rows.csv").read_text())))
    assert [r["direction"] for r in rows] == ["fwd", "bwd"] and float(rows[0]["seconds"]) > 0


def test_profile_after_compare_stands_a_problem():
    for words in (["--compare", SMALL], [SMALL, "--compare"]):
        args = cli._parser().parse_args(["profile", *words])
        assert profile_arguments.calls_of(args)[0] == [SMALL] and args.compare == "sdpa,flex"


def test_profile_knows_the_whole_axis_and_both_passes(capsys):
    rows = profiled(capsys, "-i", 6, 7, "-w", -1, 3, "-d", 8)
    assert [r["problem"] for r in rows] == ["na:fwd:f32:b1h1kv1d8:6x7:k6x3"]
    rows = profiled(capsys, SMALL, "--backprop")
    assert [r["problem"] for r in rows] == [SMALL, SMALL.replace("fwd", "bwd")]


def test_profile_says_how_to_repeat_a_row(capsys, monkeypatch):
    """With the kernel that --optimize chose, and the threads."""
    line = optimizer.Line(SMALL, "cpu/m16", "cpu/b16", 1.0, 2.0, SMALL, 1, 2)
    monkeypatch.setattr(profile.optimizer, "search", lambda *rest, **more: [line])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    words = ["-i", 6, 7, "-w", 3, "-n", 2, "-d", 8, "--heads-kv", 1, "--optimize", "--backward-q-tile", 2, 2]
    status, out, err = run(capsys, "profile", *words, *QUICK, "--warmup-steps", 10**11)
    assert status == 0, err
    assert f"nearfield profile {SMALL}@cpu/m16 --threads 1\n" in out and "cpu m16" in out
    assert "tiles of the backward pass have no effect" in out


def test_profile_dry_run_lists_what_could_run(capsys):
    status, out, _ = run(capsys, "profile", SMALL, "--dry-run", "--max-configs", 2)
    assert status == 0 and "more: --max-configs 0" in out
    status, out, _ = run(capsys, "profile", SMALL, "--dry-run", "--max-configs", 0)
    assert status == 0 and f"{SMALL}@cpu/general" in out and f"{SMALL}@cpu,q4x4" in out and "more:" not in out


def test_profile_reads_traces_and_bench_files(capsys, tmp_path):
    file = tmp_path / "trace.txt"
    file.write_text(f"# a comment\nt1 {SMALL}\nt1 {SMALL}\nt2 att:fwd:f32:b1h1kv1d8:9,9\n")
    assert [r["problem"] for r in profiled(capsys, file)] == [SMALL, "att:fwd:f32:b1h1kv1d8:9,9"]
    file.write_text("t1\n")
    assert "trace.txt:1, expected NAME PROBLEM" in refused(capsys, "profile", file)
    file.write_text(f"{SMALL}\nna:fwd:f32:b1h1kv1d8:9:k99\n")
    assert "trace.txt:2: [problem string] got " in refused(capsys, "profile", file)
    file.write_text("")
    assert "at least one problem" in refused(capsys, "profile", file)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "expected problem strings, or -i"),
        ([SMALL, "-i", 8], "and not both"),
        (["-i", 8, 8, "-w", 3, 3, 3], "one per axis"),
        (["-i", 8, 8, 8, 8], "1 to 3"),
        (["-i", 8, "-w", 9], "largest legal kernel_size"),
        (["-i", 8, 8, "-w", 3, "--q-tile", 64, 64], "at most 16 tokens"),
        (["-i", 8, 8, "-w", 3, "--q-tile", 4], "--q-tile"),
        (["-i", 8, "--backend", "gpu"], "expected one of"),
        (["-i", 8, "--samples", 0], "--samples"),
        (["-i", 8, "--dry-run", "--optimize"], "expected one of them"),
        ([SMALL, "--compare", "x"], "expected some of sdpa"),
        (["-i", 9999999, 9999, "-w", 7], "of memory"),
        (["-i", 10, "--budget", "nan"], "--budget nan"),
        (["-i", 10, "--budget", "inf"], "--budget inf"),
        ([SMALL + ":q=0-2x0-7"], "nearfield-bench"),
        (["att:fwd:f32:b1h1kv1d8:var=4,100,120,40,50"], "offsets known only on the device"),
        (["no_such_file"], "got 'no_such_file', expected a problem string such as na:fwd"),
        ([""], "expected a problem string such as na:fwd"),
        ([SMALL, "-w", 3, "--add-kv", 2], "a problem string and --window-size, --add-kv"),
        ([SMALL, "--dtype", "fp32", "-b", 1], "a problem string and --batch-size, --dtype"),
        ([SMALL, "--threads", 9999], "the CPUs of this process"),
        ([SMALL, "--dry-run", "--json", "a"], "--dry-run with --json or --csv"),
        ([SMALL, "--json", "/no/such/folder/a"], "there is no folder"),
        ([SMALL, "--csv", "."], "it is a folder"),
    ],
)
def test_profile_refuses(capsys, words, part):
    assert part in refused(capsys, "profile", *words)


def test_profile_goes_on_after_what_it_cannot_run(capsys, tmp_path):
    shard = SMALL + ":q=0-2x0-7:kv=0-3x0-7"
    file = tmp_path / "trace.txt"
    file.write_text(f"a {SMALL}\nb {shard}\natt:fwd:f32:b1h1kv1d8:9,9\n")
    status, _, err = run(capsys, "profile", file, *QUICK, "--json", tmp_path / "rows")
    assert status == 1 and shard in err and err.count("\n") == 1
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert [r["problem"] for r in rows] == [SMALL, "att:fwd:f32:b1h1kv1d8:9,9"]


def test_profile_runs_packed_layouts_whose_first_has_one_frame(capsys):
    text = "na:fwd:f32:b1h2kv2d16:1x5+4x5:k1x3+3x3:c00+10"
    assert [r["problem"] for r in profiled(capsys, text)] == [text]


def test_errors_of_a_part_leave_the_gradient_of_bias_out(capsys, monkeypatch):
    """It is a sum over the batch, of which the reference computes one entry."""
    monkeypatch.setattr(accuracy, "MOST_FLOPS", 5e5)
    (row,) = profiled(capsys, "na:bwd:f32:b2h2kv2d8:12x12:k5x5:bias")
    assert row["error"] < 1e-5 and "but for the gradient of bias" in row["error_of"]
    (row,) = profiled(capsys, "na:bwd:f32:b1h2kv2d8:12x12:k5x5:bias")
    assert row["error"] < 1e-5 and "bias" not in row["error_of"]


def test_profile_writes_its_rows_before_it_prints(capsys, monkeypatch, tmp_path):
    def broken(*parts):
        raise BrokenPipeError

    monkeypatch.setattr(profile, "show", broken)
    monkeypatch.setattr(cli, "_forget_output", lambda: None)
    status = cli.main(["profile", SMALL, *map(str, QUICK), "--json", str(tmp_path / "rows")])
    assert status == 141 and json.loads((tmp_path / "rows").read_text())["problem"] == SMALL


@pytest.mark.parametrize("output, text", [("/dev/full", "No space left on device"), (None, "")])
def test_output_that_cannot_be_written_is_one_line(output, text):
    command = [sys.executable, "-m", "nearfield", "explain", SMALL]
    with open(output or os.devnull, "w") as file:
        environment = os.environ | ({} if output else {"PYTHONIOENCODING": "ascii"})
        done = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, text=True, env=environment)
    assert done.returncode == (1 if output else 0) and text in done.stderr
    assert done.stderr.count("\n") == (1 if output else 0)


def test_profile_says_what_a_tuner_file_chose(capsys, tmp_path):
    (tmp_path / "tuner").write_text(tuner_line(SMALL, "cpu,q4x4") + "\n")
    with nf.tuner_file(tmp_path / "tuner"):
        _, out, _ = run(capsys, "profile", SMALL, *QUICK)
    assert "cpu general" in out and "the same NEARFIELD_TUNER" in out
    _, out, _ = run(capsys, "profile", SMALL, *QUICK, "--optimize")  # the line names the choice itself
    assert "NEARFIELD_TUNER" not in out and f"nearfield profile {SMALL}@cpu" in out
