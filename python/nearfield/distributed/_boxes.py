# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Boxes of tokens: one interval [begin, end) per axis. Which tokens see which is not decided here."""

from __future__ import annotations

import itertools
import math

from .._shard_call import Box


def extents(box: Box) -> tuple[int, ...]:
    return tuple(end - begin for begin, end in box)


def volume(box: Box) -> int:
    return math.prod(extents(box))


def overlap(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int] | None:
    """What two intervals have in common; None if that is nothing."""
    begin, end = max(a[0], b[0]), min(a[1], b[1])
    return (begin, end) if begin < end else None


def intersection(a: Box, b: Box) -> Box | None:
    """The tokens that are in both; None if there are none."""
    both = tuple(overlap(*pair) for pair in zip(a, b, strict=True))
    return None if None in both else both


def contains(outer: Box, inner: Box) -> bool:
    return all(o[0] <= i[0] and i[1] <= o[1] for o, i in zip(outer, inner, strict=True))


def without(outer: Box, inner: Box) -> list[Box]:
    """outer without a box inside it, as disjoint boxes: axis by axis what lies before and behind."""
    rest = []
    for axis, ((begin, end), (first, last)) in enumerate(zip(outer, inner, strict=True)):
        for low, high in ((begin, first), (last, end)):
            box = (*inner[:axis], (low, high), *outer[axis + 1 :])
            if volume(box) > 0:
                rest.append(box)
    return rest


def slices(box: Box, origin: Box) -> tuple[slice, ...]:
    """The place of a box in a tensor [B, *layout, ...] that holds the box `origin`."""
    parts = (slice(b - o[0], e - o[0]) for (b, e), o in zip(box, origin, strict=True))
    return (slice(None), *parts)


def text(box: Box) -> str:
    """As problem strings write ranges: 0-8x3-7."""
    return "x".join(f"{begin}-{end}" for begin, end in box)


def cut(extent: int, parts: int) -> tuple[int, ...]:
    """Sizes of `parts` slabs as torch.tensor_split cuts them: the first ones are one longer."""
    return tuple(extent // parts + (i < extent % parts) for i in range(parts))


def intervals(sizes) -> tuple[tuple[int, int], ...]:
    """Consecutive intervals of these sizes, from 0 on."""
    ends = [0]
    for size in sizes:
        ends.append(ends[-1] + size)
    return tuple(itertools.pairwise(ends))


def zigzag(extent: int, ranks: int, rank: int, unit: int = 1) -> tuple[tuple[int, int], tuple[int, int]]:
    """The two slabs of a rank, r and 2P-1-r of an axis cut in 2P; unit: tokens of each step along it."""
    cuts = intervals(unit * size for size in cut(extent, 2 * ranks))
    return cuts[rank], cuts[2 * ranks - 1 - rank]


def coordinate(mesh, rank: int) -> tuple[int, ...]:
    """The place of a rank in a mesh of these extents; ranks count in raster order."""
    place = []
    for n in reversed(mesh):
        place.append(rank % n)
        rank //= n
    return tuple(reversed(place))
