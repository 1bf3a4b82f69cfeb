# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""A token layout to be drawn: who sees what on it, asked of the core, and marks on its tokens as panels."""

from __future__ import annotations

import itertools
import math

import torch

from nearfield import _core
from nearfield.tools import CommandError
from nearfield.tools.drawing import MOST_CELLS, Panel

ONE_ROW, WRAPPED = 100, 64  # tokens: of one axis in a row at most, and a multiple of how many if it is longer


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
    """Tokens as rows and columns; a third axis is one panel per plane. marks: by token; others are plain.
    A long single axis is broken into rows, each labelled by its first token."""
    if len(extents) == 1:
        n = extents[0]
        line = "".join(marks.get((x,), ".") for x in range(n))
        if n <= ONE_ROW:
            return [Panel([line])]
        # About as many rows as columns, of which 64 are readable.
        columns = WRAPPED * max(1, math.ceil(math.sqrt(n) / WRAPPED))
        starts = range(0, n, columns)
        return [Panel([line[at : at + columns] for at in starts], labels=[str(at) for at in starts])]
    rows, columns = extents[-2:]
    found = []
    for plane in itertools.product(*map(range, extents[:-2])):
        table = ["".join(marks.get((*plane, y, x), ".") for x in range(columns)) for y in range(rows)]
        found.append(Panel(table, f"{names} {plane[0]}" if plane else ""))
    return found


def marked(table: torch.Tensor):
    return (tuple(token) for token in table.nonzero().tolist())
