# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Timing that knows its machine: interleaved samples, each between two readings of the FMA peak.

A sample is the mean time of as many calls as fill some milliseconds, with the peak of one thread and of all
threads read before and after. What is a sample worth? `kept` says: on a shared machine two threads at times
get one core, which nothing but the FMA reading shows; and other processes may take cores in between, which
shows in how long threads had to wait for one.
"""

from __future__ import annotations

import contextlib
import gc
import glob
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from nearfield._core import fma

# Of peers with nearfield, relative to the largest number: what rounding in another order may change.
AGREEMENT = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.01}
SETTLE_S = 0.005  # idle threads of torch's pool spin that long, and would take part of the burst's cores
FAIR = 0.9  # of n times one thread's peak, what n threads must read: 1.8 for two
MOST_WAITED = 0.05  # of a sample's time that its threads may have stood in the queue for a core, together


def reading(target: str, threads: int) -> tuple[float, float]:
    """The FMA peak of one thread, and of all."""
    time.sleep(SETTLE_S)
    one = fma(target, 1)
    return one, fma(target, threads) if threads > 1 else one


def waited() -> float:
    """Seconds that threads of this process were ready to run and had no core; 0 where nobody counts."""
    total = 0
    for task in glob.glob("/proc/self/task/*/schedstat"):
        with contextlib.suppress(OSError):  # a thread that ended meanwhile
            total += int(Path(task).read_text().split()[1])
    return total * 1e-9


def kept(sample: dict, threads: int) -> bool:
    """Whether all threads had their cores before, in and after the sample."""
    if sample.get("waited", 0.0) > MOST_WAITED:
        return False
    return all(n >= FAIR * threads * one for one, n in zip(sample["fma1"], sample["fma"], strict=True))


def seconds(fn, calls: int = 1) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        fn()
    return (time.perf_counter() - begin) / calls


def sample(fn, calls: int, target: str, threads: int, before: tuple) -> tuple[dict, tuple]:
    """Mean seconds of so many calls, between two readings of the peak and with the share of the time that
    threads waited for a core; and the second reading, which is the first of the next sample."""
    waited_s = waited()
    time_s = seconds(fn, calls)
    share = (waited() - waited_s) / max(time_s * calls, 1e-9)
    after = reading(target, threads)
    both = {"fma1": [before[0], after[0]], "fma": [before[1], after[1]]}
    return {"s": time_s, "waited": round(share, 4), **both}, after


@contextlib.contextmanager
def undisturbed():
    """Without Python's collector of garbage, which would come at any time."""
    gc.collect()
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def interleaved(functions: dict, target: str, threads: int, samples: int, budget: float) -> dict:
    """{name: [sample, ...]} of {name: function}, one sample of each in turn.

    budget: seconds that the samples of one function may take; one that is slower gets fewer, and one whose
    warm-up alone takes longer has that as its only sample.
    """
    taken = {name: [] for name in functions}
    plan = {}  # name -> (calls of a sample, number of samples)
    with undisturbed():
        before = reading(target, threads)
        for turn in range(samples + 1):
            for name, fn in functions.items():
                calls, count = plan.get(name, (1, 1))
                if turn > count:
                    continue
                one, before = sample(fn, calls, target, threads, before)
                if turn == 0:
                    warm = min(one["s"], seconds(fn)) if one["s"] < budget else one["s"]
                    plan[name] = (
                        max(1, min(1000, round(0.02 / warm))),
                        max(0, min(samples, int(budget / max(warm, 0.02)))),
                    )
                if turn > 0 or plan[name][1] == 0:
                    taken[name].append(one)
    return taken


@dataclass
class Summary:
    """What the samples of one function say."""

    seconds: float  # median
    low: float  # quartiles
    high: float
    peak: float  # GFLOP/s of all threads, median over the samples
    noisy: bool  # too few samples had all cores, so all count

    @property
    def spread(self) -> float:
        """Half the distance of the quartiles, over the median."""
        return _spread(self.low, self.seconds, self.high)

    def clearly_below(self, other: Summary, share: float) -> bool:
        """Faster by more than `share`, and three quarters of the samples lie below three quarters of the
        other's."""
        return self.seconds * (1 + share) < other.seconds and self.high < other.low


def summary(samples: list[dict], threads: int, least: int = 1) -> Summary:
    """samples: of interleaved(); those that did not have all cores are left out where `least` others are
    there."""
    fair = [s for s in samples if kept(s, threads)]
    noisy = len(fair) < least
    used = samples if noisy else fair
    times = [s["s"] for s in used]
    low, median, high = quartiles(times)
    return Summary(median, low, high, statistics.median(max(s["fma"]) for s in used), noisy)


def quartiles(times: list[float]) -> tuple[float, float, float]:
    if len(times) < 2:
        return (times[0],) * 3
    return tuple(statistics.quantiles(times, n=4, method="inclusive"))


def spread(times: list[float]) -> float:
    """Half the distance of the quartiles, over the median; 0 of one."""
    return _spread(*quartiles(times))


def _spread(low: float, median: float, high: float) -> float:
    return (high - low) / 2 / median
