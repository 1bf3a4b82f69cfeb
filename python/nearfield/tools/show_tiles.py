# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Pictures of tiles for `nearfield show`: which pairs are skipped, full and partial, and what that costs."""

from __future__ import annotations

import itertools

import torch

from nearfield import _core
from nearfield.tools import explain, tables
from nearfield.tools.drawing import FULL, PARTIAL, PLAIN, QUERY, Drawing, Panel
from nearfield.tools.layouts import Geometry, panels

TILE_LEGEND = {
    "#": (FULL, "full: no mask is needed"),
    "+": (PARTIAL, "partial: some pairs are masked"),
    ".": (PLAIN, "skipped"),
}


def _tile_notes(layout: Geometry, suffix: str, found: dict) -> list[str]:
    """found: of _core.tiles()."""
    call = layout.problem + (f"@{suffix}" if suffix else "")
    share = _inside(layout, call) * found["waste"] / found["computed"]
    notes = [
        f"query tile {tables.tile(found['query_tile'])}, key tile {tables.tile(found['key_tile'])}: "
        f"{found['full']:.0f} full, {found['partial']:.0f} partial, {found['skipped']:.0f} skipped",
        f"the tiles that are not skipped have {share:.2f} pairs for each useful one",
    ]
    answers = _core.plan(call)
    chosen = next((a for a in answers if a["chosen"]), None)
    if chosen is not None:
        names = explain.kernels(chosen)
        verb = "kernels {} of {} compute" if ", " in names else "kernel {} of {} computes"
        together = " in all sequences together" if layout.fields["varlen"] else ""
        notes.append(f"{verb.format(names, chosen['backend'])} {chosen['waste']:.2f}{together}")
    notes += [f"no kernel here runs these tiles: {why}" for why in refusals(answers)]
    if found["groups"] > 1:
        notes.append(f"one of {found['groups']} dilation groups is drawn; the numbers are those of all")
    return notes


def refusals(answers: list[dict]) -> list[str]:
    """Why nothing runs what stands behind @, of _core.plan(); nothing where something does."""
    if any(a["chosen"] for a in answers):
        return []
    return [f"{a['backend']}: {a['refusal']}" for a in answers if "refusal" in a]


def _inside(layout: Geometry, call: str) -> int:
    """Pairs of queries and keys of the layout in tile pairs that are not skipped, in all dilation groups."""
    dilation = [t["dilation"] for t in layout.tables]
    alike: dict[tuple, int] = {}  # pairs by the tokens that a group has per axis, which is all that counts
    total = 0
    for number, first in enumerate(itertools.product(*map(range, dilation))):
        tokens = tuple(
            len(range(at, n, d))
            for extents in (layout.queries, layout.keys)
            for at, n, d in zip(first, extents, dilation, strict=True)
        )
        if tokens not in alike:
            alike[tokens] = _inside_group(layout, call, number, tokens)
        total += alike[tokens]
    return total


def _inside_group(layout: Geometry, call: str, number: int, tokens: tuple[int, ...]) -> int:
    own = _core.tiles(call, layout.sequence, number, rows=True)
    sizes = []  # tokens of each tile of queries, and of keys
    rank = len(layout.keys)
    for side, counts in (("query", tokens[:rank]), ("key", tokens[rank:])):
        one = torch.ones(1, dtype=torch.int64)
        for n, tile, count in zip(counts, own[f"{side}_tile"], own[f"{side}_count"], strict=True):
            one = torch.kron(one, (n - torch.arange(count) * tile).clamp(0, tile))
        sizes.append(one.tolist())
    return sum(
        queries * sum(keys for keys, mark in zip(sizes[1], row, strict=True) if mark != ".")
        for queries, row in zip(sizes[0], own["cover"], strict=True)
    )


def tiles(layout: Geometry, suffix, query, mesh, cut, rank) -> Drawing:
    """Query tiles by key tiles, in raster order."""
    found = _core.tiles(layout.problem + (f"@{suffix}" if suffix else ""), layout.sequence, rows=True)
    return Drawing(
        layout.heading(suffix),
        [Panel(found["cover"])],
        TILE_LEGEND,
        _tile_notes(layout, suffix, found),
        cell=10,
    )


def tile(layout: Geometry, suffix, query, mesh, cut, rank) -> Drawing:
    """The tile of one query on the layout, and what it makes of the key tiles."""
    q = layout.query(query)
    dilation = [t["dilation"] for t in layout.tables]
    group = 0
    for place, d in zip(q, dilation, strict=True):
        group = group * d + place % d
    found = _core.tiles(layout.problem + (f"@{suffix}" if suffix else ""), layout.sequence, group, rows=True)
    mine = [p // d // n for p, d, n in zip(q, dilation, found["query_tile"], strict=True)]
    row = 0
    for place, count in zip(mine, found["query_count"], strict=True):
        row = row * count + place
    cover = found["cover"][row]
    marks = {}
    for key in itertools.product(*map(range, layout.keys)):
        if any(k % d != p % d for k, d, p in zip(key, dilation, q, strict=True)):
            marks[key] = " "
            continue
        at = 0
        for k, d, n, count in zip(key, dilation, found["key_tile"], found["key_count"], strict=True):
            at = at * count + k // d // n
        marks[key] = cover[at]
    notes = _tile_notes(layout, suffix, found)
    if layout.queries == layout.keys:
        words = {"#": "full", "+": "partial", ".": "skipped"}
        notes.append(f"the key tile of the query's own place: {words[marks[q]]}")
        lengths = [range(m * n, (m + 1) * n) for m, n in zip(mine, found["query_tile"], strict=True)]
        for token in itertools.product(*lengths):
            place = tuple(t * d + p % d for t, d, p in zip(token, dilation, q, strict=True))
            if all(x < n for x, n in zip(place, layout.queries, strict=True)):
                marks[place] = "Q"
    legend = {"Q": (QUERY, "the query tile"), **TILE_LEGEND, " ": ("#ffffff", "other dilation groups")}
    return Drawing(layout.heading(suffix), panels(marks, layout.keys), legend, notes)
