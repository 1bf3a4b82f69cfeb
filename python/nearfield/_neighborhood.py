# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Neighborhood attention over one, two and three axes, with the rank in the name."""

from __future__ import annotations

from . import _arguments as arguments
from . import _call, _core, _ops
from ._autograd import attend
from ._flags import flags


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
    return _neighborhood("na1d", locals())


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
    return _neighborhood("na2d", locals())


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
    return _neighborhood("na3d", locals())


_OPTIONAL = ("additional_keys", "additional_values", "bias")


def _neighborhood(op: str, a: dict):
    tensors = _call.tensors_of(op, a, _OPTIONAL)
    a["flags"] = flags()
    config, return_lse, backend_of_whole = _checked(op, a)
    if a["attention_kwargs"] is not None and (tensors[3] is not None or _whole(tensors[0], config.axes)):
        config = config._replace(backend=backend_of_whole)
    if config.dropout_p != 0:
        config = config._replace(seed=_call.seed_of(config.dropout_p, tensors[0]))
    out, lse = attend(*arguments.autocast(*tensors), config)
    return (out, lse) if return_lse else out


@_call.remembered
def _checked(op: str, a: dict):
    """(Config without tensors, return_lse, backend where attention_kwargs count)."""
    function = _core.FUNCTIONS.index(op)
    rank = function + 1
    axes = _call.axes_of(op, rank, "kernel_size", a)
    arguments.check_hints(op, rank, a)
    backend = arguments.backend_number(op, a["backend"])
    config = _ops.Config(
        axes=axes,
        tiles=_call.tiles_of(op, a, rank, "shape"),
        scale=arguments.number(op, "scale", a["scale"], optional=True),
        dropout_p=arguments.number(op, "dropout_p", a["dropout_p"]),
        function=function,
        backend=backend,
        flags=a["flags"],
    )
    return_lse = arguments.check_bool(op, "return_lse", a["return_lse"])
    if a["attention_kwargs"] is None:
        return config, return_lse, backend
    merged = arguments.with_performance(op, "attention_kwargs", a["attention_kwargs"], a)
    arguments.check_hints(op, rank, merged)
    _call.tiles_of(op, merged, 1, "size")
    return config, return_lse, arguments.backend_number(op, merged["backend"])


def _whole(query, axes) -> bool:
    """The window is the whole layout: there, as with additional keys, attention_kwargs count."""
    rank = len(axes) // 4
    return query.dim() == rank + 3 and all(axes[4 * i] == n for i, n in enumerate(query.shape[1:-2]))
