# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The pictures of these pages: `python docs/make_pictures.py` writes docs/images/*.svg.

Nothing here knows what a window is. Which keys a query sees is asked of the library: where every value is
a unit vector of its own, the output of a query is its row of the attention matrix; and nf_intervals() has
the interval of every query per axis.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

import nearfield as nf
from nearfield import _core

IMAGES = Path(__file__).parent / "images"
CELL = 14  # pixels
PLAIN, SEEN, QUERY, SHARED, INK = "#eceff3", "#f0a63c", "#1f4e79", "#7fa8cc", "#222222"
FULL, FRESH, GREY = "#8fbf7f", "#d98880", "#d3d9e0"


def seen(queries: tuple, keys: tuple, **arguments):
    """[*queries, *keys], bool: what every query of a layout sees."""
    rank, n = len(keys), torch.Size(keys).numel()
    function = (nf.na1d, nf.na2d, nf.na3d)[rank - 1]
    weights = function(
        torch.zeros(1, *queries, 1, 1),
        torch.zeros(1, *keys, 1, 1),
        torch.eye(n).reshape(1, *keys, 1, n),
        backend="reference",
        **arguments,
    )
    return (weights > 0).reshape(*queries, *keys)


def cells(left: float, up: float, table, color: str, size: float = CELL, inset: float = 0) -> str:
    """A square of `size` less its inset for each true entry [rows, columns], one pixel apart."""
    n = size - 1 - 2 * inset
    corners = ((left + x * size + inset, up + y * size + inset) for y, x in table.nonzero().tolist())
    return (
        f'<path fill="{color}" d="' + "".join(f"M{x:g} {y:g}h{n:g}v{n:g}h-{n:g}z" for x, y in corners) + '"/>'
    )


def keys_of(left: float, up: float, mine, size: float = CELL) -> list[str]:
    return [cells(left, up, ~mine, PLAIN, size), cells(left, up, mine, SEEN, size)]


def legend(y: float, entries) -> list[str]:
    one = torch.ones(1, 1)
    return [p for x, color, w in entries for p in (cells(x, y, one, color), text(x + CELL + 4, y + 11, w))]


def text(x: float, y: float, words: str, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}"{weight}>{words}</text>'


