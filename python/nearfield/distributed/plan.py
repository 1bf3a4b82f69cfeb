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

import itertools
import math

from .. import _arguments as arguments
from .. import _core
from .._shard_call import Box, problem_of_axis
from . import _boxes as boxes
from ._checks import check_iterable, check_rank, check_shard_dims, check_window, whole_numbers
from ._picture import picture
from ._share import Share, Task, tokens

_OP = "ShardPlan"


class ShardPlan:
    """The exchange of one sharded call; a pure function of its arguments, and equal where they are.

    Args:
        layout: extents of the whole token layout, 1 to 3 axes.
        kernel_size, stride, dilation, is_causal: as for `na1d`, one or one per axis.
        mesh_shape: ranks along each dimension of the mesh; ranks count in raster order.
        shard_dims: for each dimension of the mesh the axis of the layout that it cuts, no axis twice.
        sizes: for each dimension of the mesh the extents of the slabs along it, in rank order; they may be 0.
            Default: as `torch.tensor_split` cuts.

    Raises:
        ValueError, TypeError: `[ShardPlan] got X, expected Y; hint`, also of methods whose rank is no rank.
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
        if not 1 <= rank <= 3 or not all(0 <= n < 2**31 for n in self.layout):
            raise ValueError(f"[{_OP}] got layout {self.layout}, expected 1 to 3 extents of 0 to {2**31 - 1}")
        self.kernel_size, self.stride, self.dilation = (
            tuple(map(int, arguments.per_axis(_OP, name, value, rank, int)))
            for name, value in (("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation))
        )
        self.is_causal = arguments.per_axis(_OP, "is_causal", is_causal, rank, bool)
        window = self.kernel_size, self.stride, self.dilation, self.is_causal
        check_window(_OP, self.layout, *window)
        self.mesh_shape = whole_numbers(_OP, "mesh_shape", mesh_shape)
        if not self.mesh_shape or min(self.mesh_shape) < 1:
            raise ValueError(
                f"[{_OP}] got mesh_shape {self.mesh_shape}, expected one dimension or more, each of at least "
                "one rank"
            )
        self.shard_dims = check_shard_dims(_OP, shard_dims, len(self.mesh_shape), rank)
        self.sizes = self._check_sizes(sizes)
        self._problems = tuple(problem_of_axis(*axis) for axis in zip(self.layout, *window, strict=True))
        # Per mesh dimension and coordinate: the slab, and the keys that its queries see.
        self._slabs = tuple(boxes.intervals(sizes) for sizes in self.sizes)
        self._needed = tuple(
            tuple(self._needed_keys(axis, slab) for slab in slabs)
            for axis, slabs in zip(self.shard_dims, self._slabs, strict=True)
        )
        self._shares: dict[int, Share] = {}  # as they are asked for

    def _given(self):
        """What it is made of: it is compared, and pickled, by that."""
        window = self.kernel_size, self.stride, self.dilation, self.is_causal
        return (self.layout, *window, self.mesh_shape, self.shard_dims, self.sizes)

    def __eq__(self, other) -> bool:
        return self._given() == other._given() if isinstance(other, ShardPlan) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._given())

    def __reduce__(self):
        return _made, self._given()

    def _check_sizes(self, sizes):
        if sizes is None:
            pairs = zip(self.shard_dims, self.mesh_shape, strict=True)
            return tuple(boxes.cut(self.layout[axis], n) for axis, n in pairs)
        check_iterable(_OP, "sizes", sizes, "a tuple of ints for each dimension of the mesh")
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
        check_rank(_OP, rank, self.ranks)
        return boxes.coordinate(self.mesh_shape, rank)

    def rank_at(self, coordinate) -> int:
        """The rank at a place of the mesh."""
        place = whole_numbers(_OP, "coordinate", coordinate)
        inside = len(place) == len(self.mesh_shape)
        if not inside or not all(0 <= c < n for n, c in zip(self.mesh_shape, place, strict=True)):
            raise ValueError(
                f"[{_OP}] got coordinate {place}, expected a place in a mesh of {self.mesh_shape}"
            )
        rank = 0
        for n, c in zip(self.mesh_shape, place, strict=True):
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

    def share(self, rank: int) -> Share:
        """What a rank holds, fetches, sends and computes."""
        check_rank(_OP, rank, self.ranks)
        if rank not in self._shares:
            self._shares[rank] = self._share(rank)
        return self._shares[rank]

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
                (c, common)
                for c, intervals in enumerate(zip(*pair, strict=True))
                if (common := boxes.overlap(*intervals)) is not None
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
        return picture(self.layout, self.share(rank))


def _made(*given) -> ShardPlan:
    *call, mesh_shape, shard_dims, sizes = given
    return ShardPlan(*call, mesh_shape=mesh_shape, shard_dims=shard_dims, sizes=sizes)
