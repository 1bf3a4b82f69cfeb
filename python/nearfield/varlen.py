# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Descriptions of packed sequences, made once and used by every layer.

Sequences of several lengths, or several token layouts, are packed along the token axis of tensors
`[1, total, heads, channels]`. Tokens behind the last sequence (a tail, padded so that shapes repeat)
belong to none: their output is 0, their lse -inf, their gradients are 0.

    offsets_q, offsets_kv, most_q, most_kv = varlen.generate_varlen_parameters(q, k, v, lengths, lengths)
    out = nearfield.attention(q, k, v, cumulative_seqlen_Q=offsets_q, cumulative_seqlen_KV=offsets_kv,
                              max_seqlen_Q=most_q, max_seqlen_KV=most_kv)
"""

from __future__ import annotations

import math

import torch

from . import _arguments as arguments
from . import _core, _packing

__all__ = ["generate_multi_dim_varlen_parameters", "generate_varlen_parameters"]

_LARGEST = 1 << 48  # tokens that the core admits
# Inside a compiled function they break the graph (and fullgraph=True refuses them, with this reason).
_outside_graph = torch.compiler.disable(reason="lengths and layouts are values: make them before the graph")


@_outside_graph
def generate_varlen_parameters(query, key, value, seqlens_Q=None, seqlens_KV=None):
    """Cumulative offsets and longest sequences from lengths; reads the lengths, so it synchronises.

    Args:
        query, key, value: `[1, total, H, D]`, `[1, total, Hkv, D]`, `[1, total, Hkv, Dv]`.
        seqlens_Q, seqlens_KV: lengths [n] of the n sequences, int32 or int64, from 0 on, on the device of
            query; each adds up to its packed total.

    Returns:
        (cumulative_seqlen_Q, cumulative_seqlen_KV, max_seqlen_Q, max_seqlen_KV): offsets [n + 1] in int32
        (int64 from 2**31 tokens on) and ints; (None, None, 0, 0) without lengths.

    Raises:
        ValueError, TypeError, NotImplementedError: `[generate_varlen_parameters] got X, expected Y; hint`.
    """
    op = "generate_varlen_parameters"
    a = {"query": query, "key": key, "value": value, "seqlens_Q": seqlens_Q, "seqlens_KV": seqlens_KV}
    for name in ("query", "key", "value"):
        arguments.check_tensor(op, name, a[name])
    if not _packing.check_pair(op, ("seqlens_Q", "seqlens_KV"), a):
        return None, None, 0, 0
    (offsets_query, offsets_key), maxima = _packing.offsets_of_lengths(op, a)
    if None in maxima:
        raise ValueError(
            f"[{op}] got lengths without values (meta, or under a transformation), expected some to read; "
            "call it outside, on tensors with data"
        )
    dtype = query.dtype  # autocast may still bring the others to one
    tensors = [_described(t, dtype) for t in (query, key, value)]
    offsets = [_described(t, t.dtype) for t in (offsets_query, offsets_key)]
    _check(op, "attention", [*tensors, None, None, None, *offsets], (), maxima)
    return offsets_query, offsets_key, *maxima


@_outside_graph
def generate_multi_dim_varlen_parameters(
    token_layout_list,
    head_dim,
    device,
    dtype,
    requires_grad,
    window_size_list=None,
    stride_list=None,
    dilation_list=None,
    is_causal=False,
):
    """What `multi_dimensional_attention_varlen` must know of packed sequences with layouts of their own.

    Args:
        token_layout_list: one layout per sequence, all of one rank from 1 to 3: `[(6, 8), (4, 4)]`. A
            sequence with an extent of 0 has no tokens.
        head_dim, device, dtype, requires_grad: of the tensors to come. Checked and not kept: the result
            serves every device, dtype and backend.
        window_size_list, stride_list, dilation_list: one entry per sequence, a number or one per axis;
            None: whole axes, 1, 1. A window of -1 is the whole axis. On axes of extent 1 all are ignored.
        is_causal: of all sequences: a bool, or one per axis.

    Returns:
        A dict of plain numbers, which may be copied, pickled and used for any number of layers. Its
        contents are private.

    Raises:
        ValueError, TypeError: `[generate_multi_dim_varlen_parameters] got X, expected Y; hint`, naming the
        sequence.
    """
    op = "generate_multi_dim_varlen_parameters"
    layouts = _layouts(op, token_layout_list)
    rank = len(layouts[0]) if layouts else len(is_causal) if isinstance(is_causal, (tuple, list)) else 1
    n = len(layouts)
    windows = _per_sequence(op, "window_size_list", window_size_list, -1, n, rank)
    strides = _per_sequence(op, "stride_list", stride_list, 1, n, rank)
    dilations = _per_sequence(op, "dilation_list", dilation_list, 1, n, rank)
    causal = tuple(int(c) for c in arguments.per_axis(op, "is_causal", is_causal, rank, bool))
    each = zip(layouts, windows, strides, dilations, strict=True)
    grids = tuple(int(x) for four in each for numbers in (*four, causal) for x in numbers)
    tokens = sum(math.prod(layout) for layout in layouts)
    _check_tensors_to_come(op, rank, grids, tokens, head_dim, device, dtype, requires_grad)
    return {"format": "nearfield varlen 1", "rank": rank, "grids": grids}


def _layouts(op: str, given) -> list[tuple[int, ...]]:
    _check_list(op, "token_layout_list", given)
    layouts = []
    for i, layout in enumerate(given):
        name = f"token_layout_list[{i}]"
        if not isinstance(layout, (tuple, list)) or not 1 <= len(layout) <= 3:
            raise (ValueError if isinstance(layout, (tuple, list)) else TypeError)(
                f"[{op}] got {name} {layout!r}, expected a tuple of 1 to 3 ints"
            )
        rank = len(layouts[0]) if layouts else len(layout)
        layouts.append(tuple(int(n) for n in arguments.per_axis(op, name, layout, rank, int)))
        if min(layouts[-1]) < 0:
            raise ValueError(f"[{op}] got {name} {layouts[-1]}, expected extents from 0 on")
    return layouts


def _per_sequence(op: str, name: str, given, default: int, n: int, rank: int) -> list[tuple]:
    if given is None:
        return [(default,) * rank] * n
    _check_list(op, name, given)
    if len(given) != n:
        raise ValueError(f"[{op}] got {name} of length {len(given)}, expected {n}, one entry per sequence")
    return [arguments.per_axis(op, f"{name}[{i}]", x, rank, int) for i, x in enumerate(given)]


def _check_list(op: str, name: str, given) -> None:
    if not isinstance(given, (tuple, list)):
        raise TypeError(
            f"[{op}] got {name} of type {arguments.type_name(given)}, expected a list, one entry per sequence"
        )


def _check_tensors_to_come(op, rank, grids, tokens, head_dim, device, dtype, requires_grad) -> None:
    """The operator's own rules, applied to tensors of that shape."""
    if not arguments.is_int(head_dim):
        raise TypeError(f"[{op}] got head_dim of type {arguments.type_name(head_dim)}, expected int")
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"[{op}] got dtype of type {arguments.type_name(dtype)}, expected a torch.dtype")
    try:
        device = torch.device(device)
    except (TypeError, RuntimeError):
        raise ValueError(f"[{op}] got device {device!r}, expected a torch.device") from None
    arguments.check_bool(op, "requires_grad", requires_grad)
    tensor = _numbers(device, dtype, (1, min(tokens, _LARGEST), 1, int(head_dim)))
    _check(
        op,
        "multi_dimensional_attention_varlen",
        [tensor, tensor, tensor, None, None, None, None, None],
        (1, 1, 1, 0) * rank,
        grids,
    )


def _described(tensor, dtype):
    return _numbers(tensor.device, dtype, tuple(tensor.shape))


def _numbers(device: torch.device, dtype: torch.dtype, shape: tuple):
    return str(dtype).removeprefix("torch."), device.type, device.index or 0, shape


def _check(op: str, function: str, tensors, axes, grids) -> None:
    """The rules of `function`, without data; its errors in our name."""
    with arguments.in_name_of(op, function):
        _core.check(tensors, None, 0.0, _core.FUNCTIONS.index(function), 0, 0, axes, (), grids)
