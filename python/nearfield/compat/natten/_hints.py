# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The names of arguments that select or tune a kernel there, and what is left of them here."""

from __future__ import annotations

from ... import _arguments as arguments

FNA_BACKENDS = ("cutlass-fna", "hopper-fna", "blackwell-fna", "flex-fna")
FMHA_BACKENDS = ("cutlass-fmha", "hopper-fmha", "blackwell-fmha", "flex-fmha")


def backend(name):
    """None, the automatic choice, for the names of that package; nearfield's own names stay."""
    return None if name in FNA_BACKENDS + FMHA_BACKENDS else name


def attention_kwargs(op: str, kwargs):
    """The dictionary without hints; what is unknown stays, and is refused where all is checked."""
    if not isinstance(kwargs, dict):
        return kwargs
    hints = arguments.PERFORMANCE_DEFAULTS.keys() - {"backend"}
    kept = {key: value for key, value in kwargs.items() if key not in hints}
    if "backend" in kept:
        kept["backend"] = backend(kept["backend"])
    return kept
