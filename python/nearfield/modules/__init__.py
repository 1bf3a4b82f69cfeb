# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""torch.nn modules: neighborhood attention with its projections, and plain multi-head attention."""

from .attention import Attention
from .neighborhood import NeighborhoodAttention1D, NeighborhoodAttention2D, NeighborhoodAttention3D

__all__ = ["Attention", "NeighborhoodAttention1D", "NeighborhoodAttention2D", "NeighborhoodAttention3D"]
