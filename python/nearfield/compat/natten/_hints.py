# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The names of arguments that select or tune a kernel there, and what is left of them here."""

from __future__ import annotations

from ... import _arguments as arguments
from ..._ops import BACKENDS

FNA_BACKENDS = ("cutlass-fna", "hopper-fna", "blackwell-fna", "flex-fna")
FMHA_BACKENDS = ("cutlass-fmha", "hopper-fmha", "blackwell-fmha", "flex-fmha")


def backend(op: str, name):
    """None, the automatic choice, for the names of that package; nearfield's own names stay."""
    theirs = FNA_BACKENDS + FMHA_BACKENDS
    if isinstance(name, str) and name not in theirs and name not in BACKENDS:
        raise ValueError(f"[{op}] got backend {name!r}, expected one of {', '.join((*theirs, *BACKENDS))}")
    return None if name in theirs else name


def attention_kwargs(op: str, kwargs):
    """The dictionary without hints; what is unknown stays, and is refused where all is checked."""
    if not isinstance(kwargs, dict):
        return kwargs
    hints = arguments.PERFORMANCE_DEFAULTS.keys() - {"backend"}
    kept = {key: value for key, value in kwargs.items() if key not in hints}
    if "backend" in kept:
        kept["backend"] = backend(op, kept["backend"])
    return kept
