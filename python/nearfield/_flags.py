# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What a call may do beyond its arguments: the bits of the operators' `flags`."""

from __future__ import annotations

import contextlib

import torch

_NONDETERMINISTIC = 1
_allowed = 0


@contextlib.contextmanager
def allow_nondeterministic():
    """Within it, backends may use faster kernels that add in varying order, so that results differ in the
    last bits from run to run. Off by default; `torch.use_deterministic_algorithms(True)` overrules it.
    Process-wide, like torch's own switch."""
    global _allowed
    before, _allowed = _allowed, _NONDETERMINISTIC
    try:
        yield
    finally:
        _allowed = before


def flags() -> int:
    return 0 if _allowed == 0 or torch.are_deterministic_algorithms_enabled() else _allowed
