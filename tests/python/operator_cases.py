# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Calls of the operator itself, for what is told by numbers: packed sequences, shards, whole-axis windows.

An OperatorCase has one call and its pieces: which queries attend to which keys under which mask, each
evaluated by the oracle alone. What lies in no piece is a tail: out 0, lse -inf, zero gradients.

    case = packed_attention([(5, 9), (0, 3), (7, 7)], "tl", tail=(2, 1))
    case.check("cpu", torch.float32, backward=True)

Tensors are [B, *layout, heads, channels]; pieces count tokens in raster order.
"""

import itertools
import math
from dataclasses import dataclass, field

import torch
from oracle import dense_mask, evaluate, grid_mask
from philox import factors

from nearfield import _autograd, _core, _ops

CAUSAL_TYPES = {None: 0, "tl": 1, "br": 2}


@dataclass(frozen=True)
class Piece:
    queries: slice
    keys: slice
    mask: torch.Tensor  # [queries, keys]
    query_raster: tuple = ()  # numbers in the piece's own layout, which dropout counts
    key_raster: tuple = ()


@dataclass(frozen=True)
class OperatorCase:
    name: str
    layout: tuple  # of the queries present
    key_layout: tuple
    pieces: list
    config: dict = field(default_factory=dict)  # for _ops.Config
    packed: bool = False  # a piece's number stands for the batch where dropout counts
    batch: int = 1
    heads: int = 4
    kv_heads: int = 2
    dim: int = 8
    value_dim: int = 6

    def __str__(self):
        return self.name

    def inputs(self, dtype):
        g = torch.Generator().manual_seed(0)
        shapes = (
            (self.batch, *self.layout, self.heads, self.dim),
            (self.batch, *self.key_layout, self.kv_heads, self.dim),
            (self.batch, *self.key_layout, self.kv_heads, self.value_dim),
            (self.batch, *self.layout, self.heads, self.value_dim),
            (self.batch, *self.layout, self.heads),
        )
        lse_dtype = torch.float64 if dtype == torch.float64 else torch.float32
        made = [torch.randn(shape, generator=g, dtype=torch.float64) for shape in shapes]
        return [x.to(dtype) for x in made[:4]] + [made[4].to(lse_dtype)]

    def results(self, backend, dtype, backward):
        """{name: tensor with its token axes flattened}."""
        q, k, v, grad_out, grad_lse = self.inputs(dtype)
        leaves = [x.requires_grad_(backward) for x in (q, k, v)]
        config = _ops.Config(**self.config, backend=_ops.BACKENDS.get(backend, 0))
        out, lse = _autograd.attend(*leaves, None, None, None, config)
        got = {"out": out.detach(), "lse": lse.detach()[..., None]}
        if backward:
            gradients = torch.autograd.grad((out, lse), leaves, (grad_out, grad_lse))
            got.update(zip(("dq", "dk", "dv"), gradients, strict=True))
        got = {name: x.flatten(1, -3) for name, x in got.items()}
        got["lse"] = got["lse"].squeeze(-1)
        return got

    def factor(self, number, piece):
        """What dropout multiplies the weights of a piece by, or None."""
        if not self.config.get("dropout_p"):
            return None
        return factors(
            self.config["seed"].item(),
            self.config["dropout_p"],
            [number] if self.packed else range(self.batch),
            range(self.heads),
            piece.query_raster or range(piece.mask.shape[0]),
            piece.key_raster or range(piece.mask.shape[1]),
        )

    def check(self, backend, dtype, backward):
        """The largest error over its tolerance, at most 1."""
        got = self.results(backend, dtype, backward)
        inputs = [x.flatten(1, -3) for x in self.inputs(dtype)[:4]]
        grad_lse = self.inputs(dtype)[4].flatten(1, -2)
        of_keys, worst = ("dk", "dv"), 0.0
        loose = {name: torch.ones(x.shape[1], dtype=torch.bool) for name, x in got.items()}
        for number, piece in enumerate(self.pieces):
            at, keys = piece.queries, piece.keys
            q, k, v, grad_out = inputs[0][:, at], inputs[1][:, keys], inputs[2][:, keys], inputs[3][:, at]
            upstream = (grad_out, grad_lse[:, at]) if backward else ()
            expected = evaluate(q, k, v, piece.mask, *upstream, factor=self.factor(number, piece))
            for name, value in expected.items():
                tokens = keys if name in of_keys else at
                worst = max(worst, value.check(got[name][:, tokens], name, f"[{self} {dtype} {backend}]"))
                loose[name][tokens] = False
        for name, x in got.items():
            nothing = -math.inf if name == "lse" else 0
            assert x[:, loose[name]].eq(nothing).all(), f"{name} of a tail [{self} {dtype} {backend}]"
        return worst


def _runs(numbers):
    """Consecutive slices of these lengths."""
    ends = torch.tensor([0, *numbers]).cumsum(0).tolist()
    return [slice(a, b) for a, b in itertools.pairwise(ends)]


def packed_attention(lengths, causal=None, tail=(0, 0), maxima=(), **config):
    """Sequences of (queries, keys) tokens by cumulative offsets."""
    queries, keys = ([n[i] for n in lengths] for i in range(2))
    offsets = [torch.tensor([0, *n]).cumsum(0).to(torch.int32) for n in (queries, keys)]
    pieces = [
        Piece(q, k, dense_mask(*n, causal))
        for n, q, k in zip(lengths, _runs(queries), _runs(keys), strict=True)
    ]
    return OperatorCase(
        f"packed {lengths} {causal} tail {tail}",
        (sum(queries) + tail[0],),
        (sum(keys) + tail[1],),
        pieces,
        dict(
            offsets_query=offsets[0],
            offsets_key=offsets[1],
            function=_core.FUNCTIONS.index("attention"),
            causal_type=CAUSAL_TYPES[causal],
            grids=tuple(maxima),
            **config,
        ),
        packed=True,
    )


def packed_layouts(sequences, tail=0, **config):
    """Sequences of (layout, window, stride, dilation, causal), each one entry per axis; window -1: whole."""
    rank, tokens = len(sequences[0][0]), [math.prod(s[0]) for s in sequences]
    pieces = []
    for run, (layout, window, stride, dilation, causal) in zip(_runs(tokens), sequences, strict=True):
        mask = grid_mask(layout, *_resolved(layout, window, stride, dilation, causal))
        pieces.append(Piece(run, run, mask))
    return OperatorCase(
        f"packed {sequences} tail {tail}",
        (sum(tokens) + tail,),
        (sum(tokens) + tail,),
        pieces,
        dict(
            axes=(1, 1, 1, 0) * rank,
            grids=tuple(int(n) for sequence in sequences for part in sequence for n in part),
            function=_core.FUNCTIONS.index("multi_dimensional_attention_varlen"),
            **config,
        ),
        packed=True,
    )


def _resolved(layout, window, stride, dilation, causal):
    """The parameters of an ordinary window: -1 is the whole axis, axes of one token have nothing to say."""
    one = [n == 1 for n in layout]
    return (
        tuple(n if k == -1 or n == 1 else k for n, k in zip(layout, window, strict=True)),
        *(tuple(1 if o else x for o, x in zip(one, values, strict=True)) for values in (stride, dilation)),
        tuple(bool(c) and not o for o, c in zip(one, causal, strict=True)),
    )


def multi_dimensional(layout, window, stride=None, dilation=None, causal=None, key_layout=None, **config):
    """multi_dimensional_attention: windows of -1, anything on axes of one token."""
    rank = len(layout)
    keys = key_layout or layout
    given = (window, stride or (1,) * rank, dilation or (1,) * rank, causal or (False,) * rank)
    mask = grid_mask(keys, *_resolved(keys, *given), layout)
    return OperatorCase(
        f"multi_dimensional {layout} {key_layout} {given}",
        layout,
        keys,
        [Piece(slice(None), slice(None), mask)],
        dict(
            axes=tuple(int(n) for axis in zip(*given, strict=True) for n in axis),
            function=_core.FUNCTIONS.index("multi_dimensional_attention"),
            **config,
        ),
    )


def shard(layout, window, queries, keys, stride=None, dilation=None, causal=None, batch=1, **config):
    """na1d/na2d/na3d of one box of queries and one of keys, each one range per axis of the global layout."""
    rank = len(layout)
    given = (window, stride or (1,) * rank, dilation or (1,) * rank, causal or (False,) * rank)
    raster = torch.arange(math.prod(layout)).reshape(layout)
    rows, columns = (
        raster[tuple(slice(r.start, r.stop) for r in box)].flatten().tolist() for box in (queries, keys)
    )
    mask = grid_mask(layout, *given)[rows][:, columns]
    return OperatorCase(
        f"shard {layout} {given} {queries} {keys}",
        tuple(map(len, queries)),
        tuple(map(len, keys)),
        [Piece(slice(None), slice(None), mask, tuple(rows), tuple(columns))],
        dict(
            axes=tuple(int(n) for axis in zip(*given, strict=True) for n in axis),
            ranges=tuple(
                n for a in zip(layout, queries, keys, strict=True) for n in (a[0], a[1].start, a[2].start)
            ),
            function=rank - 1,
            **config,
        ),
        batch=batch,
    )
