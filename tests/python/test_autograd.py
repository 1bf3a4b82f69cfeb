# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Derivatives of every kind: gradcheck, forward mode, torch.func, checkpoint, autocast, and refusals."""

import pytest
import torch
from cases import dense, na
from torch.autograd import forward_ad, gradcheck
from torch.utils.checkpoint import checkpoint

import nearfield as nf

SMALL = {"heads": 1, "kv_heads": 1, "dim": 2, "value_dim": 2}
FEATURES = [
    na((4,), (3,), **SMALL),
    na((6,), (3,), stride=2, **SMALL),
    na((6,), (2,), dilation=3, **SMALL),
    na((5,), (3,), stride=2, causal=True, **SMALL),
    na((4,), (2,), heads=4, kv_heads=2, dim=3, value_dim=1),
    na((4,), (2,), additional=2, **SMALL),
    na((3,), (2,), additional=0, **SMALL),
    na((2, 3), (2, 2), additional=1, causal=(False, True), **SMALL),
    na((2, 2, 3), (1, 2, 2), stride=(1, 1, 2), dilation=(2, 1, 1), causal=(False, True, False), **SMALL),
    na((4,), (3,), scale=0.0, **SMALL),
    na((4,), (3,), batch=2, scale=-1.5, **SMALL),
    dense(3, 4, **SMALL),
    dense(3, 5, "tl", heads=2, kv_heads=1, dim=2, value_dim=3),
    dense(3, 5, "br", **SMALL),
    dense(5, 3, "tl", **SMALL),
    dense(3, 3, "dc", **SMALL),
]


def _seeing(case, out, lse):
    """lse without the rows that see nothing: finite differences of -inf are NaN."""
    rows = torch.ones(lse.shape[1:-1].numel(), dtype=torch.bool)
    if case.additional is None:
        rows = case.mask().any(-1)
    return out, lse.flatten(1, -2)[:, rows]


def _function(case, backend):
    return lambda *inputs: _seeing(case, *case.call(inputs, backend))


@pytest.mark.parametrize("case", [*FEATURES, dense(4, 2, "br", **SMALL)], ids=str)
def test_gradcheck(case, backend):
    """out and lse together, then each alone, with respect to everything."""
    leaves = case.inputs(torch.float64, requires_grad=True)
    f = _function(case, backend)
    assert gradcheck(f, leaves)
    assert gradcheck(lambda *x: f(*x)[0], leaves)
    assert gradcheck(lambda *x: f(*x)[1], leaves[:2] + [x.detach() for x in leaves[2:]])


@pytest.mark.parametrize("which", [(0,), (1,), (2,), (3,), (4,), (0, 2), (1, 4), (3, 4)], ids=str)
def test_only_what_requires_grad_gets_one(which, backend):
    case = na((4, 5), (3, 2), additional=3, kv_heads=1)
    leaves = case.inputs(torch.float64)
    upstream = case.upstream(leaves)
    everything = [x.clone().requires_grad_() for x in leaves]
    expected = torch.autograd.grad(case.call(everything, backend), everything, upstream)
    for i in which:
        leaves[i].requires_grad_()
    out, lse = case.call(leaves, backend)
    assert out.requires_grad
    if lse.requires_grad:
        torch.autograd.backward((out, lse), upstream)
    else:  # values have no influence on it
        assert not {0, 1, 3} & set(which)
        out.backward(upstream[0])
    for i, x in enumerate(leaves):
        assert (x.grad is not None) == (i in which)
        if i in which:
            torch.testing.assert_close(x.grad, expected[i], rtol=1e-12, atol=1e-13)


def test_without_gradients(backend):
    case = na((5, 6), (3, 3))
    leaves = case.inputs(requires_grad=True)
    with_graph = case.call(leaves, backend)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            plain = case.call(leaves, backend)
        assert not plain[0].requires_grad and not plain[1].requires_grad
        assert all(torch.equal(a, b) for a, b in zip(plain, with_graph, strict=True))
    detached = case.call([x.detach() for x in leaves], backend)
    assert not detached[0].requires_grad and torch.equal(detached[0], with_graph[0])


def test_gradients_accumulate_and_graphs_can_be_retained(backend):
    case = na((6,), (3,), additional=2)
    leaves = case.inputs(requires_grad=True)
    out, lse = case.call(leaves, backend)
    seeds = case.upstream(leaves)
    first = torch.autograd.grad((out, lse), leaves, seeds, retain_graph=True)
    second = torch.autograd.grad((out, lse), leaves, seeds)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("case", [FEATURES[1], FEATURES[5], FEATURES[13]], ids=str)
