# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""nearfield: attention whose visible keys are a box, over token layouts of one, two or three axes."""

from pathlib import Path as _Path

from . import _as_command, compat, varlen  # noqa: F401  (the first before all that may fail)
from ._core import info
from ._explain import explain
from ._tuner import tuner_file
from .functional import (
    CausalType,
    allow_bf16_arithmetic,
    allow_nondeterministic,
    attention,
    merge_attentions,
    multi_dimensional_attention,
    multi_dimensional_attention_varlen,
    na1d,
    na2d,
    na3d,
    spatio_temporal_attention,
)
from .modules import Attention, NeighborhoodAttention1D, NeighborhoodAttention2D, NeighborhoodAttention3D
from .rotary import apply_rope, rope, rope_tables
from .tools.optimizer import optimize

__version__ = info()["version"]
# For C++, as torch.utils.cmake_prefix_path: find_package(nearfield COMPONENTS torch)
cmake_prefix_path = str(_Path(__file__).parent)
__all__ = [
    "Attention",
    "CausalType",
    "NeighborhoodAttention1D",
    "NeighborhoodAttention2D",
    "NeighborhoodAttention3D",
    "allow_bf16_arithmetic",
    "allow_nondeterministic",
    "apply_rope",
    "attention",
    "cmake_prefix_path",
    "compat",
    "explain",
    "info",
    "merge_attentions",
    "multi_dimensional_attention",
    "multi_dimensional_attention_varlen",
    "na1d",
    "na2d",
    "na3d",
    "optimize",
    "rope",
    "rope_tables",
    "spatio_temporal_attention",
    "tuner_file",
    "varlen",
]
