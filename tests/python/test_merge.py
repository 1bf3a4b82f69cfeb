# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""merge_attentions: N outputs with their lses become one, exactly and differentiably."""

import itertools

import pytest
import torch
from cases import BACKENDS
from torch.autograd import gradcheck, gradgradcheck

import nearfield as nf

INF = torch.inf


def _parts(n, layout=(5,), batch=2, heads=3, dim=4, dtype=torch.float64, requires_grad=False):
    """n outputs [B, *layout, H, D] and n lses [B, *layout, H]."""
    outs = [torch.randn(batch, *layout, heads, dim, dtype=dtype) for _ in range(n)]
    lse_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    lses = [torch.randn(batch, *layout, heads, dtype=lse_dtype) * 2 for _ in range(n)]
    return [x.requires_grad_(requires_grad) for x in outs], [x.requires_grad_(requires_grad) for x in lses]


def _textbook(outs, lses):
    weights = torch.softmax(torch.stack(lses).double(), 0).nan_to_num(0.0)
    return (weights[..., None] * torch.stack(outs).double()).sum(0), torch.logsumexp(
        torch.stack(lses).double(), 0
    )


@pytest.mark.parametrize("layout", [(7,), (3, 4), (2, 3, 2)], ids=str)
@pytest.mark.parametrize("n", [2, 3, 7])
def test_values(n, layout):
    outs, lses = _parts(n, layout)
    for got, expected in zip(nf.merge_attentions(outs, lses), _textbook(outs, lses), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_dtypes(dtype):
    outs, lses = _parts(3, dtype=dtype)
    out, lse = nf.merge_attentions(outs, lses)
    assert out.dtype == dtype and lse.dtype == torch.float32
    expected, lse_expected = _textbook(outs, lses)
    eps = torch.finfo(dtype).eps
    bound = eps * expected.abs() + 8e-7 * sum(x.double().abs() for x in outs)
    assert ((out.double() - expected).abs() <= bound).all()
    torch.testing.assert_close(lse.double(), lse_expected, rtol=1e-6, atol=1e-6)


def test_torch_compile_has_no_effect_on_results():
    outs, lses = _parts(3)
    a, b = (
        nf.merge_attentions(outs, lses, torch_compile=False),
        nf.merge_attentions(outs, lses, torch_compile=True),
    )
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


@pytest.mark.parametrize("layout", [(3,), (2, 2), (1, 2, 2)], ids=str)
@pytest.mark.parametrize("n", [2, 3])
def test_gradients_through_outputs_and_lses(n, layout):
    outs, lses = _parts(n, layout, batch=1, heads=2, dim=2, requires_grad=True)

    def f(*flat):
        return nf.merge_attentions(list(flat[:n]), list(flat[n:]))

    assert gradcheck(f, (*outs, *lses))
    assert gradcheck(lambda *x: f(*x)[0], (*outs, *lses))
    assert gradcheck(lambda *x: f(*x)[1], (*outs, *lses))


def test_second_gradients_are_right_or_refused():
    outs, lses = _parts(2, (2,), batch=1, heads=1, dim=2, requires_grad=True)
    try:
        assert gradgradcheck(lambda a, b, c, d: nf.merge_attentions([a, b], [c, d]), (*outs, *lses))
    except RuntimeError as error:
        assert "double backward" in str(error).lower() or "twice" in str(error).lower(), error


def test_only_what_requires_grad_gets_one():
    outs, lses = _parts(3)
    outs[1].requires_grad_()
    lses[2].requires_grad_()
    out, lse = nf.merge_attentions(outs, lses)
    (out.sum() + lse.sum()).backward()
    assert [x.grad is not None for x in outs + lses] == [False, True, False, False, False, True]


@pytest.mark.parametrize("where", range(3))
def test_minus_infinity_has_weight_zero(where):
    """A part that saw nothing changes neither values nor gradients, and its output is not read."""
    outs, lses = _parts(3)
    lses[where][:, 1] = -INF
    outs[where][:, 1] = torch.nan
    leaves = [x.requires_grad_() for x in outs + lses]
    out, lse = nf.merge_attentions(outs, lses)
    others = [i for i in range(3) if i != where]
    rest = [
        x.detach()[:, 1].clone().requires_grad_()
        for x in [outs[i] for i in others] + [lses[i] for i in others]
    ]
    out_rest, lse_rest = _textbook(rest[:2], rest[2:])
    torch.testing.assert_close(out[:, 1], out_rest)
    torch.testing.assert_close(lse[:, 1], lse_rest)
    d_out, d_lse = torch.randn_like(out), torch.randn_like(lse)
    gradients = torch.autograd.grad((out, lse), leaves, (d_out, d_lse))
    assert all(g.isfinite().all() for g in gradients)
    assert gradients[where][:, 1].eq(0).all() and gradients[3 + where][:, 1].eq(0).all()
    expected = torch.autograd.grad((out_rest, lse_rest), rest, (d_out[:, 1], d_lse[:, 1]))
    for i, g in zip([*others, *(3 + i for i in others)], expected, strict=True):
        torch.testing.assert_close(gradients[i][:, 1], g)


def test_all_minus_infinity():
    outs, lses = _parts(3)
    for x in lses:
        x[0, 2, 1] = -INF
    leaves = [x.requires_grad_() for x in outs + lses]
    out, lse = nf.merge_attentions(outs, lses)
    assert out[0, 2, 1].eq(0).all() and lse[0, 2, 1] == -INF
    for g in torch.autograd.grad((out, lse), leaves, (torch.ones_like(out), torch.ones_like(lse))):
        assert g.isfinite().all() and g[0, 2, 1].eq(0).all()


def test_far_apart_and_huge_lses():
    outs, lses = _parts(2, dtype=torch.float32)
    lses = [lses[0] * 0 + 1e4, lses[1] * 0 - 1e4]
    out, lse = nf.merge_attentions(outs, lses)
    assert torch.equal(out, outs[0]) and torch.equal(lse, lses[0])


def test_backward_twice_through_a_retained_graph():
    outs, lses = _parts(2, requires_grad=True)
    kept = [x.detach().clone() for x in outs + lses]
    out, lse = nf.merge_attentions(outs, lses)
    seeds = (torch.randn_like(out), torch.randn_like(lse))
    first = torch.autograd.grad((out, lse), outs + lses, seeds, retain_graph=True)
    second = torch.autograd.grad((out, lse), outs + lses, seeds)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(kept, outs + lses, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cuts", [(13,), (5, 20), (0, 7), (1, 2, 3)], ids=str)
def test_parts_of_the_keys_merge_to_the_whole(cuts, backend):
    """Values, and gradients through both outputs of attention, for any cut of the keys."""
    leaves = [
        torch.randn(1, n, h, 8, dtype=torch.float64, requires_grad=True)
        for n, h in ((6, 4), (26, 2), (26, 2))
    ]
    q, k, v = leaves
    edges = [0, *cuts, 26]
    parts = [
        nf.attention(q, k[:, a:b], v[:, a:b], backend=backend, return_lse=True)
        for a, b in itertools.pairwise(edges)
    ]
    merged = nf.merge_attentions([p[0] for p in parts], [p[1] for p in parts])
    whole = nf.attention(q, k, v, backend=backend, return_lse=True)
    for a, b in zip(merged, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    seeds = (torch.randn_like(whole[0]), torch.randn_like(whole[1]))
    for a, b in zip(
        torch.autograd.grad(merged, leaves, seeds), torch.autograd.grad(whole, leaves, seeds), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_a_window_merged_with_dense_attention_is_additional_keys():
    q, k, v = (torch.randn(1, 6, 7, 2, 8) for _ in range(3))
    ak, av = (torch.randn(1, 5, 2, 8) for _ in range(2))
    whole = nf.na2d(q, k, v, 3, additional_keys=ak, additional_values=av, return_lse=True)
    window = nf.na2d(q, k, v, 3, return_lse=True)
    extra = nf.attention(q.flatten(1, 2), ak, av, return_lse=True)
    extra = (extra[0].unflatten(1, (6, 7)), extra[1].unflatten(1, (6, 7)))
    merged = nf.merge_attentions([window[0], extra[0]], [window[1], extra[1]])
    torch.testing.assert_close(merged[0], whole[0])
    torch.testing.assert_close(merged[1], whole[1])


def test_any_producer_and_any_strides():
    outs, lses = _parts(2)
    strided = (
        [x.transpose(1, 2).contiguous().transpose(1, 2) for x in outs],
        [x.transpose(1, 2).contiguous().transpose(1, 2) for x in lses],
    )
    a, b = nf.merge_attentions(outs, lses), nf.merge_attentions(*strided)
    torch.testing.assert_close(a[0], b[0])
    torch.testing.assert_close(a[1], b[1])
    assert nf.merge_attentions([outs[0]] * 2, [lses[0]] * 2)[0].allclose(outs[0])
    assert nf.merge_attentions(tuple(outs), tuple(lses))[0].equal(a[0])


@pytest.mark.parametrize("shape", [(0, 5, 2, 4), (2, 0, 2, 4)], ids=str)
def test_empty(shape):
    out, lse = nf.merge_attentions([torch.randn(shape)] * 2, [torch.randn(shape[:-1])] * 2)
    assert out.shape == shape and lse.shape == shape[:-1]
