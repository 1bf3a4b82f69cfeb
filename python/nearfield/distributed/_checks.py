# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Arguments that say how a layout is cut: their types and values, before anything is computed from them."""

from __future__ import annotations

from .. import _arguments as arguments
from .. import _core


def check_iterable(op: str, name: str, values, expected: str) -> None:
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise TypeError(f"[{op}] got {name} of type {arguments.type_name(values)}, expected {expected}")


def check_rank(op: str, rank, ranks: int) -> None:
    if not arguments.is_int(rank):
        raise TypeError(f"[{op}] got rank of type {arguments.type_name(rank)}, expected int")
    if not 0 <= rank < ranks:
        raise ValueError(f"[{op}] got rank {rank}, expected 0 to {ranks - 1}")


def check_window(op: str, layout, kernel_size, stride, dilation, is_causal) -> None:
    """The core's rules; it parses no signs."""
    named = {"kernel_size": kernel_size, "stride": stride, "dilation": dilation}
    for name, values in named.items():
        if min(values) < 0:
            raise ValueError(f"[{op}] got {name} {values}, expected numbers from 1 on")
    extents, *window = ("x".join(map(str, values)) for values in (layout, *named.values()))
    causal = "".join(str(int(c)) for c in is_causal)
    kernel, step, spacing = window
    try:
        _core.problem(f"na:fwd:f32:b1h1kv1d1:{extents}:k{kernel}:s{step}:d{spacing}:c{causal}")
    except ValueError as error:
        raise ValueError(str(error).replace("[problem string]", f"[{op}]", 1)) from None


def whole_numbers(op: str, name: str, values) -> tuple[int, ...]:
    """Whole numbers, as a tuple of Python's."""
    check_iterable(op, name, values, "a tuple of ints")
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
