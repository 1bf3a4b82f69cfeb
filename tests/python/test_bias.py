# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Relative position bias in na1d, na2d, na3d: values, every gradient, forward mode, transforms, refusals."""

import dataclasses

import pytest
import torch
from cases import na
from torch.autograd import forward_ad, gradcheck

import nearfield as nf

SMALL = {"heads": 2, "kv_heads": 1, "dim": 2, "value_dim": 2, "bias": True}
CASES = [
    na((1,), (1,), bias=True),
    na((9,), (3,), bias=True, batch=2),
    na((10,), (4,), stride=3, bias=True, kv_heads=1),
    na((11,), (4,), stride=4, causal=True, bias=True),
    na((20,), (3,), stride=2, dilation=3, causal=True, bias=True, dim=7, value_dim=5),
    na((17,), (17,), bias=True, heads=3, kv_heads=3),
    na((70,), (33,), stride=5, heads=4, kv_heads=2, dim=16, value_dim=24, bias=True),
    na((6, 7), (3, 4), bias=True, additional=0),
    na((8, 9), (3, 2), stride=(2, 1), dilation=(2, 3), causal=(True, False), heads=6, bias=True),
    na((7, 5), (3, 3), dilation=(2, 1), additional=2, value_dim=3, batch=2, bias=True),
    na((16, 18), (7, 5), heads=4, kv_heads=1, dim=32, value_dim=32, bias=True),
    na((6, 6), (3, 3), scale=0.0, bias=True),
    na((3, 4, 5), (2, 3, 3), scale=-0.7, bias=True),
    na((4, 4, 4), (2, 2, 3), stride=(2, 1, 3), dilation=(2, 1, 1), causal=(True, False, True), bias=True),
    na((3, 5, 4), (3, 3, 2), causal=(True, False, False), additional=5, heads=4, kv_heads=2, bias=True),
]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
FEATURES = [
    na((4,), (3,), **SMALL),
    na((6,), (3,), stride=2, causal=True, **SMALL),
    na((6,), (2,), dilation=3, **SMALL),
    na((2, 3), (2, 2), additional=1, causal=(False, True), **SMALL),
    na((2, 2, 3), (1, 2, 2), stride=(1, 1, 2), dilation=(2, 1, 1), batch=2, **SMALL),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64", "bf16", "f16"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_and_gradients(case, dtype, backend):
    inputs = case.inputs(dtype)
    case.check(inputs, backend, *case.upstream(inputs))


def test_gradient_of_one_output_alone(backend):
    case = CASES[9]
    inputs = case.inputs()
    grad_out, grad_lse = case.upstream(inputs)
    case.check(inputs, backend, grad_out)
    leaves = case.inputs(requires_grad=True)
    (dbias,) = torch.autograd.grad(case.call(leaves, backend)[1], leaves[-1], grad_lse)
    case.expected(inputs, torch.zeros_like(grad_out), grad_lse)["dbias"].check(dbias, "dbias", str(case))


@pytest.mark.parametrize("case", FEATURES, ids=str)
def test_gradcheck(case, backend):
    leaves = case.inputs(torch.float64, requires_grad=True)
    assert gradcheck(lambda *x: case.call(x, backend), leaves)
    assert gradcheck(lambda b: case.call([*(x.detach() for x in leaves[:-1]), b], backend), leaves[-1:])


def test_a_bias_of_zero_is_none(backend):
    case = CASES[8]
    inputs = case.inputs()
    plain = dataclasses.replace(case, bias=False).call(inputs[:-1], backend)
    biased = case.call([*inputs[:-1], torch.zeros_like(inputs[-1])], backend)
    for a, b in zip(plain, biased, strict=True):
        torch.testing.assert_close(a, b)


def test_a_constant_moves_lse_alone(backend):
    case = CASES[8]
    inputs = case.inputs(torch.float64)
    out, lse = case.call(inputs, backend)
    higher, lse_higher = case.call([*inputs[:-1], inputs[-1] + 3], backend)
    torch.testing.assert_close(out, higher, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(lse + 3, lse_higher, rtol=1e-12, atol=1e-13)


def test_the_offset_is_key_minus_query(backend):
    """A bias far above all scores at one entry makes each query look at one key, where it sees it."""
    q, k = torch.zeros(2, 1, 9, 1, 2)
    v = torch.arange(9.0).reshape(1, 9, 1, 1)
    bias = torch.zeros(1, 5)
    bias[0, 3] = 100  # key - query = 3 - (k - 1) = 1
    out = nf.na1d(q, k, v, 3, bias=bias, backend=backend).flatten()
    assert out.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, pytest.approx(7)]  # the last sees 6, 7, 8
    dilated = nf.na1d(q, k, v, 3, dilation=2, bias=bias, backend=backend).flatten()
    assert dilated[:7].tolist() == [2, 3, 4, 5, 6, 7, 8]


def test_bias_may_lie_anywhere_and_is_not_written(backend):
    case = CASES[8]
    inputs = case.inputs()
    bias = inputs[-1]
    wide = torch.full((*bias.shape[:-1], 2 * bias.shape[-1] + 1), torch.nan)
    wide[..., 1::2] = bias
    for other in (bias.mT.contiguous().mT, wide[..., 1::2], bias[:1].expand_as(bias)):
        kept = other.clone()
        case.check([*inputs[:-1], other], backend, *case.upstream(inputs))
        assert torch.equal(kept, other)


def test_only_bias_requires_grad(backend):
    case = CASES[7]
    inputs = case.inputs()
    grad_out, grad_lse = case.upstream(inputs)
    expected = case.expected(inputs, grad_out, grad_lse)["dbias"]
    inputs[-1].requires_grad_()
    torch.autograd.backward(case.call(inputs, backend), (grad_out, grad_lse))
    assert all(x.grad is None for x in inputs[:-1])
    expected.check(inputs[-1].grad, "dbias")


def test_second_derivatives_are_refused(backend):
    case = FEATURES[0]
    leaves = case.inputs(torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(case.call(leaves, backend)[0].sum(), leaves[-1:], create_graph=True)
    with pytest.raises(NotImplementedError, match="second differentiation"):
        torch.autograd.grad(first.square().sum(), leaves[-1])


# ------------------------------------------------------------------------------------------------
# Forward mode, transforms, compilation


@pytest.mark.parametrize("case", FEATURES, ids=str)
def test_jvp(case, backend):
    inputs, tangents = case.inputs(torch.float64), case.inputs(torch.float64, seed=9)

    def f(*x):
        return case.call(x, backend)

    step = 1e-6
    plus = f(*(x + step * t for x, t in zip(inputs, tangents, strict=True)))
    minus = f(*(x - step * t for x, t in zip(inputs, tangents, strict=True)))
    values, got = torch.func.jvp(f, tuple(inputs), tuple(tangents))
    for a, b, c, d in zip(plus, minus, got, values, strict=True):
        torch.testing.assert_close(c, (a - b) / (2 * step), rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(d, (a + b) / 2, rtol=1e-6, atol=1e-8)


def test_a_tangent_of_bias_alone(backend):
    """dout and dlse along a change of bias are those of the gradients of every output element."""
    case = FEATURES[3]
    inputs = case.inputs(torch.float64)
    tangent = torch.randn_like(inputs[-1])
    with forward_ad.dual_level():
        dual = [*inputs[:-1], forward_ad.make_dual(inputs[-1], tangent)]
        got = [forward_ad.unpack_dual(x).tangent for x in case.call(dual, backend)]
    for i in range(2):
        jacobian = torch.func.jacrev(lambda b, i=i: case.call([*inputs[:-1], b], backend)[i])(inputs[-1])
        torch.testing.assert_close(got[i], torch.tensordot(jacobian, tangent, tangent.ndim))


@pytest.mark.parametrize("mapped", [False, True], ids=["one_bias", "mapped_bias"])
def test_vmap(mapped, backend):
    case = FEATURES[3]
    samples = [case.inputs(torch.float64, seed=i) for i in range(3)]
    if not mapped:
        samples = [[*inputs[:-1], samples[0][-1]] for inputs in samples]
    stacked = [torch.stack(x) for x in zip(*samples, strict=True)]
    dims = (0,) * (len(stacked) - 1) + ((0,) if mapped else (None,))
    if not mapped:
        stacked[-1] = samples[0][-1]
    got = torch.vmap(lambda *x: case.call(x, backend), in_dims=dims)(*stacked)
    for i, inputs in enumerate(samples):
        for a, b in zip(got, case.call(inputs, backend), strict=True):
            torch.testing.assert_close(a[i], b, rtol=1e-12, atol=1e-13)


def test_gradients_per_sample(backend):
    """One bias, a gradient for every sample: not their sum."""
    case = FEATURES[3]
    samples = [case.inputs(torch.float64, seed=i) for i in range(3)]
    bias = samples[0][-1]
    stacked = [torch.stack(x) for x in zip(*(inputs[:-1] for inputs in samples), strict=True)]

    def loss(bias, *x):
        out, lse = case.call([*x, bias], backend)
        return out.square().sum() + lse.sum()

    dims = (None,) + (0,) * len(stacked)
    got = torch.vmap(torch.func.grad(loss), in_dims=dims)(bias, *stacked)
    for i, inputs in enumerate(samples):
        torch.testing.assert_close(got[i], torch.func.grad(loss)(bias, *inputs[:-1]), rtol=1e-12, atol=1e-13)


def test_compiled(backend):
    case = FEATURES[3]
    leaves = case.inputs(requires_grad=True)
    upstream = case.upstream(leaves)
    f = torch.compile(lambda *x: case.call(x, backend), fullgraph=True, backend="aot_eager")
    out, lse = f(*leaves)
    results = dict(zip(case.gradients(), torch.autograd.grad((out, lse), leaves, upstream), strict=True))
    results.update(out=out, lse=lse)
    for name, expected in case.expected(leaves, *upstream).items():
        expected.check(results[name].detach(), name, "compiled")


def test_autocast_casts_bias_too(backend):
    case = CASES[7]
    inputs = case.inputs(requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = case.call(inputs, backend)
    rounded = [x.detach().bfloat16() for x in inputs]
    assert out.dtype == torch.bfloat16 and torch.equal(out, case.call(rounded, backend)[0])
    gradients = torch.autograd.grad(out, inputs, torch.ones_like(out))
    assert all(g.dtype == torch.float32 for g in gradients)


# ------------------------------------------------------------------------------------------------
# Refusals


@pytest.mark.parametrize(
    "shape",
    [
        (2, 5),
        (2, 5, 3, 1),
        (5, 3),
        (1, 5, 3),
        (4, 5, 3),
        (2, 3, 5),
        (2, 5, 2),
        (2, 6, 3),
        (2, 0, 3),
        (0, 5, 3),
    ],
    ids=str,
)
def test_wrong_shapes(shape, backend):
    """Of heads 2 and window 3 x 2, which takes [2, 5, 3]."""
    q, k, v = na((6, 7), (3, 2)).inputs()
    with pytest.raises(ValueError, match=r"^\[na2d\] got .*bias") as e:
        nf.na2d(q, k, v, (3, 2), bias=torch.zeros(shape), backend=backend)
    assert "(2, 5, 3)" in str(e.value)


def test_wrong_kinds():
    q, k, v = na((6,), (3,)).inputs()
    for wrong, error, words in (
        (torch.zeros(2, 5, dtype=torch.float64), ValueError, "float64"),
        (torch.zeros(2, 5, dtype=torch.int64), ValueError, "int64"),
        (torch.zeros(2, 5, device="meta"), ValueError, "meta"),
        (torch.zeros(2, 5).to_sparse(), NotImplementedError, "sparse"),
        ([[0.0] * 5] * 2, TypeError, "list"),
        (0.5, TypeError, "float"),
    ):
        with pytest.raises(error, match=rf"^\[na1d\] got .*{words}"):
            nf.na1d(q, k, v, 3, bias=wrong)


def test_refused_with_a_query_layout():
    _, k, v = na((6, 7), (3, 3)).inputs()
    for layout in ((3, 7), (6, 14), (12, 14)):
        q = torch.zeros(1, *layout, 2, 8)
        with pytest.raises(ValueError, match=r"^\[na2d\] got .*bias"):
            nf.na2d(q, k, v, 3, bias=torch.zeros(2, 5, 5))
