# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Drop-in for the attention package of NVIDIA Cosmos (`..._src.imaginaire.attention`): its five operations.

    from nearfield.compat.imaginaire import attention, multi_dimensional_attention
    from nearfield.compat.imaginaire.masks import CausalType
    from nearfield.compat.imaginaire.varlen import generate_varlen_parameters

They run on every device and in every dtype that nearfield serves. Results are those of `nearfield`; what
differs is how arguments are taken, and frontend.py says it.
"""

from . import masks, varlen
from .frontend import (
    attention,
    merge_attentions,
    multi_dimensional_attention,
    multi_dimensional_attention_varlen,
    spatio_temporal_attention,
)

__all__ = [
    "attention",
    "masks",
    "merge_attentions",
    "multi_dimensional_attention",
    "multi_dimensional_attention_varlen",
    "spatio_temporal_attention",
    "varlen",
]
