# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The pictures of semantics.md: `python docs/axis_pictures.py` writes them.

As in make_pictures.py, nothing here knows what a window is: the library says what a query sees.
"""

from __future__ import annotations

import torch
from make_pictures import (
    CELL,
    FULL,
    GREY,
    PLAIN,
    QUERY,
    SEEN,
    SHARED,
    cells,
    keys_of,
    legend,
    outline,
    seen,
    svg,
    text,
    write,
)

import nearfield as nf


def dense(queries: int, keys: int, causal_type: nf.CausalType):
    """[queries, keys], bool: what causal dense attention sees."""
    unit = torch.eye(keys).reshape(1, keys, 1, keys)
    zeros = (torch.zeros(1, n, 1, 1) for n in (queries, keys))
    return (
        nf.attention(*zeros, unit, is_causal=True, causal_type=causal_type, backend="reference")[0, :, 0] > 0
    )


def one_axis() -> str:
    """Attention matrices of twelve tokens on one axis: a row per query, a column per key."""
    extent = 12

    def window(**arguments):
        return seen((extent,), (extent,), **arguments)

    panels = (
        ("kernel_size=5", "shifted inwards at both ends", window(kernel_size=5)),
        ("kernel_size=4", "even: one further to the left", window(kernel_size=4)),
        ("kernel_size=5, is_causal", "the last five up to the query", window(kernel_size=5, is_causal=True)),
        ("kernel_size=4, dilation=3", "three axes, interleaved", window(kernel_size=4, dilation=3)),
        ("kernel_size=5, stride=3", "three queries share a window", window(kernel_size=5, stride=3)),
        ("kernel_size=5, stride=5", "blocks; the last is shifted back", window(kernel_size=5, stride=5)),
        (
            "the same, is_causal",
            "up to the query in its block",
            window(kernel_size=5, stride=5, is_causal=True),
        ),
        ("kernel_size=12", "everything", window(kernel_size=12)),
        ("attention, TopLeft", "first query: first key", dense(8, extent, nf.CausalType.TopLeft)),
        ("attention, BottomRight", "last query: last key", dense(8, extent, nf.CausalType.BottomRight)),
    )
    side, gap, top, columns = extent * CELL, 44, 42, 5
    rows = -(-len(panels) // columns)
    parts = []
    for i, (title, caption, table) in enumerate(panels):
        left, up = 20 + i % columns * (side + gap), top + i // columns * (side + 64)
        parts += [text(left, up - 22, title, bold=True), text(left, up - 7, caption)]
        parts += keys_of(left, up, table)
        if table.shape[0] == extent:  # where the query itself is
            parts.append(cells(left, up, torch.eye(extent), QUERY, inset=4))
    bottom = top + rows * (side + 64) - 50
    parts += legend(
        bottom, ((20, SEEN, "keys that the query of this row sees"), (290, QUERY, "the query's own place"))
    )
    return svg(40 + columns * (side + gap) - gap, bottom + 30, parts)


def three_axes() -> str:
    """A window of three axes, causal in the first: a frame per step of time."""
    layout, query = (6, 9, 9), (4, 2, 5)
    mine = seen(layout, layout, kernel_size=(3, 5, 5), is_causal=(True, False, False))[query]
    size, gap, top = 11, 16, 48
    parts = [text(20, 18, "kernel_size=(3, 5, 5), is_causal=(True, False, False)", bold=True)]
    for t in range(layout[0]):
        left = 20 + t * (layout[2] * size + gap)
        parts += [text(left, top - 8, f"t = {t}"), *keys_of(left, top, mine[t], size)]
        if t == query[0]:
            here = torch.zeros(layout[1:])
            here[query[1:]] = 1
            parts.append(cells(left, top, here, QUERY, size, inset=2))
    bottom = top + layout[1] * size + 14
    parts += legend(bottom, ((20, QUERY, "the query"), (120, SEEN, "keys that it sees")))
    return svg(24 + layout[0] * (layout[2] * size + gap), bottom + 30, parts)


def tile_cover() -> str:
    """Tiles of keys for one tile of queries; what is computed for nothing if whole tiles are."""
    extent, tile, corner, window = 24, 4, (8, 12), 15
    table = seen((extent, extent), (extent, extent), kernel_size=window)
    mine = tuple(slice(c, c + tile) for c in corner)
    some, every = (reduce(table[mine].flatten(0, 1), 0) for reduce in (torch.any, torch.all))
    colors = {"skip": PLAIN, "partial": SEEN, "full": FULL}
    kinds = {kind: torch.zeros(extent, extent, dtype=torch.bool) for kind in colors}
    for y in range(0, extent, tile):
        for x in range(0, extent, tile):
            box = slice(y, y + tile), slice(x, x + tile)
            kind = "full" if every[box].all() else "partial" if some[box].any() else "skip"
            kinds[kind][box] = True

    side, gap, top = extent * CELL, 60, 42
    parts = []
    for left, title, caption in (
        (20, "tiles of 4 x 4 keys", f"of the marked tile of queries, kernel_size={window}"),
        (20 + side + gap, "the hull", "keys that a query of the tile sees; green: that all see"),
    ):
        parts += [text(left, top - 22, title, bold=True), text(left, top - 7, caption)]
    parts += [cells(20, top, where, colors[kind]) for kind, where in kinds.items()]
    lines = ((a, a + tile) for a in range(0, extent, tile))
    parts += [outline(20, top, (y, (0, extent)), color=GREY) for y in lines]
    parts += [outline(20, top, ((0, extent), (x, x + tile)), color=GREY) for x in range(0, extent, tile)]
    left = 20 + side + gap
    parts += [*keys_of(left, top, some), cells(left, top, every, FULL)]
    box = tuple((c, c + tile) for c in corner)
    parts += [outline(where, top, box) for where in (20, left)]
    bottom = top + side + 12
    parts += legend(
        bottom,
        (
            (20, PLAIN, "skipped"),
            (110, SEEN, "partial: pairs are masked"),
            (310, FULL, "full: no mask"),
        ),
    )
    return svg(left + side + 40, bottom + 30, parts)


def shared_windows() -> str:
    """From blocks to a sliding window: who shares the window of one query, for every stride."""
    extent, window, query = 16, 6, 7
    parts, top = [], 34
    for i, stride in enumerate(range(1, window + 1)):
        table = seen((extent,), (extent,), kernel_size=window, stride=stride)
        up = top + i * (CELL + 8)
        alike = (table == table[query]).all(-1, keepdim=True).T
        parts += [text(20, up + 11, f"stride={stride}"), *keys_of(90, up, table[query : query + 1])]
        parts.append(cells(90, up, alike, SHARED, inset=4))
        here = torch.zeros(1, extent)
        here[0, query] = 1
        parts.append(cells(90, up, here, QUERY, inset=2))
    parts.insert(0, text(20, 18, f"query {query} of {extent}, kernel_size={window}", bold=True))
    bottom = top + window * (CELL + 8) + 8
    entries = ((20, QUERY, "the query"), (120, SEEN, "its keys"), (210, SHARED, "queries with the same keys"))
    return svg(430, bottom + 28, parts + legend(bottom, entries))


PICTURES = {
    "one-axis.svg": one_axis,
    "three-axes.svg": three_axes,
    "tile-cover.svg": tile_cover,
    "shared-windows.svg": shared_windows,
}

if __name__ == "__main__":
    write(PICTURES)
