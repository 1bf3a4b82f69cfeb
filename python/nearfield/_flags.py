# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What a call may do beyond its arguments: the bits of the operators' `flags`."""

from __future__ import annotations

import contextlib

import torch

_NONDETERMINISTIC, _BF16_ARITHMETIC = 1, 4  # request.h, CallWords
_allowed = 0


@contextlib.contextmanager
def allow_nondeterministic():
    """Within it, backends may use faster kernels that add in varying order, so that results differ in the
    last bits from run to run. Off by default; `torch.use_deterministic_algorithms(True)` overrules it.
    Process-wide, like torch's own switch."""
    global _allowed
    before, _allowed = _allowed, _allowed | _NONDETERMINISTIC
    try:
        yield
    finally:
        _allowed = before


@contextlib.contextmanager
def allow_bf16_arithmetic():
    """Within it, bfloat16 tensors may be multiplied as bf16 numbers, the softmax's weights rounded to bf16,
    and summed in float32, where the processor has an instruction for that and the kernel uses it
    (`nearfield.explain` tells); elsewhere nothing changes. Off by default: it adds an error of the size of a
    bfloat16 output's own rounding. Still deterministic. Process-wide; NEARFIELD_BF16_ARITHMETIC=1 allows it
    for every call of the process."""
    global _allowed
    before, _allowed = _allowed, _allowed | _BF16_ARITHMETIC
    try:
        yield
    finally:
        _allowed = before


def flags() -> int:
    return _allowed & ~_NONDETERMINISTIC if torch.are_deterministic_algorithms_enabled() else _allowed
