# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Problems that the operator tests share: a Case makes its inputs, its mask and its call.

Example:

    case = na((6, 7), (3, 4), causal=(True, False), kv_heads=2)
    inputs = case.inputs(torch.float32)              # [q, k, v] or [q, k, v, ak, av]
    out, lse = case.call(inputs, backend="cpu")
    expected = case.expected(inputs, grad_out, grad_lse)

Shapes are those of oracle.py.
"""

from dataclasses import dataclass

import torch
from oracle import dense_mask, evaluate, grid_mask

import nearfield as nf

BACKENDS = ("reference", "cpu")
# Names of a case's gradients, in the order of its inputs.
GRADIENTS = ("dq", "dk", "dv", "dak", "dav")
CAUSAL_TYPES = {"tl": "TopLeft", "br": "BottomRight", "dc": "DontCare"}


@dataclass(frozen=True)
class Case:
    """One problem. Neighborhood attention if window is set (layout, one entry per axis), else dense
    attention of layout[0] queries and layout[1] keys with causal None, "tl", "br" or "dc"."""

    layout: tuple
    window: tuple | None = None
    stride: tuple | int = 1
    dilation: tuple | int = 1
    causal: tuple | bool | str | None = None
    batch: int = 1
    heads: int = 2
    kv_heads: int = 2
    dim: int = 8
    value_dim: int = 8
    additional: int | None = None
    scale: float | None = None

    def __str__(self):
        text = "x".join(map(str, self.layout)) if self.window else "{},{}".format(*self.layout)
        for letter, x in zip("ksdc", (self.window, self.stride, self.dilation, self.causal), strict=True):
            if x not in (None, 1):
                text += f":{letter}" + "x".join(
                    str(int(e)) if not isinstance(e, str) else e
                    for e in (x if isinstance(x, tuple) else (x,))
                )
        text += f":b{self.batch}h{self.heads}kv{self.kv_heads}d{self.dim}v{self.value_dim}"
        text += "" if self.additional is None else f":add{self.additional}"
        return text + ("" if self.scale is None else f":scale{self.scale}")

    def _axes(self, x):
        return x if isinstance(x, tuple) else (x,) * len(self.layout)

    def mask(self):
        if self.window is None:
            return dense_mask(*self.layout, "tl" if self.causal == "dc" else self.causal)
        return grid_mask(
            self.layout,
            self.window,
            self._axes(self.stride),
            self._axes(self.dilation),
            self._axes(bool(self.causal) if not isinstance(self.causal, tuple) else self.causal),
        )

    def shapes(self):
        """Of q, k, v and, with additional keys, of those and their values."""
        queries, keys = (self.layout, self.layout) if self.window else ((self.layout[0],), (self.layout[1],))
        b, hkv, d, dv = self.batch, self.kv_heads, self.dim, self.value_dim
        shapes = [(b, *queries, self.heads, d), (b, *keys, hkv, d), (b, *keys, hkv, dv)]
        if self.additional is not None:
            shapes += [(b, self.additional, hkv, d), (b, self.additional, hkv, dv)]
        return shapes

    def inputs(self, dtype=torch.float32, seed=0, requires_grad=False):
        g = torch.Generator().manual_seed(seed)
        make = [torch.randn(s, generator=g, dtype=torch.float64).to(dtype) for s in self.shapes()]
        return [x.requires_grad_(requires_grad) for x in make]

    def call(self, inputs, backend=None, return_lse=True, **more):
        q, k, v, *extra = inputs
        kw = dict(scale=self.scale, backend=backend, return_lse=return_lse, **more)
        if self.window is None:
            causal = CAUSAL_TYPES.get(self.causal)
            causal = getattr(nf.CausalType, causal) if causal else None
            return nf.attention(q, k, v, is_causal=causal is not None, causal_type=causal, **kw)
        if extra:
            kw.update(additional_keys=extra[0], additional_values=extra[1])
        function = (nf.na1d, nf.na2d, nf.na3d)[len(self.layout) - 1]
        causal = False if self.causal is None else self.causal
        return function(q, k, v, self.window, self.stride, self.dilation, causal, **kw)

    def upstream(self, inputs, seed=1):
        """grad_out and grad_lse for this case."""
        g = torch.Generator().manual_seed(seed)
        q, v = inputs[0], inputs[2]
        lse_dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
        out = torch.randn(*q.shape[:-1], v.shape[-1], generator=g, dtype=torch.float64).to(q.dtype)
        return out, torch.randn(q.shape[:-1], generator=g, dtype=torch.float64).to(lse_dtype)

    def expected(self, inputs, grad_out=None, grad_lse=None):
        return evaluate(*inputs[:3], self.mask(), grad_out, grad_lse, self.scale, *inputs[3:])

    def check(self, inputs, backend, grad_out=None, grad_lse=None, **more):
        """Forward and, given grad_out, backward of the operator against the oracle."""
        leaves = [x.detach() for x in inputs]  # keeps strides and aliasing
        if grad_out is not None:
            leaves = [x.requires_grad_() for x in leaves]
        out, lse = self.call(leaves, backend, **more)
        results = {"out": out.detach(), "lse": lse.detach()}
        if grad_out is not None:
            heads = [out] if grad_lse is None else [out, lse]
            gradients = torch.autograd.grad(heads, leaves, [grad_out, grad_lse][: len(heads)])
            results.update(zip(GRADIENTS, gradients, strict=False))
            for x, gradient in zip(inputs, gradients, strict=True):
                assert gradient.dtype == x.dtype
        assert out.dtype == inputs[0].dtype
        assert lse.dtype == (torch.float64 if out.dtype == torch.float64 else torch.float32)
        for name, expected in self.expected(inputs, grad_out, grad_lse).items():
            expected.check(results[name], name, f"[{self} {out.dtype} {backend}]")


def na(layout, window, **more):
    return Case(tuple(layout), tuple(window), **more)


def dense(queries, keys, causal=None, **more):
    return Case((queries, keys), causal=causal, **more)


# Every feature once, alone and with others, small enough to run everywhere.
NEIGHBORHOOD = [
    na((9,), (3,)),
    na((10,), (4,), stride=3, batch=2),
    na((11,), (4,), stride=4, causal=True, kv_heads=1),
    na((13,), (2,), dilation=5, value_dim=5),
    na((20,), (3,), stride=2, dilation=3, causal=True, heads=3, kv_heads=3, dim=7),
    na((1,), (1,), heads=1, kv_heads=1, dim=1, value_dim=1),
    na((40,), (40,), causal=True),
    na((70,), (33,), stride=5, heads=4, kv_heads=2, dim=16, value_dim=24),
    na((6, 7), (3, 4)),
    na((6, 7), (6, 1), stride=(3, 1), heads=4),
    na((8, 9), (3, 2), stride=(2, 1), dilation=(2, 3), causal=(True, False), heads=6),
    na((5, 6), (5, 6), additional=3, kv_heads=1),
    na((7, 5), (3, 3), dilation=(2, 1), causal=(False, True), additional=2, value_dim=3, batch=2),
    na((6, 6), (3, 3), additional=0),
    na((16, 18), (7, 5), heads=4, kv_heads=1, dim=32, value_dim=32),
    na((6, 6), (3, 3), scale=0.0),
    na((6, 6), (3, 3), scale=-0.7),
    na((3, 4, 5), (2, 3, 3)),
    na((4, 4, 4), (2, 2, 3), stride=(2, 1, 3), dilation=(2, 1, 1), causal=(True, False, True), batch=2),
    na((3, 5, 4), (3, 3, 2), causal=(True, False, False), additional=5, heads=4, kv_heads=2, value_dim=12),
    na((5, 8, 7), (3, 5, 5), heads=2, kv_heads=1, dim=16, value_dim=16),
]
DENSE = [
    dense(7, 11),
    dense(12, 12, "dc", kv_heads=1),
    dense(9, 14, "tl", heads=4, value_dim=6),
    dense(9, 14, "br", batch=2),
    dense(14, 9, "tl"),
    dense(14, 9, "br", heads=4),  # the first queries see nothing
    dense(1, 65, "br", heads=8, kv_heads=1, dim=16),
    dense(130, 97, heads=2, kv_heads=1, dim=33, value_dim=17, scale=0.3),
]
CASES = NEIGHBORHOOD + DENSE
