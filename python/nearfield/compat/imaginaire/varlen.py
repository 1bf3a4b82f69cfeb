# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Descriptions of packed sequences, with the spellings of the package."""

from ... import varlen as ours
from ..._arguments import is_int
from ...varlen import generate_varlen_parameters
from .frontend import check_hints

__all__ = ["generate_multi_dim_varlen_parameters", "generate_varlen_parameters"]


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
    **hints,
):
    """As `nearfield.varlen`'s; any window <= 0 is the whole axis, tile shapes and the like are hints."""
    check_hints("generate_multi_dim_varlen_parameters", hints)
    if isinstance(window_size_list, (tuple, list)):
        window_size_list = [_whole_axes(window) for window in window_size_list]
    return ours.generate_multi_dim_varlen_parameters(
        token_layout_list,
        head_dim,
        device,
        dtype,
        requires_grad,
        window_size_list,
        stride_list,
        dilation_list,
        is_causal,
    )


def _whole_axes(window):
    if isinstance(window, (tuple, list)):
        return tuple(_whole_axes(k) for k in window)
    return -1 if is_int(window) and window <= 0 else window
