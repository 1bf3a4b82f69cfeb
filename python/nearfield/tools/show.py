# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""`nearfield show PROBLEM`: pictures of what a query sees, of the mask, of tiles, of a shard plan.

Which keys a query sees, and what a tile pair is, is asked of the core.
"""

from __future__ import annotations

import math

import torch

from nearfield import _core
from nearfield.tools import CommandError, tables
from nearfield.tools.drawing import MOST_CELLS, PLAIN, QUERY, SEEN, SHARED, Drawing, Panel
from nearfield.tools.layouts import Geometry, marked, panels, product
from nearfield.tools.running import canonical, split
from nearfield.tools.show_shards import shards
from nearfield.tools.show_tiles import refusals, tile, tiles

MOST_MASK = math.isqrt(MOST_CELLS)  # tokens


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "show",
        help="draw windows, masks, tiles and shard plans",
        description="Draws a problem, as text or into an SVG or PNG file: a query's window on the token "
        "layout, the mask of all queries and keys, the tiles that a kernel skips, masks and takes whole, "
        "or who holds and fetches which tokens on a mesh of ranks.",
    )
    parser.add_argument("problem", metavar="PROBLEM", help="PROBLEM[@BACKEND[/KERNEL][,qTILE,kvTILE]]")
    parser.add_argument(
        "--of",
        choices=PICTURES,
        default="window",
        help="window: of one query; mask: queries by keys; tiles: query tiles by key tiles; tile: one "
        "query tile on the layout; shards: a mesh of ranks (default: window)",
    )
    parser.add_argument(
        "-q", "--query", type=int, nargs="+", metavar="N", help="the query (default: the middle)"
    )
    parser.add_argument("--sequence", type=int, default=0, metavar="N", help="of packed ones (0)")
    parser.add_argument(
        "--mesh", type=int, nargs="+", metavar="N", help="shards: ranks per dimension of the mesh"
    )
    parser.add_argument(
        "--cut", type=int, nargs="+", metavar="AXIS", help="shards: the axis that each cuts (0 1 ...)"
    )
    parser.add_argument(
        "--rank", type=int, metavar="N", help="shards: what this rank fetches (default: who has what)"
    )
    parser.add_argument(
        "-o", "--out", metavar="FILE", help="FILE.svg, FILE.png (needs matplotlib) or FILE.txt"
    )
    parser.set_defaults(run=run)


def run(args) -> None:
    without = {"query": ("mask", "tiles", "shards"), **dict.fromkeys(("mesh", "cut", "rank"), KINDS)}
    for name, kinds in without.items():
        if getattr(args, name) is not None and args.of in kinds:
            takes = " or ".join(f"--of {kind}" for kind in PICTURES if kind not in kinds)
            raise CommandError(f"got --{name} with --of {args.of}, expected {takes}")
    drawing = draw(args.problem, args.of, args.query, args.sequence, args.mesh, args.cut, args.rank)
    if args.out:
        drawing.save(args.out)
    else:
        tables.show(drawing.text())


def draw(call, of="window", query=None, sequence=0, mesh=None, cut=None, rank=None) -> Drawing:
    """The picture `of` a problem string, with its tiles behind @; a CommandError says what is wrong with
    it."""
    problem, suffix = split(call)
    layout = Geometry(canonical(problem), sequence)
    try:
        # Other pictures have no tiles, but a suffix that means nothing is a mistake there too.
        answers = _core.plan(f"{layout.problem}@{suffix}") if suffix and of not in TILED else []
        drawing = PICTURES[of](layout, suffix, query, mesh, cut, rank)
        drawing.notes += [f"nothing here runs @{suffix}: {why}" for why in refusals(answers)]
        return drawing
    except ValueError as error:
        raise CommandError(str(error)) from error


def window(layout: Geometry, suffix, query, mesh, cut, rank) -> Drawing:
    """What one query sees, and which others see the same."""
    q = layout.query(query)
    seen = product([layout.row(a, q[a]) for a in range(len(q))])
    marks = dict.fromkeys(marked(seen), "#")
    same_layout = layout.queries == layout.keys
    among = "" if same_layout else f" of a layout of {tables.tile(layout.queries)}"
    notes = [f"query {' '.join(map(str, q))}{among} sees {int(seen.sum())} keys", *layout.notes()]
    if same_layout and layout.fields["operation"] == "na":
        alike = product([layout.alike(a, q[a]) for a in range(len(q))])
        shared = [t for t in marked(alike) if t != q]
        marks |= dict.fromkeys(shared, "o")
        if shared:
            notes.append(f"other queries with the same keys: {len(shared)}")
        marks[q] = "Q"
    elif same_layout:
        marks[q] = "Q"
    legend = {
        "Q": (QUERY, "the query"),
        "#": (SEEN, "keys that it sees"),
        "o": (SHARED, "queries with the same window"),
        ".": (PLAIN, "other keys"),
    }
    return Drawing(layout.heading(), panels(marks, layout.keys), legend, notes)


def mask(layout: Geometry, suffix, query, mesh, cut, rank) -> Drawing:
    """Queries by keys, both in raster order."""
    sizes = math.prod(layout.queries), math.prod(layout.keys)
    if max(sizes) > MOST_MASK:
        raise CommandError(
            f"{sizes[0]} x {sizes[1]} tokens are too many for a mask; at most {MOST_MASK} each"
        )
    table = layout.seen(0)
    for axis in range(1, len(layout.keys)):
        table = torch.kron(table.int(), layout.seen(axis).int()).bool()
    rows = ["".join("#" if x else "." for x in row) for row in table.tolist()]
    legend = {"#": (SEEN, "seen"), ".": (PLAIN, "not seen")}
    share = table.float().mean().item()
    notes = [f"a row per query, a column per key, in raster order; {share:.1%} are seen", *layout.notes()]
    return Drawing(layout.heading(), [Panel(rows)], legend, notes, cell=8)


TILED = ("tiles", "tile")
KINDS = ("window", "mask", "tiles", "tile")  # that know no ranks
PICTURES = {"window": window, "mask": mask, "tiles": tiles, "tile": tile, "shards": shards}
