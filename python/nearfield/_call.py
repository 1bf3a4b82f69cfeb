# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What the public functions share on the way to an operator: tensors, axes, tiles, seed, result."""

from __future__ import annotations

import torch

from . import _arguments as arguments


def tensors_of(op: str, a: dict) -> tuple:
    """query, key, value, additional keys and values (None where absent), after a check of their kind."""
    for name in ("query", "key", "value"):
        arguments.check_tensor(op, name, a[name])
    for name in ("additional_keys", "additional_values"):
        arguments.check_tensor(op, name, a.get(name), optional=True)
    return a["query"], a["key"], a["value"], a.get("additional_keys"), a.get("additional_values")


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


def result_of(op: str, return_lse: bool, result):
    return result if arguments.check_bool(op, "return_lse", return_lse) else result[0]
