# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Timing that knows its machine: interleaved samples, each between two readings of the FMA peak.

A sample is the mean time of as many calls as fill some milliseconds, with the peak of one thread and of all
threads read before and after. What is a sample worth? `kept` says: on a shared machine two threads at times
get one core, which nothing but the FMA reading shows.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import subprocess
import time
from pathlib import Path

SOURCE = Path(__file__).parent / "native" / "fma.cc"
LIBRARY = Path(__file__).parent.parent / "build" / "bench" / "libnearfield_fma.so"
BURST_MS = 2.0
SETTLE_S = 0.005  # idle threads of torch's pool spin that long, and would take part of the burst's cores
FAIR = 0.9  # of n times one thread's peak, what n threads must read: 1.8 for two


def build(source: Path, library: Path, *flags: str) -> Path:
    """Compiles one file into a shared library unless that is newer."""
    if not library.exists() or library.stat().st_mtime < source.stat().st_mtime:
        library.parent.mkdir(parents=True, exist_ok=True)
        fresh = library.with_suffix(f".{time.time_ns()}")  # another process may load or write it meanwhile
        subprocess.run(["c++", *flags, "-shared", "-fPIC", "-o", fresh, source], check=True)
        fresh.replace(library)
    return library


@functools.cache
def _burst():
    flags = ("-std=c++20", "-O3", "-ffp-contract=fast", "-pthread")  # as in CMakeLists.txt
    burst = ctypes.CDLL(str(build(SOURCE, LIBRARY, *flags))).nearfield_fma
    burst.argtypes, burst.restype = (ctypes.c_char_p, ctypes.c_int, ctypes.c_double), ctypes.c_double
    return burst


def fma(target: str, threads: int, milliseconds: float = BURST_MS) -> float:
    """The FMA peak of `threads` threads together now, in GFLOP/s (native/fma.h)."""
    rate = _burst()(target.encode(), threads, milliseconds)
    if rate <= 0:
        raise ValueError(f"[bench] got CPU target {target!r}, expected one that this machine has")
    return rate


def _reading(target: str, threads: int) -> tuple[float, float]:
    time.sleep(SETTLE_S)
    one = fma(target, 1)
    return one, fma(target, threads) if threads > 1 else one


def kept(sample: dict, threads: int) -> bool:
    """Whether all threads had their cores before and after the sample."""
    return all(n >= FAIR * threads * one for one, n in zip(sample["fma1"], sample["fma"], strict=True))


def seconds(fn, calls: int = 1) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        fn()
    return (time.perf_counter() - begin) / calls


def interleaved(functions: dict, target: str, threads: int, samples: int, budget: float) -> dict:
    """{name: [sample, ...]} of {name: function}, one sample of each in turn.

    budget: seconds that the samples of one function may take; one that is slower gets fewer, and one whose
    warm-up alone takes longer has that as its only sample.
    """
    taken = {name: [] for name in functions}
    plan = {}  # name -> (calls of a sample, number of samples)
    gc.collect()
    gc.disable()
    try:
        reading = _reading(target, threads)
        for turn in range(samples + 1):
            for name, fn in functions.items():
                calls, count = plan.get(name, (1, 1))
                if turn > count:
                    continue
                time_s = seconds(fn, calls)
                after = _reading(target, threads)
                pair = {"fma1": [reading[0], after[0]], "fma": [reading[1], after[1]]}
                reading = after
                if turn == 0:
                    warm = min(time_s, seconds(fn)) if time_s < budget else time_s
                    plan[name] = (
                        max(1, min(1000, round(0.02 / warm))),
                        max(0, min(samples, int(budget / max(warm, 0.02)))),
                    )
                if turn > 0 or plan[name][1] == 0:
                    taken[name].append({"s": time_s, **pair})
    finally:
        gc.enable()
    return taken
