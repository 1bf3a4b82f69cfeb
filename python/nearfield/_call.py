# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What the public functions share on the way to an operator: tensors, axes, tiles, seed, result.

A function hands over its `locals()`: tensors_of() takes the tensors out, and what is left are plain values,
which a function marked `remembered` checks.
"""

from __future__ import annotations

import functools
import marshal

import torch

from . import _arguments as arguments

_LONGEST = 4096  # bytes of plain arguments that are worth remembering
_is_compiling = torch.compiler.is_compiling


def tensors_of(op: str, a: dict, optional: tuple[str, ...] = ()) -> list:
    """Takes query, key, value and the optional tensors (None where absent) out of `a`, after a check of their
    kind."""
    tensors = []
    for name in ("query", "key", "value"):
        arguments.check_tensor(op, name, tensor := a.pop(name))
        tensors.append(tensor)
    for name in optional:
        if (tensor := a.pop(name)) is not None:
            arguments.check_tensor(op, name, tensor)
        tensors.append(tensor)
    return tensors


def remembered(check):
    """`check(op, a)` of plain arguments `a`, done once for the same values of the same types: in a model
    nearly every call repeats one, and finds the caches full of something else, so that a look-up costs far
    less than the checks. Values that are not Python's own (NumPy's, symbolic ones) are checked each time."""
    known: dict[bytes, object] = {}

    @functools.wraps(check)
    def call(op: str, a: dict):
        if _is_compiling():
            return check(op, a)
        try:
            # In version 2, bytes that tell 1 from True and 1.0, and a tuple from a list.
            key = marshal.dumps((op, *a.values()), 2)
        except ValueError:
            return check(op, a)
        if (found := known.get(key)) is None:
            found = check(op, a)
            if len(key) <= _LONGEST and _own(a):  # marshal writes NumPy's numbers as bare bytes
                if len(known) >= 1000:
                    known.clear()
                known[key] = found
        return found

    call.known = known
    return call


def _own(value) -> bool:
    """Made of Python's own None, numbers, strings, tuples, lists and dictionaries."""
    kind = type(value)
    if kind is dict:
        return all(_own(v) for item in value.items() for v in item)
    if kind is tuple or kind is list:
        return all(_own(v) for v in value)
    return value is None or kind in (bool, int, float, str)


def axes_of(op: str, rank: int, window: str, a: dict) -> tuple[int, ...]:
    """Window, stride, dilation and causal of each axis, as the operator takes them."""
    axes = zip(
        arguments.per_axis(op, window, a[window], rank, int),
        arguments.per_axis(op, "stride", a["stride"], rank, int),
        arguments.per_axis(op, "dilation", a["dilation"], rank, int),
        arguments.per_axis(op, "is_causal", a["is_causal"], rank, bool),
        strict=True,
    )
    return tuple(int(n) for axis in axes for n in axis)


_TILES = {
    word: tuple(f"{name}_{word}" for name in ("q_tile", "kv_tile", "backward_q_tile", "backward_kv_tile"))
    for word in ("shape", "size")
}


def tiles_of(op: str, a: dict, rank: int, word: str) -> tuple[int, ...] | None:
    """The query and key tiles, forward and then backward, as the operator takes them."""

    def one(name):
        shape = a[name]
        return arguments.tile(op, name, (shape,) if rank == 1 and arguments.is_int(shape) else shape, rank)

    names = _TILES[word]
    if all(a[name] is None for name in names):
        return None
    return tuple(n for name in names for n in one(name))


def seed_of(dropout_p: float, query):
    """A seed from torch's generator, so that manual_seed, checkpointing and graphs replay it."""
    if dropout_p == 0:
        return None
    return torch.randint(-(2**63), 2**63 - 1, (1,), dtype=torch.int64, device=query.device)
