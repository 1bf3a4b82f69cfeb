# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The pictures of these pages: `python docs/make_pictures.py` writes docs/images/*.svg.

Nothing here knows what a window is. Which keys a query sees is asked of the library: where every value is
a unit vector of its own, the output of a query is its row of the attention matrix.
"""

from __future__ import annotations

from pathlib import Path

import torch

import nearfield as nf

IMAGES = Path(__file__).parent / "images"
CELL = 14  # pixels
PLAIN, SEEN, QUERY, SHARED, INK = "#eceff3", "#f0a63c", "#1f4e79", "#7fa8cc", "#222222"


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


PICTURES = {"windows.svg": windows, "query-layouts.svg": query_layouts}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (IMAGES / name).write_text(draw())
        print(IMAGES / name)
