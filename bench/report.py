# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""From JSON lines to figures and to one table.

A process is slow or fast as a whole, so that a contestant's figure is the median of its best process.
Samples without all cores are dropped (nearfield.tools.measure: kept); a figure that has no others is marked
`~`.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nearfield.tools.measure import kept, spread

OURS, NATIVE = "nearfield", "nearfield-bench"  # through PyTorch, and in C++


@dataclass
class Figure:
    """What one contestant reached on one problem in one direction."""

    row: dict  # the line of its best process
    seconds: float  # median
    spread: float  # half the distance of the quartiles, over the median
    share: float  # of the FMA peak: median over samples
    processes: int
    runner_up: float  # median of the second best process over `seconds`, minus 1; nan if there is one only
    samples: int
    dropped: int  # in all processes
    noisy: bool  # no sample with all cores

    @property
    def gflops(self) -> float:
        return self.row["flops"] / self.seconds * 1e-9

    @property
    def uncertainty(self) -> float:
        """Relative: what may differ from run to run."""
        return max(2 * self.spread, self.runner_up if self.runner_up == self.runner_up else 0.0)


def figure(rows: list[dict]) -> Figure | None:
    """Of the rows of one contestant, one per process; None if nothing was measured."""
    rows = [r for r in rows if r["samples"]]
    if not rows:
        return None
    good = [[s for s in r["samples"] if kept(s, r["threads"])] for r in rows]
    noisy = not any(good)
    chosen = [(statistics.median(s["s"] for s in g), r, g) for r, g in zip(rows, good, strict=True) if g]
    if noisy:
        chosen = [(statistics.median(s["s"] for s in r["samples"]), r, r["samples"]) for r in rows]
    chosen.sort(key=lambda c: c[0])
    median, row, samples = chosen[0]
    return Figure(
        row=row,
        seconds=median,
        spread=spread([s["s"] for s in samples]),
        share=statistics.median(row["flops"] / s["s"] / (1e9 * max(s["fma"])) for s in samples),
        processes=len(rows),
        runner_up=chosen[1][0] / median - 1 if len(chosen) > 1 else float("nan"),
        samples=len(samples),
        dropped=0 if noisy else sum(len(r["samples"]) - len(g) for r, g in zip(rows, good, strict=True)),
        noisy=noisy,
    )


class Results:
    """A file of JSON lines: figures by (problem name, direction) and contestant."""

    def __init__(self, path: str | Path):
        lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
        self.machines = [x for x in lines if x["kind"] == "machine"]
        self.absent = [x for x in lines if x["kind"] == "absent"]
        grouped: dict[tuple, dict[str, list]] = {}
        for row in lines:
            if row["kind"] == "row":
                grouped.setdefault((row["name"], row["direction"]), {}).setdefault(row["by"], []).append(row)
        self.figures: dict[tuple, dict[str, Figure]] = {}
        self.facts: dict[tuple, dict] = {}  # of ours, from whichever process has them: error, workspace, ...
        for key, by in grouped.items():
            self.figures[key] = {n: f for n, rows in by.items() if (f := figure(rows)) is not None}
            self.facts[key] = {}
            for row in [*by.get(NATIVE, []), *by.get(OURS, [])]:
                self.facts[key] |= {k: v for k, v in row.items() if v is not None}

    @property
    def peers(self) -> list[str]:
        found = dict.fromkeys(name for by in self.figures.values() for name in by)
        found = [name for name in found if name not in (OURS, NATIVE) and name[0] != "@"]
        return sorted(found, key=lambda name: (name.partition("+")[0], name))

    def best_peer(self, key) -> tuple[str, Figure] | None:
        """Name and figure of the fastest; noisy ones would flatter us."""
        rivals = {n: f for n, f in self.figures[key].items() if n in self.peers and not f.noisy}
        return min(rivals.items(), key=lambda item: item[1].seconds, default=None)

    def title(self) -> str:
        m = self.machines[0] if self.machines else {}
        own = {
            f.processes for by in self.figures.values() for name, f in by.items() if name in (OURS, NATIVE)
        }
        count = " to ".join(map(str, sorted({min(own, default=0), max(own, default=0)})))
        return (
            f"{m.get('cpu')}, {m.get('target')}, {m.get('threads')} threads; nearfield {m.get('commit')}, "
            f"torch {m.get('torch')}; {m.get('date')}; best of {count} processes"
        )


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3f}" if seconds < 1e-3 else f"{seconds * 1e3:.3g}"


def _mark(figure: Figure) -> str:
    return "~" if figure.noisy else ""


