# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The modules, under that package's module name."""

from ...modules import NeighborhoodAttention1D, NeighborhoodAttention2D, NeighborhoodAttention3D

__all__ = [
    "NeighborhoodAttention1D",
    "NeighborhoodAttention2D",
    "NeighborhoodAttention3D",
    "NeighborhoodAttentionGeneric",
]


def NeighborhoodAttentionGeneric(na_dim, *args, **kwargs):
    """The module of rank na_dim."""
    modules = {1: NeighborhoodAttention1D, 2: NeighborhoodAttention2D, 3: NeighborhoodAttention3D}
    if na_dim not in modules:
        raise ValueError(f"[NeighborhoodAttentionGeneric] got na_dim {na_dim!r}, expected 1, 2 or 3")
    return modules[na_dim](*args, **kwargs)
