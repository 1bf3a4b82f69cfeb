# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Switches of the releases that still had unfused kernels (0.14 to 0.17): code of that age asks for them
before it chooses between `na2d` and `na2d_qk`. Everything is there, and nothing they set changes a result.
"""

from __future__ import annotations

import torch

from .context import NattenContext


def has_cuda() -> bool:
    return torch.cuda.is_available()


def has_fna(*device) -> bool:
    """As every has_*: whether a kernel family is there. All are, on every device."""
    return True


has_fused_na = has_half = has_bfloat = has_gemm = has_fna
has_fp32_gemm = has_fp64_gemm = has_tf32_gemm = has_fna


def use_fused_na(mode=True, kv_parallel=None, **hints):
    NattenContext.is_fused_na_enabled = bool(mode)


def is_fna_enabled() -> bool:
    return NattenContext.is_fused_na_enabled


is_fused_na_enabled = is_fna_enabled


def use_gemm_na(mode=True, **hints):
    """As every switch below: accepted, without effect."""


use_tiled_na = use_tf32_in_gemm_na = use_autotuner = use_gemm_na


def enable_fused_na(*args, **hints):
    use_fused_na(True)


def disable_fused_na():
    use_fused_na(False)


def enable_gemm_na(*args, **hints):
    """As every enable_* and disable_* below: accepted, without effect."""


disable_gemm_na = enable_tiled_na = disable_tiled_na = enable_tf32 = disable_tf32 = enable_gemm_na
enable_autotuner = disable_autotuner = enable_gemm_na

__all__ = [
    "disable_autotuner",
    "disable_fused_na",
    "disable_gemm_na",
    "disable_tf32",
    "disable_tiled_na",
    "enable_autotuner",
    "enable_fused_na",
    "enable_gemm_na",
    "enable_tf32",
    "enable_tiled_na",
    "has_bfloat",
    "has_cuda",
    "has_fna",
    "has_fp32_gemm",
    "has_fp64_gemm",
    "has_fused_na",
    "has_gemm",
    "has_half",
    "has_tf32_gemm",
    "is_fna_enabled",
    "is_fused_na_enabled",
    "use_autotuner",
    "use_fused_na",
    "use_gemm_na",
    "use_tf32_in_gemm_na",
    "use_tiled_na",
]
