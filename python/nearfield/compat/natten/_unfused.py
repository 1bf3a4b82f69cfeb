# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Neighborhood attention in two steps, logits and then weighted values, as that package had it up to 0.17.

Heads come first here: query, key and value `[B, H, *layout, D]`, logits and weights
`[B, H, *layout, prod(kernel_size) + S]`, columns in raster order of the window, behind them the S additional
keys `[B, H, S, D]`. The column of a key that a causal window leaves out is -inf, and counts nothing in the
second step. `rpb`, `[H, 2 kernel_size - 1, ...]`, is added to the logits of the window: its entry is key
minus query, in steps of the dilation, plus kernel_size - 1. No scale is applied.

Beyond what that package had: even windows, strides, rpb with causal windows, second derivatives.
"""

from __future__ import annotations

import torch

from ... import _arguments as arguments
from ... import _core, _ops, _pairs


@torch.compiler.assume_constant_result
def _problem(op: str, rank: int, dtype: str, device: str, sizes: tuple, axes: tuple) -> str:
    """The name of the neighborhood attention with these windows; raises what it would raise."""
    heads, *layout, dim = sizes
    tensor = (dtype, device, 0, (1, *layout, heads, dim))
    with arguments.in_name_of(op, f"na{rank}d"):
        return _core.check([tensor] * 3 + [None] * 5, None, 0.0, rank - 1, 0, 0, axes, (), ())


def _window(op: str, rank: int, tensor, kernel_size, stride, dilation, is_causal) -> tuple[str, tuple]:
    """(problem, window) of a heads-first tensor."""
    if tensor.dim() != rank + 3:
        raise ValueError(
            f"[{op}] got a tensor of rank {tensor.dim()}, expected {rank + 3}: [batch, heads, "
            f"{rank} {'axis' if rank == 1 else 'axes'}, head_dim]; heads come first in the unfused operations"
        )
    kernel_size = arguments.per_axis(op, "kernel_size", kernel_size, rank, int)
    axes = zip(
        kernel_size,
        arguments.per_axis(op, "stride", stride, rank, int),
        arguments.per_axis(op, "dilation", 1 if dilation is None else dilation, rank, int),
        arguments.per_axis(op, "is_causal", False if is_causal is None else is_causal, rank, bool),
        strict=True,
    )
    axes = tuple(int(n) for axis in axes for n in axis)
    # Windows are tables: a compiled graph is for one layout, and len(range()) makes a symbolic size a number.
    sizes = tuple(len(range(n)) for n in tensor.shape[1:])
    dtype = str(tensor.dtype).removeprefix("torch.")
    problem = _problem(op, rank, dtype, tensor.device.type, sizes, axes)
    return problem, kernel_size


def _check_alike(op: str, first: str, a, second: str, b, sizes) -> None:
    """Same dtype and device, and `b` of these sizes."""
    if a.dtype != b.dtype or a.device != b.device or b.shape != torch.Size(sizes):
        raise ValueError(
            f"[{op}] got {second} {list(b.shape)}, {b.dtype} on {b.device}, expected {list(sizes)}, "
            f"{a.dtype} on {a.device}, to go with {first} {list(a.shape)}"
        )


def _additional_sizes(op: str, name: str, extra, tensor):
    if extra.dim() != 4:
        raise ValueError(
            f"[{op}] got {name} of rank {extra.dim()}, expected 4: [batch, heads, tokens, head_dim]"
        )
    return *tensor.shape[:2], extra.shape[2], tensor.shape[-1]


def _flat(tensor, channels: int = 1):
    """[B, H, ..., c] -> [B * H, tokens, c] in the dtype of sums."""
    tensor = tensor.to(_ops.lse_dtype(tensor.dtype))
    return tensor.flatten(2, -1 - channels).flatten(0, 1)


def logits(op, rank, query, key, kernel_size, stride, dilation, is_causal, additional_keys, rpb):
    """Columns of the window and of the additional keys, [B, H, *layout, columns]."""
    for name, tensor, optional in (
        ("query", query, False),
        ("key", key, False),
        ("additional_keys", additional_keys, True),
        ("rpb", rpb, True),
    ):
        arguments.check_tensor(op, name, tensor, optional)
    query, key, additional_keys = arguments.autocast(query, key, additional_keys)
    problem, window = _window(op, rank, query, kernel_size, stride, dilation, is_causal)
    _check_alike(op, "query", query, "key", key, query.shape)
    work = _ops.lse_dtype(query.dtype)
    result = _pairs.score(_flat(query), _flat(key), problem).unflatten(0, query.shape[:2])
    if rpb is not None:
        sizes = (query.shape[1], *(2 * k - 1 for k in window))
        if rpb.shape != torch.Size(sizes) or rpb.device != query.device or not rpb.is_floating_point():
            raise ValueError(
                f"[{op}] got rpb {list(rpb.shape)}, {rpb.dtype} on {rpb.device}, expected {list(sizes)}, "
                f"floating, on {query.device}: heads, and 2 kernel_size - 1 of each axis"
            )
        result = result + _pairs.expand(rpb.to(query.dtype).to(work), problem)
    seen = _pairs.seen(problem, query.device)
    if seen is not None:
        result = torch.where(seen, result, -torch.inf)
    if additional_keys is not None:
        sizes = _additional_sizes(op, "additional_keys", additional_keys, query)
        _check_alike(op, "query", query, "additional_keys", additional_keys, sizes)
        more = _flat(query) @ _flat(additional_keys).mT
        result = torch.cat([result, more.unflatten(0, query.shape[:2])], -1)
    return result.to(query.dtype).unflatten(2, query.shape[2:-1])


def weighted(op, rank, attn, value, kernel_size, stride, dilation, is_causal, additional_values):
    """Sums of values, weighted as they are, [B, H, *layout, D]."""
    for name, tensor, optional in (
        ("attn", attn, False),
        ("value", value, False),
        ("additional_values", additional_values, True),
    ):
        arguments.check_tensor(op, name, tensor, optional)
    value, additional_values = arguments.autocast(value, additional_values)
    problem, window = _window(op, rank, value, kernel_size, stride, dilation, is_causal)
    columns = torch.Size(window).numel()
    attn = attn.to(value.dtype)
    extra = 0
    if additional_values is not None:
        sizes = _additional_sizes(op, "additional_values", additional_values, value)
        _check_alike(op, "value", value, "additional_values", additional_values, sizes)
        extra = sizes[2]
    _check_alike(op, "value", value, "attn", attn, (*value.shape[:-1], columns + extra))
    weights = _flat(attn)
    result = _pairs.weigh(weights[..., :columns], _flat(value), problem)
    if additional_values is not None:
        result = result + weights[..., columns:] @ _flat(additional_values)
    return result.to(value.dtype).unflatten(0, value.shape[:2]).unflatten(2, value.shape[2:-1])