def test_double_backward_is_refused(case, backend):
    """Not silently wrong: the first gradient is right, the second says why there is none."""
    leaves = case.inputs(torch.float64, requires_grad=True)
    out, lse = case.call(leaves, backend)
    first = torch.autograd.grad(out.sum() + lse.sum(), leaves, create_graph=True)
    plain = torch.autograd.grad(sum(x.sum() for x in case.call(leaves, backend)), leaves)
    assert all(torch.equal(a, b) for a, b in zip(first, plain, strict=True))
    with pytest.raises((RuntimeError, NotImplementedError), match=r"(?i)double backward|second|twice"):
        torch.autograd.grad(sum(x.square().sum() for x in first), leaves)


# ------------------------------------------------------------------------------------------------
# Forward mode and torch.func


def _tangent(f, inputs, tangents, step=1e-6):
    plus = f(*(x + step * t for x, t in zip(inputs, tangents, strict=True)))
    minus = f(*(x - step * t for x, t in zip(inputs, tangents, strict=True)))
    return [(a - b) / (2 * step) for a, b in zip(plus, minus, strict=True)]


@pytest.mark.parametrize("case", [*FEATURES, dense(4, 2, "br", **SMALL)], ids=str)
def test_jvp(case, backend):
    inputs = case.inputs(torch.float64)
    tangents = case.inputs(torch.float64, seed=9)
    f = _function(case, backend)
    expected = _tangent(f, inputs, tangents)
    values, got = torch.func.jvp(f, tuple(inputs), tuple(tangents))
    for a, b in zip(values, f(*inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_dual_tensors(backend):
    """One input with a tangent, the others without."""
    case = na((4, 5), (3, 2), kv_heads=1, additional=2)
    inputs = case.inputs(torch.float64)
    f = _function(case, backend)
    for i in range(5):
        tangents = [torch.zeros_like(x) for x in inputs]
        tangents[i] = torch.randn_like(inputs[i])
        expected = _tangent(f, inputs, tangents)
        with forward_ad.dual_level():
            dual = list(inputs)
            dual[i] = forward_ad.make_dual(inputs[i], tangents[i])
            got = [forward_ad.unpack_dual(x).tangent for x in f(*dual)]
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(torch.zeros_like(b) if a is None else a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("case", [FEATURES[3], FEATURES[7], dense(4, 2, "br", **SMALL)], ids=str)
def test_func_grad_and_jacrev(case, backend):
    leaves = case.inputs(torch.float64, requires_grad=True)
    seeds = case.upstream(leaves)

    def loss(*inputs):
        out, lse = case.call(inputs, backend)
        return (out * seeds[0]).sum() + torch.where(lse.isinf(), 0, lse * seeds[1]).sum()

    expected = torch.autograd.grad(loss(*leaves), leaves)
    plain = [x.detach() for x in leaves]
    for a, b in zip(torch.func.grad(loss, argnums=tuple(range(len(plain))))(*plain), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
    jacobian = torch.func.jacrev(lambda q: case.call([q, *plain[1:]], backend, return_lse=False))(plain[0])
    got = torch.tensordot(seeds[0], jacobian, seeds[0].ndim)
    out_only = torch.autograd.grad(case.call(leaves, backend, return_lse=False), leaves[0], seeds[0])[0]
    torch.testing.assert_close(got, out_only, rtol=1e-11, atol=1e-12)


def test_jacfwd_and_jacrev_agree_and_second_derivatives_are_refused(backend):
    case = na((4,), (3,), heads=2, kv_heads=1, dim=2, value_dim=2)
    q, k, v = case.inputs(torch.float64)

    def f(q):
        return case.call([q, k, v], backend, return_lse=False)

    torch.testing.assert_close(torch.func.jacfwd(f)(q), torch.func.jacrev(f)(q), rtol=1e-10, atol=1e-12)
    for second in (torch.func.hessian, lambda f: torch.func.jacrev(torch.func.jacrev(f))):
        with pytest.raises((RuntimeError, NotImplementedError), match=r"(?i)double backward|second|twice"):
            second(f)(q)


def test_what_backward_needs_may_not_be_overwritten(backend):
    """torch's own complaint, not a wrong gradient."""
    case = na((5,), (3,))
    for victim in range(4):
        leaves = case.inputs(requires_grad=True)
        inputs = [x * 1 for x in leaves]
        out, _ = case.call(inputs, backend)
        with torch.no_grad():
            (*inputs, out)[victim].mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.sum().backward()


def _stacked(case, n=3, dtype=torch.float64):
    return [torch.stack(x) for x in zip(*(case.inputs(dtype, seed=i) for i in range(n)), strict=True)]


@pytest.mark.parametrize("case", [FEATURES[4], FEATURES[7], dense(3, 5, "br", batch=2)], ids=str)
def test_vmap(case, backend):
    """Over every input, over some of them, over an inner axis, and nested."""
    stacked = _stacked(case)
    f = _function(case, backend)
    single = [f(*x) for x in zip(*stacked, strict=True)]
    for got, expected in zip(torch.vmap(f)(*stacked), zip(*single, strict=True), strict=True):
        torch.testing.assert_close(got, torch.stack(expected), rtol=1e-12, atol=1e-13)
    dims = (0,) + (None,) * (len(stacked) - 1)
    got = torch.vmap(f, in_dims=dims)(stacked[0], *(x[0] for x in stacked[1:]))[0]
    expected = torch.stack([f(q, *(x[0] for x in stacked[1:]))[0] for q in stacked[0]])
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)
    inner = [x.movedim(0, 2) for x in stacked]
    got = torch.vmap(f, in_dims=2, out_dims=1)(*inner)[0].movedim(1, 0)
    torch.testing.assert_close(got, torch.stack([s[0] for s in single]), rtol=1e-12, atol=1e-13)
    pairs = [x.reshape(3, 1, *x.shape[1:]) for x in stacked]
    got = torch.vmap(torch.vmap(f))(*pairs)[0].squeeze(1)
    torch.testing.assert_close(got, torch.stack([s[0] for s in single]), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("case", [FEATURES[4], FEATURES[7], dense(3, 5, "tl")], ids=str)
def test_vmap_of_a_gradient_and_back(case, backend):
    stacked = _stacked(case)
    everything = tuple(range(len(stacked)))

    def loss(*inputs):
        out, lse = case.call(inputs, backend)
        return out.square().sum() + lse.sin().sum()

    each = [torch.func.grad(loss, everything)(*x) for x in zip(*stacked, strict=True)]
    got = torch.vmap(torch.func.grad(loss, everything))(*stacked)
    through = torch.func.grad(lambda *x: torch.vmap(loss)(*x).sum(), everything)(*stacked)
    for a, b, c in zip(got, through, zip(*each, strict=True), strict=True):
        torch.testing.assert_close(a, torch.stack(c), rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(b, torch.stack(c), rtol=1e-11, atol=1e-12)


# ------------------------------------------------------------------------------------------------
# Checkpoint and autocast


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint(reentrant, backend):
    case = na((5, 6), (3, 3), additional=2, kv_heads=1)
    leaves = case.inputs(requires_grad=True)
    seeds = case.upstream(leaves)
    expected = torch.autograd.grad(case.call(leaves, backend), leaves, seeds)
    again = checkpoint(lambda *x: case.call(x, backend), *leaves, use_reentrant=reentrant)
    torch.autograd.backward(again, seeds)
    assert all(torch.equal(x.grad, g) for x, g in zip(leaves, expected, strict=True))


@pytest.mark.parametrize("case", [na((5, 6), (3, 3), additional=2), dense(5, 6, "br")], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_casts_as_scaled_dot_product_attention_would(case, dtype, backend):
    leaves = case.inputs(requires_grad=True)
    with torch.autocast("cpu", dtype=dtype):
        out, lse = case.call(leaves, backend)
        inner = [x.detach().transpose(1, 2) for x in leaves[:3]]
        if len(case.layout) == 1 or not case.window:
            assert torch.nn.functional.scaled_dot_product_attention(*inner).dtype == out.dtype
    assert out.dtype == dtype and lse.dtype == torch.float32
    low = [x.detach().to(dtype) for x in leaves]
    plain = case.call(low, backend)
    assert torch.equal(out, plain[0]) and torch.equal(lse, plain[1])
    out.float().sum().backward()
    assert all(x.grad.dtype == torch.float32 and x.grad.isfinite().all() for x in leaves)


def test_autocast_leaves_float64_alone_and_mends_mixed_inputs(backend):
    q, k, v = na((6,), (3,)).inputs(torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nf.na1d(q, k, v, 3, backend=backend).dtype == torch.float64
        mixed = nf.na1d(q.float(), k.to(torch.bfloat16), v.half(), 3, backend=backend)
        assert mixed.dtype == torch.bfloat16
    with torch.autocast("cpu", enabled=False):
        assert nf.na1d(q.float(), k.float(), v.float(), 3, backend=backend).dtype == torch.float32


def test_jvp_keeps_nan_away_from_queries_that_do_not_see_it():
    q, k, v, dq = (torch.randn(1, 6, 1, 4, dtype=torch.float64) for _ in range(4))
    k[0, 5] = torch.nan

    def f(q):
        return nf.attention(q, k, v, True, nf.CausalType.TopLeft, return_lse=True)

    for tangent in torch.func.jvp(f, (q,), (dq,))[1]:
        assert tangent[0, :5].isfinite().all() and tangent[0, 5].isnan().all()
