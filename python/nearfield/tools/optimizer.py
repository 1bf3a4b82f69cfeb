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
import json
import os
import statistics
from dataclasses import dataclass
from pathlib import Path

from nearfield import _core
from nearfield._tuner import tuner_file, tuner_text
from nearfield.tools import CommandError

SAMPLES = 7
SAMPLE_S = 0.01  # that the calls of a sample fill
HOPELESS = 3.0  # predicted to take so many times as long as the best: not tried
BEHIND = 1.3  # measured so: not tried again
GAIN = 0.02  # what a choice must save; less is noise, or not worth another kernel


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

    @property
    def text(self) -> str:
        """The line of the file."""
        from nearfield.tools.running import tuner_line

        more = {"default": self.default, "seconds": float(f"{self.seconds:.4g}")}
        more |= {"default_seconds": float(f"{self.default_seconds:.4g}"), "measured": self.measured}
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
    if not seconds > 0:
        raise ValueError(f"[optimize] got seconds {seconds!r}, expected a number above 0")
    if Path(path).exists():
        with tuner_file(path):  # raises where it is broken, before the work
            pass
    with _core.collected() as ran:
        yield
    import torch

    try:
        calls = [problem for problem in ran if _runs(problem)]
        write(path, search(calls, seconds / max(len(calls), 1), torch.get_num_threads()))
    except CommandError as error:
        raise ValueError(f"[optimize] {error}") from error


def _runs(problem: str) -> bool:
    """Whether the problem can be called again; shards cannot."""
    f = _core.problem(problem)["fields"]
    return not (f["offsets"] or f["ranges"] or f["precision"] == 1)


def search(calls: list[str], budget: float, threads: int, warmup: int = 1) -> list[Line]:
    """The best choice for each sequence of each call, on the mean of `budget` seconds each."""
    from nearfield.tools import tables
    from nearfield.tools.running import dense

    targets: dict[str, str] = {}  # problem of one sequence -> what is timed
    for call in map(dense, calls):
        problem = call.partition("@")[0]
        alone = list(dict.fromkeys(_core.tuner_problems(problem)))
        for one in alone:
            targets.setdefault(one, one if _core.problem(problem)["fields"]["varlen"] else call)
    found = []
    with tuner_text("", "none"), tables.progress("optimize", len(targets)) as advance:
        for problem, call in targets.items():
            advance(0, call)
            line = _search_one(problem, call, budget, threads, warmup)
            found += [line] if line is not None else []
            advance()
    return found


def _search_one(problem: str, call: str, budget: float, threads: int, warmup: int) -> Line | None:
    """None where there is nothing to choose from."""
    from nearfield.tools import candidates, measure
    from nearfield.tools.running import Run, tuner_line

    every = candidates.of(call)
    default = next((c for c in every if c.default), None)
    if default is None:
        return None
    own = [c for c in every if c.backend == default.backend and ("/" in c.suffix or "," in c.suffix)]
    if default not in own:  # a backend of one kernel
        return None
    fastest = min((c.predicted for c in own if c.predicted), default=0.0)
    own = [c for c in own if c is default or not c.predicted or c.predicted <= HOPELESS * fastest]
    run = Run(call.partition("@")[0])
    work = run.forward if run.fields["direction"] == "fwd" else run.backward
    with run.settings():
        run.check((run.fields["direction"],))
        times = _timed(own, problem, work, budget, threads, warmup, measure, tuner_line)
    best = min(times, key=lambda c: statistics.median(times[c]))
    best_s, default_s = (statistics.median(times[c]) for c in (best, default))
    noise = sum(measure.spread(times[c]) for c in (best, default))
    least = min(times[best]) * (1 + GAIN)
    if default_s < best_s * (1 + max(GAIN, noise)) or min(times[default]) < least:  # not clearly faster
        best, best_s = default, default_s
    return Line(problem, best.suffix, default.suffix, best_s, default_s, call, threads, len(own))


def _timed(own, problem, work, budget, threads, warmup, measure, tuner_line) -> dict:
    """{candidate: [seconds, ...]}, samples in turns; candidates far behind are left out of further turns.
    Samples during which threads had no core of their own do not count, unless there are no others."""
    info = _core.info()
    fair: dict = {c: [] for c in own}
    other: dict = {c: [] for c in own}
    calls: dict = {}
    left, deadline = list(own), budget
    before = measure.reading(info.get("cpu_target", "scalar"), threads)
    for turn in range(SAMPLES):
        for c in left:
            with tuner_text(tuner_line(problem, c.suffix), c.suffix):
                begin = measure.seconds(work)  # plans, and brings the kernel's code and memory in
                for _ in range(warmup if turn == 0 else 0):
                    begin = min(begin, measure.seconds(work))
                calls.setdefault(c, max(1, min(1000, round(SAMPLE_S / begin))))
                time_s = measure.seconds(work, calls[c])
            after = measure.reading(info.get("cpu_target", "scalar"), threads)
            sample = {"fma1": [before[0], after[0]], "fma": [before[1], after[1]]}
            (fair if measure.kept(sample, threads) else other)[c].append(time_s)
            before = after
            deadline -= begin + time_s * calls[c]
        middle = {c: statistics.median(fair[c] or other[c]) for c in left}
        least = min(middle.values())
        left = [c for c in left if c.default or middle[c] <= BEHIND * least]
        if deadline <= 0 and turn >= 2:
            break
    return {c: fair[c] or other[c] for c in own}


def write(path: str | os.PathLike, lines: list[Line]) -> None:
    """Adds lines to a file, in place of older ones for the same problem, device class and version."""
    path = Path(path)
    kept = {}
    try:
        if path.exists():
            with tuner_file(path):
                kept = {
                    _key(text): text for text in path.read_text(encoding="utf-8").splitlines() if text.strip()
                }
        kept |= {_key(line.text): line.text for line in lines}
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.write_text("".join(text + "\n" for text in kept.values()), encoding="utf-8")
        fresh.replace(path)  # readers see the old file or the new one
    except ValueError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from error


def _key(text: str) -> tuple:
    fields = json.loads(text)
    return tuple(fields[name] for name in ("problem", "device", "version"))
