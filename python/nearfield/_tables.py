# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Index tables of who sees whom, for compositions of torch operations; the intervals are the core's.

A table has one row per query and one column per window position, in raster order of the axes; where a
query sees fewer keys than the widest one, `seen` is False and the index stays a legal one.
"""

from __future__ import annotations

import torch

from . import _core


def axis_table(problem: str, sequence: int, axis: int):
    """(keys [queries, most keys seen], seen, dilation) of one axis: key coordinates in ascending order."""
    table = _core.intervals(problem, sequence, axis)
    dilation = table["dilation"]
    begin, end = torch.tensor(table["begin"]), torch.tensor(table["end"])
    width = int(((end - begin + dilation - 1) // dilation).max()) if len(begin) else 0
    keys = begin[:, None] + torch.arange(width) * dilation
    inside = keys < end[:, None]
    return keys.clamp(max=max(int(end.max()) - 1, 0)) if len(begin) else keys, inside, dilation


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
    """(query [keys, most queries], column, seen) of a table: who sees a key, and at which of its columns."""
    query, column = seen.nonzero(as_tuple=True)
    key, order = index[seen].sort(stable=True)
    counts = torch.bincount(key, minlength=keys)
    place = torch.arange(len(key)) - (counts.cumsum(0) - counts)[key]
    width = int(counts.max()) if keys else 0
    queries, columns = (torch.zeros(keys, width, dtype=torch.long) for _ in range(2))
    queries[key, place], columns[key, place] = query[order], column[order]
    return queries, columns, torch.arange(width) < counts[:, None]
