# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures the constants of the planner's cost model on this machine; writes them into src/cpu/cost_table.h.

    python bench/calibrate.py --machine zen4                       three processes, some three minutes
    NEARFIELD_CPU_TARGET=avx2 python bench/calibrate.py --machine avx2
    python bench/calibrate.py --machine zen4 --times T --rounds 0  fits what is in T already

Runs nearfield-bench on one thread over problems/calibrate.txt with every kernel forced, takes the best time
of each, asks the library for the counts that the model weighs (src/cpu/cost.h), and fits non-negative weights
to the relative errors, outliers counting less. Machines that were not at hand get the weights of another one
times the ratios below. predictions.py then judges the table on problems that it was not fitted to.
"""

from __future__ import annotations

import argparse
import math
import re
from collections import defaultdict
from pathlib import Path

import forced
import numpy as np
from scipy.optimize import nnls

HERE = Path(__file__).parent
TABLE = HERE.parent / "src" / "cpu" / "cost_table.h"
COUNTS = HERE.parent / "src" / "cpu" / "cost.h"

# Not measured: weights of another machine times a ratio for multiply-adds and exponentials, for memory beyond
# the L2 cache, and for all else. The machine measured multiplies 117 GFLOP/s per core at 3.7 GHz, one 512-bit
# FMA per cycle.
DERIVED = {
    # Cascade Lake, two 512-bit FMAs per cycle at 2.4 GHz: 154 GFLOP/s per core, memory 10-11 GB/s.
    "intel": ("zen4", 0.76, 1.2, 1.4),
    # Two 512-bit FMAs per cycle at 3.9 GHz: kernels reached 205 GFLOP/s of 248.
    "zen5": ("zen4", 0.53, 0.8, 0.94),
    # Two 128-bit FMAs per cycle at 2.6 GHz: 0.19 ns per vector; counts are in vectors.
    "neon": ("zen4", 0.64, 1.2, 1.4),
}
ARITHMETIC = ("Score", "ScoreRun", "Exp", "Weigh", "WeighRow", "Spread", "SpreadRow")
MEMORY = ("Near", "NearRow", "NearSegment", "Far", "Ring", "RingFar")
UNKNOWN_TO = {"neon": ("s2", "bf16"), "sse4": ("s2", "bf16"), "scalar": ("s2", "bf16"), "avx2": ("bf16",)}


def names() -> list[str]:
    """Of the counts, in their order."""
    return re.findall(r"^  k(\w+),", COUNTS.read_text(), re.MULTILINE)


def fit(counts: np.ndarray, seconds: np.ndarray, near: np.ndarray | None = None) -> np.ndarray:
    """Weights in seconds: the least sum of squares of relative errors, beyond 3 % of their sizes.

    near: weights of a similar kernel, to stay near to; without them small weights are preferred, but hardly.
    """
    relative = counts / seconds[:, None]
    scale = np.sqrt((relative**2).mean(0))
    there = scale > 0
    relative = relative[:, there] / scale[there]
    wanted = np.zeros(there.sum()) if near is None else near[there] * scale[there]
    pull, trust = 1e-4 if near is None else 0.3, np.ones(len(seconds))
    for _ in range(15):
        a = np.vstack([relative * trust[:, None], pull * np.eye(len(wanted))])
        x, _ = nnls(a, np.concatenate([trust, pull * wanted]))
        trust = np.sqrt(0.03 / np.maximum(np.abs(relative @ x - 1), 0.03))
    weights = np.zeros(counts.shape[1])
    weights[there] = x / scale[there]
    return weights


def fitted(times: Path) -> dict[tuple[str, str], list[float]]:
    """{(kernel, direction): weights in picoseconds}."""
    samples = defaultdict(list)
    for problem, by in forced.read(times).items():
        for kernel, timed in by.items():
            samples[kernel, problem.split(":")[1]].append(timed)
    table: dict[tuple[str, str], list[float]] = {}
    for key, timed in sorted(samples.items()):  # "b16" before "b16 bf16"
        counts, seconds = np.array([t.counts for t in timed]), np.array([t.seconds for t in timed])
        plain = table.get((key[0].removesuffix(" bf16"), key[1]))
        weights = fit(counts, seconds, plain and np.array(plain) * 1e-12)
        error = np.abs(np.log(counts @ weights / seconds))
        print(
            f"{key[0]:9} {key[1]}  {len(timed):3} problems, "
            f"within 10 %: {np.mean(error < np.log(1.1)):.0%}, 30 %: {np.mean(error < np.log(1.3)):.0%}"
        )
        table[key] = [w * 1e12 for w in weights]
    return table


def derived(table: dict, machine: str) -> dict:
    _, arithmetic, memory, other = DERIVED[machine]
    ratio = [arithmetic if n in ARITHMETIC else memory if n in MEMORY else other for n in names()]
    return {
        key: [r * w for r, w in zip(ratio, weights, strict=True)]
        for key, weights in table.items()
        if not any(word in key[0].split() for word in UNKNOWN_TO.get(machine, ()))
    }


def write(machine: str, table: dict, how: str) -> None:
    """Replaces the rows of a machine in the header."""
    text = TABLE.read_text()
    rows = [f"    // {machine}: {how}"]
    for (kernel, direction), weights in sorted(table.items()):
        way = "Forward" if direction == "fwd" else "Backward"
        numbers = ", ".join(f"{w:.3g}" for w in weights)
        rows.append(
            f'    {{Machine::k{machine.capitalize()}, "{kernel}", Direction::k{way}, {{{numbers}}}}},'
        )
    old = re.compile(rf"^    (// {machine}:|{{Machine::k{machine.capitalize()},).*\n", re.MULTILINE)
    text = old.sub("", text)
    end = text.index("};\n\n}  // namespace")
    TABLE.write_text(text[:end] + "\n".join(rows) + "\n" + text[end:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--machine", required=True, help="zen4, ...: name_of() in src/cpu/machine.cc")
    parser.add_argument("--bench", type=Path, default=HERE.parent / "build" / "bench" / "nearfield-bench")
    parser.add_argument("--times", type=Path, help="a file of rows: what is measured is added to it")
    parser.add_argument("--rounds", type=int, default=3, help="processes to measure")
    parser.add_argument("--most-flops", type=float, default=math.inf, help="leaves out larger problems")
    parser.add_argument("--note", default="measured", help="what the table says of this machine")
    a = parser.parse_args()
    times = a.times or a.bench.parent / f"calibrate-{a.machine}.jsonl"
    if a.rounds and not a.times:
        times.unlink(missing_ok=True)
    files = [HERE / "problems" / "calibrate.txt"]
    forced.measure(a.bench, files, times, a.rounds, both=True, most_flops=a.most_flops)
    table = fitted(times)
    write(a.machine, table, a.note)
    for machine, (source, *ratios) in DERIVED.items():
        if source == a.machine:
            arithmetic, memory, other = ratios
            how = f"not measured; {source} times {arithmetic} (arithmetic), {memory} (memory), {other} (else)"
            write(machine, derived(table, machine), how)


if __name__ == "__main__":
    main()
