# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Who needs whose keys: the exchange of a sharded neighborhood attention, from the geometry alone.

A rank's queries are a box, and the keys that they see are a box, so what it must fetch from a peer is the
intersection of two boxes. Nothing here communicates, or needs tensors.

    plan = ShardPlan((64, 48), (7, 7), mesh_shape=(2, 2), shard_dims=(0, 1))
    print(plan)                          # every rank's slab, what it fetches, from whom
    print(plan.draw(0))                  # a picture of one rank's tokens
    plan.bytes_received(0, kv_heads=8, head_dim=64, itemsize=2)
"""

from __future__ import annotations

import functools
import itertools
import math

from .. import _arguments as arguments
from .. import _core
from .._shard_call import Box, problem_of_axis
from . import _boxes as boxes
from ._share import Share, Task, tokens

_OP = "ShardPlan"


class ShardPlan:
    """The exchange of one sharded call; a pure function of its arguments.

    Args:
        layout: extents of the whole token layout, 1 to 3 axes.
        kernel_size, stride, dilation, is_causal: as for `na1d`, one or one per axis.
        mesh_shape: ranks along each dimension of the mesh; ranks count in raster order.
        shard_dims: for each dimension of the mesh the axis of the layout that it cuts, no axis twice.
        sizes: for each dimension of the mesh the extents of the slabs along it, in rank order; they may be 0.
            Default: as `torch.tensor_split` cuts.

    Raises:
        ValueError, TypeError: `[ShardPlan] got X, expected Y; hint`, or the core's message on the window.
    """

    def __init__(
        self,
        layout,
        kernel_size,
        stride=1,
        dilation=1,
        is_causal=False,
        *,
        mesh_shape,
        shard_dims,
        sizes=None,
    ):
        self.layout = whole_numbers(_OP, "layout", layout)
        rank = len(self.layout)
        if not 1 <= rank <= 3:
            raise ValueError(f"[{_OP}] got layout {self.layout}, expected 1, 2 or 3 axes")
        self.kernel_size, self.stride, self.dilation = (
            tuple(map(int, arguments.per_axis(_OP, name, value, rank, int)))
            for name, value in (("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation))
        )
        self.is_causal = arguments.per_axis(_OP, "is_causal", is_causal, rank, bool)
        self.mesh_shape = whole_numbers(_OP, "mesh_shape", mesh_shape)
        self.shard_dims = check_shard_dims(_OP, shard_dims, len(self.mesh_shape), rank)
        if min(self.mesh_shape) < 1:
            raise ValueError(f"[{_OP}] got mesh_shape {self.mesh_shape}, expected at least one rank")
        self.sizes = self._check_sizes(sizes)
        self._problems = tuple(
            problem_of_axis(*axis)
            for axis in zip(
                self.layout, self.kernel_size, self.stride, self.dilation, self.is_causal, strict=True
            )
        )
        for problem in self._problems:
            _core.problem(problem)
        # Per mesh dimension and coordinate: the slab, and the keys that its queries see.
        self._slabs = tuple(boxes.intervals(sizes) for sizes in self.sizes)
        self._needed = tuple(
            tuple(self._needed_keys(axis, slab) for slab in slabs)
            for axis, slabs in zip(self.shard_dims, self._slabs, strict=True)
        )
        self.share = functools.lru_cache(None)(self._share)  # of one rank

    def _check_sizes(self, sizes):
        if sizes is None:
            pairs = zip(self.shard_dims, self.mesh_shape, strict=True)
            return tuple(boxes.cut(self.layout[axis], n) for axis, n in pairs)
        sizes = tuple(whole_numbers(_OP, "sizes", part) for part in sizes)
        if tuple(map(len, sizes)) != self.mesh_shape:
            raise ValueError(
                f"[{_OP}] got sizes of {tuple(map(len, sizes))} slabs, expected {self.mesh_shape}, mesh_shape"
            )
        for axis, part in zip(self.shard_dims, sizes, strict=True):
            if min(part) < 0 or sum(part) != self.layout[axis]:
                raise ValueError(
                    f"[{_OP}] got slabs {part} along axis {axis}, expected extents from 0 on that add up to "
                    f"{self.layout[axis]}"
                )
        return sizes

    def _needed_keys(self, axis: int, run) -> tuple[int, int]:
        return _core.needed_keys(self._problems[axis], [run])[0]

    @property
    def ranks(self) -> int:
        return math.prod(self.mesh_shape)

    def coordinate(self, rank: int) -> tuple[int, ...]:
        """The place of a rank in the mesh."""
        return boxes.coordinate(self.mesh_shape, rank)

    def rank_at(self, coordinate) -> int:
        rank = 0
        for n, c in zip(self.mesh_shape, coordinate, strict=True):
            rank = rank * n + c
        return rank

    def slab(self, rank: int) -> Box:
        """The tokens, queries and keys, that a rank holds."""
        return self._box(self._slabs, self.coordinate(rank))

    def needed(self, rank: int) -> Box:
        """The keys that its queries see; all axes are empty where one is."""
        box = self._box(self._needed, self.coordinate(rank))
        return box if boxes.volume(self.slab(rank)) else ((0, 0),) * len(self.layout)

    def _box(self, table, coordinate) -> Box:
        box = [(0, n) for n in self.layout]
        for dim, (axis, c) in enumerate(zip(self.shard_dims, coordinate, strict=True)):
            box[axis] = table[dim][c]
        return tuple(box)

    def fetch(self, rank: int) -> dict[int, Box]:
        """The box of keys that comes from each peer, in rank order."""
        return {peer: message[0] for peer, message in self.share(rank).fetch}

    def send(self, rank: int) -> dict[int, Box]:
        """The box of keys that goes to each peer, in rank order."""
        return {peer: message[0] for peer, message in self.share(rank).send}

    def inner(self, rank: int) -> Box:
        """The queries whose windows lie within the slab: they run while the others' keys are on their way."""
        slab = self.slab(rank)
        inner = list(slab)
        for axis in self.shard_dims:
            problem, run = self._problems[axis], slab[axis]
            inner[axis] = _core.inner_queries(problem, [run], [run])[0] if run[0] < run[1] else run
        return tuple(inner)

    def _share(self, rank: int) -> Share:
        slab, inner = self.slab(rank), self.inner(rank)
        local, remote = [], []
        whole = boxes.volume(inner) == 0
        for queries in (slab,) if whole else (inner, *boxes.without(slab, inner)):
            if boxes.volume(queries) == 0:
                continue
            keys = [(0, n) for n in self.layout]
            for axis in self.shard_dims:
                keys[axis] = self._needed_keys(axis, queries[axis])
            task = Task(queries, tuple(keys))
            (local if boxes.contains(slab, task.keys) else remote).append(task)
        return Share((slab,), (slab,), self._fetched(rank), self._sent(rank), tuple(local), tuple(remote))

    def _fetched(self, rank: int):
        """Axis by axis the slabs that meet the needed keys; their product are the peers."""
        place = self.coordinate(rank)
        if boxes.volume(self.slab(rank)) == 0:
            return ()
        return self._peers(place, [[self._needed[d][c]] * n for d, (c, n) in self._dims(place)], self._slabs)

    def _sent(self, rank: int):
        place = self.coordinate(rank)
        if boxes.volume(self.slab(rank)) == 0:
            return ()
        return self._peers(place, [[self._slabs[d][c]] * n for d, (c, n) in self._dims(place)], self._needed)

    def _dims(self, place):
        return enumerate(zip(place, self.mesh_shape, strict=True))

    def _peers(self, place, mine, theirs):
        """(peer, (box,)) for all peers: the intersection of mine[dim] and theirs[dim], axis by axis."""
        meeting = [
            [
                (c, (max(a[0], b[0]), min(a[1], b[1])))
                for c, (a, b) in enumerate(zip(*pair, strict=True))
                if max(a[0], b[0]) < min(a[1], b[1])
            ]
            for pair in zip(mine, theirs, strict=True)
        ]
        found = []
        for combination in itertools.product(*meeting):
            coordinate = tuple(c for c, _ in combination)
            if coordinate == place:
                continue
            peer, box = self.rank_at(coordinate), [(0, n) for n in self.layout]
            for axis, (_, interval) in zip(self.shard_dims, combination, strict=True):
                box[axis] = interval
            if boxes.volume(self.slab(peer)) > 0:
                found.append((peer, (tuple(box),)))
        return tuple(sorted(found))

    # ---- amounts

    def bytes_received(self, rank, *, kv_heads, head_dim, value_dim=None, itemsize=4, batch=1) -> int:
        """Bytes of keys and values that a rank receives in a forward pass: the halo. A backward pass sends as
        many back, as float32 for 16-bit tensors."""
        channels = head_dim + (head_dim if value_dim is None else value_dim)
        return tokens(self.share(rank).fetch) * batch * kv_heads * channels * itemsize

    def bytes_sent(self, rank, *, kv_heads, head_dim, value_dim=None, itemsize=4, batch=1) -> int:
        """The same of what it sends."""
        channels = head_dim + (head_dim if value_dim is None else value_dim)
        return tokens(self.share(rank).send) * batch * kv_heads * channels * itemsize

    # ---- for people

    def __repr__(self) -> str:
        given = f"{self.layout}, {self.kernel_size}, {self.stride}, {self.dilation}, {self.is_causal}"
        return (
            f"ShardPlan({given}, mesh_shape={self.mesh_shape}, shard_dims={self.shard_dims}, "
            f"sizes={self.sizes})"
        )

    def __str__(self) -> str:
        """One line per rank."""
        lines = [repr(self)]
        for rank in range(self.ranks):
            share = self.share(rank)
            count = boxes.volume(self.slab(rank))
            inner = sum(boxes.volume(task.queries) for task in share.local)
            fetched = ", ".join(f"{boxes.text(m[0])} from {peer}" for peer, m in share.fetch) or "nothing"
            lines.append(
                f"rank {rank}: {boxes.text(self.slab(rank))}, {count} tokens, {inner} queries need only them"
                f"; fetches {fetched}: {tokens(share.fetch)} tokens"
            )
        return "\n".join(lines)

    def draw(self, rank: int) -> str:
        """The tokens as one rank sees them, as text: # queries whose windows are its own keys, + its other
        queries, the last digit of a peer for keys that it fetches, . for all else. The last axis goes to the
        right, the one before it down; a third is a list of pictures."""
        marks = {}
        share = self.share(rank)
        for task in (*share.remote, *share.local):
            for token in _tokens(task.queries):
                marks[token] = "#" if task in share.local else "+"
        for peer, message in share.fetch:
            for token in _tokens(message[0]):
                marks[token] = str(peer % 10)
        *planes, rows, columns = (1,) * (2 - len(self.layout)) + self.layout
        lead = len(self.layout) - 2
        pictures = []
        for plane in itertools.product(*map(range, planes)):
            lines = []
            for row in range(rows):
                before = (*plane, row) if lead >= 0 else ()
                lines.append("".join(marks.get((*before, column), ".") for column in range(columns)))
            pictures.append("\n".join(lines))
        return "\n\n".join(pictures)


