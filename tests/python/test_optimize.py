# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""`nearfield optimize` and nearfield.optimize on files and calls that are not the usual ones, and on a short
budget. tests/python/test_tuner.py has the rest."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch

import nearfield as nf
from nearfield.tools import CommandError, cli, measure, optimizer, running, tables, turns

PROBLEM = "na:fwd:f32:b1h2kv2d16:9x20:k3x5"
CALL = "import torch, nearfield as nf\nx = torch.zeros(1, 9, 20, 2, 16)\nnf.na2d(x, x, x, (3, 5))\n"
QUICK = ["--budget", "0.02", "--threads", "1"]


def python(program, **environment):
    words = [sys.executable, "-c", program]
    return subprocess.run(words, env={**os.environ, **environment}, capture_output=True, text=True)


def call():
    x = torch.zeros(1, 9, 20, 2, 16)
    return nf.na2d(x, x, x, (3, 5))


# ---- files


def test_an_empty_tuner_file_has_no_lines(tmp_path):
    (tmp_path / "empty").touch()
    done = python(CALL, NEARFIELD_TUNER=str(tmp_path / "empty"))
    assert done.returncode == 0, done.stderr
    done = python(CALL, NEARFIELD_TUNER=str(tmp_path))  # a folder opens as files do
    assert done.returncode != 0 and "can be read" in done.stderr


def test_what_is_no_regular_file_is_refused(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        assert cli.main(["optimize", PROBLEM, *QUICK, "-o", str(tmp_path / name)]) == 1
        assert f"cannot write {tmp_path / name}: it is no regular file" in capsys.readouterr().err
        with pytest.raises(ValueError, match="no regular file"), nf.optimize(tmp_path / name):
            raise AssertionError("the block must not run")
    assert (tmp_path / "pipe").is_fifo()
    assert cli.main(["optimize", PROBLEM, *QUICK, "-o", "-"]) == 1
    assert "got -o -, expected a file" in capsys.readouterr().err


def test_links_are_followed(tmp_path):
    (tmp_path / "there").mkdir()
    link, file = tmp_path / "link", tmp_path / "there" / "tuner.jsonl"
    link.symlink_to(file)  # which is made
    for _ in range(2):
        optimizer.write(link, [optimizer.Line(PROBLEM, "cpu/b16", "cpu/b16", 1.0, 1.0, PROBLEM, 1, 2)])
        assert link.is_symlink() and not file.is_symlink() and len(file.read_text().splitlines()) == 1
    assert os.listdir(file.parent) == ["tuner.jsonl"]


def test_a_folder_that_takes_no_file_is_found_before_the_block(tmp_path, monkeypatch):
    file = tmp_path / "tuner.jsonl"
    file.touch()
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: os.fspath(path) != str(tmp_path) and access(path, mode)
    )
    with pytest.raises(ValueError, match="takes no new file"), nf.optimize(file):
        raise AssertionError("the block must not run")


