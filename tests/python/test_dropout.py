# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Dropout on the weights: the contract's mask on every backend, its gradients, where seeds come from."""

import dataclasses
import math

import pytest
import torch
from cases import BACKENDS, dense, na
from oracle import dense_mask, evaluate
from philox import factors
from torch.autograd import gradcheck
from torch.utils.checkpoint import checkpoint

import nearfield as nf
from nearfield import _autograd, _core, _ops

CASES = [
    na((9,), (3,), dropout=0.5, seed=1),
    na((10,), (4,), stride=3, batch=2, dropout=0.3, seed=-5),
    na((13,), (2,), dilation=5, value_dim=5, dropout=0.99, seed=2**33 + 7),  # many queries keep nothing
    na((20,), (3,), stride=2, dilation=3, causal=True, heads=3, kv_heads=3, dim=7, dropout=0.1, seed=9),
    na((70,), (33,), heads=4, kv_heads=2, dim=16, value_dim=24, dropout=1 / 3, seed=-(2**63)),
    na((8, 9), (3, 2), stride=(2, 1), dilation=(2, 3), causal=(True, False), heads=6, dropout=0.5, seed=3),
    na((7, 5), (3, 3), dilation=(2, 1), additional=2, value_dim=3, batch=2, dropout=0.4, seed=4),
    na((6, 6), (3, 3), additional=3, bias=True, dropout=0.4, seed=5),
    na((5, 6), (3, 3), queries=(3, 8), additional=3, dropout=0.4, seed=6),
    na((4, 4, 4), (2, 2, 3), stride=(2, 1, 3), dilation=(2, 1, 1), batch=2, dropout=0.2, seed=7),
    dense(9, 14, "tl", heads=4, value_dim=6, dropout=0.5, seed=8),
    dense(14, 9, "br", heads=4, batch=2, dropout=0.5, seed=2**62),
    dense(70, 97, kv_heads=1, dim=33, value_dim=17, dropout=0.1, seed=10),
]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SMALL = {"heads": 2, "kv_heads": 1, "dim": 2, "value_dim": 2, "dropout": 0.4, "seed": 3}
FEATURES = [
    na((6,), (3,), **SMALL),
    na((2, 3), (2, 2), additional=2, causal=(False, True), bias=True, **SMALL),
    na((2, 2, 3), (1, 2, 2), dilation=(2, 1, 1), batch=2, **SMALL),
    dense(4, 5, "br", **SMALL),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64", "bf16", "f16"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_and_gradients(case, dtype, backend):
    inputs = case.inputs(dtype)
    case.check(inputs, backend, *case.upstream(inputs))


@pytest.mark.parametrize("case", FEATURES, ids=str)
def test_gradcheck(case, backend):
    assert gradcheck(lambda *x: case.call(x, backend), case.inputs(torch.float64, requires_grad=True))


# ------------------------------------------------------------------------------------------------
# The mask


def _weights(case, backend):
    """What each key contributes, [B, H, N, M + S]: values are unit vectors."""
    q, k, v, *extra = case.inputs()
    keys, more = math.prod(k.shape[1:-2]), case.additional or 0
    unit = torch.eye(keys + more)

    def values(like, part):
        return part[None, :, None].expand(like.shape[0], -1, like.shape[-2], -1).reshape(*like.shape[:-1], -1)

    inputs = [q, k, values(v, unit[:keys]), *extra]
    if more:
        inputs[4] = values(extra[1], unit[keys:])
    return case.call(inputs, backend, return_lse=False).flatten(1, -3).transpose(1, 2)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_mask_is_the_contracts(case, backend, threads):
    plain = _weights(dataclasses.replace(case, dropout=0.0), backend)
    expected = plain * case.factor()
    for number in (1, 3):
        threads(number)
        dropped = _weights(case, backend)
        assert torch.equal(dropped > 0, expected > 0)
        torch.testing.assert_close(dropped, expected.float(), rtol=1e-5, atol=0)


def test_lse_is_that_of_the_undropped_softmax(backend):
    for case in CASES[5:8]:
        inputs = case.inputs()
        plain = dataclasses.replace(case, dropout=0.0)
        # Not the same bits: without dropout another kernel may run.
        torch.testing.assert_close(case.call(inputs, backend)[1], plain.call(inputs, backend)[1])


def test_a_packed_sequence_counts_by_its_number_and_its_own_tokens(backend):
    """The raster restarts with every sequence, whose number stands for the batch; empty ones count."""
    queries, keys, heads, p, seed = (5, 0, 7, 3), (6, 4, 0, 9), 2, 0.4, -77
    offsets = [torch.tensor([0, *n]).cumsum(0).to(torch.int32) for n in (queries, keys)]
    q = torch.randn(1, sum(queries), heads, 8, requires_grad=True)
    k, v = torch.randn(2, 1, sum(keys), 1, 8).requires_grad_().unbind()
    config = _ops.Config(
        seed=torch.tensor([seed]),
        offsets_query=offsets[0],
        offsets_key=offsets[1],
        dropout_p=p,
        function=_core.FUNCTIONS.index("attention"),
        backend=_ops.BACKENDS[backend],
    )
    out, lse = _autograd.attend(q, k, v, None, None, None, config)
    grad_out, grad_lse = torch.randn_like(out), torch.randn_like(lse)
    got = dict(
        zip(("dq", "dk", "dv"), torch.autograd.grad((out, lse), (q, k, v), (grad_out, grad_lse)), strict=True)
    )
    got.update(out=out, lse=lse)
    for i, (n, m) in enumerate(zip(queries, keys, strict=True)):
        rows, columns = (slice(*offsets[j][i : i + 2].tolist()) for j in range(2))
        part = [
            q[:, rows],
            k[:, columns],
            v[:, columns],
            dense_mask(n, m),
            grad_out[:, rows],
            grad_lse[:, rows],
        ]
        factor = factors(seed, p, [i], range(heads), range(n), range(m))
        for name, expected in evaluate(*part, factor=factor).items():
            at = columns if name in ("dk", "dv") else rows
            expected.check(got[name].detach()[:, at], name, f"of sequence {i}")


def test_the_mean_over_seeds_is_the_undropped_output(backend):
    case = na((12,), (5,), batch=2, dim=4, value_dim=4, dropout=0.3)
    inputs = case.inputs(torch.float64, requires_grad=True)
    upstream = case.upstream(inputs)[0]
    number = 400
    outs, grads = [], []
    for seed in range(number):
        out = dataclasses.replace(case, seed=seed).call(inputs, backend, return_lse=False)
        outs.append(out.detach())
        grads.append(torch.autograd.grad(out, inputs[2], upstream)[0])
    plain = dataclasses.replace(case, dropout=0.0).call(inputs, backend, return_lse=False)
    for samples, exact in ((outs, plain), (grads, torch.autograd.grad(plain, inputs[2], upstream)[0])):
        samples = torch.stack(samples)
        error = (samples.mean(0) - exact).abs() / (samples.std(0) / number**0.5)
        assert error.max() < 5 and error.square().mean() < 1.5  # of about a hundred standard normal numbers


# ------------------------------------------------------------------------------------------------
# Seeds

PLAIN = na((6, 7), (3, 3), additional=2)


def _call(inputs, backend=None, **more):
    return nf.na2d(
        *inputs[:3],
        3,
        additional_keys=inputs[3],
        additional_values=inputs[4],
        dropout_p=0.5,
        backend=backend,
        **more,
    )


def test_torch_draws_the_seed(backend):
    inputs = PLAIN.inputs()
    torch.manual_seed(5)
    first, second = _call(inputs, backend), _call(inputs, backend)
    assert not torch.equal(first, second)
    torch.manual_seed(5)
    assert torch.equal(first, _call(inputs, backend)) and torch.equal(second, _call(inputs, backend))
    torch.manual_seed(6)
    assert not torch.equal(first, _call(inputs, backend))


def test_attention_draws_one_too(backend):
    q, k, v = dense(7, 9).inputs()
    torch.manual_seed(5)
    first, second = (nf.attention(q, k, v, dropout_p=0.5, backend=backend) for _ in range(2))
    torch.manual_seed(5)
    assert not torch.equal(first, second)
    assert torch.equal(first, nf.attention(q, k, v, dropout_p=0.5, backend=backend))


def test_backends_draw_alike():
    """The same state of the generator, the same mask, whoever runs the call."""
    outs = []
    for backend in (*BACKENDS, None):
        torch.manual_seed(5)
        outs.append(_call(PLAIN.inputs(torch.float64), backend))
    for other in outs[1:]:
        torch.testing.assert_close(other, outs[0], rtol=1e-12, atol=1e-13)


def test_without_dropout_nothing_is_drawn(backend):
    inputs = PLAIN.inputs()
    state = torch.get_rng_state()
    assert torch.equal(PLAIN.call(inputs, backend)[0], PLAIN.call(inputs, backend, dropout_p=0.0)[0])
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, math.nan, math.inf, -math.inf])
def test_values_that_are_no_probability(p):
    q, k, v = na((6,), (3,)).inputs()
    for f in (lambda: nf.na1d(q, k, v, 3, dropout_p=p), lambda: nf.attention(q, k, v, dropout_p=p)):
        with pytest.raises(ValueError, match=r"^\[(na1d|attention)\] got dropout_p .*0 <= dropout_p < 1"):
            f()


