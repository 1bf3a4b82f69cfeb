# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Lengths of packed sequences -> cumulative offsets, for `attention` and `nearfield.varlen`.

Sequence b of n owns the tokens offsets[b] .. offsets[b + 1] - 1 of `[1, total, heads, channels]`.
The operator checks offsets. Lengths it never sees: the core is asked about them here, where their values can
be read, which waits for a GPU and is left out in a traced graph.
"""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensor

from . import _arguments as arguments
from . import _core

_MAXIMA = ("max_seqlen_Q", "max_seqlen_KV")
_OFFSETS = ("cumulative_seqlen_Q", "cumulative_seqlen_KV")
_LENGTHS = ("seqlens_Q", "seqlens_KV")
_ALL = (*_LENGTHS, *_OFFSETS, *_MAXIMA)


def values_of(tensor) -> list[int] | None:
    """The numbers of a tensor; None where it has none to read: traced, fake, meta or mapped tensors."""
    hidden = (
        torch.compiler.is_compiling()
        or tensor.device.type == "meta"
        or isinstance(tensor, FakeTensor)
        or torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )
    return None if hidden else tensor.tolist()


def check_pair(op: str, names, a: dict) -> bool:
    """Both of two arguments are given (True), or neither."""
    given = [name for name in names if a[name] is not None]
    if len(given) == 1:
        raise ValueError(f"[{op}] got {given[0]} alone, expected both of {' and '.join(names)}, or neither")
    return bool(given)


def _check_kind(op: str, name: str, lengths, query) -> None:
    arguments.check_tensor(op, name, lengths)
    if lengths.dtype not in (torch.int32, torch.int64):
        dtype = str(lengths.dtype).removeprefix("torch.")
        raise ValueError(f"[{op}] got {name} of dtype {dtype}, expected int32 or int64")
    if lengths.dim() != 1:
        raise ValueError(
            f"[{op}] got {name} of rank {lengths.dim()}, expected rank 1, one length per sequence"
        )
    if lengths.device != query.device:
        raise ValueError(
            f"[{op}] got {name} on {lengths.device}, expected device {query.device}, that of query; "
            "move it there"
        )


def offsets_of_lengths(op: str, a: dict):
    """((cumulative_seqlen_Q, cumulative_seqlen_KV), (longest query, longest key sequence)) from a's
    `seqlens_Q` and `seqlens_KV` [n]; the maxima are None where the lengths cannot be read."""
    offsets, maxima = [], []
    for name, packed in zip(_LENGTHS, ("query", "key"), strict=True):
        lengths, tensor = a[name], a[packed]
        _check_kind(op, name, lengths, a["query"])
        if tensor.dim() < 2:
            raise ValueError(
                f"[{op}] got {packed} of rank {tensor.dim()}, expected rank 4, [1, total, heads, channels]"
            )
        total = tensor.shape[1]
        values = values_of(lengths)
        if values is not None:
            _core.check_lengths(op, name, values, total, packed)
        wide = isinstance(total, int) and total >= 2**31
        dtype = torch.int64 if wide else torch.int32
        offsets.append(torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(dtype))
        maxima.append(None if values is None else max(values, default=0))
    return tuple(offsets), tuple(maxima)


def taken_from(a: dict) -> dict:
    """The arguments on packed sequences, taken out of those of a call."""
    return {name: a.pop(name) for name in _ALL}


def packed_arguments(op: str, a: dict) -> dict:
    """The part of a Config that says which sequences are packed; empty for a call without any. a: `query`,
    `key` and what taken_from() gave."""
    if all(a[name] is None for name in _ALL):
        return {}
    if check_pair(op, _LENGTHS, a):
        for name in (*_OFFSETS, *_MAXIMA):
            if a[name] is not None:
                raise ValueError(
                    f"[{op}] got seqlens_Q and seqlens_KV together with {name}, expected one or the other"
                )
        (queries, keys), maxima = offsets_of_lengths(op, a)
        grids = None if None in maxima else maxima
        return {"offsets_query": queries, "offsets_key": keys, "grids": grids}
    for name in _MAXIMA:
        _check_maximum(op, name, a[name])
    if all(a[name] is None for name in _OFFSETS):
        for name in _MAXIMA:  # 0 is what generate_varlen_parameters gives where nothing is packed
            if a[name] is not None and a[name] != 0:
                raise ValueError(
                    f"[{op}] got {name} alone, expected cumulative_seqlen_Q and cumulative_seqlen_KV with it"
                )
        return {}
    for name in _OFFSETS:
        arguments.check_tensor(op, name, a[name], optional=True)
    grids = tuple(a[name] for name in _MAXIMA) if check_pair(op, _MAXIMA, a) else None
    return {"offsets_query": a[_OFFSETS[0]], "offsets_key": a[_OFFSETS[1]], "grids": grids}


def _check_maximum(op: str, name: str, value) -> None:
    if value is None:
        return
    if not arguments.is_int(value):
        raise TypeError(
            f"[{op}] got {name} of type {arguments.type_name(value)}, expected int; "
            "nearfield.varlen.generate_varlen_parameters gives it"
        )
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"[{op}] got {name} {value}, expected a number of at most 64 bits")
