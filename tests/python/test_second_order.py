# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Second derivatives: reverse over forward is exact, everything else is refused; vectorized Jacobians."""

import pytest
import torch
from torch.func import grad, jacfwd, jacrev, jvp

import nearfield as nf
from nearfield.compat import natten

LENGTHS = torch.tensor([2, 4])


def _na(x):
    return nf.na1d(x, x, x, 3)


def _packed(x):
    return nf.attention(x, x, x, seqlens_Q=LENGTHS, seqlens_KV=LENGTHS)


def _additional(x):
    return nf.na1d(x, x, x, 3, additional_keys=x[:, :2], additional_values=x[:, 1:3])


def _biased(x):
    return nf.na1d(x, x, x, 3, bias=x[0, :5, :, 0].T)


def _unfused(x):
    x = x.transpose(1, 2)
    return natten.functional.na1d_av(natten.functional.na1d_qk(x, x, 3).softmax(-1), x, 3)


FUNCTIONS = [_na, _packed, _additional, _biased, _unfused]


def _loss(function):
    return lambda x: function(x).square().sum()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_reverse_over_forward(function):
    """A Hessian-vector product against central differences of the gradient."""
    x, direction = (torch.randn(1, 6, 2, 4, dtype=torch.float64) for _ in range(2))
    f, step = _loss(function), 1e-6
    product = grad(lambda t: jvp(f, (t,), (direction,))[1])(x)
    expected = (grad(f)(x + step * direction) - grad(f)(x - step * direction)) / (2 * step)
    torch.testing.assert_close(product, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_forward_over_forward_is_refused(function):
    """torch takes a Function's jvp for a constant there, and the number would be wrong."""
    x = torch.randn(1, 6, 2, 4, dtype=torch.float64)
    for second in (
        lambda f: jvp(lambda t: jvp(f, (t,), (x,))[1], (x,), (x,)),
        lambda f: jacfwd(jacfwd(f))(x),
    ):
        with pytest.raises(NotImplementedError, match=r"^\[\w+\] got forward mode inside forward mode"):
            second(_loss(function))
    assert jacrev(jacfwd(_loss(function)))(x).isfinite().all()


@pytest.mark.parametrize("function", FUNCTIONS[:-1])
def test_vectorized_jacobians(function):
    """torch.autograd.functional's, whose older vmap has fewer rules than torch.func's."""
    x = torch.randn(1, 6, 2, 4, dtype=torch.float64)
    plain = torch.autograd.functional.jacobian(function, x)
    for strategy in ("reverse-mode", "forward-mode"):
        fast = torch.autograd.functional.jacobian(function, x, vectorize=True, strategy=strategy)
        torch.testing.assert_close(fast, plain)


@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr")  # torch's, about its own graph
@pytest.mark.parametrize("function", FUNCTIONS[:-1])
def test_linearize(function):
    x, change = (torch.randn(1, 6, 2, 4, dtype=torch.float64) for _ in range(2))
    out, tangent = torch.func.linearize(function, x)
    torch.testing.assert_close(out, function(x))
    torch.testing.assert_close(tangent(change), jvp(function, (x,), (change,))[1])


def test_tangents_of_rows_without_weight():
    """A bias of -inf throughout a row, and keys that are not finite beside rows that see nothing."""
    q, k, v = torch.randn(3, 1, 5, 1, 2, dtype=torch.float64)
    bias = torch.full((1, 5), -torch.inf, dtype=torch.float64)
    tangent = jvp(lambda t: nf.na1d(t, k, v, 3, bias=bias), (q,), (q,))[1]
    assert (tangent == 0).all()
    k[0, 3:] = torch.nan
    causal = {"is_causal": True, "causal_type": nf.CausalType.BottomRight, "return_lse": True}
    for key, rows in ((k[:, 3:], slice(0, 3)), (k, slice(0, 3))):  # five queries of two keys, then of five
        for t in jvp(lambda t, key=key: nf.attention(t, key, key, **causal), (q,), (q,))[1]:
            assert t[:, rows].isfinite().all()


def test_no_nan_for_queries_that_see_nothing():
    q, k = torch.randn(1, 4, 1, 2, dtype=torch.float64), torch.randn(1, 2, 1, 2, dtype=torch.float64)

    def f(q):
        return nf.attention(q, k, k, True, nf.CausalType.BottomRight).square().sum()

    product = grad(lambda t: jvp(f, (t,), (q,))[1])(q)
    assert product.isfinite().all() and (product[:, :2] == 0).all() and (product[:, 3] != 0).all()


def test_no_nan_where_scores_are_far_below_zero():
    """exp(0 - lse) of a column that is not seen overflows."""
    q = torch.full((1, 6, 1, 4), 10.0)
    v = torch.randn(1, 6, 1, 4)

    def f(q):
        return nf.na1d(q, -q.detach(), v, 3, is_causal=True).square().sum()

    assert grad(lambda t: jvp(f, (t,), (torch.ones_like(q),))[1])(q).isfinite().all()


def test_vmap_of_a_jvp_over_offsets_is_refused():
    x = torch.randn(6, 2, 4, dtype=torch.float64)[None]
    offsets = torch.tensor([[0, 2, 6], [0, 3, 6]])

    def tangent(cumulative):
        def f(t):
            return nf.attention(t, t, t, cumulative_seqlen_Q=cumulative, cumulative_seqlen_KV=cumulative)

        return jvp(f, (x,), (x,))[1]

    with pytest.raises(
        NotImplementedError, match=r"^\[attention\] got vmap of a jvp over cumulative offsets"
    ):
        torch.vmap(tangent)(offsets)
