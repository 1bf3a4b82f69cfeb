# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The operations on tensors: neighborhood attention over 1, 2 and 3 axes, dense attention, merging.

Tensors are heads-last: query `[B, *layout, H, D]`, key `[B, *layout, Hkv, D]`, value
`[B, *layout, Hkv, Dv]`; the output is `[B, *layout, H, Dv]` in the input's dtype, lse (the natural
logarithm of the sum of exponentials, scale included) `[B, *layout, H]` in float32, or float64 for
float64 inputs. Query heads are a multiple of key/value heads: consecutive ones share a head.
Gradients are exact for the output and for lse. Sources: Hassani et al., Neighborhood Attention
Transformer (CVPR 2023); Generalized Neighborhood Attention (2025) for `stride`.
"""

from __future__ import annotations

from ._dense import CausalType, attention
from ._flags import allow_bf16_arithmetic, allow_nondeterministic
from ._merge import merge_attentions
from ._multi_dimensional import (
    multi_dimensional_attention,
    multi_dimensional_attention_varlen,
    spatio_temporal_attention,
)
from ._neighborhood import na1d, na2d, na3d

__all__ = [
    "CausalType",
    "allow_bf16_arithmetic",
    "allow_nondeterministic",
    "attention",
    "merge_attentions",
    "multi_dimensional_attention",
    "multi_dimensional_attention_varlen",
    "na1d",
    "na2d",
    "na3d",
    "spatio_temporal_attention",
]
