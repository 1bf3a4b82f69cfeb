# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Index tables of who sees whom, for compositions of torch operations; the intervals are the core's.

A table has one row per query and one column per window position, in raster order of the axes. Where a query
sees fewer keys than the widest one, `seen` is False, and the index repeats a key that it does see, if any.
"""

from __future__ import annotations

import functools

import torch
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing

from . import _core


def untraced(table):
    """Under a tracer (torch.func.linearize, make_fx) the tables are constants, computed for real."""

    @functools.wraps(table)
    def outside(*arguments):
        with disable_proxy_modes_tracing():
            return table(*arguments)

    return outside


def axis_table(problem: str, sequence: int, axis: int):
    """(keys [queries, most keys seen], seen, dilation) of one axis: key coordinates in ascending order."""
    table = _core.intervals(problem, sequence, axis)
    dilation = table["dilation"]
    begin, end = torch.tensor(table["begin"]), torch.tensor(table["end"])
    counts = (end - begin + dilation - 1).clamp(min=0) // dilation
    width = int(counts.max()) if len(begin) else 0
    column = torch.arange(width)
    keys = begin[:, None] + torch.minimum(column, (counts[:, None] - 1).clamp(min=0)) * dilation
    return (
        keys.clamp(max=max(int(end.max()) - 1, 0)) if len(begin) else keys,
        column < counts[:, None],
        dilation,
    )


def raster(tables, extents):
    """Index tables of the axes as one table of the raster order over `extents`: [prod rows, prod columns]."""
    index = torch.zeros(1, 1, dtype=torch.long)
    for table, extent in zip(tables, extents, strict=True):
        index = index[:, None, :, None] * extent + table[None, :, None, :]
        index = index.flatten(2, 3).flatten(0, 1)
    return index


def every(tables):
    """The same for truth values: True where every axis says so."""
    seen = torch.ones(1, 1, dtype=torch.bool)
    for table in tables:
        seen = (seen[:, None, :, None] & table[None, :, None, :]).flatten(2, 3).flatten(0, 1)
    return seen


@untraced
def visible(problem: str, sequence: int):
    """(index [queries, most keys seen], seen [queries, most keys seen]): key tokens in raster order."""
    rank = _core.problem(problem)["rank"]
    axes = [axis_table(problem, sequence, axis) for axis in range(rank)]
    extents = _key_extents(problem, rank)
    return raster([keys for keys, *_ in axes], extents), every([inside for _, inside, _ in axes])


def _key_extents(problem: str, rank: int) -> list[int]:
    grids = problem.split(":")[4]
    return [int(grids.split(",")[1])] if "," in grids else [int(n) for n in grids.split("x")][:rank]


def inverse(index, seen, keys: int):
    """(query [keys, most queries], column, seen) of a table: who sees a key, and at which of its columns.
    Where fewer do than most, a row repeats its first entry."""
    query, column = seen.nonzero(as_tuple=True)
    key, order = index[seen].sort(stable=True)
    counts = torch.bincount(key, minlength=keys)
    begin = counts.cumsum(0) - counts
    place = torch.arange(int(counts.max()) if keys else 0)
    inside = place < counts[:, None]
    if not len(order):
        return torch.zeros_like(inside, dtype=torch.long), torch.zeros_like(inside, dtype=torch.long), inside
    entry = order[(begin[:, None] + torch.where(inside, place, 0)).clamp(max=len(order) - 1)]
    return query[entry], column[entry], inside
