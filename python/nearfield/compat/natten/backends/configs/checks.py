# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Whether a kernel can run: every one can, on every device, since all mean the automatic choice."""

from __future__ import annotations


def _always(name: str):
    def can_run(query, key, value, *args, **kwargs) -> bool:
        return True

    can_run.__name__ = can_run.__qualname__ = name
    return can_run


can_run_cutlass_fna = _always("can_run_cutlass_fna")
can_run_cutlass_hopper_fna = _always("can_run_cutlass_hopper_fna")
can_run_cutlass_blackwell_fna = _always("can_run_cutlass_blackwell_fna")
can_run_cutlass_fmha = _always("can_run_cutlass_fmha")
can_run_cutlass_hopper_fmha = _always("can_run_cutlass_hopper_fmha")
can_run_cutlass_blackwell_fmha = _always("can_run_cutlass_blackwell_fmha")
can_run_flex_attention = _always("can_run_flex_attention")
