# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""A sequence cut among ranks: who holds which tokens, and who sees whose.

"contiguous": slabs in rank order, of any size. "zigzag": the axis is cut in 2P slabs as torch.tensor_split
does, and rank r holds slabs r and 2P-1-r, one behind the other: under a causal mask all ranks then have the
same work. A unit is what a cut does not divide: the tokens of a row where rows are cut.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from .. import _core
from .._shard_call import Box, problem_of_attention
from . import _boxes as boxes
from ._share import Share, Task

PATTERNS = ("contiguous", "zigzag")


def parts_of(op: str, name: str, pattern: str, lengths, unit: int) -> tuple[tuple[Box, ...], ...]:
    """For each rank the intervals that it holds of a sequence; lengths: tokens of every rank."""
    if pattern == "contiguous":
        return tuple(((interval,),) for interval in boxes.intervals(lengths))
    ranks, total = len(lengths), sum(lengths)
    if unit == 0:  # no tokens at all
        return tuple((((0, 0),), ((0, 0),)) for _ in lengths)
    if total % unit:
        raise ValueError(f"[{op}] got {total} tokens of {name}, expected a multiple of {unit}")
    found = []
    for rank, length in enumerate(lengths):
        pair = boxes.zigzag(total // unit, ranks, rank, unit)
        due = sum(end - begin for begin, end in pair)
        if length != due:
            raise ValueError(
                f"[{op}] got {length} tokens of {name} on rank {rank}, expected {due} of {total}; the "
                f"pattern zigzag cuts in {2 * ranks} slabs as torch.tensor_split does, and rank r holds "
                f"slabs r and {2 * ranks} - 1 - r"
            )
        found.append(tuple((interval,) for interval in pair))
    return tuple(found)


class Sequence(NamedTuple):
    """Queries and keys of all ranks: for each rank its intervals, as boxes of one axis."""

    queries: tuple[tuple[Box, ...], ...]
    keys: tuple[tuple[Box, ...], ...]
    problem: str

    @staticmethod
    def of(queries, keys, causal_type: int) -> Sequence:
        lengths = (sum(boxes.volume(b) for part in side for b in part) for side in (queries, keys))
        return Sequence(queries, keys, problem_of_attention(*lengths, causal_type))

    @property
    def ranks(self) -> int:
        return len(self.queries)

    def seen(self, queries: Box) -> Box:
        """The keys that a run of queries sees; empty where it sees none."""
        if not boxes.volume(queries):
            return ((0, 0),)
        return tuple(_core.needed_keys(self.problem, queries))

    def share(self, rank: int) -> Share:
        """Fetching all that is seen, at once."""
        tasks = [Task(q, self.seen(q)) for q in self.queries[rank] if boxes.volume(q)]
        local = [t for t in tasks if any(boxes.contains(k, t.keys) for k in self.keys[rank])]
        remote = [t for t in tasks if t not in local]
        fetch = self._messages(lambda peer: (rank, peer), rank)
        send = self._messages(lambda peer: (peer, rank), rank)
        return Share(self.queries[rank], self.keys[rank], fetch, send, tuple(local), tuple(remote))

    def _messages(self, pair, rank: int):
        found = []
        for peer in range(self.ranks):
            message = () if peer == rank else self.seen_of(*pair(peer))
            if message:
                found.append((peer, message))
        return tuple(found)

    def seen_of(self, rank: int, owner: int) -> tuple[Box, ...]:
        """What the queries of `rank` see of the keys of `owner`. All that one sees begins at key 0."""
        spans = [self.seen(q) for q in self.queries[rank]]
        widest = max(spans, key=lambda span: span[0][1], default=((0, 0),))
        common = (boxes.intersection(k, widest) for k in self.keys[owner])
        return tuple(box for box in common if box is not None)

    def pairs(self, rank: int, owner: int) -> tuple[Task, ...]:
        """The calls by which the queries of `rank` meet the keys of `owner`, invisible keys left out."""
        found = []
        for q in self.queries[rank]:
            span = self.seen(q)
            for k in self.keys[owner]:
                common = boxes.intersection(span, k)
                if common is not None:
                    found.append(Task(q, common))
        return tuple(found)


class Ring(NamedTuple):
    """One rank's turn in a ring: at step s it has the keys of rank - s, and passes them on to rank + 1.

    tasks: for each step. last: for each owner the step at which its keys are used last; they go no further.
    """

    keys: tuple[tuple[Box, ...], ...]
    queries: tuple[Box, ...]
    tasks: tuple[tuple[Task, ...], ...]
    last: tuple[int, ...]


@functools.lru_cache(256)
def ring_of(sequence: Sequence, rank: int) -> Ring:
    n = sequence.ranks
    last = []
    for owner in range(n):
        users = [s for s in range(n) if sequence.seen_of((owner + s) % n, owner)]
        last.append(max(users, default=0))
    tasks = tuple(sequence.pairs(rank, (rank - s) % n) for s in range(n))
    return Ring(sequence.keys, sequence.queries[rank], tasks, tuple(last))
