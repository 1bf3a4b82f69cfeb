# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Borders of the legal: empty inputs, blind queries, huge and non-finite numbers, odd head dims."""

import pytest
import torch
from cases import dense, na
from oracle import grid_mask

import nearfield as nf


def test_empty_batch(backend):
    for case in (
        na((5, 6), (3, 3), batch=0),
        na((5,), (3,), batch=0, additional=2),
        dense(4, 6, "br", batch=0),
    ):
        leaves = case.inputs(requires_grad=True)
        out, lse = case.call(leaves, backend)
        assert out.shape == (*leaves[0].shape[:-1], 8) and lse.shape == leaves[0].shape[:-1]
        assert all(
            g.shape == x.shape
            for g, x in zip(torch.autograd.grad(out.sum() + lse.sum(), leaves), leaves, strict=True)
        )


@pytest.mark.parametrize("causal", [None, "tl", "br"])
def test_dense_without_queries_or_keys(causal, backend):
    for queries, keys in ((0, 5), (0, 0), (4, 0)):
        leaves = dense(queries, keys, causal).inputs(requires_grad=True)
        out, lse = dense(queries, keys, causal).call(leaves, backend)
        assert out.shape == (1, queries, 2, 8) and lse.shape == (1, queries, 2)
        assert out.eq(0).all() and lse.eq(-torch.inf).all()
        for gradient, x in zip(torch.autograd.grad(out.sum(), leaves), leaves, strict=True):
            assert gradient.shape == x.shape and gradient.eq(0).all()


def test_a_query_that_sees_nothing(backend):
    """Zeros, -inf, and no NaN, whatever gradient comes from above."""
    case = dense(6, 4, "br")
    leaves = case.inputs(requires_grad=True)
    out, lse = case.call(leaves, backend)
    assert out[:, :2].eq(0).all() and lse[:, :2].eq(-torch.inf).all()
    gradients = torch.autograd.grad([out, lse], leaves, [torch.full_like(out, 3.0), torch.ones_like(lse)])
    assert gradients[0][:, :2].eq(0).all()
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_large_scores_do_not_overflow(dtype, backend):
    case = na((9,), (4,), scale=1.0)
    inputs = case.inputs(dtype)
    inputs[0], inputs[1] = inputs[0] * 100, inputs[1] * 30
    out, lse = case.call(inputs, backend)
    assert out.isfinite().all() and lse.isfinite().all()
    # The usual tolerance is for scores of a few units; these carry the rounding of their own dot products.
    expected = case.expected(inputs)
    products = (inputs[0].double().abs().amax() * inputs[1].double().abs().amax() * case.dim).item()
    slack = 2 * products * torch.finfo(lse.dtype).eps
    assert (lse - expected["lse"].value).abs().max() <= slack
    slack = 2 * slack * inputs[2].double().abs().max()
    assert ((out - expected["out"].value).abs() <= expected["out"].bound + slack).all()


def test_very_negative_scores(backend):
    """A running maximum that starts at a finite number must not swallow scores below it."""
    q, k = torch.full((1, 5, 1, 4), 1e18), torch.full((1, 5, 1, 4), -1e18)
    v = torch.randn(1, 5, 1, 4)
    out, lse = nf.na1d(q, k, v, 3, scale=1.0, backend=backend, return_lse=True)
    torch.testing.assert_close(lse, torch.full_like(lse, -4e36))
    torch.testing.assert_close(out, nf.na1d(q * 0, k, v, 3, scale=1.0, backend=backend))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_non_finite_keys_reach_only_who_sees_them(bad, backend):
    layout, window = (6, 9), (3, 3)
    q, k, v = na(layout, window).inputs()
    sees = grid_mask(layout, window)[:, 2 * 9 + 4].reshape(layout)
    dirty = k.clone()
    dirty[0, 2, 4] = bad
    clean, lse_clean = nf.na2d(q, k, v, window, backend=backend, return_lse=True)
    out, lse = nf.na2d(q, dirty, v, window, backend=backend, return_lse=True)
    assert torch.equal(out[0][~sees], clean[0][~sees]) and torch.equal(lse[0][~sees], lse_clean[0][~sees])
    if bad != bad:
        assert out[0][sees].isnan().all() and lse[0][sees].isnan().all()
    dirty = q.clone()
    dirty[0, 2, 4] = bad
    out = nf.na2d(dirty, k, v, window, backend=backend)
    others = torch.ones(layout, dtype=torch.bool)
    others[2, 4] = False
    assert torch.equal(out[0][others], clean[0][others])


@pytest.mark.parametrize("dim", [1, 2, 3, 5, 8, 15, 17, 31, 40, 64, 72, 100, 128, 160, 257, 320])
def test_head_dims(dim, backend):
    case = na((5, 6), (3, 3), heads=2, kv_heads=1, dim=dim, value_dim=max(1, 3 * dim // 4))
    inputs = case.inputs()
    case.check(inputs, backend, *case.upstream(inputs))