def _tokens(box: Box):
    return itertools.product(*(range(*interval) for interval in box))


def whole_numbers(op: str, name: str, values) -> tuple[int, ...]:
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise TypeError(f"[{op}] got {name} of type {arguments.type_name(values)}, expected a tuple of ints")
    values = tuple(values)
    for n in values:
        if not arguments.is_int(n):
            raise TypeError(f"[{op}] got {name} with an entry of type {arguments.type_name(n)}, expected int")
    return tuple(map(int, values))


def check_shard_dims(op: str, shard_dims, dims: int, rank: int) -> tuple[int, ...]:
    """One axis of the layout for each of the mesh's dimensions."""
    if arguments.is_int(shard_dims):
        shard_dims = (shard_dims,)
    shard_dims = whole_numbers(op, "shard_dims", shard_dims)
    if len(shard_dims) != dims:
        raise ValueError(
            f"[{op}] got shard_dims {shard_dims} for a mesh of {dims} dimensions, expected one axis for each"
        )
    for axis in shard_dims:
        if not 0 <= axis < rank:
            raise ValueError(
                f"[{op}] got shard_dims {shard_dims}, expected axes 0 to {rank - 1} of the layout; "
                "the batch is no axis"
            )
    if len(set(shard_dims)) != dims:
        raise ValueError(
            f"[{op}] got shard_dims {shard_dims}, expected different axes; flatten the dimensions of "
            "the mesh that cut one axis"
        )
    return shard_dims
