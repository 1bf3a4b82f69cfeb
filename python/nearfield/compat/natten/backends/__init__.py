# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Kernels by name: each is the same operation with the automatic choice, on every device.

`na2d_cutlass_fna(query, key, value, kernel_size, ...)` and the like take what `functional.na2d` takes
besides `backend`; `cutlass_fna_generic` goes by the rank of query; `cutlass_fmha` is `functional.attention`.
"""

from __future__ import annotations

import functools

from .. import _hints, functional
from .configs import (
    get_bwd_configs_for_cutlass_blackwell_fmha,
    get_bwd_configs_for_cutlass_blackwell_fna,
    get_bwd_configs_for_cutlass_fmha,
    get_bwd_configs_for_cutlass_fna,
    get_bwd_configs_for_cutlass_hopper_fmha,
    get_bwd_configs_for_cutlass_hopper_fna,
    get_configs_for_cutlass_blackwell_fmha,
    get_configs_for_cutlass_blackwell_fna,
    get_configs_for_cutlass_fmha,
    get_configs_for_cutlass_fna,
    get_configs_for_cutlass_hopper_fmha,
    get_configs_for_cutlass_hopper_fna,
    get_configs_for_flex_fmha,
    get_configs_for_flex_fna,
)
from .configs.checks import (
    can_run_cutlass_blackwell_fmha,
    can_run_cutlass_blackwell_fna,
    can_run_cutlass_fmha,
    can_run_cutlass_fna,
    can_run_cutlass_hopper_fmha,
    can_run_cutlass_hopper_fna,
    can_run_flex_attention,
)

__all__ = [
    "can_run_cutlass_blackwell_fmha",
    "can_run_cutlass_blackwell_fna",
    "can_run_cutlass_fmha",
    "can_run_cutlass_fna",
    "can_run_cutlass_hopper_fmha",
    "can_run_cutlass_hopper_fna",
    "can_run_flex_attention",
    "choose_backend",
    "choose_fmha_backend",
    "cutlass_blackwell_fmha",
    "cutlass_blackwell_fna_generic",
    "cutlass_fmha",
    "cutlass_fna_generic",
    "cutlass_hopper_fmha",
    "cutlass_hopper_fna_generic",
    "flex_fmha",
    "flex_fna_generic",
    "get_bwd_configs_for_cutlass_blackwell_fmha",
    "get_bwd_configs_for_cutlass_blackwell_fna",
    "get_bwd_configs_for_cutlass_fmha",
    "get_bwd_configs_for_cutlass_fna",
    "get_bwd_configs_for_cutlass_hopper_fmha",
    "get_bwd_configs_for_cutlass_hopper_fna",
    "get_compatible_backends",
    "get_compatible_fmha_backends",
    "get_configs_for_cutlass_blackwell_fmha",
    "get_configs_for_cutlass_blackwell_fna",
    "get_configs_for_cutlass_fmha",
    "get_configs_for_cutlass_fna",
    "get_configs_for_cutlass_hopper_fmha",
    "get_configs_for_cutlass_hopper_fna",
    "get_configs_for_flex_fmha",
    "get_configs_for_flex_fna",
    "na1d_cutlass_blackwell_fna",
    "na1d_cutlass_fna",
    "na1d_cutlass_hopper_fna",
    "na1d_flex",
    "na2d_cutlass_blackwell_fna",
    "na2d_cutlass_fna",
    "na2d_cutlass_hopper_fna",
    "na2d_flex",
    "na3d_cutlass_blackwell_fna",
    "na3d_cutlass_fna",
    "na3d_cutlass_hopper_fna",
    "na3d_flex",
]


def _named(function, backend: str):
    @functools.wraps(function)
    def kernel(query, key, value, *args, **kwargs):
        return function(query, key, value, *args, backend=backend, **kwargs)

    return kernel


cutlass_fna_generic, cutlass_hopper_fna_generic, cutlass_blackwell_fna_generic, flex_fna_generic = (
    _named(functional.neighborhood_attention_generic, backend) for backend in _hints.FNA_BACKENDS
)
na1d_cutlass_fna, na1d_cutlass_hopper_fna, na1d_cutlass_blackwell_fna, na1d_flex = (
    _named(functional.na1d, backend) for backend in _hints.FNA_BACKENDS
)
na2d_cutlass_fna, na2d_cutlass_hopper_fna, na2d_cutlass_blackwell_fna, na2d_flex = (
    _named(functional.na2d, backend) for backend in _hints.FNA_BACKENDS
)
na3d_cutlass_fna, na3d_cutlass_hopper_fna, na3d_cutlass_blackwell_fna, na3d_flex = (
    _named(functional.na3d, backend) for backend in _hints.FNA_BACKENDS
)
cutlass_fmha, cutlass_hopper_fmha, cutlass_blackwell_fmha, flex_fmha = (
    _named(functional.attention, backend) for backend in _hints.FMHA_BACKENDS
)


def choose_backend(query, key, value, torch_compile=False) -> str:
    return _hints.FNA_BACKENDS[0]


def choose_fmha_backend(query, key, value, is_causal=False, is_varlen=False, torch_compile=False) -> str:
    return _hints.FMHA_BACKENDS[0]


def get_compatible_backends(query, key, value, torch_compile=False) -> list[str]:
    return list(_hints.FNA_BACKENDS)


def get_compatible_fmha_backends(
    query, key, value, is_causal=False, is_varlen=False, torch_compile=False
) -> list[str]:
    return list(_hints.FMHA_BACKENDS)
