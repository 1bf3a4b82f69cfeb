# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What a call would do, and which of its performance arguments do nothing."""

from __future__ import annotations

from . import _arguments as arguments
from . import _core

_DEFAULTS = {
    "backward_kv_splits": None,
    "backward_use_pt_reduction": False,
    "run_persistent_kernel": True,
    "kernel_schedule": None,
    "torch_compile": False,
    "try_fuse_additional_kv": False,
}


def ignored(op: str, rank: int, given: dict) -> list[str]:
    """`NAME=VALUE` of the performance arguments given that no backend of this build has a use for.
    Raises as the operations do where one is malformed or unknown."""
    for name in given:
        if name not in _DEFAULTS:
            raise ValueError(
                f"[{op}] got {name!r}, expected performance arguments: {', '.join(_DEFAULTS)}; backend and "
                "tiles stand behind the problem, `@cpu,q4x4`"
            )
    arguments.check_hints(op, rank, {**_DEFAULTS, **given})
    return [f"{name}={value!r}" for name, value in given.items() if value != _DEFAULTS[name]]


def explain(call: str, device: str = "cpu", **performance) -> str:
    """Every backend for `PROBLEM[@BACKEND[/KERNEL][,qTILE[,kvTILE]]]`: its plan, or its reason to refuse. Of
    performance arguments of the operations (`kernel_schedule="pp"`, ...) those that have no effect."""
    text = _core.explain(call, device)
    names = ignored("explain", _core.problem(call.partition("@")[0])["rank"], performance)
    return text + (f"  without effect: {', '.join(names)}\n" if names else "")
