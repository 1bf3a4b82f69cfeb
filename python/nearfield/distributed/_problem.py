# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""From what the ranks said to what each of them does: pure, the same everywhere, computed once."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch

from .. import _arguments as arguments
from .. import _core
from .._shard_call import BACKENDS, GlobalCall
from . import _boxes as boxes
from ._agree import said_by
from ._sequence import Sequence, parts_of, ring_of
from .plan import ShardPlan

GATHER_BYTES = 1 << 20  # of all keys and values: up to here one exchange beats the latency of a ring
METHODS = ("ring", "gather", "heads")
_TENSORS = ("query", "key", "value", "additional_keys", "additional_values", "bias")


class Resolved(NamedTuple):
    """method: "fetch", "ring" or "heads"; share: what this rank does by it (Share, Ring, Sequence)."""

    call: GlobalCall
    method: str
    share: object


def described(tensors) -> tuple[dict, dict]:
    """(common, own): what must be alike on all ranks of the six tensors of a call, and the layouts."""
    common, own = {}, {}
    for name, tensor in zip(_TENSORS, tensors, strict=True):
        if tensor is None:
            common[name] = None
            continue
        # The layout of query, key and value is a rank's own, and lies between batch and heads.
        sharded = name in _TENSORS[:3] and tensor.dim() >= 4
        shape = tuple(tensor.shape)
        common[name] = f"{str(tensor.dtype).removeprefix('torch.')} {tensor.device.type} " + (
            f"[{shape[0]}, {tensor.dim() - 3} axes, {shape[-2]}, {shape[-1]}]"
            if sharded
            else f"{list(shape)}"
        )
        own[name] = [str(tensor.dtype).removeprefix("torch."), tensor.device.type, list(shape)]
    return common, own


@functools.lru_cache(256)
def resolved(op: str, said: tuple[bytes, ...], rank: int) -> Resolved:
    """What `rank` does in the call that all ranks agreed on.

    Raises:
        ValueError: shapes that do not fit each other or the call; the same error on every rank.
    """
    tables = said_by(said)
    given = tables[0][0]
    shapes = [{name: tuple(t[2]) for name, t in own.items()} for _, own in tables]
    _check_ranks(op, shapes)
    if given["kind"] == "neighborhood":
        return _neighborhood(op, given, tables, shapes, rank)
    return _attention(op, given, tables, shapes, rank)


def _check_ranks(op: str, shapes) -> None:
    for rank, of_rank in enumerate(shapes):
        for name in _TENSORS[:3]:
            if len(of_rank[name]) < 4:
                raise ValueError(
                    f"[{op}] got {name} of shape {of_rank[name]} on rank {rank}, expected "
                    "[B, *layout, heads, channels]"
                )
        if of_rank["key"][1:-2] != of_rank["value"][1:-2]:
            raise ValueError(
                f"[{op}] got key {of_rank['key']} and value {of_rank['value']} on rank {rank}, expected one "
                "layout"
            )


def _check_whole(op: str, call: GlobalCall, tables, query_layout, layout) -> str:
    """The rules of the unsharded operation on the whole tensors; returns its problem string."""
    described = []
    for name in _TENSORS:
        if name not in tables[0][1]:
            described.append(None)
            continue
        dtype, device, shape = tables[0][1][name]
        if name in _TENSORS[:3]:
            shape = (shape[0], *(query_layout if name == "query" else layout), *shape[-2:])
        described.append((dtype, device, 0, tuple(shape)))
    with arguments.in_name_of(op, call.op):
        problem = call.check(described)
    if call.backend:  # else the table has one for every problem
        name = next(name for name, number in BACKENDS.items() if number == call.backend)
        refusal = _core.plan(f"{problem}@{name}", tables[0][1]["query"][1])[0].get("refusal")
        if refusal:
            raise ValueError(f"[{op}] got backend {name}, expected one that serves {problem}: {refusal}")
    return problem


# ---- neighborhoods


