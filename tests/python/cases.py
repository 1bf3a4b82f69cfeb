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

import contextlib
import math
from dataclasses import dataclass
from unittest import mock

import torch
from oracle import bias_index, dense_mask, evaluate, grid_mask
from philox import factors

import nearfield as nf
from nearfield import _call

BACKENDS = ("reference", "cpu")
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
    bias: bool = False
    dropout: float = 0.0
    seed: int = 0  # of dropout
    queries: tuple | None = None  # the layout of the queries where it is not that of the keys

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
        text += "" if self.queries is None else ":qgrid" + "x".join(map(str, self.queries))
        text += ":bias" * self.bias + (f":drop{self.dropout}" if self.dropout else "")
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
            self.queries,
        )

    def gradients(self):
        """Names of the gradients, in the order of the inputs."""
        return ["dq", "dk", "dv"] + ["dak", "dav"] * (self.additional is not None) + ["dbias"] * self.bias

    def shapes(self):
        """Of q, k, v and, where the case has them, additional keys and values, bias."""
        queries, keys = (self.queries or self.layout, self.layout)
        if self.window is None:
            queries, keys = (self.layout[0],), (self.layout[1],)
        b, hkv, d, dv = self.batch, self.kv_heads, self.dim, self.value_dim
        shapes = [(b, *queries, self.heads, d), (b, *keys, hkv, d), (b, *keys, hkv, dv)]
        if self.additional is not None:
            shapes += [(b, self.additional, hkv, d), (b, self.additional, hkv, dv)]
        if self.bias:
            shapes.append((self.heads, *(2 * k - 1 for k in self.window)))
        return shapes

    def inputs(self, dtype=torch.float32, seed=0, requires_grad=False):
        g = torch.Generator().manual_seed(seed)
        make = [torch.randn(s, generator=g, dtype=torch.float64).to(dtype) for s in self.shapes()]
        return [x.requires_grad_(requires_grad) for x in make]

    def call(self, inputs, backend=None, return_lse=True, **more):
        """The public function's result; with dropout, that of the case's own seed."""
        q, k, v, *extra = inputs
        kw = dict(scale=self.scale, backend=backend, return_lse=return_lse, **more)
        if self.bias:
            kw["bias"] = extra.pop()
        if self.dropout:
            kw["dropout_p"] = self.dropout
        if self.additional is not None:
            kw.update(additional_keys=extra[0], additional_values=extra[1])
        with seeded(self.seed) if self.dropout else contextlib.nullcontext():
            if self.window is None:
                causal = CAUSAL_TYPES.get(self.causal)
                causal = getattr(nf.CausalType, causal) if causal else None
                return nf.attention(q, k, v, is_causal=causal is not None, causal_type=causal, **kw)
            function = (nf.na1d, nf.na2d, nf.na3d)[len(self.layout) - 1]
            causal = False if self.causal is None else self.causal
            return function(q, k, v, self.window, self.stride, self.dilation, causal, **kw)

    def factor(self):
        """What dropout multiplies the weights by, [B, H, N, M + S]; None without it."""
        if not self.dropout:
            return None
        queries = math.prod(self.shapes()[0][1:-2])
        keys = math.prod(self.shapes()[1][1:-2]) + (self.additional or 0)
        axes = (range(n) for n in (self.batch, self.heads, queries, keys))
        return factors(self.seed, self.dropout, *axes)

    def upstream(self, inputs, seed=1):
        """grad_out and grad_lse for this case."""
        g = torch.Generator().manual_seed(seed)
        q, v = inputs[0], inputs[2]
        lse_dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
        out = torch.randn(*q.shape[:-1], v.shape[-1], generator=g, dtype=torch.float64).to(q.dtype)
        return out, torch.randn(q.shape[:-1], generator=g, dtype=torch.float64).to(lse_dtype)

    def expected(self, inputs, grad_out=None, grad_lse=None):
        given = dict(zip(self.gradients(), inputs, strict=True))
        return evaluate(
            *inputs[:3],
            self.mask(),
            grad_out,
            grad_lse,
            self.scale,
            given.get("dak"),
            given.get("dav"),
            bias=given.get("dbias"),
            index=bias_index(self.layout, self.window, self._axes(self.dilation)) if self.bias else None,
            factor=self.factor(),
        )

    def check(self, inputs, backend, grad_out=None, grad_lse=None, **more):
        """Forward and, given grad_out, backward of the operator against the oracle; the largest error over
        its tolerance."""
        leaves = [x.detach() for x in inputs]  # keeps strides and aliasing
        if grad_out is not None:
            leaves = [x.requires_grad_() for x in leaves]
        out, lse = self.call(leaves, backend, **more)
        results = {"out": out.detach(), "lse": lse.detach()}
        if grad_out is not None:
            heads = [out] if grad_lse is None else [out, lse]
            gradients = torch.autograd.grad(heads, leaves, [grad_out, grad_lse][: len(heads)])
            results.update(zip(self.gradients(), gradients, strict=True))
            for x, gradient in zip(inputs, gradients, strict=True):
                assert gradient.dtype == x.dtype
        assert out.dtype == inputs[0].dtype
        assert lse.dtype == (torch.float64 if out.dtype == torch.float64 else torch.float32)
        expected = self.expected(inputs, grad_out, grad_lse)
        return max(x.check(results[n], n, f"[{self} {out.dtype} {backend}]") for n, x in expected.items())


@contextlib.contextmanager
def seeded(number):
    """Dropout of the calls inside takes this seed in place of the one that they draw."""
    fixed = mock.patch.object(_call, "seed_of", lambda p, query: torch.tensor([number], device=query.device))
    with fixed:
        yield


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