def cells(results: Results) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the table. Below a peer: its time over ours."""
    peers = results.peers
    names = ["", "", "ms", "±%", "GF/s", "peak%", "C++ ms", *peers, "lead over"]
    names += ["MiB", "max error", "pred/meas", "kernel", "problem"]
    table = []
    for key, by in results.figures.items():
        ours = by.get(OURS) or by.get(NATIVE)
        if ours is None:
            continue
        facts, rival = results.facts[key], results.best_peer(key)
        ratios = [f"{by[n].seconds / ours.seconds:.2f}{_mark(by[n])}" if n in by else "" for n in peers]
        predicted = facts.get("predicted")
        table.append(
            [
                *key,
                _time(ours.seconds) + _mark(ours),
                f"{100 * ours.spread:.0f}",
                f"{ours.gflops:.0f}",
                f"{100 * ours.share:.1f}",
                _time(by[NATIVE].seconds) if NATIVE in by else "",
                *ratios,
                f"{rival[1].seconds / ours.seconds:.2f} {rival[0]}" if rival else "",
                f"{facts['workspace'] / 2**20:.2f}" if "workspace" in facts else "",
                f"{facts['error']:.1e}" if "error" in facts else "",
                f"{predicted / ours.seconds:.2f}" if predicted else "",
                facts.get("kernel", ""),
                facts["problem"],
            ]
        )
    return names, table


CLOSE = 1.03  # times that differ by less are equal: the planner may choose either kernel


def planner(results: Results) -> list[str]:
    """How well the planner knows: its choice beside forced kernels, its predictions beside the times."""
    right, wrong, near, far = [], [], [], []
    for key, by in results.figures.items():
        ours = by.get(NATIVE) or by.get(OURS)
        forced = {n: f for n, f in by.items() if n[0] == "@"}
        if ours and forced:
            name, best = min(forced.items(), key=lambda item: item[1].seconds)
            text = f"{key[0]} {key[1]} ({ours.seconds / best.seconds:.2f} of {name})"
            (right if ours.seconds <= CLOSE * best.seconds else wrong).append(text)
        for f in filter(None, (ours, *forced.values())):
            if predicted := f.row.get("predicted"):
                ratio = predicted / f.seconds
                text = f"{key[0]} {key[1]} {f.row['kernel']} ({ratio:.2f})"
                (near if 1 / 1.3 <= ratio <= 1.3 else far).append(text)
    lines = []
    if right or wrong:
        lines.append(
            f"fastest kernel chosen: {len(right)} of {len(right + wrong)}; not: {', '.join(wrong) or '-'}"
        )
    if near or far:
        lines.append(f"predicted within 30 %: {len(near)} of {len(near + far)}; not: {', '.join(far) or '-'}")
    return lines


def notes(results: Results) -> list[str]:
    """What the table does not say: dropped samples, absent peers, settings, what errors were taken of."""
    dropped = sum(f.dropped for by in results.figures.values() for f in by.values())
    lines = [f"{dropped} samples dropped: not all cores were there"] if dropped else []
    if any(f.noisy for by in results.figures.values() for f in by.values()):
        lines.append("~: no sample had all cores; not to be trusted")
    reasons: dict[str, dict] = {}
    for x in results.absent:
        if x["by"] not in results.figures.get((x["name"], x["direction"]), {}) and "+" not in x["by"]:
            reasons.setdefault(x["why"], {})[f"no {x['by']} on {x['name']}"] = None
    lines += [f"{why}: {', '.join(where)}" for why, where in reasons.items()]
    settings: dict[tuple, list] = {}
    for (name, direction), by in results.figures.items():
        for peer, f in by.items():
            if f.row.get("setting") and "+" not in peer:  # +mkl512 runs with the same ones
                text = " ".join(f"{k}={_short(v)}" for k, v in f.row["setting"].items())
                settings.setdefault((peer, text), []).append(f"{name} {direction}")
    lines += [f"{peer} with {text}: {', '.join(where)}" for (peer, text), where in settings.items()]
    return lines + planner(results)


def _short(value) -> str:
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)


def show(results: Results) -> None:
    names, rows = cells(results)
    table = Table(title=results.title(), title_justify="left", padding=(0, 1, 0, 0))
    for i, name in enumerate(names):
        left = i < 2 or name in ("lead over", "kernel", "problem")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console(width=max(120, 4 + sum(max(map(len, c)) + 2 for c in zip(names, *rows, strict=True))))
    console.print(table)
    for line in notes(results):
        console.print(line, markup=False, highlight=False)


def markdown(results: Results) -> str:
    names, rows = cells(results)
    lines = [f"# {results.title()}", "", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    lines += [f"| {' | '.join([*row[:-1], f'`{row[-1]}`'])} |" for row in rows]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes(results)), ""])
