# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The rows of the conformance table: for every feature the problems that show it, small and exacting.

A feature's checks are functions (backend, dtype, backward) that run the operation and compare it with the
oracle: they raise AssertionError where a number is wrong and let the core's refusals through. They return
the largest error over its tolerance.
"""

import torch
from cases import Case, dense, na
from operator_cases import OperatorCase, multi_dimensional, packed_attention, packed_layouts, shard
from oracle import attend

NO, ONE = (False, False), (1, 1)
BIG = {"heads": 4, "kv_heads": 2, "dim": 16, "value_dim": 16}


def compared(case: Case):
    """Out and lse, or the gradients of both."""

    def check(backend, dtype, backward):
        inputs = case.inputs(dtype)
        return case.check(inputs, backend, *(case.upstream(inputs) if backward else ()))

    return check


def strided(case: Case, view):
    """The same with inputs, and a gradient of out, that lie elsewhere in memory."""

    def check(backend, dtype, backward):
        inputs = [view(x) for x in case.inputs(dtype)]
        grad_out, grad_lse = case.upstream(inputs)
        assert not any(x.is_contiguous() for x in inputs)
        return case.check(inputs, backend, *((view(grad_out), grad_lse) if backward else ()))

    return check


def heads_first(x):
    return x.movedim(-2, 1).contiguous().movedim(1, -2)


def every_second_channel(x):
    return torch.stack((x, x.new_full((), torch.nan).expand_as(x)), -1).flatten(-2)[..., ::2]


def of_lse(case: Case):
    """lse alone, or its gradients alone."""

    def check(backend, dtype, backward):
        inputs = case.inputs(dtype)
        grad_out, grad_lse = case.upstream(inputs)
        expected = case.expected(inputs, torch.zeros_like(grad_out), grad_lse)
        leaves = [x.requires_grad_(backward) for x in inputs]
        lse = case.call(leaves, backend)[1]
        if not backward:
            return expected["lse"].check(lse, "lse", str(case))
        q, k, *_ = leaves
        gradients = torch.autograd.grad(lse, (q, k), grad_lse)
        return max(
            expected[name].check(x, name, str(case)) for name, x in zip(("dq", "dk"), gradients, strict=True)
        )

    return check


def packed(case: OperatorCase):
    return case.check


def mapped(case: Case):
    """torch.vmap over three samples, or over their gradients."""

    def check(backend, dtype, backward):
        samples = [case.inputs(dtype, seed=i) for i in range(3)]
        upstreams = [case.upstream(inputs, seed=10 + i) for i, inputs in enumerate(samples)]
        stacked = [torch.stack(x) for x in zip(*samples, strict=True)]
        seeds = [torch.stack(x) for x in zip(*upstreams, strict=True)]

        def gradients(*x):
            results, pull = torch.func.vjp(lambda *y: case.call(y, backend), *x[:-2])
            return (*results, *pull((x[-2], x[-1])))

        if backward:
            got, names = torch.vmap(gradients)(*stacked, *seeds), ["out", "lse", *case.gradients()]
        else:
            got, names = torch.vmap(lambda *x: case.call(x, backend))(*stacked), ["out", "lse"]
        return max(
            expected.check(got[names.index(name)][i], name, f"sample {i} of {case}")
            for i, inputs in enumerate(samples)
            for name, expected in case.expected(inputs, *(upstreams[i] if backward else ())).items()
        )

    return check


def forward_mode(case: Case):
    """Tangents of out and lse along tangents of all inputs, or the gradient of those."""
    mask, factor = case.mask(), case.factor()

    def check(backend, dtype, backward):
        inputs, directions = case.inputs(dtype), case.inputs(dtype, seed=9)
        upstream = case.upstream(inputs)

        def tangents(f, x, t):
            return torch.func.jvp(f, tuple(x), tuple(t))[1]

        def exact(*x):
            return attend(*x[:3], mask, case.scale, *x[3:], factor=factor)

        def pulled(f, x, t, seeds):
            def weighed(*y):
                return sum((a * b).sum() for a, b in zip(tangents(f, y, t), seeds, strict=True))

            return torch.func.grad(weighed, argnums=tuple(range(len(x))))(*x)

        def ours(*x):
            return case.call(x, backend)

        wide = [[x.double() for x in xs] for xs in (inputs, directions, upstream)]
        if backward:
            got, expected = pulled(ours, inputs, directions, upstream), pulled(exact, *wide)
        else:
            got, expected = tangents(ours, inputs, directions), tangents(exact, *wide[:2])
        # Composed of torch operations, whose sums are of numbers of order 1 rounded to the dtype.
        tolerance = torch.finfo(dtype).eps * (8 if dtype.itemsize == 2 else 64)
        worst = 0.0
        for a, b in zip(got, expected, strict=True):
            ratio = ((a.double() - b).abs() / (tolerance * (1 + b.abs()))).max().item()
            assert ratio <= 1, (
                f"a tangent is off by {ratio:.3g} times its tolerance [{case} {dtype} {backend}]"
            )
            worst = max(worst, ratio)
        return worst

    return check


def of(kind, *cases):
    return [kind(case) for case in cases]


# Feature: checks. The first words are those that the table shows.
FEATURES = {
    "windows, 1-D": of(compared, na((10,), (3,)), na((10,), (4,)), na((40,), (40,), **BIG)),
    "windows, 2-D": of(compared, na((6, 7), (3, 4)), na((9, 8), (9, 2), **BIG)),
    "windows, 3-D": of(compared, na((3, 4, 5), (2, 3, 3)), na((5, 4, 6), (3, 1, 5), **BIG)),
    "stride": of(compared, na((10,), (4,), stride=3), na((8, 9), (6, 3), stride=(3, 3))),
    "dilation": of(compared, na((13,), (2,), dilation=5), na((8, 9), (3, 2), dilation=(2, 3))),
    "causal, per axis": of(
        compared,
        na((11,), (4,), stride=4, causal=True),
        na((6, 7), (3, 4), causal=(True, False)),
        na((3, 4, 5), (2, 3, 3), causal=(True, False, True)),
    ),
    "dense attention": of(compared, dense(7, 11), dense(70, 33, **BIG)),
    "dense, causal top-left": of(compared, dense(9, 14, "tl"), dense(14, 9, "tl"), dense(8, 8, "dc")),
    "dense, causal bottom-right": of(compared, dense(9, 14, "br"), dense(14, 9, "br")),
    "grouped heads (GQA)": of(compared, na((6, 7), (3, 4), heads=6, kv_heads=2), dense(7, 9, heads=4)),
    "one key head (MQA)": of(
        compared, na((6, 7), (3, 4), heads=6, kv_heads=1), dense(7, 9, heads=4, kv_heads=1)
    ),
    "value dim other than head dim": of(
        compared, na((9,), (3,), dim=7, value_dim=20), dense(7, 9, dim=24, value_dim=5)
    ),
    "additional keys and values": of(
        compared,
        na((9,), (3,), additional=20),
        na((7, 5), (3, 3), dilation=(2, 1), additional=2, value_dim=3, kv_heads=1, batch=2),
    ),
    "packed sequences, attention": of(
        packed,
        packed_attention([(5, 9), (0, 3), (7, 0), (30, 33)], tail=(2, 1)),
        packed_attention([(5, 9), (8, 3), (33, 34)], "tl"),
        packed_attention([(5, 9), (8, 3), (33, 34)], "br"),
    ),
    "packed sequences, windows of their own": of(
        packed,
        packed_layouts([((9,), (-1,), (4,), (1,), (True,)), ((5,), (2,), (1,), (2,), (False,))], tail=3),
        packed_layouts([((6, 7), (3, -1), ONE, (2, 1), NO), ((4, 3), (2, 3), (2, 1), ONE, (True, False))]),
        packed_layouts([((2, 3, 4), (2, 3, 2), (1, 2, 1), (1, 1, 2), (True, False, False))] * 2),
    ),
    "windows of a whole axis (-1)": of(
        packed,
        multi_dimensional((6, 7), (-1, 3), causal=(True, False)),
        multi_dimensional((6, 1), (3, 77), (1, 99), (2, 13), (False, True)),
    ),
    "queries on a finer layout": of(
        compared, na((9,), (3,), queries=(20,)), na((3, 4, 5), (2, 3, 3), queries=(6, 8, 10), causal=True)
    ),
    "queries on a coarser layout": of(
        compared, na((9,), (4,), stride=2, queries=(4,)), na((8, 9), (3, 4), queries=(4, 5), additional=3)
    ),
    "ranges of a global layout": of(
        packed,
        shard((40,), (7,), [range(10, 20)], [range(7, 23)]),
        shard((20, 12), (5, 3), [range(8, 16), range(12)], [range(6, 18), range(12)], (2, 1), (1, 2)),
        shard((20, 12), (5, 3), [range(8, 16), range(3, 7)], [range(10, 12), range(4, 8)]),
    ),
    "relative position bias": of(
        compared,
        na((10,), (4,), stride=3, bias=True),
        na((7, 5), (3, 3), dilation=(2, 1), causal=(False, True), additional=2, bias=True, batch=2),
        na((3, 4, 5), (2, 3, 3), bias=True),
    ),
    "dropout on the weights": of(
        compared,
        na((8, 9), (3, 2), dilation=(2, 3), additional=2, dropout=0.4, seed=3, batch=2),
        dense(14, 9, "br", heads=4, dropout=0.4, seed=4),
    ),
    "lse and its gradient alone": of(of_lse, na((6, 7), (3, 4), additional=2), dense(7, 9, "tl")),
    "inputs of any strides": [
        strided(case, view)
        for case in (na((6, 7), (3, 4), batch=2, heads=4), dense(9, 14, "br", heads=4, batch=2))
        for view in (every_second_channel, heads_first)
    ],
    "forward-mode derivatives (jvp)": of(
        forward_mode, na((5, 4), (3, 2), additional=2), dense(5, 6, "tl"), na((6,), (3,), dropout=0.4, seed=5)
    ),
    "torch.vmap": of(mapped, na((5, 4), (3, 2), additional=2), na((6,), (3,), bias=True), dense(5, 6, "br")),
}
