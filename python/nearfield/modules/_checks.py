# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of constructor arguments that the modules share."""

from __future__ import annotations

import torch

from .. import _arguments as arguments


def positive(op: str, name: str, value) -> int:
    if not arguments.is_int(value):
        raise TypeError(f"[{op}] got {name} of type {arguments.type_name(value)}, expected int")
    if value < 1:
        raise ValueError(f"[{op}] got {name} {value}, expected at least 1")
    return int(value)


def kv_heads(op: str, num_heads: int, num_kv_heads) -> int:
    """The number of key/value heads; as many as query heads where none is given."""
    if num_kv_heads is None:
        return num_heads
    positive(op, "num_kv_heads", num_kv_heads)
    if num_heads % num_kv_heads:
        raise ValueError(
            f"[{op}] got num_kv_heads {num_kv_heads}, expected a divisor of num_heads {num_heads}; "
            "consecutive query heads share a key/value head"
        )
    return int(num_kv_heads)


def probability(op: str, name: str, value) -> float:
    value = arguments.number(op, name, value)
    if not 0 <= value < 1:
        raise ValueError(f"[{op}] got {name} {value}, expected 0 <= {name} < 1")
    return value


@torch.compiler.assume_constant_result  # compilation does not see into groups
def group_size(op: str, group) -> int:
    """Ranks of a process group; 1 for None."""
    if group is None:
        return 1
    size = getattr(group, "size", None)
    ranks = size() if callable(size) else None
    if not arguments.is_int(ranks):
        raise TypeError(
            f"[{op}] got cp_group of type {arguments.type_name(group)}, expected a process group, a "
            "DeviceMesh of one dimension, or None"
        )
    return ranks
