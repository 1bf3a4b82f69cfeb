# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The search for the fastest kernel of a problem, and the tuner files that it writes.

    with nearfield.optimize("tuner.jsonl", seconds=20):     # searches what the block called, at its end
        model(x)
    with nearfield.tuner_file("tuner.jsonl"):               # or NEARFIELD_TUNER=tuner.jsonl
        model(x)

A file has one line of JSON per problem, device class and version of nearfield. The problem is that of one
sequence: a sequence gets the same kernel alone, in a batch and in a list, and so the same bits. Kernels and
tiles are searched within the backend that serves the call.
"""

from __future__ import annotations

import contextlib
import math
import os
from dataclasses import dataclass
from pathlib import Path

from nearfield import _core
from nearfield._tuner import tuner_file, tuner_text
from nearfield.tools import CommandError
from nearfield.tools.outputs import writable
from nearfield.tools.tuner_writer import write

SAMPLES = 7
DUEL_SAMPLES = 15  # so many that the quartiles of two equals overlap
LEAST, DUEL_LEAST = 3, 5  # whatever the budget
SAMPLE_S = 0.01  # that the calls of a sample fill
HOPELESS = 3.0  # predicted to take so many times as long as the best: not tried
BEHIND = 1.3  # measured so: not tried again
GAIN = 0.03  # what a choice must save; less is noise, or not worth another kernel
DUEL = 1 / 3  # of the time, for the best of a problem and its default alone


@dataclass(frozen=True)
class Line:
    """What a search found for one problem of one sequence."""

    problem: str
    choice: str  # `cpu/b16`, `cpu,q4x4`
    default: str  # what runs without the file
    seconds: float  # of the measured call
    default_seconds: float
    measured: str  # the call that was timed: with its batch
    threads: int
    tried: int
    spread: float = 0.0  # of the seconds: half the distance of the quartiles, over the median
    default_spread: float = 0.0
    noisy: bool = False  # too few samples had all cores to themselves

    @property
    def text(self) -> str:
        """The line of the file."""
        from nearfield.tools.running import tuner_line

        more = {"default": self.default, "seconds": float(f"{self.seconds:.4g}")}
        more |= {"default_seconds": float(f"{self.default_seconds:.4g}"), "measured": self.measured}
        more |= {"spread": round(self.spread, 4), "default_spread": round(self.default_spread, 4)}
        more |= {"noisy": True} if self.noisy else {}
        return tuner_line(self.problem, self.choice, **more, threads=self.threads)

    def __str__(self) -> str:
        if self.choice == self.default:
            return f"{self.problem}: {self.default} stays, the best of {self.tried}"
        gain = self.default_seconds / self.seconds
        return f"{self.problem}: {self.choice}, {gain:.2f} times as fast as {self.default}, of {self.tried}"


@contextlib.contextmanager
def optimize(path: str | os.PathLike, seconds: float = 10.0):
    """Searches, at the end of the block, the fastest kernel for every problem that the block called, forward
    and backward, for `seconds` together, and writes the tuner file `path` (what it has on other problems
    stays). Nothing is searched if the block raises. The file counts within nearfield.tuner_file(path), or
    where NEARFIELD_TUNER names it.

    Raises:
        ValueError: `path` is no tuner file, or cannot be written.
    """
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ValueError(f"[optimize] got seconds {seconds!r}, expected a number above 0")
    try:
        writable(path)  # before the work
    except CommandError as error:
        raise ValueError(f"[optimize] {error}") from error
    if Path(path).exists():
        with tuner_file(path):  # raises where it is broken
            pass
    with _core.collected() as ran:
        yield
    import torch

    try:
        calls = [problem for problem in ran if _runs(problem)]
        write(path, [])
        share = seconds / max(len(calls), 1)
        search(calls, share, torch.get_num_threads(), keep=lambda line: write(path, [line]))
    except CommandError as error:
        raise ValueError(f"[optimize] {error}") from error


def _runs(problem: str) -> bool:
    """Whether the problem can be called again; shards cannot."""
    f = _core.problem(problem)["fields"]
    return not (f["offsets"] or f["ranges"] or f["precision"] == 1)


def search(calls: list[str], budget: float, threads: int, warmup: int = 1, keep=None, say=None) -> list[Line]:
    """The best choice for each sequence of each call, on the mean of `budget` seconds each.

    keep(line) is called with every line when it is found, say(text) with why a call has none.
    """
    from nearfield.tools import tables
    from nearfield.tools.running import dense

    say = say or (lambda text: None)
    targets: dict[str, str] = {}  # problem of one sequence -> what is timed
    for call in map(dense, calls):
        problem = _free(call)
        if problem is None:
            say(f"{call} is not tuned: what a call forces stays")
            continue
        for one in dict.fromkeys(_core.tuner_problems(problem)):
            targets.setdefault(one, one if _core.problem(problem)["fields"]["varlen"] else problem)
    found = []
    with tuner_text("", "none"), tables.progress("optimize", len(targets)) as advance:
        for problem, call in targets.items():
            advance(0, call)
            line = _search_one(problem, call, budget, threads, warmup)
            if line is None:
                say(f"{call} is not tuned: there is one kernel only")
            else:
                found.append(line)
                if keep:
                    keep(line)
            advance()
    return found


def _free(call: str) -> str | None:
    """The problem of a call, if what stands behind its @ is at most the backend that serves it anyway."""
    from nearfield.tools import explain

    problem, _, suffix = call.partition("@")
    if suffix:
        explain.plans(call)  # complains about what there is not
    chosen = next((a["backend"] for a in explain.plans(problem) if a["chosen"]), None)
    return problem if suffix in ("", chosen) else None


def _search_one(problem: str, call: str, budget: float, threads: int, warmup: int) -> Line | None:
    """None where there is nothing to choose from."""
    from nearfield.tools import candidates, measure
    from nearfield.tools.running import Run

    every = candidates.of(call)
    default = next((c for c in every if c.default), None)
    if default is None:
        return None
    own = [c for c in every if c.backend == default.backend and ("/" in c.suffix or "," in c.suffix)]
    if default not in own:  # a backend of one kernel
        return None
    fastest = min((c.predicted for c in own if c.predicted), default=0.0)
    own = [c for c in own if c is default or not c.predicted or c.predicted <= HOPELESS * fastest]
    run = Run(call)
    work = run.forward if run.fields["direction"] == "fwd" else run.backward

    def measured(some, share, turns, steps):
        samples = _timed(some, problem, work, budget * share, threads, turns, steps)
        return {c: measure.summary(samples[c], threads, LEAST) for c in some}

    with run.settings():
        run.check((run.fields["direction"],))
        times = measured(own, 1 - DUEL, (LEAST, SAMPLES), warmup)
        best = min(own, key=lambda c: times[c].seconds)
        if times[best].clearly_below(times[default], GAIN):
            # The best of many is in part the luckiest: fresh samples of the two decide, and are what is said.
            times = measured([best, default], DUEL, (DUEL_LEAST, DUEL_SAMPLES), 0)
        if not times[best].clearly_below(times[default], GAIN):
            best = default
    ours, its = times[best], times[default]
    noisy = ours.noisy or its.noisy
    figures = ours.seconds, its.seconds, call, threads, len(own), ours.spread, its.spread, noisy
    return Line(problem, best.suffix, default.suffix, *figures)


def _timed(own, problem: str, work, budget: float, threads: int, turns, warmup: int) -> dict:
    """{candidate: [sample, ...]} (measure.py), in `turns` (least, most) as far as the budget goes; candidates
    far behind are left out of further turns."""
    from nearfield.tools import measure
    from nearfield.tools.running import tuner_line

    target = _core.info().get("cpu_target", "scalar")
    taken: dict = {c: [] for c in own}
    calls: dict = {}
    left, spent = list(own), 0.0
    with measure.undisturbed():
        before = measure.reading(target, threads)
        for turn in range(turns[1]):
            for c in left:
                with tuner_text(tuner_line(problem, c.suffix), c.suffix):
                    begin = measure.seconds(work)  # plans, and brings the kernel's code and memory in
                    for _ in range(warmup if turn == 0 else 0):
                        begin = min(begin, measure.seconds(work))
                    calls.setdefault(c, max(1, min(1000, round(SAMPLE_S / begin))))
                    one, before = measure.sample(work, calls[c], target, threads, before)
                taken[c].append(one)
                spent += begin + one["s"] * calls[c]
            middle = {c: measure.summary(taken[c], threads, LEAST).seconds for c in left}
            least = min(middle.values())
            left = [c for c in left if c.default or middle[c] <= BEHIND * least]
            if spent >= budget and turn + 1 >= turns[0]:
                break
    return taken
