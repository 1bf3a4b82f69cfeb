# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""nearfield: attention whose visible keys are a box, over token layouts of one, two or three axes."""

from ._core import explain, info
from .functional import CausalType, allow_nondeterministic, attention, merge_attentions, na1d, na2d, na3d

__version__ = info()["version"]
__all__ = [
    "CausalType",
    "allow_nondeterministic",
    "attention",
    "explain",
    "info",
    "merge_attentions",
    "na1d",
    "na2d",
    "na3d",
]