def svg(width: float, height: float, parts: list[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" font-family="sans-serif" font-size="12" fill="{INK}">\n'
        f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def windows() -> str:
    """Six 12 x 12 layouts; in each one query, the keys that it sees, and who shares its window."""
    extent = 12
    panels = (  # title, caption, query, arguments
        ("kernel_size=5", "5 x 5 around the query", (5, 6), {"kernel_size": 5}),
        ("kernel_size=5", "shifted inwards, never cut", (0, 10), {"kernel_size": 5}),
        ("kernel_size=(3, 9)", "each axis has its own", (5, 6), {"kernel_size": (3, 9)}),
        ("dilation=3", "kernel_size=4: every third token", (4, 7), {"kernel_size": 4, "dilation": 3}),
        ("stride=4", "kernel_size=6: 4 x 4 queries share it", (5, 6), {"kernel_size": 6, "stride": 4}),
        (
            "is_causal=(True, False)",
            "kernel_size=5: this row and before",
            (5, 6),
            {"kernel_size": 5, "is_causal": (True, False)},
        ),
    )
    side, gap, top = extent * CELL, 84, 42
    parts = []
    for i, (title, caption, query, arguments) in enumerate(panels):
        left, up = 20 + i % 3 * (side + gap), top + i // 3 * (side + 64)
        table = seen((extent, extent), (extent, extent), **arguments)
        mine = table[query]
        parts += [text(left, up - 22, title, bold=True), text(left, up - 7, caption)]
        parts += keys_of(left, up, mine)
        if "stride" in arguments:
            alike = (table == mine).flatten(2).all(-1)
            parts.append(cells(left, up, alike, SHARED, inset=4))
        here = torch.zeros(extent, extent)
        here[query] = 1
        parts.append(cells(left, up, here, QUERY, inset=2))
    bottom = top + 2 * side + 64 + 10
    parts += legend(
        bottom,
        (
            (20, QUERY, "the query"),
            (120, SEEN, "keys that it sees"),
            (270, SHARED, "queries with the same window"),
        ),
    )
    return svg(80 + 3 * side + 2 * gap, bottom + 30, parts)


def query_layouts() -> str:
    """12 keys under 4 queries and 4 keys under 12, as matrices; the same on two axes, drawn to scale."""
    coarse, fine, top = 4, 12, 56
    parts = []
    for left, queries, keys, window in ((52, coarse, fine, 3), (340, fine, coarse, 2)):
        table, place = (seen((queries,), (keys,), kernel_size=k) for k in (window, 1))
        parts.append(text(left, 18, f"{queries} queries, {keys} keys, kernel_size={window}", bold=True))
        parts.append(text(left, 34, "a row per query, a column per key"))
        parts += [text(left - 46, top + q * CELL + 11, f"q = {q}") for q in range(queries)]
        parts += [*keys_of(left, top, table), cells(left, top, place, QUERY, inset=4)]

    side, up = fine * CELL, top + fine * CELL + 66
    for left, queries, keys, window, chosen in (
        (52, coarse, fine, 5, (1, 2)),
        (340, fine, coarse, 3, (7, 10)),
    ):
        mine = seen((queries, queries), (keys, keys), kernel_size=window)[chosen]
        words = f"{queries} x {queries} on {keys} x {keys}, kernel_size={window}"
        parts += [text(left, up - 22, words, bold=True), text(left, up - 7, "the keys; dots are the queries")]
        size, pitch = side / keys, side / queries
        parts += keys_of(left, up, mine, size)
        for y in range(queries):
            for x in range(queries):
                one = (y, x) == chosen
                parts.append(
                    f'<circle cx="{left + (x + 0.5) * pitch:g}" cy="{up + (y + 0.5) * pitch:g}" '
                    f'r="{4 if one else 2}" fill="{QUERY if one else SHARED}"/>'
                )
    bottom = up + side + 12
    parts += legend(bottom, ((52, QUERY, "where the query stands"), (230, SEEN, "keys that it sees")))
    return svg(600, bottom + 30, parts)


PACK = 2  # queries of a pack, per axis, of a tile of 4 x 4


def outline(left: float, up: float, box, size: float = CELL, color: str = QUERY, dash: str = "") -> str:
    """A rectangle around cells of `box`, (begin, end) per axis."""
    (top, bottom), (west, east) = box
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<rect x="{left + west * size - 0.5:g}" y="{up + top * size - 0.5:g}" '
        f'width="{(east - west) * size:g}" height="{(bottom - top) * size:g}" fill="none" stroke="{color}" '
        f'stroke-width="1.6"{dashes}/>'
    )


def box_table(extent: tuple, *boxes):
    """[*extent], bool: tokens that lie in one of the boxes, (begin, end) per axis."""
    table = torch.zeros(extent, dtype=torch.bool)
    for box in boxes:
        table[tuple(slice(*interval) for interval in box)] = True
    return table


class Tile:
    """A query tile of a problem of two axes as src/cpu/query_tile.h has it; the geometry is the library's."""

    def __init__(self, problem: str, corner: tuple[int, int]):
        shape = re.search(r"query tile (\d+)x(\d+)", nf.explain(f"{problem}@cpu/b16"))
        self.shape = int(shape[1]), int(shape[2])
        axes = [_core.intervals(problem, 0, axis) for axis in (0, 1)]
        self.sees = [list(zip(a["begin"], a["end"], strict=True)) for a in axes]
        self.extent = len(self.sees[0]), len(self.sees[1])
        self.box = tuple((c, c + n) for c, n in zip(corner, self.shape, strict=True))
        self.hull = self.hull_of(self.box)
        self.core = tuple((s[e - 1][0], s[b][1]) for s, (b, e) in zip(self.sees, self.box, strict=True))
        (y0, y1), (x0, x1) = self.box
        self.packs = [
            ((y, y + PACK), (x, x + PACK)) for y in range(y0, y1, PACK) for x in range(x0, x1, PACK)
        ]
        self.lanes = [  # a pack's four queries follow each other
            (y + i, x + j) for (y, _), (x, _) in self.packs for i in range(PACK) for j in range(PACK)
        ]

    def hull_of(self, box):
        """The keys that some query of a box sees."""
        return tuple((s[b][0], s[e - 1][1]) for s, (b, e) in zip(self.sees, box, strict=True))

    def full(self, y: int) -> bool:
        """Every lane sees every key of this row of the hull."""
        (top, bottom), (west, east) = self.core
        return top <= y < bottom and west <= self.hull[1][0] and self.hull[1][1] <= east

    def scores(self):
        """[lanes, rows of the hull, keys of a row], bool: the pairs that count."""
        rows, columns = (range(*interval) for interval in self.hull)
        table = [
            [[ys[0] <= y < ys[1] and xs[0] <= x < xs[1] for x in columns] for y in rows]
            for ys, xs in ((self.sees[0][y], self.sees[1][x]) for y, x in self.lanes)
        ]
        return torch.tensor(table)


def query_tile() -> str:
    """A step of a band, a tile inside it and one at its border; S of the first tile, pair by pair."""
    problem = "na:fwd:f32:b1h1kv1d64:16x16:k7x7"
    inner, border = Tile(problem, (4, 4)), Tile(problem, (8, 0))
    parts, top, gap = [], 42, 56
    side, extent = inner.extent[0] * CELL, inner.extent
    panels = [20 + i * (side + gap) for i in range(3)]

    step = tuple(((y, y + inner.shape[0]), (0, extent[1])) for y in (0, inner.box[0][0]))
    before, now = (inner.hull_of(s) for s in step)
    kept, fresh = ((now[0][0], before[0][1]), now[1]), ((before[0][1], now[0][1]), now[1])
    left = panels[0]
    parts += [text(left, top - 22, "a step of a band, kernel_size=7", bold=True)]
    parts.append(text(left, top - 7, "four rows of queries; ten of keys in the ring"))
    parts.append(cells(left, top, ~box_table(extent, now), PLAIN))
    parts += [cells(left, top, box_table(extent, box), c) for box, c in ((kept, SEEN), (fresh, FRESH))]
    parts.append(cells(left, top, box_table(extent, step[1]), SHARED, inset=3))
    tiles = (((4, 8), (x, x + inner.shape[1])) for x in range(0, extent[1], inner.shape[1]))
    parts += [outline(left, top, box) for box in tiles]

    for left, tile, title, caption in (
        (panels[1], inner, "a tile of it: 4 x 4 queries", "its hull, and that of a pack"),
        (panels[2], border, "a tile at the border", "four rows of its hull are seen by all"),
    ):
        parts += [text(left, top - 22, title, bold=True), text(left, top - 7, caption)]
        rows = [((y, y + 1), tile.hull[1]) for y in range(*tile.hull[0])]
        hull = box_table(extent, tile.hull)
        whole = box_table(extent, *(r for r in rows if tile.full(r[0][0])))
        parts += [cells(left, top, ~hull, PLAIN), cells(left, top, hull & ~whole, SEEN)]
        parts += [cells(left, top, whole, FULL)] if whole.any() else []
        parts.append(cells(left, top, box_table(extent, tile.box), SHARED, inset=3))
        if tile is inner:
            parts.append(cells(left, top, box_table(extent, tile.packs[0]), QUERY, inset=3))
            parts.append(outline(left, top, tile.hull_of(tile.packs[0])))
        parts.append(outline(left, top, tile.hull, color=INK, dash="4 2"))
    y = top + side + 12
    parts += legend(y, ((20, SHARED, "queries"), (105, QUERY, "of a pack"), (205, SEEN, "keys")))
    parts += legend(y, ((275, FRESH, "packed by this step"), (445, FULL, "full runs: no masks")))

    size, left, up = 6, 70, y + 78
    table = inner.scores()
    lanes, height, width = table.shape
    pitch, down = width * size + 6, PACK**2 * size + 6
    words = f"S of the tile in the middle: {lanes} lanes, {height} runs of {width} keys"
    parts += [text(20, up - 30, words, bold=True)]
    parts.append(text(20, up - 14, "Q K^T computes all of it, P V what is outlined"))
    for n, pack in enumerate(inner.packs):
        row = up + n * down
        parts.append(text(20, row + 16, f"pack {n}"))
        (y0, y1), (x0, x1) = inner.hull_of(pack)
        for run in range(height):
            mine = table[n * PACK**2 : (n + 1) * PACK**2, run]
            at, key = left + run * pitch, run + inner.hull[0][0]
            parts += [cells(at, row, ~mine, GREY, size), cells(at, row, mine, SEEN, size)]
            if y0 <= key < y1:
                west = inner.hull[1][0]
                parts.append(outline(at, row, ((0, PACK**2), (x0 - west, x1 - west)), size))
    bottom = up + len(inner.packs) * down + 8
    visited = sum((y1 - y0) * (x1 - x0) for (y0, y1), (x0, x1) in map(inner.hull_of, inner.packs))
    pairs = table.sum().item()
    used = f"of use: {pairs / table.numel():.0%} of S, {pairs / visited / PACK**2:.0%} of P V"
    parts += legend(bottom, ((20, SEEN, "pairs that count"), (160, GREY, "computed in vain")))
    parts.append(text(310, bottom + 11, used))
    return svg(panels[2] + side + 20, bottom + 30, parts)


# What a count of src/cpu/cost.h is spent on.
PHASES = {
    "pack": ("#5b8db8", "Pack Convert Shared"),
    "memory": ("#a9c3dc", "Row Segment Near NearRow NearSegment Far Ring RingFar"),
    "scores": ("#f0a63c", "Score ScoreRun"),
    "softmax": ("#c8553d", "Exp Bias Draw"),
    "P V": ("#8fbf7f", "Weigh WeighRow Span"),
    "dK, dV": ("#4f8a4a", "Spread SpreadRow"),
    "queries, output": ("#8c7aa9", "Query Chunk"),
    "geometry, tasks": ("#b8bec6", "Call Task Tile Piece Head"),
}


def phase_seconds(call: dict, direction: str, machine: str) -> tuple[str, dict[str, float]]:
    """The kernel that is the fastest on a class of machines, and the seconds that it spends on every phase.

    call: nf_problem's answer, whose kernels have counts; the weights are those of src/cpu/cost_table.h.
    """
    folder = Path(__file__).parents[1] / "src" / "cpu"
    counts = re.findall(r"^ +k(\w+), +//", (folder / "cost.h").read_text(), re.MULTILINE)
    row = r"\{Machine::k(\w+),\s*\"(\w+)\",\s*Direction::k(\w+),\s*\{([^}]*)\}\}"
    weights = {
        kernel: [float(w) for w in numbers.split(",") if w.strip()]
        for name, kernel, way, numbers in re.findall(row, (folder / "cost_table.h").read_text())
        if (name, way) == (machine, {"fwd": "Forward", "bwd": "Backward"}[direction])
    }
    phase_of = {count: name for name, (_, mine) in PHASES.items() for count in mine.split()}
    best = {}
    for kernel in call["kernels"]:
        if kernel["name"] not in weights:
            continue
        phases = dict.fromkeys(PHASES, 0.0)
        for name, n, w in zip(counts, kernel["counts"], weights[kernel["name"]], strict=True):
            transposed = (name, kernel["name"]) == ("SpreadRow", "s2")  # there: vectors of packed K^T
            phases["pack" if transposed else phase_of[name]] += n * w * 1e-12  # weights are picoseconds
        best[kernel["name"]] = phases
    fastest = min(best, key=lambda name: sum(best[name].values()))
    return fastest, best[fastest]


def where_time_goes(machine: str = "Zen4") -> str:
    """A bar per problem of bench/problems/speed.txt: shares of the time predicted for one thread.

    Counts are those of the SIMD target in use, so draw it where that is AVX-512.
    """
    lines = (Path(__file__).parents[1] / "bench" / "problems" / "speed.txt").read_text().splitlines()
    named = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    width, bar, top = 300, 20, 56
    parts, x, bottom = [], 20, top
    for phase, (color, _) in PHASES.items():
        parts += legend(8, ((x, color, phase),))
        x += 34 + 7 * len(phase)
    for i, (direction, title) in enumerate((("fwd", "forward"), ("bwd", "backward"))):
        left, y = 56 + i * (width + 170), top
        parts.append(text(left, top - 8, title, bold=True))
        for name, problem in (n for n in named if f":{direction}:" in n[1]):
            kernel, phases = phase_seconds(_core.problem(problem), direction, machine)
            total, before, edge = sum(phases.values()), 0.0, left
            for phase, seconds in phases.items():
                before += seconds
                begin, edge = edge, left + round(width * before / total)
                size = f'x="{begin}" y="{y}" width="{edge - begin}" height="{bar - 4}"'
                parts += [f'<rect {size} fill="{PHASES[phase][0]}"/>'] if edge > begin else []
            parts.append(text(left - 36, y + 13, name, bold=True))
            parts.append(text(left + width + 6, y + 13, f"{kernel}, {1e3 * total:.3g} ms"))
            y += bar
        bottom = max(bottom, y)
    return svg(2 * (width + 170), bottom + 12, parts)


PICTURES = {
    "windows.svg": windows,
    "query-layouts.svg": query_layouts,
    "cpu-tile.svg": query_tile,
    "cpu-time.svg": where_time_goes,
}


def write(pictures) -> None:
    for name, draw in pictures.items():
        (IMAGES / name).write_text(draw())
        print(IMAGES / name)


if __name__ == "__main__":
    write(PICTURES)
