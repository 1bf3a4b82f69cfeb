# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""docs/performance.md and its pictures, from bench/results: `python docs/make_performance.py` writes them.

Every number of that page is read off a table of the bench: results/*-speed.md, the newest first
(bench/report.py prints them), *-variants.md, *-features.md and *-predictions.md. The tests make the page
again and compare.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from make_pictures import GREY, IMAGES, QUERY, SEEN, svg, text

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
PAGE = Path(__file__).parent / "performance.md"
WAYS = {"fwd": "forward", "bwd": "backward"}
OTHERS = {
    "sdpa": "#d95f02",
    "flex": "#1b9e77",
    "tile-sdpa": "#e7298a",
    "openvino": "#7570b3",
    "onnxruntime": "#a6761d",
}


class Row(NamedTuple):
    """A problem in one direction."""

    name: str
    way: str
    ms: float
    peak: float  # per cent of the peak of multiply-adds
    ratios: dict  # peer -> its time over nearfield's; those that were not measured quietly are left out
    lead: tuple | None  # (the smallest of all peers, its name), if it was measured quietly
    kernel: str
    problem: str


def tables(path: Path) -> list[list[list[str]]]:
    """The Markdown tables of a file: rows of cells, without the line under the head."""
    found, open_table = [], False
    for line in path.read_text().splitlines():
        if not line.startswith("|"):
            open_table = False
            continue
        if not open_table:
            found.append([])
        open_table = True
        if not re.fullmatch(r"[|\-: ]+", line):
            found[-1].append([c.strip() for c in line.strip("|").split("|")])
        elif line.replace("|", "").strip() == "":
            found[-1].append(["" for _ in line.strip("|").split("|")])
    return found


def speed(path: Path) -> list[Row]:
    """The rows of a table of the bench."""
    head, *lines = tables(path)[0]
    peers = head[head.index("C++ ms") + 1 : head.index("lead over")]
    rows = []
    for line in lines:
        cell = dict(zip(head[2:], line[2:], strict=True))
        ratios = {p: float(cell[p]) for p in peers if cell[p] and not cell[p].endswith("~")}
        lead, _, best = cell["lead over"].partition(" ")
        ours = float(cell["ms"].rstrip("~")), float(cell["peak%"])
        lead = (float(lead), best) if lead else None
        rows.append(Row(line[0], line[1], *ours, ratios, lead, cell["kernel"], cell["problem"].strip("`")))
    return rows


def chart(rows: list[Row], title: str) -> str:
    """Share of the peak per problem: a bar for nearfield, a mark for each peer."""
    left, top, bar, unit, gap = 52, 58, 18, 3.6, 96
    width = 100 * unit
    ways = [w for w in WAYS if any(r.way == w for r in rows)]
    names = list(dict.fromkeys(r.name for r in rows))
    parts = [text(20, 18, title, bold=True)]
    x = 20
    for name, color in ({"nearfield": QUERY} | OTHERS).items():
        parts.append(f'<rect x="{x}" y="28" width="10" height="10" fill="{color}"/>' + text(x + 14, 37, name))
        x += 26 + 7 * len(name)
    for i, way in enumerate(ways):
        x0 = left + i * (width + gap)
        parts.append(text(x0, top - 4, f"{WAYS[way]}: % of the peak of multiply-adds", bold=True))
        for percent in (0, 25, 50, 75, 100):
            x, end = x0 + percent * unit, top + len(names) * (bar + 6)
            parts.append(
                f'<path stroke="{GREY}" d="M{x:g} {top}V{end}"/>' + text(x - 6, end + 14, str(percent))
            )
        for j, name in enumerate(names):
            y = top + j * (bar + 6) + 4
            parts.append(text(x0 - 30, y + 13, name, bold=True))
            row = next((r for r in rows if (r.name, r.way) == (name, way)), None)
            if row is None:
                continue
            parts.append(
                f'<rect x="{x0}" y="{y}" width="{row.peak * unit:.1f}" height="{bar}" fill="{QUERY}"/>'
            )
            words = f"{row.peak:.0f} %" + (f", {row.lead[0]:.1f} x" if row.lead else "")
            parts.append(text(x0 + row.peak * unit + 5, y + 13, words))
            for peer, ratio in row.ratios.items():
                color = OTHERS.get(peer.partition("+")[0])
                if color:
                    where = f'x="{x0 + row.peak / ratio * unit - 2:.1f}" y="{y - 1}"'
                    size = f'width="4" height="{bar + 2}"'
                    parts.append(f'<rect {where} {size} fill="{color}" stroke="#fff"/>')
    height = top + len(names) * (bar + 6) + 30
    return svg(left + len(ways) * (width + gap) - 60, height, parts)


def lead_chart(rows: list[Row], title: str) -> str:
    """How many times as long the best of the others takes, per problem."""
    left, top, bar, unit = 52, 50, 12, 46
    names = list(dict.fromkeys(r.name for r in rows))
    most = max(r.lead[0] for r in rows if r.lead)
    parts = [text(20, 18, title, bold=True)]
    for i, (way, color) in enumerate((("fwd", QUERY), ("bwd", SEEN))):
        parts.append(f'<rect x="{20 + 90 * i}" y="26" width="10" height="10" fill="{color}"/>')
        parts.append(text(34 + 90 * i, 35, WAYS[way]))
    end = top + len(names) * (2 * bar + 8)
    for n in range(0, int(most) + 2):
        color = "#888888" if n == 1 else GREY
        parts.append(
            f'<path stroke="{color}" d="M{left + n * unit} {top - 4}V{end}"/>'
            + text(left + n * unit - 4, end + 14, str(n))
        )
    for j, name in enumerate(names):
        y = top + j * (2 * bar + 8)
        parts.append(text(14, y + 16, name, bold=True))
        for i, (way, color) in enumerate((("fwd", QUERY), ("bwd", SEEN))):
            row = next((r for r in rows if (r.name, r.way) == (name, way) and r.lead), None)
            if row is None:
                continue
            lead, peer = row.lead
            at = y + i * bar
            parts.append(
                f'<rect x="{left}" y="{at}" width="{lead * unit:.1f}" height="{bar - 2}" fill="{color}"/>'
            )
            parts.append(text(left + lead * unit + 5, at + 10, f"{lead:.1f}, {peer}"))
    return svg(left + (int(most) + 1) * unit + 90, end + 24, parts)


def sources(what: str) -> list[Path]:
    """The results of a kind, the newest first."""
    return sorted(RESULTS.glob(f"*-{what}.md"), reverse=True)


def words_of(problem: str) -> str:
    """`64x64, window 7x7, 8 heads of 32` of a problem string."""
    kind, _, _, heads, layout, *options = problem.split(":")
    b, h, _, d = map(int, re.fullmatch(r"b(\d+)h(\d+)kv(\d+)d(\d+).*", heads).groups())
    names = {"k": "window", "s": "stride", "d": "dilation"}
    words = [layout.split(",")[0].replace("x", "×") + (" tokens, dense" if kind == "att" else " tokens")]
    for option in options:
        if option[0] in names and option[1:2].isdigit():
            words.append(f"{names[option[0]]} {option[1:].replace('x', '×')}")
        elif option[0] == "c":
            words.append("causal on axis " + ", ".join(str(i) for i, c in enumerate(option[1:]) if c == "1"))
    batch = [f"batch {b}"] if b > 1 else []
    return ", ".join([*words, f"{h} heads of {d}", *batch])


def section(path: Path) -> list[str]:
    rows, title = speed(path), path.read_text().splitlines()[0].lstrip("# ")
    stem = path.stem
    lines = [
        f"## {title.partition(';')[0]}",
        "",
        f"{title}. [All rows, all peers](../bench/results/{path.name}).",
        "",
    ]
    lines += [f"![Share of the peak per problem, with the peers](images/{stem}-peak.svg)", ""]
    lines += [f"![How many times as long the best peer takes](images/{stem}-lead.svg)", ""]
    lines += [
        "| | problem | | ms | of the peak | the best other takes | kernel |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lead = f"{r.lead[0]:.2f} × ({r.lead[1]})" if r.lead else "not measured quietly"
        kernel = f"`{r.kernel.split()[-1]}`"
        cells = (r.name, words_of(r.problem), WAYS[r.way], f"{r.ms:g}", f"{r.peak:.0f} %", lead, kernel)
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def machine(path: Path) -> str:
    """2026-11-21-amd-epyc-2-cores-features.md -> amd epyc 2 cores, 2026-11-21"""
    year, month, day, *words, _ = path.stem.split("-")
    return f"{' '.join(words)}, {year}-{month}-{day}"


def features() -> list[str]:
    lines = [
        "## What features cost",
        "",
        "Time over that of the same call without the feature: bias and dropout run in the general kernel, "
        "calls without them mostly in a tuned one.",
        "",
    ]
    for path in sources("features"):
        head, *rows = tables(path)[0]
        lines += [f"On {machine(path)} ([how](../bench/results/{path.name})):", ""]
        lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        lines += [*(f"| {' | '.join(row)} |" for row in rows), ""]
    return lines


def variants() -> list[str]:
    lines = [
        "## Threads, types and targets",
        "",
        "In C++ (`bench/variants.py`). *One / all*: the time on one thread over that on all, in one "
        "process; the median of processes. *bf16*, *f16*: "
        "the time in float32 over that of tensors of the type, computed in float32; *prec=bf16*: and "
        "multiplied in bf16. *AVX2*: the share of the peak of AVX2's multiply-adds where "
        "`NEARFIELD_CPU_TARGET=avx2` forces it.",
        "",
    ]
    shown = ["one thread peak%", "one / all", "bf16", "f16", "prec=bf16", "AVX2 peak%"]
    for path in sources("variants"):
        (head, *rows), *_ = tables(path)
        lines += [f"On {machine(path)} ([all columns](../bench/results/{path.name})):", ""]
        # What stands twice in the head is first of float32, then of AVX2.
        at = [4 + head[4:].index("peak%"), *(head.index(name) for name in shown[1:])]
        lines += [f"| | | {' | '.join(shown)} |", "|---" * (2 + len(shown)) + "|"]
        for row in rows:
            lines.append(f"| {row[0]} | {WAYS[row[1]]} | {' | '.join(row[i] for i in at)} |")
        lines.append("")
    return lines


def predictions() -> list[str]:
    lines = [
        "## What is predicted",
        "",
        "Kernels are chosen by predicted times ([how](cpu-kernels.md#how-a-kernel-is-chosen)). On problems "
        "that the prices were not fitted to:",
        "",
    ]
    for path in sources("predictions"):
        lines += [f"On {machine(path)} ([every problem, every kernel](../bench/results/{path.name})):", ""]
        lines += [line for line in path.read_text().splitlines() if line.startswith("- ")]
        lines.append("")
    return lines


INTRODUCTION = """\
# Performance

<!-- Written by docs/make_performance.py from bench/results: change those. -->

How fast problems are that people have, beside everything else that computes them on the same machine, in
the same run, at its best settings: PyTorch's `scaled_dot_product_attention` (`sdpa`), for windows with the
equivalent mask; compiled FlexAttention (`flex`); boxes of queries with gathered keys through SDPA
(`tile-sdpa`); every query's keys gathered (`gather`, far slower and not in the pictures); OpenVINO and ONNX
Runtime for dense problems. `+mkl512`: with the AVX-512 path of MKL forced, which MKL does not take by itself
on AMD. `b16`, `m32`, `s2`, ... in the last column are [the kernels](cpu-kernels.md) that ran here.

*Of the peak*: useful operations, those that the semantics ask for and not what a kernel computes, per second,
as a share of the multiply-adds that the machine makes at most, measured in the same run. What a kernel
computes for nothing counts as nothing.

    make bench                              all of it, an hour on two cores
    make bench ARGS="--quick --only c,d"    two problems
    build/bench/nearfield-bench PROBLEM     one problem, by its string, without Python, once `make bench` ran

[The bench](../bench/README.md) says how times are taken, and what a row means. Small shares of the peak are
those of small windows and few channels: to pack a key, and to exponentiate a score, costs the same for a
short product as for a long one.
"""


def page() -> str:
    lines = [INTRODUCTION]
    for path in sources("speed"):
        lines += section(path)
    return "\n".join([*lines, *variants(), *features(), *predictions()]).rstrip() + "\n"


def drawer(draw, path: Path, words: str):
    return lambda: draw(speed(path), words)


PICTURES = {}
for _path in sources("speed"):
    PICTURES[f"{_path.stem}-peak.svg"] = drawer(
        chart, _path, "share of the peak, and times the best other takes"
    )
    PICTURES[f"{_path.stem}-lead.svg"] = drawer(lead_chart, _path, "time of the best other over nearfield's")

if __name__ == "__main__":
    PAGE.write_text(page())
    for name, draw in PICTURES.items():
        (IMAGES / name).write_text(draw())
        print(IMAGES / name)
