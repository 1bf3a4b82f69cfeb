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
import numbers
import os
import time
from dataclasses import dataclass

from nearfield import _core
from nearfield._tuner import tuner_text
from nearfield.tools import CommandError
from nearfield.tools.tuner_writer import check, write
from nearfield.tools.turns import LEAST, Timing, timed

HOPELESS = 3.0  # predicted to take so many times as long as the best: not tried
GAIN = 0.03  # what a choice must save; less is noise, or not worth another kernel
UNSURE_GAIN = 0.2  # the same where too few samples say so

_inside = False  # of a block of optimize(): the process has one list of what it ran


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
    left_out: int = 0  # candidates that did not fit the budget
    doubtful: str = ""  # measured faster than the default, which stays: by no more than the noise

    @property
    def text(self) -> str:
        """The line of the file."""
        from nearfield.tools.running import tuner_line

        more = {"default": self.default, "seconds": float(f"{self.seconds:.4g}")}
        more |= {"default_seconds": float(f"{self.default_seconds:.4g}"), "measured": self.measured}
        more |= {"spread": round(self.spread, 4), "default_spread": round(self.default_spread, 4)}
        more |= {"noisy": True} if self.noisy else {}
        more |= {"left_out": self.left_out} if self.left_out else {}
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
    stays). Within the block no tuner file counts, so that it runs even where the lines of one are to be
    replaced. Nothing is searched if the block raises. The file counts within nearfield.tuner_file(path), or
    where NEARFIELD_TUNER names it.

    Raises:
        ValueError: `path` is no tuner file, or cannot be written; or the block is inside another.
    """
    global _inside
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"[optimize] got path of type {type(path).__name__}, expected str or os.PathLike")
    if not isinstance(seconds, numbers.Real) or isinstance(seconds, bool):
        raise TypeError(f"[optimize] got seconds of type {type(seconds).__name__}, expected a number")
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ValueError(f"[optimize] got seconds {seconds!r}, expected a number above 0")
    if _inside:
        raise ValueError("[optimize] got a block inside another, expected one at a time")
    try:
        check(path)  # before the work
    except CommandError as error:
        raise ValueError(f"[optimize] {error}") from error
    _inside = True
    try:
        with tuner_text("", "none"), _core.collected() as ran:
            yield
    finally:
        _inside = False
    import torch

    try:
        with tuner_text("", "none"):
            calls = [problem for problem in ran if _runs(problem)]
            problems = targets(calls)
            write(path, [], problems)
            share = seconds / max(len(problems), 1)
            search(calls, share, torch.get_num_threads(), keep=lambda line: write(path, [line]))
    except CommandError as error:
        raise ValueError(f"[optimize] {error}") from error


def _runs(problem: str) -> bool:
    """Whether the problem can be called again; shards cannot."""
    f = _core.problem(problem)["fields"]
    return not (f["offsets"] or f["ranges"] or f["precision"] == 1)


def targets(calls: list[str], say=None) -> dict[str, str]:
    """{problem of one sequence: the call to time for it}: the largest batch of those that have it."""
    from nearfield.tools.running import dense

    say = say or (lambda text: None)
    found: dict[str, str] = {}
    batches: dict[str, int] = {}
    with tuner_text("", "none"):  # a file in use may be what is to be replaced
        for call in map(dense, calls):
            problem = _free(call)
            if problem is None:
                say(f"{call} is not tuned: what a call forces stays")
                continue
            f = _core.problem(problem)["fields"]
            named = zip(_core.tuner_problems(problem), f["layouts"], strict=False)
            ones = [one for one, x in named if math.prod((*x["query_extent"], *x["extent"]))]
            if not ones or not f["batch"]:
                say(f"{call} is not tuned: there is nothing to compute")
                continue
            for one in ones:
                if f["batch"] > batches.get(one, 0):
                    found[one], batches[one] = (one if f["varlen"] else problem), f["batch"]
    return found


def search(calls: list[str], budget: float, threads: int, warmup: int = 1, keep=None, say=None) -> list[Line]:
    """The best choice for each sequence of each call, in `budget` seconds each; a slow problem takes what two
    candidates take at least.

    keep(line) is called with every line when it is found, say(text) with why a call has none, and with what
    was not tried or not believed.
    """
    from nearfield.tools import tables

    say = say or (lambda text: None)
    todo = targets(calls, say)
    found = []
    with tuner_text("", "none"), tables.progress("optimize", len(todo)) as advance:
        for problem, call in todo.items():
            advance(0, call)
            step = _Steps(advance, call, budget)
            line = _search_one(problem, call, budget, threads, warmup, step)
            if line is None:
                say(f"{call} is not tuned: there is one kernel only")
            else:
                found.append(line)
                if keep:
                    keep(line)
                _remark(line, budget, say)
            step.end()
    return found


def _remark(line: Line, budget: float, say) -> None:
    if line.left_out:
        say(
            f"{line.problem}: {line.left_out} of {line.tried + line.left_out} candidates, those predicted "
            f"slowest, do not fit {budget:g} s"
        )
    if line.doubtful:
        say(f"{line.problem}: {line.doubtful} was faster by no more than the noise, {line.default} stays")


class _Steps:
    """Moves the bar within a problem, by the time of its budget that is gone."""

    def __init__(self, advance, call: str, budget: float):
        self._advance, self._call, self._budget = advance, call, budget
        self._begin, self._done = time.perf_counter(), 0.0

    def __call__(self, what: str) -> None:
        gone = min((time.perf_counter() - self._begin) / self._budget, 0.99)
        self._to(gone, f"{self._call}: {what}")

    def end(self) -> None:
        self._to(1.0, self._call)

    def _to(self, done: float, text: str) -> None:
        self._advance(max(done - self._done, 0.0), text)
        self._done = max(done, self._done)


def _free(call: str) -> str | None:
    """The problem of a call, if what stands behind its @ is at most the backend that serves it anyway."""
    from nearfield.tools import explain

    problem, _, suffix = call.partition("@")
    if suffix:
        explain.plans(call)  # complains about what there is not
    chosen = next((a["backend"] for a in explain.plans(problem) if a["chosen"]), None)
    return problem if suffix in ("", chosen) else None


def _search_one(problem: str, call: str, budget: float, threads: int, warmup: int, step) -> Line | None:
    """None where there is nothing to choose from."""
    from nearfield.tools import candidates, measure
    from nearfield.tools.running import Run

    end = time.perf_counter() + budget
    every = candidates.of(call)
    default = next((c for c in every if c.default), None)
    if default is None:
        return None
    own = [c for c in every if c.backend == default.backend and ("/" in c.suffix or "," in c.suffix)]
    if default not in own:  # a backend of one kernel
        return None
    fastest = min((c.predicted for c in own if c.predicted), default=0.0)
    own = [c for c in own if c is default or not c.predicted or c.predicted <= HOPELESS * fastest]
    own.sort(key=lambda c: (c is not default, not c.predicted, c.predicted or 0.0))  # the last do not fit
    run = Run(call)
    work = run.forward if run.fields["direction"] == "fwd" else run.backward

    counts: dict = {}

    def measured(some, timing):
        samples = timed(some, problem, work, threads, timing, step)
        counts.update((c, len(found)) for c, found in samples.items())
        return {c: measure.summary(found, threads, LEAST) for c, found in samples.items()}

    with run.settings():
        run.check((run.fields["direction"],))
        times = measured(own, Timing(end, warmup))
        best = min(times, key=lambda c: times[c].seconds)
        tried = len(times)
        if tried > 2 and _wins(times[best], times[default]):
            # The best of many is in part the luckiest: fresh samples of the two decide, and are what is said.
            times = measured([default, best], Timing(end, 0))
    doubtful = ""
    # Of one or two samples, which have no quartiles worth the name, none wins.
    if min(counts[best], counts[default]) < LEAST or not _wins(times[best], times[default]):
        if times[best].clearly_below(times[default], GAIN):
            doubtful = best.suffix
        best = default
    ours, its = times[best], times[default]
    noisy = ours.noisy or its.noisy
    figures = ours.seconds, its.seconds, call, threads, tried, ours.spread, its.spread, noisy
    return Line(problem, best.suffix, default.suffix, *figures, len(own) - tried, doubtful)


def _wins(ours, its) -> bool:
    """Whether a summary is good enough to replace the default's. Quartiles of too few samples, or of some
    that had not all cores, say little: the win has to exceed both spreads together, and more."""
    if not ours.clearly_below(its, GAIN):
        return False
    if not (ours.noisy or its.noisy):
        return True
    return its.seconds - ours.seconds > max(UNSURE_GAIN, ours.spread + its.spread) * its.seconds
