# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The unfused operations under their names of 0.17 (`na2d_qk`, ...) and of 0.14 (`natten2dqkrpb`, ...)."""

from __future__ import annotations

from . import _unfused


def _qk_of_rank(rank: int):
    op = f"na{rank}d_qk"

    def qk(query, key, kernel_size, dilation=1, additional_keys=None, is_causal=False, rpb=None, *, stride=1):
        return _unfused.logits(
            op, rank, query, key, kernel_size, stride, dilation, is_causal, additional_keys, rpb
        )

    qk.__name__ = qk.__qualname__ = op
    qk.__doc__ = (
        "Logits `[B, H, *layout, prod(kernel_size) + S]` of query and key `[B, H, *layout, D]`, additional "
        "keys `[B, H, S, D]`, rpb `[H, 2 kernel_size - 1, ...]`; not scaled, -inf where a causal window ends."
    )
    return qk


def _av_of_rank(rank: int):
    op = f"na{rank}d_av"

    def av(attn, value, kernel_size, dilation=1, additional_values=None, is_causal=False, *, stride=1):
        return _unfused.weighted(
            op, rank, attn, value, kernel_size, stride, dilation, is_causal, additional_values
        )

    av.__name__ = av.__qualname__ = op
    av.__doc__ = (
        "Output `[B, H, *layout, D]` of weights `[B, H, *layout, prod(kernel_size) + S]`, value "
        "`[B, H, *layout, D]` and additional values `[B, H, S, D]`; the weights are taken as they are."
    )
    return av


na1d_qk, na2d_qk, na3d_qk = (_qk_of_rank(rank) for rank in (1, 2, 3))
na1d_av, na2d_av, na3d_av = (_av_of_rank(rank) for rank in (1, 2, 3))


def natten1dqkrpb(query, key, rpb, kernel_size, dilation):
    return na1d_qk(query, key, kernel_size, dilation, rpb=rpb)


def natten2dqkrpb(query, key, rpb, kernel_size, dilation):
    return na2d_qk(query, key, kernel_size, dilation, rpb=rpb)


def natten3dqkrpb(query, key, rpb, kernel_size_d, kernel_size, dilation_d, dilation):
    """The first axis has a window and a dilation of its own."""
    return na3d_qk(
        query,
        key,
        (kernel_size_d, kernel_size, kernel_size),
        (dilation_d, dilation, dilation),
        rpb=rpb,
    )


def natten1dqk(query, key, kernel_size, dilation):
    return na1d_qk(query, key, kernel_size, dilation)


def natten2dqk(query, key, kernel_size, dilation):
    return na2d_qk(query, key, kernel_size, dilation)


def natten3dqk(query, key, kernel_size_d, kernel_size, dilation_d, dilation):
    """The first axis has a window and a dilation of its own."""
    return na3d_qk(query, key, (kernel_size_d, kernel_size, kernel_size), (dilation_d, dilation, dilation))


def natten1dav(attn, value, kernel_size, dilation):
    return na1d_av(attn, value, kernel_size, dilation)


def natten2dav(attn, value, kernel_size, dilation):
    return na2d_av(attn, value, kernel_size, dilation)


def natten3dav(attn, value, kernel_size_d, kernel_size, dilation_d, dilation):
    """The first axis has a window and a dilation of its own."""
    return na3d_av(attn, value, (kernel_size_d, kernel_size, kernel_size), (dilation_d, dilation, dilation))