def _neighborhood(op: str, given, tables, shapes, rank: int) -> Resolved:
    axes = len(given["kernel_size"])
    for other, of_rank in enumerate(shapes):
        for name in _TENSORS[:3]:
            if len(of_rank[name]) - 3 != axes:
                raise ValueError(
                    f"[{op}] got {name} of shape {of_rank[name]}, expected {axes} axes between batch "
                    "and heads, as kernel_size has"
                )
        if of_rank["query"][1:-2] != of_rank["key"][1:-2]:
            raise ValueError(
                f"[{op}] got a query of layout {of_rank['query'][1:-2]} and a key of layout "
                f"{of_rank['key'][1:-2]} on rank {other}, expected one slab of both"
            )
    layout, sizes = _slabs(op, given, [of_rank["query"][1:-2] for of_rank in shapes])
    window = [given[name] for name in ("kernel_size", "stride", "dilation", "is_causal")]
    call = GlobalCall(
        op=f"na{axes}d",
        layout=layout,
        query_layout=layout,
        axes=tuple(int(n) for axis in zip(*window, strict=True) for n in axis),
        scale=given["scale"],
        dropout_p=given["dropout_p"],
        backend=given["backend"],
        flags=given["flags"],
    )
    _check_whole(op, call, tables, layout, layout)
    plan = ShardPlan(
        layout,
        *map(tuple, window),
        mesh_shape=given["mesh_shape"],
        shard_dims=given["shard_dims"],
        sizes=sizes,
    )
    return Resolved(call, "fetch", plan.share(rank))


def _slabs(op: str, given, layouts):
    """(layout, sizes of the slabs along each dimension of the mesh) from every rank's slab."""
    mesh, dims = given["mesh_shape"], given["shard_dims"]
    layout, sizes = list(layouts[0]), []
    places = [boxes.coordinate(mesh, rank) for rank in range(len(layouts))]
    for axis in range(len(layout)):
        dim = dims.index(axis) if axis in dims else None
        first = {}  # coordinate -> the first rank there
        for rank, place in enumerate(places):
            other = first.setdefault(0 if dim is None else place[dim], rank)
            if layouts[rank][axis] != layouts[other][axis]:
                raise ValueError(
                    f"[{op}] got a slab of {layouts[rank][axis]} tokens along axis {axis} on rank {rank}, "
                    f"expected {layouts[other][axis]}, as on rank {other}; "
                    + (
                        "the mesh does not cut that axis"
                        if dim is None
                        else "ranks at one coordinate of the mesh have slabs of one extent"
                    )
                )
        if dim is not None:
            sizes.append((dim, tuple(layouts[first[c]][axis] for c in range(mesh[dim]))))
            layout[axis] = sum(sizes[-1][1])
    expected = given["layout"]
    if expected is not None and tuple(expected) != tuple(layout):
        raise ValueError(
            f"[{op}] got slabs of a layout {tuple(layout)} together, expected {tuple(expected)}, the "
            "argument layout"
        )
    return tuple(layout), [part for _, part in sorted(sizes)]


# ---- dense attention


def _attention(op: str, given, tables, shapes, rank: int) -> Resolved:
    sides = []
    for name, unit in zip(("query", "key"), given["units"], strict=True):
        for other, of_rank in enumerate(shapes):
            if len(of_rank[name]) != 4:
                raise ValueError(
                    f"[{op}] got {name} of shape {of_rank[name]} on rank {other}, expected rank 4, "
                    "[B, tokens, heads, channels]"
                )
        lengths = [of_rank[name][1] for of_rank in shapes]
        sides.append(parts_of(op, name, given["pattern"], lengths, unit))
    queries, keys = (sum(boxes.volume(b) for part in side for b in part) for side in sides)
    call = GlobalCall(
        op="attention",
        layout=(keys,),
        query_layout=(queries,),
        causal_type=given["causal_type"],
        scale=given["scale"],
        dropout_p=given["dropout_p"],
        backend=given["backend"],
        flags=given["flags"],
    )
    _check_whole(op, call, tables, (queries,), (keys,))
    if call.causal_type == 3:  # DontCare: the lengths are equal
        call = call._replace(causal_type=1)
    sequence = Sequence.of(*sides, call.causal_type)
    own = tables[0][1]
    method = given["method"] or _cheapest(own["key"], own["value"], keys)
    if method == "gather":
        return Resolved(call, "fetch", sequence.share(rank))
    if method == "ring":
        return Resolved(call, method, ring_of(sequence, rank))
    heads, ranks = own["key"][2][2], len(tables)
    if heads % ranks:
        raise ValueError(
            f"[{op}] got {heads} key/value heads on {ranks} ranks, expected a multiple for method='heads'; "
            "method='ring' takes any number"
        )
    if call.dropout_p > 0:
        raise ValueError(
            f"[{op}] got dropout_p {call.dropout_p} with method='heads', expected 0; its mask counts all "
            "heads: take method='ring'"
        )
    return Resolved(call, method, sequence)


def _cheapest(key, value, tokens: int) -> str:
    itemsize = getattr(torch, key[0]).itemsize
    channels = key[2][-1] + value[2][-1]
    total = tokens * key[2][0] * key[2][-2] * channels * itemsize
    return "gather" if total <= GATHER_BYTES else "ring"
