# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Packed sequences for the tests: Cases of cases.py side by side in one tensor `[1, total, heads, channels]`.

Example:

    packed = of_layouts([na((4, 5), (3, 3)), na((2, 6), (2, 5))], tail=3)
    inputs = packed.inputs(torch.float32)                # q, k, v
    out, lse = packed.call(inputs, "cpu")
    packed.check(inputs, "cpu", *packed.upstream(inputs))    # against the oracle, sequence by sequence
"""

import math
from dataclasses import dataclass

import torch
from cases import CAUSAL_TYPES, Case
from oracle import Expected

import nearfield as nf

GRADIENTS = ("dq", "dk", "dv")


@dataclass(frozen=True)
class Packed:
    """Sequences of one kind: all dense, or all with windows and of one rank; heads and causality agree.

    tail_query, tail_key: tokens behind the last sequence. `like` says what heads and dims are where there is
    no sequence.
    """

    parts: tuple
    tail_query: int
    tail_key: int
    like: Case

    def __str__(self):
        text = "+".join(str(part).split(":b1")[0] for part in self.parts) or "nothing"
        return f"{text}:tail{self.tail_query},{self.tail_key}:{str(self.like).split(':b1')[-1]}"

    @property
    def dense(self):
        return self.like.window is None

    def lengths(self):
        """Tokens of each sequence: queries, keys."""
        if self.dense:
            return [p.layout[0] for p in self.parts], [p.layout[1] for p in self.parts]
        tokens = [math.prod(p.layout) for p in self.parts]
        return tokens, tokens

    def offsets(self, dtype=torch.int32):
        return [torch.tensor([0, *n]).cumsum(0).to(dtype) for n in self.lengths()]

    def inputs(self, dtype=torch.float32, seed=0, requires_grad=False):
        g = torch.Generator().manual_seed(seed)
        queries, keys = (sum(n) for n in self.lengths())
        queries, keys, c = queries + self.tail_query, keys + self.tail_key, self.like
        shapes = (queries, c.heads, c.dim), (keys, c.kv_heads, c.dim), (keys, c.kv_heads, c.value_dim)
        make = [torch.randn(1, *s, generator=g, dtype=torch.float64).to(dtype) for s in shapes]
        return [x.requires_grad_(requires_grad) for x in make]

    upstream = Case.upstream

    def metadata(self):
        def each(name, default):
            values = [getattr(p, name) for p in self.parts]
            return None if all(v == default for v in values) else values

        causal = self.like.causal or False
        return nf.varlen.generate_multi_dim_varlen_parameters(
            [p.layout for p in self.parts], self.like.dim, "cpu", torch.float32, True,
            [p.window for p in self.parts], each("stride", 1), each("dilation", 1), causal)  # fmt: skip

    def call(self, inputs, backend=None, return_lse=True, **more):
        kw = dict(scale=self.like.scale, backend=backend, return_lse=return_lse, **more)
        if not self.dense:
            return nf.multi_dimensional_attention_varlen(*inputs, self.metadata(), **kw)
        causal = CAUSAL_TYPES.get(self.like.causal)
        kw.update(is_causal=causal is not None, causal_type=causal and getattr(nf.CausalType, causal))
        queries, keys = self.offsets()
        longest = [max(n, default=0) for n in self.lengths()]
        kw.update(cumulative_seqlen_Q=queries, cumulative_seqlen_KV=keys)
        return nf.attention(*inputs, max_seqlen_Q=longest[0], max_seqlen_KV=longest[1], **kw)

    def split(self, tensors, sides):
        """Of tensors `[1, total, ...]` the parts of each sequence, in its layout; sides: "q" or "k" each."""
        queries, keys = self.offsets()
        for i, part in enumerate(self.parts):
            own = []
            for x, side in zip(tensors, sides, strict=True):
                at = (queries if side == "q" else keys)[i : i + 2].tolist()
                layout = part.layout if not self.dense else (at[1] - at[0],)
                own.append(None if x is None else x[:, at[0] : at[1]].unflatten(1, layout))
            yield part, own

    def expected(self, inputs, grad_out=None, grad_lse=None):
        """The oracle of each sequence by itself, and the contract of a tail: 0, -inf, zero gradients."""
        collected = {}
        for part, (q, k, v, do, dlse) in self.split([*inputs, grad_out, grad_lse], "qkkqq"):
            for name, e in part.expected([q, k, v], do, dlse).items():
                rank = 1 if self.dense else len(part.layout)
                flat = [e.value.flatten(1, rank), e.bound.flatten(1, rank)]
                collected.setdefault(name, []).append(flat)
        q, k, v = inputs
        out = q.new_zeros(*q.shape[:-1], v.shape[-1])
        whole = {"out": out, "lse": torch.full(q.shape[:-1], -torch.inf, dtype=torch.float64)}
        if grad_out is not None:
            whole.update(dq=q, dk=k, dv=v)
        result = {}
        for name, like in whole.items():
            value = torch.full_like(like, -torch.inf if name == "lse" else 0, dtype=torch.float64)
            bound = torch.zeros_like(value)
            for x, at in ((value, 0), (bound, 1)):
                parts = [flat[at] for flat in collected.get(name, [])]
                if parts:
                    parts = torch.cat(parts, 1)
                    x[:, : parts.shape[1]] = parts
            result[name] = Expected(value, bound)
        return result

    def check(self, inputs, backend, grad_out=None, grad_lse=None, **more):
        leaves = [x.detach() for x in inputs]
        if grad_out is not None:
            leaves = [x.requires_grad_() for x in leaves]
        out, lse = self.call(leaves, backend, **more)
        results = {"out": out.detach(), "lse": lse.detach()}
        if grad_out is not None:
            gradients = torch.autograd.grad([out, lse], leaves, [grad_out, grad_lse])
            results.update(zip(GRADIENTS, gradients, strict=True))
        assert out.dtype == inputs[0].dtype
        assert lse.dtype == (torch.float64 if out.dtype == torch.float64 else torch.float32)
        for name, expected in self.expected(inputs, grad_out, grad_lse).items():
            expected.check(results[name], name, f"[{self} {out.dtype} {backend}]")

    def everything(self, inputs, backend, **more):
        """[out, lse, dq, dk, dv] for this problem's upstream."""
        leaves = [x.clone().requires_grad_() for x in inputs]
        result = self.call(leaves, backend, **more)
        return [*result, *torch.autograd.grad(result, leaves, self.upstream(inputs))]

    def check_bits_of_each_alone(self, inputs, backend):
        """Packed or alone: the same bits, forward and backward."""
        together = [x.detach() for x in self.everything(inputs, backend)]
        tensors = [*inputs, *self.upstream(inputs), *together]
        for part, (q, k, v, do, dlse, *own) in self.split(tensors, "qkkqqqqqkk"):
            if part.window and 0 in part.layout:
                continue  # a window needs a token
            leaves = [x.clone().requires_grad_() for x in (q, k, v)]
            result = part.call(leaves, backend)
            alone = [*result, *torch.autograd.grad(result, leaves, [do, dlse])]
            for name, a, b in zip(("out", "lse", *GRADIENTS), alone, own, strict=True):
                assert torch.equal(a, b), f"{name} of {part}: {(a - b).abs().max()}"


def of_lengths(pairs, causal=None, tail=(0, 0), **more):
    """Dense attention of sequences with (queries, keys)."""
    parts = tuple(Case(tuple(pair), causal=causal, **more) for pair in pairs)
    return Packed(parts, *tail, like=Case((0, 0), causal=causal, **more))


def of_layouts(parts, tail=0, like=None):
    """Neighborhoods; `like` is needed for no parts only."""
    return Packed(tuple(parts), tail, tail, like=like or parts[0])


def metadata_of(layouts, windows=None, strides=None, dilations=None, causal=False, **changed):
    """generate_multi_dim_varlen_parameters with defaults for what it does not keep."""
    arguments = {"head_dim": 8, "device": "cpu", "dtype": torch.float32, "requires_grad": False} | changed
    return nf.varlen.generate_multi_dim_varlen_parameters(
        layouts, *arguments.values(), windows, strides, dilations, causal
    )
