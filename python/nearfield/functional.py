# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The operations on tensors: neighborhood attention over 1, 2 and 3 axes, dense attention, merging.

Tensors are heads-last: query `[B, *layout, H, D]`, key `[B, *layout, Hkv, D]`, value
`[B, *layout, Hkv, Dv]`; the output is `[B, *layout, H, Dv]` in the input's dtype, lse (the natural
logarithm of the sum of exponentials, scale included) `[B, *layout, H]` in float32, or float64 for
float64 inputs. Query heads are a multiple of key/value heads: consecutive ones share a head.
Gradients are exact for the output and for lse. Sources: Hassani et al., Neighborhood Attention
Transformer (CVPR 2023); Generalized Neighborhood Attention (2025) for `stride`.
"""

from __future__ import annotations

from enum import IntEnum

import torch

from . import _arguments as arguments
from . import _core, _ops
from ._autograd import attend
from ._flags import allow_nondeterministic, flags
from ._merge import merge_attentions

__all__ = ["CausalType", "allow_nondeterministic", "attention", "merge_attentions", "na1d", "na2d", "na3d"]


class CausalType(IntEnum):
    """Which queries the causal mask lets see which keys where their numbers differ.

    TopLeft: query i sees keys 0..i. BottomRight: the last query sees the last key. DontCare: only legal
    where the lengths are equal, and both are the same.
    """

    TopLeft = 1
    BottomRight = 2
    DontCare = 3


def na1d(
    query,
    key,
    value,
    kernel_size,
    stride=1,
    dilation=1,
    is_causal=False,
    scale=None,
    additional_keys=None,
    additional_values=None,
    attention_kwargs=None,
    backend=None,
    q_tile_shape=None,
    kv_tile_shape=None,
    backward_q_tile_shape=None,
    backward_kv_tile_shape=None,
    backward_kv_splits=None,
    backward_use_pt_reduction=False,
    run_persistent_kernel=True,
    kernel_schedule=None,
    torch_compile=False,
    try_fuse_additional_kv=False,
    return_lse=False,
    *,
    bias=None,
    dropout_p=0.0,
):
    """Neighborhood attention over one axis.

    Args:
        query, key, value: `[B, L, H, D]`, `[B, L, Hkv, D]`, `[B, L, Hkv, Dv]`; float32, float64,
            bfloat16 or float16, any strides.
        kernel_size: tokens that each query sees, 1 to `L // dilation`. At the borders the window is
            shifted inwards, never cut.
        stride: queries `s*i .. s*i + s-1` share one window; 1 to kernel_size.
        dilation: distance between the tokens of a window.
        is_causal: a query sees itself and what lies before it.
        scale: factor of the scores; default `D ** -0.5`.
        additional_keys, additional_values: `[B, S, Hkv, D]`, `[B, S, Hkv, Dv]`: seen by every query, in
            the same softmax.
        backend: `"cpu"`, `"reference"`, ...; None takes the best one.
        return_lse: also return lse `[B, L, H]`.
        bias: `[H, 2 * kernel_size - 1]`, added to the scores by relative position: entry
            `(key - query) / dilation + kernel_size - 1`. Not for additional keys.
        dropout_p: probability that a weight is dropped, `0 <= dropout_p < 1`; what is kept is scaled by
            `1 / (1 - dropout_p)`. lse is that of the undropped weights.
        The other arguments tune performance and never change results; tile shapes are honoured or
        refused.

    The queries may lie on another layout than the keys, coarser or finer: query q of Lq then stands at key
    `(2q + 1) L // (2 Lq)`. Dilation and bias are refused there.

    Returns:
        The output `[B, L, H, Dv]`, or (output, lse).

    Raises:
        ValueError, TypeError, NotImplementedError: `[na1d] got X, expected Y; hint`.
    """
    return _neighborhood(0, 1, locals())


def na2d(
    query,
    key,
    value,
    kernel_size,
    stride=1,
    dilation=1,
    is_causal=False,
    scale=None,
    additional_keys=None,
    additional_values=None,
    attention_kwargs=None,
    backend=None,
    q_tile_shape=None,
    kv_tile_shape=None,
    backward_q_tile_shape=None,
    backward_kv_tile_shape=None,
    backward_kv_splits=None,
    backward_use_pt_reduction=False,
    run_persistent_kernel=True,
    kernel_schedule=None,
    torch_compile=False,
    try_fuse_additional_kv=False,
    return_lse=False,
    *,
    bias=None,
    dropout_p=0.0,
):
    """Neighborhood attention over two axes: as `na1d`, on `[B, X, Y, heads, channels]`.

    kernel_size, stride, dilation and is_causal are one value, or a tuple with one per axis.
    """
    return _neighborhood(1, 2, locals())


def na3d(
    query,
    key,
    value,
    kernel_size,
    stride=1,
    dilation=1,
    is_causal=False,
    scale=None,
    additional_keys=None,
    additional_values=None,
    attention_kwargs=None,
    backend=None,
    q_tile_shape=None,
    kv_tile_shape=None,
    backward_q_tile_shape=None,
    backward_kv_tile_shape=None,
    backward_kv_splits=None,
    backward_use_pt_reduction=False,
    run_persistent_kernel=True,
    kernel_schedule=None,
    torch_compile=False,
    try_fuse_additional_kv=False,
    return_lse=False,
    *,
    bias=None,
    dropout_p=0.0,
):
    """Neighborhood attention over three axes: as `na1d`, on `[B, X, Y, Z, heads, channels]`.

    kernel_size, stride, dilation and is_causal are one value, or a tuple with one per axis.
    """
    return _neighborhood(2, 3, locals())


def _neighborhood(function: int, rank: int, a: dict):
    op = _core.FUNCTIONS[function]
    tensors = _tensors(op, a)
    axes = zip(
        arguments.per_axis(op, "kernel_size", a["kernel_size"], rank, int),
        arguments.per_axis(op, "stride", a["stride"], rank, int),
        arguments.per_axis(op, "dilation", a["dilation"], rank, int),
        arguments.per_axis(op, "is_causal", a["is_causal"], rank, bool),
        strict=True,
    )
    axes = tuple(int(n) for axis in axes for n in axis)
    arguments.check_tensor(op, "bias", a["bias"], optional=True)
    arguments.check_hints(op, rank, a)
    backend = _backend_of(op, a, tensors, axes)
    dropout_p = arguments.number(op, "dropout_p", a["dropout_p"])
    config = _ops.Config(
        seed=_seed(dropout_p, tensors[0]),
        axes=axes,
        tiles=_tiles(op, a, rank, "shape"),
        scale=arguments.number(op, "scale", a["scale"], optional=True),
        dropout_p=dropout_p,
        function=function,
        backend=arguments.backend_number(op, backend),
        flags=flags(),
    )
    return _result(op, a["return_lse"], attend(*arguments.autocast(*tensors, a["bias"]), config))


def attention(
    query,
    key,
    value,
    is_causal=False,
    causal_type=None,
    scale=None,
    seqlens_Q=None,
    seqlens_KV=None,
    cumulative_seqlen_Q=None,
    cumulative_seqlen_KV=None,
    max_seqlen_Q=None,
    max_seqlen_KV=None,
    backend=None,
    return_lse=False,
    backend_kwargs=None,
    *,
    q_tile_size=None,
    kv_tile_size=None,
    backward_q_tile_size=None,
    backward_kv_tile_size=None,
    backward_kv_splits=None,
    backward_use_pt_reduction=False,
    run_persistent_kernel=True,
    kernel_schedule=None,
    torch_compile=False,
    dropout_p=0.0,
):
    """Dense attention: query `[B, Lq, H, D]`, key `[B, Lkv, Hkv, D]`, value `[B, Lkv, Hkv, Dv]`.

    Args:
        is_causal: mask out later keys; needs a `causal_type`.
        causal_type: a `CausalType`; ignored without `is_causal`.
        scale: factor of the scores; default `D ** -0.5`.
        backend, backend_kwargs and the arguments behind: as for `na1d`; tile sizes are one number.
        return_lse: also return lse `[B, Lq, H]`.
        Packed sequences (`seqlens_*`, `cumulative_seqlen_*`) are not implemented yet and refused.

    Returns:
        The output `[B, Lq, H, Dv]`, or (output, lse). A query that sees nothing gives 0 and -inf.
    """
    op = "attention"
    a = dict(locals(), additional_keys=None, additional_values=None)
    tensors = _tensors(op, a)
    arguments.check_bool(op, "is_causal", is_causal)
    if is_causal and not isinstance(causal_type, CausalType):
        raise ValueError(
            f"Argument causal_type must be specified as a CausalType if is_causal, got {causal_type!r}."
        )
    for name in (
        "seqlens_Q",
        "seqlens_KV",
        "cumulative_seqlen_Q",
        "cumulative_seqlen_KV",
        "max_seqlen_Q",
        "max_seqlen_KV",
    ):
        if a[name] is not None:
            raise NotImplementedError(
                f"[{op}] got {name}, expected None; packed sequences are not implemented yet"
            )
    a.update(arguments.with_performance(op, "backend_kwargs", backend_kwargs, a))
    arguments.check_hints(op, 1, a)
    dropout_p = arguments.number(op, "dropout_p", dropout_p)
    config = _ops.Config(
        seed=_seed(dropout_p, query),
        tiles=_tiles(op, a, 1, "size"),
        scale=arguments.number(op, "scale", scale, optional=True),
        dropout_p=dropout_p,
        function=_core.FUNCTIONS.index(op),
        causal_type=int(causal_type) if is_causal else 0,
        backend=arguments.backend_number(op, a["backend"]),
        flags=flags(),
    )
    return _result(op, return_lse, attend(*arguments.autocast(*tensors), None, config))


def _seed(dropout_p: float, query):
    """A seed from torch's generator, so that manual_seed, checkpointing and graphs replay it."""
    if dropout_p == 0:
        return None
    return torch.randint(-(2**63), 2**63 - 1, (1,), dtype=torch.int64, device=query.device)


