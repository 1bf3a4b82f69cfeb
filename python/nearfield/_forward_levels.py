# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Refuses forward mode inside forward mode, for every Function of the package."""

from __future__ import annotations

import torch


def check_forward_levels(op: str) -> None:
    """A Function's jvp is a constant to a second forward level: torch would give a wrong number silently."""
    levels = torch._C._functorch.get_interpreter_stack() or ()
    if sum(level.key() == torch._C._functorch.TransformType.Jvp for level in levels) > 1:
        raise NotImplementedError(
            f"[{op}] got forward mode inside forward mode, expected one level; second derivatives are the "
            "torch.func.grad or jacrev of a torch.func.jvp or jacfwd"
        )
