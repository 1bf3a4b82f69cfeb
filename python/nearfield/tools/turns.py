# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Timing the candidates of a search in turns, until a time: as many of them as that is enough for."""

from __future__ import annotations

import time
from dataclasses import dataclass

from nearfield import _core
from nearfield._tuner import tuner_text

SAMPLES = 7
DUEL_SAMPLES = 15  # so many that the quartiles of two equals overlap
LEAST, DUEL_LEAST = 3, 5  # that there must be time for, else candidates are left out
SAMPLE_S = 0.01  # that the calls of a sample fill
BEHIND = 1.3  # measured to take so many times as long as the best: not tried again
DUEL = 1 / 3  # of the time, for the best of a problem and its default alone


@dataclass(frozen=True)
class Timing:
    """Of timed()."""

    end: float  # when to stop, of time.perf_counter()
    warmup: int  # calls


def timed(own: list, problem: str, work, threads: int, timing: Timing, step) -> dict:
    """{candidate: [sample, ...]} (measure.py), in turns, as far as the time goes: at least a sample of the
    first two. Candidates that do not fit are left out, the last ones; those far behind, of further turns."""
    from nearfield.tools import measure
    from nearfield.tools.running import tuner_line

    target = _core.info().get("cpu_target", "scalar")
    taken: dict = {c: [] for c in own}
    calls: dict = {}
    took: dict = {}  # seconds of the last turn, all in all
    left, end = list(own), timing.end
    clock = time.perf_counter
    with measure.undisturbed():
        before = measure.reading(target, threads)
        for turn in range(DUEL_SAMPLES):
            for c in own if turn == 0 else left:
                if c not in left:
                    continue
                begin = clock()
                with tuner_text(tuner_line(problem, c.suffix), c.suffix):
                    once = 0.0
                    if calls.get(c) != 1:  # plans, and brings code and memory in: nothing to a slow one
                        once = measure.seconds(work)
                    for _ in range(timing.warmup if turn == 0 else 0):
                        if clock() + once > end:
                            break
                        once = min(once, measure.seconds(work))
                    if turn == 0:
                        calls[c] = max(1, min(1000, round(SAMPLE_S / once)))
                    sample = clock()
                    one, before = measure.sample(work, calls[c], target, threads, before)
                taken[c].append(one)
                took[c] = clock() - begin
                if turn == 0 and c is own[0]:
                    around = clock() - sample - one["s"] * calls[c]
                    left, end = _fitting(own, one["s"], around, timing)
                step(f"{len(left)} candidates, sample {turn + 1}")
            middle = {c: measure.summary(taken[c], threads, LEAST).seconds for c in left}
            tried, least = len(calls), min(middle.values())
            left = [c for c in left if c.default or middle[c] <= BEHIND * least]
            if turn + 1 >= (SAMPLES if tried > 2 else DUEL_SAMPLES):
                break
            if clock() + sum(took[c] for c in left) > end:
                break
    return {c: found for c, found in taken.items() if found}


def _fitting(own: list, seconds: float, around: float, timing: Timing) -> tuple[list, float]:
    """The candidates that the time is enough for, two at least, by what is predicted of them next to the
    first, which takes `seconds`, and `around` them for a sample; and when to stop: before a duel of more."""

    def cost(c, turns: int) -> float:
        one = seconds * (c.predicted / own[0].predicted if c.predicted and own[0].predicted else 1.0)
        calls = max(1, round(SAMPLE_S / one))
        first = one * (timing.warmup + 1)
        return turns * (around + one * calls) + first + (one * (turns - 1) if calls > 1 else 0.0)

    costs = [cost(c, LEAST) for c in own]
    there = timing.end - time.perf_counter() + cost(own[0], 1)  # the first has a sample
    duel = max(DUEL * there, sum(cost(c, DUEL_LEAST) for c in own[:2]))
    count = len(own)
    while count > 2 and sum(costs[:count]) > there - duel:
        count -= 1
    return own[:count], timing.end - (duel if count > 2 else 0.0)
