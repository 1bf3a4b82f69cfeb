# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""`nearfield show PROBLEM`: pictures of what a query sees, of the mask, of tiles, of a shard plan.

Which keys a query sees, and what a tile pair is, is asked of the core.
"""

from __future__ import annotations

import itertools
import math

import torch

from nearfield import _core
from nearfield.tools import CommandError, tables
from nearfield.tools.drawing import MOST_CELLS, Drawing, Panel
from nearfield.tools.running import canonical, split

PLAIN, SEEN, QUERY, SHARED = "#eceff3", "#f0a63c", "#1f4e79", "#7fa8cc"
FULL, PARTIAL = "#8fbf7f", "#f0a63c"
PEERS = (
    "#d98880",
    "#b39ddb",
    "#80cbc4",
    "#ffcc80",
    "#bcaaa4",
    "#ce93d8",
    "#a5d6a7",
    "#90caf9",
    "#ef9a9a",
    "#fff59d",
)
MOST_MASK = math.isqrt(MOST_CELLS)  # tokens


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "show",
        help="draw windows, masks, tiles and shard plans",
        description="Draws a problem, as text or into an SVG or PNG file: a query's window on the token "
        "layout, the "
        "mask of all queries and keys, the tiles that a kernel skips, masks and takes whole, or who holds "
        "and "
        "fetches which tokens on a mesh of ranks.",
    )
    parser.add_argument("problem", metavar="PROBLEM", help="PROBLEM[@BACKEND[/KERNEL][,qTILE,kvTILE]]")
    parser.add_argument(
        "--of",
        choices=PICTURES,
        default="window",
        help="window: of one query; mask: queries by keys; tiles: query tiles by key tiles; tile: one "
        "query tile "
        "on the layout; shards: a mesh of ranks (default: window)",
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
        return PICTURES[of](layout, suffix, query, mesh, cut, rank)
    except ValueError as error:
        raise CommandError(str(error)) from error


class Geometry:
    """One sequence of a problem, with its intervals as tables."""

    def __init__(self, problem: str, sequence: int):
        self.problem, self.sequence = problem, sequence
        f = self.fields = _core.problem(problem)["fields"]
        if f["offsets"] or f["ranges"]:
            raise CommandError(
                f"{problem} is part of a layout, or one that only a device knows: draw the whole one"
            )
        if not 0 <= sequence < len(f["layouts"]):
            raise CommandError(f"got --sequence {sequence}, expected 0 to {len(f['layouts']) - 1}")
        axes = f["layouts"][sequence]
        self.queries, self.keys = tuple(axes["query_extent"]), tuple(axes["extent"])
        if 0 in (*self.queries, *self.keys):
            raise CommandError(f"sequence {sequence} of {problem} has no tokens to draw")
        tokens = max(math.prod(self.queries), math.prod(self.keys))
        if tokens > MOST_CELLS:
            raise CommandError(f"{tokens} tokens are too many for a picture; at most {MOST_CELLS}")
        self.tables = [_core.intervals(problem, sequence, a) for a in range(len(self.keys))]

    def seen(self, axis: int) -> torch.Tensor:
        """[queries, keys] of one axis, bool."""
        t = self.tables[axis]
        begin, end = torch.tensor(t["begin"])[:, None], torch.tensor(t["end"])[:, None]
        key = torch.arange(self.keys[axis])[None]
        return (key >= begin) & (key < end) & ((key - begin) % t["dilation"] == 0)

    def row(self, axis: int, query: int) -> torch.Tensor:
        """[keys], bool: those of one axis that a query sees."""
        t = self.tables[axis]
        begin, end, key = t["begin"][query], t["end"][query], torch.arange(self.keys[axis])
        return (key >= begin) & (key < end) & ((key - begin) % t["dilation"] == 0)

    def alike(self, axis: int, query: int) -> torch.Tensor:
        """[queries], bool: those of one axis that see what a query sees."""
        begin, end = (torch.tensor(self.tables[axis][side]) for side in ("begin", "end"))
        return (begin == begin[query]) & (end == end[query])

    def query(self, given) -> tuple[int, ...]:
        """The query asked for, or the middle one."""
        query = tuple(n // 2 for n in self.queries) if given is None else tuple(given)
        if len(query) != len(self.queries) or any(
            not 0 <= q < n for q, n in zip(query, self.queries, strict=True)
        ):
            raise CommandError(f"got --query {given}, expected a place in the layout {self.queries}")
        return query

    def heading(self, suffix: str = "") -> str:
        of = f", sequence {self.sequence}" if self.fields["varlen"] else ""
        return self.problem + (f"@{suffix}" if suffix else "") + of

    def notes(self) -> list[str]:
        extra = self.fields["additional"]
        return [f"and {extra} additional keys, which every query sees"] if extra else []


def product(parts: list[torch.Tensor]) -> torch.Tensor:
    """[n0, n1, ...] from one bool table per axis: true where all are."""
    result = parts[0]
    for part in parts[1:]:
        result = result.unsqueeze(-1) & part
    return result


def panels(marks: dict[tuple, str], extents: tuple[int, ...], names="plane") -> list[Panel]:
    """Tokens as rows and columns; a third axis is one panel per plane. marks: by token; others are plain."""
    rows, columns = (1, *extents)[-2:] if len(extents) == 1 else extents[-2:]
    found = []
    for plane in itertools.product(*map(range, extents[:-2])):
        table = [
            "".join(marks.get((*plane, *((y, x) if len(extents) > 1 else (x,))), ".") for x in range(columns))
            for y in range(rows)
        ]
        found.append(Panel(table, f"{names} {plane[0]}" if plane else ""))
    return found


def _where(table: torch.Tensor):
    return (tuple(token) for token in table.nonzero().tolist())


def window(layout: Geometry, suffix, query, mesh, cut, rank) -> Drawing:
    """What one query sees, and which others see the same."""
    q = layout.query(query)
    seen = product([layout.row(a, q[a]) for a in range(len(q))])
    marks = dict.fromkeys(_where(seen), "#")
    same_layout = layout.queries == layout.keys
    notes = [f"query {' '.join(map(str, q))} sees {int(seen.sum())} keys", *layout.notes()]
    if same_layout and layout.fields["operation"] == "na":
        alike = product([layout.alike(a, q[a]) for a in range(len(q))])
        shared = [t for t in _where(alike) if t != q]
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
    chosen = next((a for a in _core.plan(call) if a["chosen"]), None)
    if chosen is not None:
        kernel = chosen["kernel"].partition(",")[0]
        notes.append(f"kernel {kernel} of {chosen['backend']} computes {chosen['waste']:.2f}")
    if found["groups"] > 1:
        notes.append(f"one of {found['groups']} dilation groups is drawn; the numbers are those of all")
    return notes


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


def shards(layout: Geometry, suffix, query, mesh, cut, rank) -> Drawing:
    """Who holds which tokens; or what one rank holds and fetches."""
    try:
        from nearfield.distributed import ShardPlan
    except ImportError as error:
        raise CommandError(
            "shard plans are not part of this build: it has no nearfield.distributed"
        ) from error
    f = layout.fields
    if f["operation"] != "na" or f["varlen"] or f["query_layout"]:
        raise CommandError(f"{layout.problem} is none that ShardPlan cuts: expected one `na` layout")
    if not mesh:
        raise CommandError("expected --mesh with the ranks per dimension, `--mesh 2 2` say")
    axes = f["layouts"][0]
    plan = ShardPlan(
        layout.keys,
        tuple(axes["window"]),
        tuple(axes["stride"]),
        tuple(axes["dilation"]),
        tuple(bool(c) for c in axes["causal"]),
        mesh_shape=tuple(mesh),
        shard_dims=tuple(cut or range(len(mesh))),
    )
    if rank is not None and not 0 <= rank < plan.ranks:
        raise CommandError(f"got --rank {rank}, expected 0 to {plan.ranks - 1}")
    marks, legend = {}, {}
    if rank is None:
        for r in range(plan.ranks):
            name = chr(ord("A") + r % 26)
            legend[name] = (PEERS[r % len(PEERS)], f"rank {r}")
            marks |= dict.fromkeys(_tokens(plan.slab(r)), name)
        return Drawing(layout.heading(), panels(marks, layout.keys), legend, [f"mesh {tables.tile(mesh)}"])
    marks |= dict.fromkeys(_tokens(plan.slab(rank)), "+")
    marks |= dict.fromkeys(_tokens(plan.inner(rank)), "#")
    fetched = 0
    for peer, box in plan.fetch(rank).items():
        name = chr(ord("A") + peer % 26)
        legend[name] = (PEERS[peer % len(PEERS)], f"keys from rank {peer}")
        for token in _tokens(box):
            marks[token] = name
            fetched += 1
    legend["#"] = (QUERY, "its queries that need its own keys only")
    legend["+"] = (SHARED, "its other queries")
    legend["."] = (PLAIN, "not needed")
    notes = [f"rank {rank} of mesh {tables.tile(mesh)} fetches {fetched} tokens of keys and values"]
    return Drawing(layout.heading(), panels(marks, layout.keys), legend, notes)


def _tokens(box):
    return itertools.product(*(range(*interval) for interval in box))


KINDS = ("window", "mask", "tiles", "tile")  # that know no ranks
PICTURES = {"window": window, "mask": mask, "tiles": tiles, "tile": tile, "shards": shards}
