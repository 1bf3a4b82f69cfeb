# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention over token layouts of any rank: windows per axis, whole axes by default.

The same operation as `na1d`, `na2d` and `na3d`, with the rank read off the tensors, a window of -1 for
a whole axis, and axes of extent 1 that take any parameter (a video of one frame is an image).
"""

from __future__ import annotations

from . import _arguments as arguments
from . import _call, _core, _ops
from ._autograd import attend
from ._flags import flags


def multi_dimensional_attention(
    query,
    key,
    value,
    window_size=-1,
    stride=1,
    dilation=1,
    is_causal=False,
    scale=None,
    backend=None,
    return_lse=False,
    backend_kwargs=None,
):
    """Attention over a layout of 1 to 3 axes: query `[B, *layout, H, D]`, key and value accordingly.

    Args:
        window_size: tokens that a query sees on an axis, 1 to `extent // dilation`; -1: the whole axis,
            which dilation must not cut. One number, or one per axis.
        stride, dilation, is_causal: as for `na1d`, one or one per axis. On axes of extent 1 window, stride,
            dilation and causality are ignored, whatever they are.
        scale: factor of the scores; default `D ** -0.5`.
        backend: `"cpu"`, `"reference"`, ...; None takes the best one.
        return_lse: also return lse `[B, *layout, H]`.
        backend_kwargs: performance arguments of `na1d` (`q_tile_shape`, ...) and `backend`.
        The layout of key and value may differ from that of query: then a query at q of Lq sees the window
        of the place `floor((2 q + 1) L / (2 Lq))` among L.

    Returns:
        The output `[B, *layout, H, Dv]`, or (output, lse).

    Raises:
        ValueError, TypeError, NotImplementedError: `[multi_dimensional_attention] got X, expected Y; hint`.
    """
    op, a = "multi_dimensional_attention", locals()
    tensors = _call.tensors_of(op, a)
    rank = query.dim() - 3
    if not 1 <= rank <= 3:
        raise ValueError(
            f"[{op}] got query of rank {query.dim()}, shape {tuple(query.shape)}, expected rank 4 to 6, "
            "[B, *layout, heads, head_dim]"
        )
    a["rank"] = rank
    return _run(op, a, tensors)


def spatio_temporal_attention(
    query,
    key,
    value,
    window_size=-1,
    stride=1,
    dilation=1,
    scale=None,
    backend=None,
    return_lse=False,
    backend_kwargs=None,
):
    """Attention over video: `multi_dimensional_attention` on `[B, T, X, Y, heads, channels]`, causal in time.

    Each argument is as there; is_causal is (True, False, False).
    """
    op, a = "spatio_temporal_attention", locals()
    tensors = _call.tensors_of(op, a)
    if query.dim() != 6:
        raise ValueError(
            f"[{op}] got query of rank {query.dim()}, shape {tuple(query.shape)}, expected rank 6, "
            "[B, T, X, Y, heads, head_dim]"
        )
    a.update(rank=3, is_causal=(True, False, False))
    return _run(op, a, tensors)


def multi_dimensional_attention_varlen(
    query,
    key,
    value,
    metadata,
    scale=None,
    backend=None,
    return_lse=False,
    backend_kwargs=None,
):
    """`multi_dimensional_attention` of packed sequences, each with a token layout and windows of its own.

    Args:
        query, key, value: `[1, total, H, D]`, `[1, total, Hkv, D]`, `[1, total, Hkv, Dv]`: the tokens of
            every sequence in raster order, one sequence behind the other. Tokens behind the last one are
            a tail: out 0, lse -inf.
        metadata: from `nearfield.varlen.generate_multi_dim_varlen_parameters`.
        The rest: as for `multi_dimensional_attention`.

    Returns:
        The output `[1, total, H, Dv]`, or (output, lse `[1, total, H]`).

    Raises:
        ValueError, TypeError, NotImplementedError:
        `[multi_dimensional_attention_varlen] got X, expected Y; hint`.
    """
    op, a = "multi_dimensional_attention_varlen", locals()
    tensors = _call.tensors_of(op, a)
    del a["metadata"]
    rank, grids = _sequences(op, metadata)
    a.update(rank=rank, window_size=1, stride=1, dilation=1, is_causal=False)  # each sequence has its own
    return _run(op, a, tensors, grids)


def _sequences(op: str, metadata) -> tuple[int, tuple[int, ...]]:
    """Rank and grids out of the dict of varlen.generate_multi_dim_varlen_parameters."""
    if not isinstance(metadata, dict):
        raise TypeError(
            f"[{op}] got metadata of type {arguments.type_name(metadata)}, expected the dict that "
            "nearfield.varlen.generate_multi_dim_varlen_parameters returns"
        )
    if metadata.get("format") != "nearfield varlen 1":
        raise ValueError(
            f"[{op}] got a dict that is none of ours as metadata, expected the one that "
            "nearfield.varlen.generate_multi_dim_varlen_parameters returns"
        )
    return metadata["rank"], tuple(metadata["grids"]) or None


def _run(op: str, a: dict, tensors, grids=None):
    a["flags"] = flags()
    config, return_lse = _checked(op, a)
    if grids is not None:
        config = config._replace(grids=grids)
    out, lse = attend(*arguments.autocast(*tensors), None, None, None, config)
    return (out, lse) if return_lse else out


@_call.remembered
def _checked(op: str, a: dict):
    """(Config without tensors and grids, return_lse)."""
    rank = a["rank"]
    axes = _call.axes_of(op, rank, "window_size", a)
    performance = arguments.with_performance(op, "backend_kwargs", a["backend_kwargs"], a, word="shape")
    arguments.check_hints(op, rank, performance)
    config = _ops.Config(
        axes=axes,
        tiles=_call.tiles_of(op, performance, rank, "shape"),
        scale=arguments.number(op, "scale", a["scale"], optional=True),
        function=_core.FUNCTIONS.index(op),
        backend=arguments.backend_number(op, performance["backend"]),
        flags=a["flags"],
    )
    return config, arguments.check_bool(op, "return_lse", a["return_lse"])