@pytest.mark.parametrize("p", [True, "0.5", None, [0.5]], ids=str)
def test_things_that_are_no_number(p):
    q, k, v = na((6,), (3,)).inputs()
    with pytest.raises(TypeError, match=r"^\[na1d\] got dropout_p"):
        nf.na1d(q, k, v, 3, dropout_p=p)


def test_the_operator_wants_one_seed(backend):
    q, k, v = na((6,), (3,)).inputs()
    config = _ops.Config(axes=(3, 1, 1, 0), dropout_p=0.5, backend=_ops.BACKENDS[backend])
    wrong = [None, torch.tensor([1, 2]), torch.tensor([1.0]), torch.empty(0, dtype=torch.int64)]
    for seed in wrong:
        with pytest.raises(ValueError, match=r"^\[na1d\] got .*seed"):
            _autograd.attend(q, k, v, None, None, None, config._replace(seed=seed))


# ------------------------------------------------------------------------------------------------
# The backward pass has the forward pass's mask, whoever runs it


def _consistent(out, value_leaves, grad_out):
    """out is linear in the values, so <out, dO> = sum <v, dV>: false if the two masks differ."""
    gradients = torch.autograd.grad(out, value_leaves, grad_out)
    ours = sum((v.detach().double() * g.double()).sum() for v, g in zip(value_leaves, gradients, strict=True))
    torch.testing.assert_close(ours, (out.detach().double() * grad_out.double()).sum(), rtol=1e-4, atol=1e-4)
    return gradients


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint(reentrant, backend):
    inputs = PLAIN.inputs(requires_grad=True)
    grad_out = PLAIN.upstream(inputs)[0]
    torch.manual_seed(5)
    plain = _call(inputs, backend)
    expected = torch.autograd.grad(plain, inputs, grad_out)
    torch.manual_seed(5)
    out = checkpoint(lambda *x: _call(x, backend), *inputs, use_reentrant=reentrant)
    torch.rand(3)  # somebody draws in between
    torch.autograd.backward(out, grad_out)
    assert torch.equal(out, plain)
    for x, gradient in zip(inputs, expected, strict=True):
        assert torch.equal(x.grad, gradient)


