# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Queries on another token layout than the keys: finer, coarser, and back."""

import pytest
import torch
from cases import na
from torch.autograd import gradcheck

import nearfield as nf

CASES = [
    na((9,), (3,), queries=(4,)),
    na((9,), (3,), queries=(18,), batch=2),
    na((9,), (3,), queries=(1,)),
    na((1,), (1,), queries=(7,)),
    na((10,), (4,), stride=3, queries=(23,), kv_heads=1),
    na((11,), (4,), stride=4, causal=True, queries=(25,)),
    na((33,), (7,), stride=2, causal=True, queries=(12,), dim=7, value_dim=5),
    na((12,), (12,), queries=(5,), causal=True),
    na((70,), (33,), stride=5, queries=(140,), heads=4, kv_heads=2, dim=16, value_dim=24),
    na((6, 8), (3, 4), queries=(12, 16)),
    na((12, 10), (5, 3), queries=(6, 5), additional=3),
    na((8, 9), (3, 2), stride=(2, 1), dilation=(1, 3), causal=(True, False), queries=(5, 9), heads=6),
    na((7, 5), (3, 3), queries=(3, 11), causal=(False, True), additional=2, value_dim=3, batch=2),
    na((6, 6), (3, 3), queries=(2, 3), scale=-0.7),
    na((3, 4, 5), (2, 3, 3), queries=(6, 8, 10)),
    na((4, 6, 4), (2, 3, 3), stride=(2, 1, 3), causal=(True, False, True), queries=(9, 2, 4), batch=2),
]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SMALL = {"heads": 2, "kv_heads": 1, "dim": 2, "value_dim": 2}
FEATURES = [
    na((4,), (3,), queries=(7,), **SMALL),
    na((6,), (3,), stride=2, causal=True, queries=(4,), **SMALL),
    na((2, 3), (2, 2), queries=(3, 2), additional=1, **SMALL),
    na((2, 4, 3), (1, 2, 2), dilation=(1, 2, 1), queries=(1, 4, 2), batch=2, **SMALL),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64", "bf16", "f16"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_and_gradients(case, dtype, backend):
    inputs = case.inputs(dtype)
    case.check(inputs, backend, *case.upstream(inputs))


@pytest.mark.parametrize("case", FEATURES, ids=str)
def test_gradcheck(case, backend):
    assert gradcheck(lambda *x: case.call(x, backend), case.inputs(torch.float64, requires_grad=True))


@pytest.mark.parametrize("case", FEATURES, ids=str)
def test_jvp(case, backend):
    inputs, tangents = case.inputs(torch.float64), case.inputs(torch.float64, seed=9)

    def f(*x):
        return case.call(x, backend)

    step = 1e-6
    plus = f(*(x + step * t for x, t in zip(inputs, tangents, strict=True)))
    minus = f(*(x - step * t for x, t in zip(inputs, tangents, strict=True)))
    _, got = torch.func.jvp(f, tuple(inputs), tuple(tangents))
    for a, b, c in zip(plus, minus, got, strict=True):
        torch.testing.assert_close(c, (a - b) / (2 * step), rtol=1e-6, atol=1e-8)


def test_children_see_what_their_parent_saw(backend):
    """Twice as many queries, each the copy of its parent: the outputs are copies too."""
    case = na((6, 5), (3, 4), stride=(2, 1), causal=(False, True))
    q, k, v = case.inputs(torch.float64)
    fine = q.repeat_interleave(2, 1).repeat_interleave(2, 2)
    for a, b in zip(case.call([fine, k, v], backend), case.call([q, k, v], backend), strict=True):
        copies = b.repeat_interleave(2, 1).repeat_interleave(2, 2)
        torch.testing.assert_close(a, copies, rtol=1e-12, atol=1e-13)


def test_a_coarse_layout_is_every_middle_child(backend):
    case = na((9, 8), (3, 4), stride=(2, 1), causal=(False, True))
    q, k, v = case.inputs(torch.float64)
    whole = case.call([q, k, v], backend)
    part = case.call([q[:, 1::3, 1::2], k, v], backend)
    for a, b in zip(part, whole, strict=True):
        torch.testing.assert_close(a, b[:, 1::3, 1::2], rtol=1e-12, atol=1e-13)


def test_no_queries(backend):
    q, k, v = torch.zeros(2, 0, 2, 8), *na((6,), (3,), batch=2).inputs()[1:]
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    out, lse = nf.na1d(q, k, v, 3, backend=backend, return_lse=True)
    assert out.shape == (2, 0, 2, 8) and lse.shape == (2, 0, 2)
    out.sum().backward()
    assert k.grad.eq(0).all() and v.grad.eq(0).all() and q.grad.shape == q.shape


def test_vmap_and_gradients_per_sample(backend):
    case = FEATURES[2]
    samples = [case.inputs(torch.float64, seed=i) for i in range(3)]
    stacked = [torch.stack(x) for x in zip(*samples, strict=True)]

    def loss(*x):
        out, lse = case.call(x, backend)
        return out.square().sum() + lse.sum()

    everything = tuple(range(len(stacked)))
    values = torch.vmap(lambda *x: case.call(x, backend))(*stacked)
    gradients = torch.vmap(torch.func.grad(loss, argnums=everything))(*stacked)
    for i, inputs in enumerate(samples):
        for a, b in zip(values, case.call(inputs, backend), strict=True):
            torch.testing.assert_close(a[i], b, rtol=1e-12, atol=1e-13)
        for a, b in zip(gradients, torch.func.grad(loss, argnums=everything)(*inputs), strict=True):
            torch.testing.assert_close(a[i], b, rtol=1e-12, atol=1e-13)


def test_compiled_and_meta(backend):
    case = FEATURES[2]
    leaves = case.inputs(requires_grad=True)
    upstream = case.upstream(leaves)
    f = torch.compile(lambda *x: case.call(x, backend), fullgraph=True, backend="aot_eager")
    out, lse = f(*leaves)
    results = dict(zip(case.gradients(), torch.autograd.grad((out, lse), leaves, upstream), strict=True))
    results.update(out=out, lse=lse)
    for name, expected in case.expected(leaves, *upstream).items():
        expected.check(results[name].detach(), name, "compiled")
    meta = case.call([x.detach().to("meta") for x in leaves])
    assert meta[0].shape == out.shape and meta[1].shape == lse.shape


def test_refusals():
    _, k, v = na((6, 8), (3, 3)).inputs()

    def call(layout, *more, **named):
        return nf.na2d(torch.zeros(1, *layout, 2, 8), k, v, *more, **named)

    with pytest.raises(ValueError, match=r"^\[na2d\] got .*dilation 2"):
        call((3, 8), 3, 1, (2, 1))
    call((6, 4), 3, 1, (2, 1))  # the other axis keeps its layout
    with pytest.raises(ValueError, match=r"^\[na2d\] got .*kernel_size 7"):  # of the keys' layout
        call((12, 16), 7)
    with pytest.raises(ValueError, match=r"^\[na2d\] got "):
        nf.na2d(torch.zeros(1, 3, 8, 2, 8), k, v[:, :5], 3)
    with pytest.raises(ValueError, match=r"^\[na2d\] got "):
        nf.na2d(torch.zeros(2, 3, 8, 2, 8), k, v, 3)
    with pytest.raises(ValueError, match=r"^\[na2d\] got "):
        nf.na2d(torch.zeros(1, 3, 2, 8), k, v, 3)
