# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Joining attentions of the same queries over disjoint keys: a plain composition of torch operations."""

from __future__ import annotations

import torch

from . import _arguments as arguments
from ._ops import lse_dtype

_OP = "merge_attentions"


def merge_attentions(outputs, lse_tensors, torch_compile=True):
    """Attention over all keys from attentions over parts of them.

    Args:
        outputs: two or more tensors `[B, *layout, H, Dv]`.
        lse_tensors: as many, `[B, *layout, H]`. An lse of -inf has weight 0, and its output is not read.
        torch_compile: has no effect on results.

    Returns:
        (out, lse) with `lse = logsumexp_i lse_i` and `out = sum_i exp(lse_i - lse) out_i`; where every
        lse is -inf, 0 and -inf. Differentiable in outputs and lses.
    """
    arguments.check_bool(_OP, "torch_compile", torch_compile)
    _check(outputs, lse_tensors)
    work = lse_dtype(outputs[0].dtype)
    lses = torch.stack([t.to(work) for t in lse_tensors])
    largest = lses.detach().amax(0)
    largest = torch.where(torch.isneginf(largest), torch.zeros_like(largest), largest)
    weights = torch.exp(lses - largest)
    total = weights.sum(0)
    empty = total == 0
    total = torch.where(empty, torch.ones_like(total), total)
    out = torch.zeros_like(outputs[0], dtype=work)
    for weight, part in zip((weights / total).unbind(0), outputs, strict=True):
        weight = weight.unsqueeze(-1)
        part = part.to(work)
        out = out + weight * torch.where(weight > 0, part, torch.zeros_like(part))
    lse = torch.where(empty, torch.full_like(total, -torch.inf), largest + torch.log(total))
    return out.to(outputs[0].dtype), lse


def _check(outputs, lse_tensors) -> None:
    for name, tensors in (("outputs", outputs), ("lse_tensors", lse_tensors)):
        if not isinstance(tensors, (tuple, list)):
            raise TypeError(
                f"[{_OP}] got {name} of type {type(tensors).__name__}, expected a list of tensors"
            )
        for tensor in tensors:
            arguments.check_tensor(_OP, f"an entry of {name}", tensor)
    if len(outputs) < 2 or len(outputs) != len(lse_tensors):
        raise ValueError(
            f"[{_OP}] got {len(outputs)} outputs and {len(lse_tensors)} lse tensors, expected two or more, "
            "as many of both"
        )
    first = outputs[0]
    if not first.is_floating_point() or first.dim() < 2:
        raise ValueError(
            f"[{_OP}] got an output of dtype {first.dtype} and rank {first.dim()}, "
            "expected a floating one, [..., heads, value head_dim]"
        )
    for tensor in outputs:
        if tensor.shape != first.shape or tensor.dtype != first.dtype or tensor.device != first.device:
            raise ValueError(
                f"[{_OP}] got outputs of shape {tuple(first.shape)}, {first.dtype} on {first.device} and "
                f"{tuple(tensor.shape)}, {tensor.dtype} on {tensor.device}, expected them to be alike"
            )
    for tensor in lse_tensors:
        if (
            tensor.shape != first.shape[:-1]
            or not tensor.is_floating_point()
            or tensor.device != first.device
        ):
            raise ValueError(
                f"[{_OP}] got an lse of shape {tuple(tensor.shape)}, {tensor.dtype} on {tensor.device}, "
                f"expected {tuple(first.shape[:-1])}, floating, on {first.device}; an lse has the shape of "
                "its output without the last axis"
            )