def _tensors(op: str, a: dict) -> tuple:
    for name in ("query", "key", "value"):
        arguments.check_tensor(op, name, a[name])
    for name in ("additional_keys", "additional_values"):
        arguments.check_tensor(op, name, a[name], optional=True)
    return a["query"], a["key"], a["value"], a["additional_keys"], a["additional_values"]


def _result(op: str, return_lse: bool, result):
    return result if arguments.check_bool(op, "return_lse", return_lse) else result[0]


def _tiles(op: str, a: dict, rank: int, word: str) -> tuple[int, ...] | None:
    """The query and key tiles, forward and then backward, as the operator takes them."""

    def one(name):
        shape = a[name]
        return arguments.tile(op, name, (shape,) if rank == 1 and arguments.is_int(shape) else shape, rank)

    names = ("q_tile", "kv_tile", "backward_q_tile", "backward_kv_tile")
    tiles = tuple(n for name in names for n in one(f"{name}_{word}"))
    return tiles if any(tiles) else None


def _backend_of(op: str, a: dict, tensors, axes):
    """The backend of the whole call. attention_kwargs counts only where the window is the whole layout or
    additional keys are given; it is checked always."""
    if a["attention_kwargs"] is None:  # the common case compares no sizes: they may be symbolic
        return a["backend"]
    merged = arguments.with_performance(op, "attention_kwargs", a["attention_kwargs"], a)
    arguments.check_hints(op, len(axes) // 4, merged)
    _tiles(op, merged, 1, "size")
    arguments.backend_number(op, merged["backend"])
    whole = tensors[0].dim() == len(axes) // 4 + 3 and all(
        axes[4 * i] == n for i, n in enumerate(tensors[0].shape[1:-2])
    )
    return merged["backend"] if whole or tensors[3] is not None else a["backend"]
