# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Type names of arguments, for annotations."""

from __future__ import annotations

from enum import Enum
from typing import Union

NoneType = type(None)

Dimension1DType = tuple[int]
Dimension2DType = tuple[int, int]
Dimension3DType = tuple[int, int, int]
DimensionType = Union[Dimension1DType, Dimension2DType, Dimension3DType]  # noqa: UP007

CausalArg1DType = tuple[bool]
CausalArg2DType = tuple[bool, bool]
CausalArg3DType = tuple[bool, bool, bool]
CausalArgType = Union[CausalArg1DType, CausalArg2DType, CausalArg3DType]  # noqa: UP007

# One value for every axis, or one per axis.
Dimension1DTypeOrDed = Union[int, Dimension1DType]  # noqa: UP007
Dimension2DTypeOrDed = Union[int, Dimension2DType]  # noqa: UP007
Dimension3DTypeOrDed = Union[int, Dimension3DType]  # noqa: UP007
DimensionTypeOrDed = Union[int, DimensionType]  # noqa: UP007
CausalArg1DTypeOrDed = Union[bool, CausalArg1DType]  # noqa: UP007
CausalArg2DTypeOrDed = Union[bool, CausalArg2DType]  # noqa: UP007
CausalArg3DTypeOrDed = Union[bool, CausalArg3DType]  # noqa: UP007
CausalArgTypeOrDed = Union[bool, CausalArgType]  # noqa: UP007


class KernelSchedule(Enum):
    NonPersistent = 0
    WarpSpecializedCooperative = 1
    WarpSpecializedPingpong = 2


# (query tile shape, key tile shape); FMHA kernels: two tile sizes.
QKTileShapeType = tuple[DimensionType, DimensionType]
FmhaForwardConfigType = tuple[int, int]

CutlassFnaForwardConfigType = QKTileShapeType
CutlassFnaBackwardConfigType = tuple[DimensionType, DimensionType, DimensionType, bool]
CutlassHopperFnaForwardConfigType = tuple[QKTileShapeType, KernelSchedule]
CutlassHopperFnaBackwardConfigType = QKTileShapeType
CutlassBlackwellFnaForwardConfigType = QKTileShapeType
CutlassBlackwellFnaBackwardConfigType = QKTileShapeType
FlexFnaForwardConfigType = QKTileShapeType

CutlassFmhaForwardConfigType = FmhaForwardConfigType
CutlassFmhaBackwardConfigType = tuple[int, int, int, bool]
CutlassHopperFmhaForwardConfigType = tuple[FmhaForwardConfigType, KernelSchedule]
CutlassHopperFmhaBackwardConfigType = FmhaForwardConfigType
CutlassBlackwellFmhaForwardConfigType = FmhaForwardConfigType
CutlassBlackwellFmhaBackwardConfigType = FmhaForwardConfigType
FlexFmhaForwardConfigType = FmhaForwardConfigType
