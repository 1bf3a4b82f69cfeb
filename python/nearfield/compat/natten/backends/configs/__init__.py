# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Configurations to choose from: one for each kernel, in the form that it has there.

Tile shapes and schedules are hints here, so that one stands for all; code that takes the first, or
measures every one, runs as it is. Tiles have 64 tokens.
"""

from __future__ import annotations

from ...types import KernelSchedule

_SHAPES = {1: (64,), 2: (8, 8), 3: (4, 4, 4)}


def _fna(query):
    shape = _SHAPES[query.dim() - 3]
    return [(shape, shape)]


def _fmha():
    return [(64, 64)]


def _scheduled(configs):
    return [(config, KernelSchedule.NonPersistent) for config in configs]


def get_configs_for_cutlass_fna(query, key, value):
    return _fna(query)


def get_configs_for_cutlass_blackwell_fna(query, key, value):
    return _fna(query)


def get_configs_for_cutlass_hopper_fna(query, key, value):
    return _scheduled(_fna(query))


def get_configs_for_flex_fna(query, key, value, torch_compile=False):
    return _fna(query)


def get_bwd_configs_for_cutlass_fna(query, key, value):
    return _fna(query)


def get_bwd_configs_for_cutlass_blackwell_fna(query, key, value):
    return _fna(query)


def get_bwd_configs_for_cutlass_hopper_fna(query, key, value):
    return _fna(query)


def get_configs_for_cutlass_fmha(query, key, value):
    return _fmha()


def get_configs_for_cutlass_blackwell_fmha(query, key, value):
    return _fmha()


def get_configs_for_cutlass_hopper_fmha(query, key, value):
    return _scheduled(_fmha())


def get_configs_for_flex_fmha(query, key, value, torch_compile=False):
    return _fmha()


def get_bwd_configs_for_cutlass_fmha(query, key, value):
    return _fmha()


def get_bwd_configs_for_cutlass_blackwell_fmha(query, key, value):
    return _fmha()


def get_bwd_configs_for_cutlass_hopper_fmha(query, key, value):
    return _fmha()
