# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""nearfield through its PyTorch functions, and its error against the `reference` backend."""

from __future__ import annotations

import math
import random
import re

import torch

import nearfield as nf
from nearfield import _core, _ops

from . import Peer

WHOLE = 1e7  # multiply-adds of a reference run up to which everything is compared
SAMPLED = 24  # else: the tokens that are


class Nearfield(Peer):
    name = "nearfield"

    def attend(self, query, key, value):
        p = self.problem
        if p.dense:
            kind = {"none": None, "tl": nf.CausalType.TopLeft, "br": nf.CausalType.BottomRight}[p.causal_type]
            return nf.attention(query, key, value, is_causal=kind is not None, causal_type=kind)
        function = (nf.na1d, nf.na2d, nf.na3d)[len(p.layout) - 1]
        return function(query, key, value, p.window, p.stride, p.dilation, p.is_causal)

    def error(self, direction: str) -> tuple[float, str]:
        """Largest error against float64 arithmetic on the same numbers, and of what it is the largest.

        The reference is slow plain code, so of a large problem it computes ranges of one token each: for
        queries out and dq, for keys dk and dv. In the backward pass it is given our out and lse, rounded as
        they are, because those are inputs of that pass.
        """
        p = self.problem
        work = p.flops(direction) / 2
        own = self.results(direction)
        q, k, v = (x.detach().double() for x in self.inputs)
        more = ()
        if direction == "bwd":
            out, lse = self._forward_with_lse()
            more = (self.grad_out.double(), torch.zeros_like(lse).double(), out.double(), lse.double())
        boxes = [None] if work <= WHOLE else self._tokens(p.layout)
        worst = 0.0
        for box in boxes:
            picked = [_part(x, box) for x in (q, *more)]
            if direction == "fwd":
                expected = [self._reference(picked[0], k, v, box, None)]
                got = [_part(own[0], box)]
            else:
                expected = self._reference(picked[0], k, v, box, None, *picked[1:])
                got = [_part(own[0], box), *own[1:]]
                if box is not None:  # dk and dv of one range of queries are partial sums
                    expected, got = expected[:1], got[:1]
            worst = max(worst, *(_difference(a, b) for a, b in zip(got, expected, strict=True)))
        if boxes == [None]:
            return worst, "all"
        if direction == "fwd":
            return worst, f"{SAMPLED} queries"
        for box in self._tokens(p.key_layout, SAMPLED // 4):
            expected = self._reference(q, _part(k, box), _part(v, box), None, box, *more)[1:]
            got = [_part(x, box) for x in own[1:]]
            worst = max(worst, *(_difference(a, b) for a, b in zip(got, expected, strict=True)))
        return worst, f"{SAMPLED} queries, {SAMPLED // 4} keys"

    @staticmethod
    def _tokens(layout, count: int = SAMPLED):
        """First, last and random tokens: for each the first index per axis of a range of one token."""
        draw = random.Random(0)
        inner = [tuple(draw.randrange(n) for n in layout) for _ in range(count - 2)]
        return [(0,) * len(layout), tuple(n - 1 for n in layout), *inner]

    def _config(self, query_begin, key_begin, backend: str) -> _ops.Config:
        p, rank = self.problem, len(self.problem.layout)
        zeros = (0,) * rank
        ranges = None
        if (query_begin is not None or key_begin is not None) and not (p.dense and not p.causal):
            begins = zip(p.key_layout, query_begin or zeros, key_begin or zeros, strict=True)
            ranges = tuple(n for axis in begins for n in axis)
        common = {"ranges": ranges, "backend": _ops.BACKENDS[backend] if backend else 0}
        if p.dense:
            causal = {"none": 0, "tl": 1, "br": 2}[p.causal_type]
            return _ops.Config(function=_core.FUNCTIONS.index("attention"), causal_type=causal, **common)
        axes = zip(p.window, p.stride, p.dilation, map(int, p.is_causal), strict=True)
        return _ops.Config(function=rank - 1, axes=tuple(n for axis in axes for n in axis), **common)

    def _forward_with_lse(self):
        inputs = [x.detach() for x in self.inputs]
        return _ops.forward(*inputs, None, None, None, *self._config(None, None, ""))

    def _reference(self, q, k, v, query_begin, key_begin, *more):
        config = self._config(query_begin, key_begin, "reference")
        if not more:
            return _ops.forward(q, k, v, None, None, None, *config)[0]
        grad_out, grad_lse, out, lse = more
        return _ops.backward(grad_out, grad_lse, q, k, v, out, lse, None, None, None, *config)[:3]

    def plan(self, direction: str, threads: int) -> dict:
        """What explain() says of the call: kernel, workspace in bytes, predicted seconds if it does."""
        text = self.problem.texts[direction]
        chosen = next(line for line in nf.explain(text).splitlines() if line.startswith("*"))
        kernel = " ".join(word.strip(",") for word in chosen.split()[1:3])
        bytes_ = re.search(r"workspace (\d+) \+ (\d+) bytes", chosen)
        predicted = _core.problem(text).get("seconds")
        return {
            "kernel": kernel,
            "workspace": int(bytes_[1]) + threads * int(bytes_[2]) if bytes_ else None,
            "predicted": predicted / threads if predicted else None,
        }


def _part(x, box):
    """The range of one token that begins at `box` in [B, *layout, ...]; everything without a box."""
    if box is None:
        return x
    return x[(slice(None), *(slice(b, b + 1) for b in box))].contiguous()


def _difference(a, b) -> float:
    difference = (a.double() - b.double()).abs()
    return math.inf if difference.isnan().any() else difference.max().item()
