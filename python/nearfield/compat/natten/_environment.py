# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What that package finds in its environment, a constant now and functions at 0.14 to 0.17: all is there."""

import torch

HAS_LIBNATTEN = True  # code that asks means: do the operations run


def has_cuda() -> bool:
    return torch.cuda.is_available()


def has_fna(*device) -> bool:
    """As every has_*: whether a kernel family or a dtype is there. All are, on every device."""
    return True


has_fused_na = has_half = has_bfloat = has_gemm = has_fna
has_fp32_gemm = has_fp64_gemm = has_tf32_gemm = has_fna
