# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Index tables of what queries see, from nearfield's intervals: what gathering peers build once."""

from __future__ import annotations

import math

import torch


def combine(per_axis: list[torch.Tensor], extents) -> torch.Tensor:
    """Raster indices [n1*n2*.., m1*m2*..] of per-axis indices [n, m]."""
    flat = per_axis[0]
    for table, extent in zip(per_axis[1:], extents[1:], strict=True):
        flat = (flat[:, None, :, None] * extent + table[None, :, None, :]).flatten(2).flatten(0, 1)
    return flat


def all_of(per_axis: list[torch.Tensor]) -> torch.Tensor:
    """The same for conditions: true where every axis is."""
    return combine([t.long() for t in per_axis], [2] * len(per_axis)) == 2 ** len(per_axis) - 1


def neighbors(problem) -> tuple[torch.Tensor, torch.Tensor]:
    """keys, seen [queries, most keys]: raster indices of the keys of each query, and which of them count
    (windows that are cut, by causality, are filled up with others)."""
    keys, seen = [], []
    for axis, extent in enumerate(problem.key_layout):
        begin, end, step = problem.intervals(axis)
        most = math.ceil((end - begin).max().item() / step)
        index = begin[:, None] + step * torch.arange(most)
        seen.append(index < end[:, None])
        keys.append(index.clamp(0, extent - 1))
    return combine(keys, problem.key_layout), all_of(seen)


def tile_order(layout, tile) -> torch.Tensor:
    """Raster indices of all tokens, tile by tile; tiles at the far borders may be smaller."""
    coordinates = torch.cartesian_prod(*(torch.arange(n) for n in layout)).reshape(-1, len(layout))
    rank = torch.zeros(len(coordinates), dtype=torch.long)
    for part in (coordinates // torch.tensor(tile), coordinates % torch.tensor(tile)):
        for axis, extent in enumerate(layout):
            rank = rank * extent + part[:, axis]
    return rank.argsort()
