# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Every kernel of the CPU backend on the problems of some files: measured on one thread, and predicted.

A time is the best of several processes: where a process's memory lies alone can cost a third. As many
processes as there are cores run side by side, in step: what cores share is as busy then as in a call that has
them all.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nearfield import _core

KERNELS = ("b16", "b32", "m16", "m32", "s2", "general")
FMA_SLACK = 0.9  # samples whose FMA reading is below this share of the best one of the file are dropped


@dataclass
class Timed:
    """One kernel on one problem."""

    seconds: float
    predicted: float
    counts: list[float]  # src/cpu/cost.h


@cache
def planned(problem: str) -> dict:
    """What the planner says: {"seconds", "kernels": [{"name", "seconds", "counts"}, ...], ...}."""
    return _core.problem(problem)


def lines(files: list[Path], both: bool, most_flops: float) -> list[str]:
    """`NAME PROBLEM` of files. both: forward problems get one for the backward pass as well."""
    found = []
    for file in files:
        for line in file.read_text().splitlines():
            words = line.partition("#")[0].split()
            if not words:
                continue
            name, text = words
            if planned(text)["flops"] > most_flops:
                continue
            found.append(f"{name} {text}")
            if both and "prec=" not in text:  # arithmetic in bf16 is for the forward pass
                found.append(f"{name} {text.replace(':fwd:', ':bwd:')}")
    return found


def measure(
    bench: Path, files: list[Path], times: Path, rounds: int, both: bool, most_flops: float = math.inf
) -> None:
    """Appends the rows of `rounds` processes per core to `times`; slow kernels are called twice."""
    with tempfile.TemporaryDirectory() as folder:
        listing = Path(folder) / "problems.txt"
        listing.write_text("\n".join(lines(files, both, most_flops)) + "\n")
        forced = ",".join(f"cpu/{k}" for k in KERNELS)
        options = [
            "--threads",
            1,
            "--samples",
            2,
            "--sample-ms",
            3,
            "--budget",
            0.05,
            "--forced",
            "--with",
            forced,
        ]
        for _ in range(rounds):
            parts = [Path(folder) / f"{core}.jsonl" for core in range(os.cpu_count() or 1)]
            commands = [[str(c) for c in (bench, *options, "--json", part, listing)] for part in parts]
            running = [subprocess.Popen(c, stdout=subprocess.DEVNULL) for c in commands]
            codes = [process.wait() for process in running]
            if any(codes):
                raise RuntimeError(f"{' '.join(commands[0])} failed")
            with times.open("a") as all_rows:
                for part in parts:
                    all_rows.write(part.read_text())
                    part.unlink()


def read(times: Path) -> dict[str, dict[str, Timed]]:
    """{problem: {kernel: Timed}} of the rows of a file; kernels that the planner predicts."""
    rows = [r for line in times.read_text().splitlines() if (r := json.loads(line))["kind"] == "row"]
    peak = max(max(s["fma1"]) for r in rows for s in r["samples"])
    best: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        problem, kernel = row["problem"].partition("@")[0], row["kernel"].split(maxsplit=1)[1]
        fair = [s["s"] for s in row["samples"] if min(s["fma1"]) >= FMA_SLACK * peak]
        for time_s in fair or [s["s"] for s in row["samples"]]:
            best[problem][kernel] = min(time_s, best[problem].get(kernel, time_s))
    found: dict[str, dict[str, Timed]] = {}
    for problem, by in best.items():
        says = {k["name"]: k for k in planned(problem).get("kernels", [])}
        found[problem] = {
            k: Timed(t, says[k]["seconds"], says[k]["counts"]) for k, t in by.items() if k in says
        }
    return found
