# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""How well the planner predicts: every kernel forced, on problems that the constants were not fitted to.

    python bench/predictions.py --out bench/results/NAME.md        speed.txt and no_cliff.txt, three processes
    python bench/predictions.py --times T --rounds 0 --out ...     judges what is in T already

One thread. The choice is right if its kernel is within 5 % of the fastest one; a prediction is near if it is
within a factor of 1.3 of the time.
"""

from __future__ import annotations

import argparse
import math
from datetime import date
from pathlib import Path

import forced

from nearfield import _core

HERE = Path(__file__).parent
CLOSE, NEAR = 1.05, 1.3


def cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    names = [x for x in info.read_text().splitlines() if x.startswith("model name")] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else "unknown"


def near(timed: forced.Timed) -> bool:
    return abs(math.log(timed.predicted / timed.seconds)) <= math.log(NEAR)


def judged(times: Path) -> tuple[list[str], list[list[str]]]:
    """Lines that sum up, and rows: problem, chosen kernel, its time over the best, times and predictions."""
    rows, right, close, every, lost = [], [], [], [], []
    for problem, by in forced.read(times).items():
        chosen = min(by, key=lambda k: by[k].predicted)
        fastest = min(by, key=lambda k: by[k].seconds)
        loss = by[chosen].seconds / by[fastest].seconds
        if len(by) > 1:
            right.append(loss <= CLOSE)
            lost.append(loss)
        close.append(near(by[chosen]))
        every += [near(t) for t in by.values()]
        cells = [
            f"{by[k].seconds * 1e3:.3g} ({by[k].predicted / by[k].seconds:.2f})" if k in by else ""
            for k in columns(by)
        ]
        rows.append([f"`{problem}`", chosen, "" if loss == 1 else f"{loss:.2f} of {fastest}", *cells])
    share = lambda flags: f"{sum(flags)} of {len(flags)} ({sum(flags) / len(flags):.1%})"  # noqa: E731
    lines = [
        f"the kernel chosen is the fastest, or within 5 % of it: {share(right)}; time lost by the choice: "
        f"{sum(lost) / len(lost) - 1:.2%} on average, {max(lost) - 1:.0%} at most",
        f"predicted within a factor of 1.3, the kernel chosen: {share(close)}",
        f"predicted within a factor of 1.3, every kernel: {share(every)}",
    ]
    return lines, rows


def columns(by: dict) -> list[str]:
    """Kernels in the table's order; those that multiply in bf16 share the columns of the others."""
    return [f"{k} bf16" if f"{k} bf16" in by else k for k in forced.KERNELS]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "files", nargs="*", type=Path, help="of problems; default: speed.txt and no_cliff.txt"
    )
    parser.add_argument("--bench", type=Path, default=HERE.parent / "build" / "bench" / "nearfield-bench")
    parser.add_argument("--times", type=Path, help="a file of rows: what is measured is added to it")
    parser.add_argument("--rounds", type=int, default=3, help="processes to measure")
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    a = parser.parse_args()
    files = a.files or [HERE / "problems" / "speed.txt", HERE / "problems" / "no_cliff.txt"]
    times = a.times or a.bench.parent / "predictions.jsonl"
    if a.rounds and not a.times:
        times.unlink(missing_ok=True)
    forced.measure(a.bench, files, times, a.rounds, both=False)
    lines, rows = judged(times)
    print(*lines, sep="\n")
    if a.out:
        title = (
            f"# Predicted and measured, {cpu_model()}, {_core.info()['cpu_target']}, 1 thread, {date.today()}"
        )
        head = ["problem", "chosen", "over the best", *(f"{k} ms (pred/meas)" for k in forced.KERNELS)]
        table = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(r)} |" for r in rows)]
        a.out.write_text("\n".join([title, "", *(f"- {x}" for x in lines), "", *table, ""]))


if __name__ == "__main__":
    main()
