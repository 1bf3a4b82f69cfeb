# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""A call over a global layout of which one box of queries and one box of keys is present.

A query sees its global window intersected with the keys that are there, possibly nothing; dropout and bias go
by global positions. Neither direction records anything for autograd: `nearfield.distributed` differentiates
the whole of its calls.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from . import _call, _core, _ops
from ._flags import flags

Box = tuple[tuple[int, int], ...]  # [begin, end) per axis, in tokens of the global layout

_below_autograd = torch._C._AutoDispatchBelowAutograd


class GlobalCall(NamedTuple):
    """What all parts of a sharded call share."""

    op: str  # the function of nearfield whose rules hold: "na2d", "attention", ...
    layout: tuple[int, ...]  # of the keys
    query_layout: tuple[int, ...]
    axes: tuple[int, ...] | None = None  # window, stride, dilation, causal of each axis
    causal_type: int = 0
    scale: float | None = None
    dropout_p: float = 0.0
    backend: int = 0
    flags: int = 0

    def _config(self, queries: Box, keys: Box, seed) -> _ops.Config:
        places = zip(self.layout, queries, keys, self.query_layout, strict=True)
        return _ops.Config(
            seed=seed if self.dropout_p > 0 else None,
            axes=self.axes,
            ranges=tuple(n for extent, q, k, own in places for n in (extent, q[0], k[0], own)),
            scale=self.scale,
            dropout_p=self.dropout_p,
            function=_core.FUNCTIONS.index(self.op),
            causal_type=self.causal_type,
            backend=self.backend,
            flags=self.flags,
        )

    def forward(self, queries: Box, keys: Box, tensors, seed):
        """(out, lse) of a box of queries over a box of keys; tensors: query, key, value, additional keys and
        values, bias (None where absent)."""
        with _below_autograd():
            return _ops.forward(*tensors, *self._config(queries, keys, seed))

    def backward(self, queries: Box, keys: Box, tensors, out, lse, grad_out, grad_lse, seed):
        """The six gradients, None for absent inputs. out, lse: those of the queries over all of their keys,
        of which this box may be a part; the gradients are then this part of them."""
        config = self._config(queries, keys, seed)
        with _below_autograd():
            return _ops.call_backward((*tensors, out, lse), config, grad_out, grad_lse)

    def check(self, tensors) -> str:
        """The problem string of the whole call, from (dtype, device, index, shape) of its six tensors; raises
        what the call would raise without shards."""
        return _core.check(
            (*tensors, None, None),
            self.scale,
            self.dropout_p,
            _core.FUNCTIONS.index(self.op),
            self.causal_type,
            self.flags,
            self.axes or (),
            (),
            (),
        )


def problem_of_axis(extent: int, window: int, stride: int, dilation: int, causal: int) -> str:
    """A problem whose one axis is this."""
    return f"na:fwd:f32:b1h1kv1d1:{extent}:k{window}:s{stride}:d{dilation}:c{int(causal)}"


def problem_of_attention(queries: int, keys: int, causal_type: int) -> str:
    return f"att:fwd:f32:b1h1kv1d1:{queries},{keys}:c{('0', 'tl', 'br')[causal_type]}"


described = _ops.described
BACKENDS = _ops.BACKENDS
lse_dtype = _ops.lse_dtype
current_flags = flags
seed_of = _call.seed_of
