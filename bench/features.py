# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What bias and dropout cost on the CPU backend: time over the plain call's, interleaved in one process.

python bench/features.py [--repeats 7] [--threads 2]
"""

import argparse
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table

import nearfield as nf

PROBLEMS = {  # layout, window (None: dense), heads, head dim
    "na2d 64x64 k7x7 h8 d32": ((64, 64), 7, 8, 32),
    "na2d 64x64 k13x13 h4 d64": ((64, 64), 13, 4, 64),
    "na3d 8x16x16 k5x5x5 h4 d64": ((8, 16, 16), 5, 4, 64),
    "attention 1024 h8 d64": ((1024,), None, 8, 64),
}
FUNCTIONS = {1: nf.na1d, 2: nf.na2d, 3: nf.na3d}


def calls(layout, window, heads, dim):
    """{name: function of (q, k, v) that gives out}."""
    if window is None:
        return {"plain": nf.attention, "dropout": lambda *x: nf.attention(*x, dropout_p=0.1)}
    f = FUNCTIONS[len(layout)]
    bias = torch.randn(heads, *(2 * window - 1,) * len(layout), requires_grad=True)
    return {
        "plain": lambda *x: f(*x, window),
        "bias": lambda *x: f(*x, window, bias=bias),
        "dropout": lambda *x: f(*x, window, dropout_p=0.1),
    }


def measure(layout, window, heads, dim, repeats):
    """{name: (forward seconds, backward seconds)}: medians over interleaved repeats."""
    inputs = [torch.randn(1, *layout, heads, dim, requires_grad=True) for _ in range(3)]
    times = {}
    for repeat in range(repeats + 1):  # the first warms up
        for name, f in calls(layout, window, heads, dim).items():
            begin = time.perf_counter()
            out = f(*inputs)
            middle = time.perf_counter()
            out.backward(torch.ones_like(out))
            if repeat:
                times.setdefault(name, []).append((middle - begin, time.perf_counter() - middle))
    return {name: [statistics.median(t) for t in zip(*both, strict=True)] for name, both in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    table = Table(
        title=f"float32, {a.threads} threads, {nf.info()['cpu_target']}: time over the plain call's"
    )
    for column in ("problem", "feature", "forward", "backward"):
        table.add_column(column, justify="left" if column in ("problem", "feature") else "right")
    for name, problem in PROBLEMS.items():
        times = measure(*problem, a.repeats)
        for feature, both in times.items():
            if feature != "plain":
                ratios = (x / y for x, y in zip(both, times["plain"], strict=True))
                table.add_row(name, feature, *(f"{r:.2f}" for r in ratios))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