def test_the_file_of_the_environment_need_not_be_there(tmp_path):
    file = tmp_path / "tuner.jsonl"
    words = [sys.executable, "-m", "nearfield", "optimize", PROBLEM, *QUICK]
    more = {**os.environ, "NEARFIELD_TUNER": str(file)}
    done = subprocess.run(words, env=more, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [json.loads(x)["problem"] for x in file.read_text().splitlines()] == [PROBLEM]


def test_lines_that_this_version_refuses_are_replaced(tmp_path, capsys):
    file = tmp_path / "tuner.jsonl"
    stale = running.tuner_line(PROBLEM, "cpu/gone")
    later = stale.replace('r": 1', 'r": 2')
    other = PROBLEM.replace("9x20", "9x21")
    good = running.tuner_line(other, "cpu/m16") + "\n"
    words = ["optimize", PROBLEM, *QUICK, "-o", str(file)]
    for broken in (stale, later, stale.replace("cpu/gone", "cpu")):
        file.write_text(good + broken + "\n")
        assert cli.main(words) == 0
        assert [json.loads(x)["problem"] for x in file.read_text().splitlines()] == [other, PROBLEM]
        with nf.tuner_file(file):
            call()
    # What is no tuner file, or of a problem that is not optimised here, is refused as ever.
    for text in ("no tuner file\n", '{"a": 1}\n', later.replace("9x20", "9x22")):
        file.write_text(good + text)
        assert cli.main(words) == 1
        assert "tuner.jsonl:2" in capsys.readouterr().err and file.read_text() == good + text


def test_a_block_mends_the_file_in_use(tmp_path):
    file = tmp_path / "tuner.jsonl"
    file.write_text(running.tuner_line(PROBLEM, "cpu/gone"))
    with nf.tuner_file(file):
        with pytest.raises(ValueError, match="gone"):
            call()  # so would the block
        with nf.optimize(file, seconds=0.02):
            call()
    with nf.tuner_file(file):
        call()


# ---- calls


def test_the_largest_batch_is_timed_and_none_that_is_empty():
    batches = [PROBLEM.replace("b1", f"b{n}") for n in (0, 2, 8, 3)]
    assert optimizer.targets(batches) == {PROBLEM: batches[2]}
    remarks = []
    nothing = PROBLEM.replace("9x20", "9x20+9x0")
    assert optimizer.targets([batches[0], nothing], remarks.append) == {PROBLEM: PROBLEM}
    assert remarks == [f"{batches[0]} is not tuned: there is nothing to compute"]


def test_blocks_do_not_nest(tmp_path):
    with nf.optimize(tmp_path / "outer", seconds=0.02):
        call()
        with pytest.raises(ValueError, match="got a block inside another, expected one at a time"):
            with nf.optimize(tmp_path / "inner"):
                raise AssertionError("the block must not run")
    assert PROBLEM in (tmp_path / "outer").read_text()
    with nf.optimize(tmp_path / "later", seconds=0.02):
        call()
    assert PROBLEM in (tmp_path / "later").read_text()


def test_wrong_types_are_said(tmp_path):
    for words in ((tmp_path / "t", "5"), (tmp_path / "t", True), (None, 5)):
        with pytest.raises(TypeError, match=r"\[optimize\] got (seconds|path) of type "):
            with nf.optimize(*words):
                raise AssertionError("the block must not run")


# ---- noise and budget


def summary(low, median, high, noisy):
    return measure.Summary(median, low, high, 1.0, noisy)


def test_a_noisy_win_has_to_exceed_the_spread():
    for noisy in (False, True):  # 17 % less, quartiles apart; then 50 %
        ours, its = summary(0.7, 1.0, 1.02, noisy), summary(1.05, 1.2, 1.6, False)
        assert optimizer._wins(ours, its) is not noisy
        assert optimizer._wins(summary(0.99, 1.0, 1.01, noisy), summary(1.9, 2.0, 2.1, False))


@pytest.mark.parametrize(("seconds", "samples"), [(0.9, 15), (0.5, 2)])
def test_who_does_not_win_for_noise_is_named(monkeypatch, seconds, samples):
    def timed(own, *rest):
        fma = {"fma1": [1.0, 1.0], "fma": [1.0, 1.0]}
        found = {c: [{"s": 1.0 if c.default else seconds, "waited": 0.5, **fma}] * samples for c in own[:2]}
        return found

    monkeypatch.setattr(optimizer, "timed", timed)
    remarks = []
    (line,) = optimizer.search([PROBLEM], 0.5, 1, say=remarks.append)
    assert line.choice == line.default and line.noisy and line.tried == 2 and line.left_out > 0
    assert (
        f"{line.left_out} of {line.left_out + 2} candidates" in remarks[0]
        and "do not fit 0.5 s" in remarks[0]
    )
    assert "was faster by no more than the noise" in remarks[1]


class Pretended:
    """A candidate that takes as long as was predicted."""

    def __init__(self, seconds):
        self.suffix, self.predicted, self.default = "cpu/b16", seconds, False


@pytest.mark.parametrize(("budget", "tried", "most"), [(0.01, 2, 1.0), (2.0, 3, 2.0), (60.0, 8, 60.0)])
def test_a_budget_is_kept_from_two_candidates_on(monkeypatch, budget, tried, most):
    """By a clock that only the work moves, and 0.01 s for every reading of the peak."""
    now = 0.0

    def passes(seconds):
        nonlocal now
        now += seconds

    def reading(target, threads):
        passes(0.01)
        return 1.0, 1.0

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    monkeypatch.setattr(measure, "reading", reading)
    own = [Pretended(0.06) for _ in range(8)]
    taken = turns.timed(own, PROBLEM, lambda: passes(0.06), 1, turns.Timing(budget, 1), lambda text: None)
    assert list(taken) == own[:tried] and now <= most, (len(taken), now)
    assert tried < 8 or all(len(found) > 2 for found in taken.values())


def test_the_bar_moves_within_a_problem(monkeypatch):
    moves = []

    class Bar:
        def __enter__(self):
            return lambda n=1, text=None: moves.append((n, text))

        def __exit__(self, *error):
            return False

    monkeypatch.setattr(tables, "progress", lambda what, total: Bar())
    optimizer.search([PROBLEM], 0.1, 1)
    assert sum(n for n, _ in moves) == pytest.approx(1) and sum(0 < n < 1 for n, _ in moves) > 1
    assert "candidates, sample 1" in moves[1][1]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(CommandError, match="there is no folder"):
        optimizer.check(tmp_path / "no" / "file")