def test_retained_graphs_and_later_draws(backend):
    inputs = PLAIN.inputs(requires_grad=True)
    out = _call(inputs, backend)
    grad_out = PLAIN.upstream(inputs)[0]
    first = torch.autograd.grad(out, inputs, grad_out, retain_graph=True)
    _call(inputs, backend)
    for a, b in zip(first, torch.autograd.grad(out, inputs, grad_out), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compiled(compiler):
    inputs = PLAIN.inputs(requires_grad=True)
    grad_out = PLAIN.upstream(inputs)[0]
    f = torch.compile(lambda *x: _call(x), fullgraph=True, backend=compiler)
    torch.manual_seed(5)
    first, second = f(*inputs), f(*inputs)
    assert not torch.equal(first, second)  # the seed is no constant of the graph
    _consistent(first, [inputs[2], inputs[4]], grad_out)
    _consistent(second, [inputs[2], inputs[4]], grad_out)
    torch.manual_seed(5)
    assert torch.equal(first, f(*inputs))


def test_jvp(backend):
    for case in FEATURES:
        inputs, tangents = case.inputs(torch.float64), case.inputs(torch.float64, seed=9)
        step = 1e-6
        rows = ... if case.window else slice(None)

        def f(*x, case=case, rows=rows):
            return [y[rows] for y in case.call(x, backend)]

        plus = f(*(x + step * t for x, t in zip(inputs, tangents, strict=True)))
        minus = f(*(x - step * t for x, t in zip(inputs, tangents, strict=True)))
        _, got = torch.func.jvp(f, tuple(inputs), tuple(tangents))
        for a, b, c in zip(plus, minus, got, strict=True):
            torch.testing.assert_close(c, (a - b) / (2 * step), rtol=1e-6, atol=1e-8)


def test_jvp_draws_like_the_plain_call(backend):
    inputs = tuple(PLAIN.inputs(torch.float64))
    torch.manual_seed(5)
    plain = _call(inputs, backend)
    torch.manual_seed(5)
    out, tangent = torch.func.jvp(
        lambda v: _call([*inputs[:2], v, *inputs[3:]], backend), inputs[2:3], inputs[2:3]
    )
    torch.testing.assert_close(out, plain, rtol=1e-12, atol=1e-13)
    torch.manual_seed(5)  # linear in the values, with the same mask
    zero = torch.zeros_like(inputs[4])
    torch.testing.assert_close(tangent, _call([*inputs[:4], zero], backend), rtol=1e-12, atol=1e-13)


# ------------------------------------------------------------------------------------------------
# vmap, with torch's own rules for randomness


def _copies(n=3):
    return [x.expand(n, *x.shape) for x in PLAIN.inputs(torch.float64)]


def test_vmap_without_leave_is_refused(backend):
    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(lambda *x: _call(x, backend))(*_copies())


def test_vmap_with_the_same_randomness(backend):
    """Every sample is the call that it would be alone."""
    torch.manual_seed(5)
    outs = torch.vmap(lambda *x: _call(x, backend), randomness="same")(*_copies())
    torch.manual_seed(5)
    alone = _call(PLAIN.inputs(torch.float64), backend)
    for out in outs:
        torch.testing.assert_close(out, alone, rtol=1e-12, atol=1e-13)


def test_vmap_of_a_jvp_needs_one_mask():
    """The other way round, the jvp of a vmap, has a mask per entry."""
    x = torch.randn(3, 2, 4, 2, 2, dtype=torch.float64)

    def tangent(v):
        return torch.func.jvp(lambda t: nf.na1d(t, t, t, 3, dropout_p=0.4), (v,), (v,))[1]

    assert torch.vmap(tangent, randomness="same")(x).shape == x.shape
    with pytest.raises(NotImplementedError, match=r"^\[na1d\] got vmap of a jvp .*expected randomness"):
        torch.vmap(tangent, randomness="different")(x)


def test_vmap_with_different_randomness(backend):
    torch.manual_seed(5)
    outs = torch.vmap(lambda *x: _call(x, backend), randomness="different")(*_copies())
    assert not torch.equal(outs[0], outs[1]) and not torch.equal(outs[1], outs[2])
    torch.manual_seed(5)
    again = torch.vmap(lambda *x: _call(x, backend), randomness="different")(*_copies())
    assert torch.equal(outs, again)


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_gradients_per_sample(randomness, backend):
    """The masks of the gradients are those of the values: both are linear in v."""
    inputs = _copies()
    weight = torch.randn_like(PLAIN.upstream(PLAIN.inputs(torch.float64))[0])

    def loss(v, av, *x):
        return (_call([*x[:2], v, x[2], av], backend) * weight).sum()

    f = torch.func.grad_and_value(loss, argnums=(0, 1))
    grads, values = torch.vmap(f, randomness=randomness)(inputs[2], inputs[4], *inputs[:2], inputs[3])
    ours = (grads[0] * inputs[2]).flatten(1).sum(1) + (grads[1] * inputs[4]).flatten(1).sum(1)
    torch.testing.assert_close(ours, values, rtol=1e-10, atol=1e-10)
