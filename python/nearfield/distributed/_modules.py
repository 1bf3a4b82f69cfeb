# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What the modules need to run on the tokens of many ranks."""

from __future__ import annotations

import math

import torch

from . import _boxes as boxes
from ._agree import telling
from ._team import team_of
from .dense import attend_sequence
from .neighborhood import attend_neighborhood
from .plan import check_shard_dims


class Mesh:
    """A mesh and the axes that it cuts, held by a neighborhood module. Copies of the module share it;
    pickling is refused, since process groups are of one run."""

    def __init__(self, op: str, mesh, shard_dims, rank: int):
        team, shape = team_of(op, mesh)
        self._op, self._mesh, self._team = op, mesh, team
        self._dims = check_shard_dims(op, (0,) if shard_dims is None else shard_dims, len(shape), rank)
        self._shape = shape

    def telling(self):
        return telling(self._team)

    def attend(self, query, key, value, kernel_size, stride, dilation, is_causal, *, bias, **more):
        tensors = (query, key, value, more.pop("additional_keys"), more.pop("additional_values"), bias)
        window = (kernel_size, stride, dilation, is_causal)
        return attend_neighborhood(self._op, tensors, window, self._mesh, self._dims, **more, sum_bias=False)

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        raise TypeError(
            f"[{self._op}] got a module on a mesh to pickle, expected one without; save its state_dict()"
        )

    def __repr__(self) -> str:
        return f"mesh={self._shape}, shard_dims={self._dims}"


class _Ranks:
    """The ranks of a cp_group: slabs of the first axis in a zigzag."""

    def __init__(self, module, group, team, units, telling):
        self._module, self._group, self._team = module, group, team
        self._units, self._telling = units, telling

    def rows(self, extent: int):
        """The positions along the first axis that this rank holds."""
        pair = boxes.zigzag(extent, self._team.size, self._team.rank)
        return torch.cat([torch.arange(*interval) for interval in pair])

    def attend(self, tensors, causal_type=None, *, scale, dropout_p, **_):
        self._telling.end()
        return attend_sequence(
            self._team.op,
            tensors,
            self._group,
            is_causal=causal_type is not None,
            causal_type=causal_type,
            scale=scale,
            pattern="zigzag",
            method=None,
            dropout_p=dropout_p,
            backend=self._module.backend,
            return_lse=True,
            units=self._units,
        )


def forward_of_ranks(module, group, inputs):
    """`Attention.forward` of this rank's slabs."""
    team, _ = team_of("Attention", group)
    units = [math.prod(getattr(x, "shape", ())[2:-1]) for x in inputs[:2]]
    with telling(team) as open_telling:
        return module._forward(*inputs, ranks=_Ranks(module, group, team, units, open_telling))
