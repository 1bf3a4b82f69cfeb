# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Neighborhood attention of packed sequences with token layouts of their own, as in that package at 0.21.6.

    metadata = configure_varlen([(6, 8), (4, 4)], head_dim, device, dtype, requires_grad, kernel_size=3)
    out = neighborhood_attention_varlen(query, key, value, metadata)

It is `nearfield.multi_dimensional_attention_varlen`, by whose name calls are refused: on every device, for
head dims of values that differ, and with windows ignored on axes of one token.
"""

from __future__ import annotations

from ... import _arguments as arguments
from ... import functional, varlen
from . import _hints

__all__ = ["configure_varlen", "neighborhood_attention_varlen"]


def configure_varlen(
    token_layout_list,
    head_dim,
    device,
    dtype,
    requires_grad,
    head_dim_v=None,
    kernel_size=2,
    stride=1,
    dilation=1,
    is_causal=False,
    kernel_size_list=None,
    stride_list=None,
    dilation_list=None,
    backend=None,
    q_tile_shape=None,
    kv_tile_shape=None,
    backward_q_tile_shape=None,
    backward_kv_tile_shape=None,
    run_persistent_kernel=True,
    kernel_schedule=None,
):
    """Metadata of sequences, made once and used by every layer: see `nearfield.varlen`.

    Args:
        token_layout_list: one layout per sequence, all of one rank from 1 to 3.
        head_dim, device, dtype, requires_grad, head_dim_v: of the tensors to come; the result serves any.
        kernel_size, stride, dilation: of every sequence, one number or one per axis, unless a list has
            an entry for each.
        is_causal: of all sequences, one bool or one per axis.
        backend: a name; which, and the arguments after it, has no effect.

    Raises:
        ValueError, TypeError: `[configure_varlen] got X, expected Y; hint`, naming the sequence.
    """
    op = "configure_varlen"
    _hints.backend(op, backend)
    if head_dim_v is not None and not arguments.is_int(head_dim_v):
        raise TypeError(f"[{op}] got head_dim_v of type {arguments.type_name(head_dim_v)}, expected int")
    sequences = len(token_layout_list) if isinstance(token_layout_list, (tuple, list)) else 0

    def each(given, all_alike):
        return [all_alike] * sequences if given is None else given

    with arguments.in_name_of(op, "generate_multi_dim_varlen_parameters", window_size="kernel_size"):
        return varlen.generate_multi_dim_varlen_parameters(
            token_layout_list,
            head_dim,
            device,
            dtype,
            requires_grad,
            each(kernel_size_list, kernel_size),
            each(stride_list, stride),
            each(dilation_list, dilation),
            False if is_causal is None else is_causal,
        )


def neighborhood_attention_varlen(
    query,
    key,
    value,
    metadata=None,
    token_layout_list=None,
    kernel_size=2,
    stride=1,
    dilation=1,
    is_causal=False,
    kernel_size_list=None,
    stride_list=None,
    dilation_list=None,
    scale=None,
    backend=None,
    q_tile_shape=None,
    kv_tile_shape=None,
    backward_q_tile_shape=None,
    backward_kv_tile_shape=None,
    run_persistent_kernel=True,
    kernel_schedule=None,
    return_lse=False,
):
    """Neighborhood attention of packed sequences: query `[1, total, H, D]`, key and value accordingly.

    Args:
        metadata: from `configure_varlen`; without it, token_layout_list and the arguments up to
            dilation_list are given to it, at every call.
        scale: factor of the scores; default `D ** -0.5`.
        return_lse: also return lse `[1, total, H]`.
        The arguments from q_tile_shape to kernel_schedule have no effect.

    Returns:
        The output `[1, total, H, Dv]`, or (output, lse).
    """
    op = "neighborhood_attention_varlen"
    name = _hints.backend(op, backend)
    for argument, tensor in (("query", query), ("key", key), ("value", value)):
        arguments.check_tensor(op, argument, tensor)
    if metadata is None:
        if token_layout_list is None:
            raise ValueError(f"[{op}] got neither metadata nor token_layout_list, expected one of them")
        metadata = configure_varlen(
            token_layout_list,
            query.shape[-1],
            query.device,
            query.dtype,
            query.requires_grad,
            None,
            kernel_size,
            stride,
            dilation,
            is_causal,
            kernel_size_list,
            stride_list,
            dilation_list,
        )
    return functional.multi_dimensional_attention_varlen(
        query, key, value, metadata, scale=scale, backend=name, return_lse=return_lse
    )
