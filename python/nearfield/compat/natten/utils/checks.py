# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Arguments of neighborhood attention, one entry per axis."""

from __future__ import annotations

from .... import _arguments as arguments

__all__ = [
    "check_all_args",
    "check_causal_arg",
    "check_dilation_arg",
    "check_kernel_size_arg",
    "check_stride_arg",
]


def check_kernel_size_arg(na_dim, kernel_size):
    return arguments.per_axis(f"na{na_dim}d", "kernel_size", kernel_size, na_dim, int)


def check_stride_arg(na_dim, stride):
    return arguments.per_axis(f"na{na_dim}d", "stride", 1 if stride is None else stride, na_dim, int)


def check_dilation_arg(na_dim, dilation):
    return arguments.per_axis(f"na{na_dim}d", "dilation", 1 if dilation is None else dilation, na_dim, int)


def check_causal_arg(na_dim, is_causal):
    return arguments.per_axis(
        f"na{na_dim}d", "is_causal", False if is_causal is None else is_causal, na_dim, bool
    )


def check_all_args(na_dim, kernel_size, stride, dilation, is_causal):
    """The four as tuples with one entry per axis. Their values are checked where tensors are."""
    return (
        check_kernel_size_arg(na_dim, kernel_size),
        check_stride_arg(na_dim, stride),
        check_dilation_arg(na_dim, dilation),
        check_causal_arg(na_dim, is_causal),
    )
