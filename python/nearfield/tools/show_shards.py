# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Pictures of a mesh of ranks for `nearfield show`: who holds which tokens, and what one rank fetches."""

from __future__ import annotations

import colorsys
import itertools
import string

from nearfield.tools import CommandError, tables
from nearfield.tools.drawing import PLAIN, QUERY, SHARED, Drawing
from nearfield.tools.layouts import Geometry, panels

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
# A mark each, none of which means something else in these pictures.
NAMES = string.ascii_uppercase + string.ascii_lowercase + string.digits


def shards(layout: Geometry, suffix, query, mesh, cut, rank) -> Drawing:
    """Who holds which tokens; or what one rank holds and fetches."""
    plan = _plan(layout, mesh, cut)
    if rank is not None and not 0 <= rank < plan.ranks:
        raise CommandError(f"got --rank {rank}, expected 0 to {plan.ranks - 1}")
    colors = colors_of(mesh)
    fetches = dict(plan.fetch(rank)) if rank is not None else {}
    held = {r: list(_tokens(plan.slab(r))) for r in range(plan.ranks)} if rank is None else {}
    named = [r for r in held if held[r]]
    if rank is not None:
        named = list(range(plan.ranks)) if plan.ranks <= len(NAMES) else sorted(fetches)
    if len(named) > len(NAMES):
        what = f"{len(named)} ranks" if rank is None else f"{len(named)} ranks that rank {rank} fetches from"
        more = "; --rank N draws what one of them fetches" if rank is None else ""
        raise CommandError(f"got {what}, expected at most {len(NAMES)}, a letter or a digit each{more}")
    names = dict(zip(named, NAMES, strict=False))
    letters = set(NAMES) if plan.ranks > len(PEERS) else set()  # many colours are hard to tell apart
    marks, legend = {}, {}
    if rank is None:
        for r, name in names.items():
            legend[name] = (colors[r], f"rank {r}")
            marks |= dict.fromkeys(held[r], name)
        idle = plan.ranks - len(names)
        notes = [f"mesh {tables.tile(mesh)}" + (f"; {idle} of its ranks hold no tokens" if idle else "")]
        return Drawing(layout.heading(), panels(marks, layout.keys), legend, notes, letters=letters)
    marks |= dict.fromkeys(_tokens(plan.slab(rank)), "+")
    marks |= dict.fromkeys(_tokens(plan.inner(rank)), "#")
    fetched = 0
    for peer, box in fetches.items():
        name = names[peer]
        legend[name] = (colors[peer], f"keys from rank {peer}")
        for token in _tokens(box):
            marks[token] = name
            fetched += 1
    legend["#"] = (QUERY, "its queries that need its own keys only")
    legend["+"] = (SHARED, "its other queries")
    legend["."] = (PLAIN, "not needed")
    notes = [f"rank {rank} of mesh {tables.tile(mesh)} fetches {fetched} tokens of keys and values"]
    return Drawing(layout.heading(), panels(marks, layout.keys), legend, notes, letters=letters)


def _plan(layout: Geometry, mesh, cut):
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
    return ShardPlan(
        layout.keys,
        tuple(axes["window"]),
        tuple(axes["stride"]),
        tuple(axes["dilation"]),
        tuple(bool(c) for c in axes["causal"]),
        mesh_shape=tuple(mesh),
        shard_dims=tuple(cut or range(len(mesh))),
    )


def colors_of(mesh) -> list[str]:
    """A colour per rank, no two alike. Of many ranks, neighbours of the mesh are one light and one dark."""
    places = list(itertools.product(*map(range, mesh)))
    if len(places) <= len(PEERS):
        return list(PEERS[: len(places)])
    colors = []
    for rank, place in enumerate(places):
        hue = rank * 0.618034 % 1  # golden: as far as can be from all before it
        red, green, blue = colorsys.hls_to_rgb(hue, 0.84 if sum(place) % 2 else 0.68, 0.6)
        colors.append("#" + "".join(f"{round(255 * x):02x}" for x in (red, green, blue)))
    return colors


def _tokens(box):
    return itertools.product(*(range(*interval) for interval in box))
