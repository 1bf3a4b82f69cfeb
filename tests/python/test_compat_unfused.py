# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The unfused operations of the drop-in for natten, against key-by-key loops and the fused operation."""

import itertools
import math

import pytest
import torch
from oracle import visible

import nearfield
from nearfield.compat.natten import functional

# (layout, window, stride, dilation, causal)
CASES = {
    "1d": ((7,), (3,), (1,), (1,), (False,)),
    "1d-even-dilated": ((11,), (4,), (1,), (2,), (False,)),
    "1d-causal": ((8,), (3,), (1,), (2,), (True,)),
    "1d-strided": ((9,), (4,), (3,), (1,), (False,)),
    "1d-strided-causal": ((9,), (4,), (3,), (2,), (True,)),
    "1d-whole": ((5,), (5,), (1,), (1,), (False,)),
    "2d": ((4, 6), (3, 3), (1, 1), (1, 2), (False, False)),
    "2d-causal": ((5, 4), (3, 2), (1, 1), (1, 2), (True, False)),
    "2d-strided": ((5, 6), (3, 5), (2, 3), (1, 1), (False, True)),
    "3d": ((3, 4, 3), (3, 2, 3), (1, 1, 1), (1, 2, 1), (False, False, True)),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def _columns(case):
    """Of each query, raster order: its window's columns, a key's coordinates or None, raster order."""
    layout, window, stride, dilation, causal = case
    rows = []
    for query in itertools.product(*map(range, layout)):
        axes = []
        for q, extent, k, *axis in zip(query, layout, window, stride, dilation, causal, strict=True):
            seen = visible(q, extent, k, *axis)
            axes.append(seen + [None] * (k - len(seen)))
        rows.append((query, [None if None in key else key for key in itertools.product(*axes)]))
    return rows


def _logits(query, key, case, rpb=None, more=None):
    """query, key [B, H, *layout, D]"""
    _, window, _, dilation, _ = case
    out = []
    for at, keys in _columns(case):
        own, row = query[(slice(None), slice(None), *at)], []
        for other in keys:
            if other is None:
                row.append(torch.full(own.shape[:2], -math.inf, dtype=own.dtype))
                continue
            score = (own * key[(slice(None), slice(None), *other)]).sum(-1)
            if rpb is not None:
                steps = ((o - a) // d + k - 1 for o, a, d, k in zip(other, at, dilation, window, strict=True))
                score = score + rpb[(slice(None), *steps)]
            row.append(score)
        if more is not None:
            row += (own[:, :, None] * more).sum(-1).unbind(-1)
        out.append(torch.stack(row, -1))
    return torch.stack(out, 2).reshape(*query.shape[:-1], -1)


def _sums(weights, value, case, more=None):
    out = []
    for at, keys in _columns(case):
        row = weights[(slice(None), slice(None), *at)]
        total = 0
        for j, other in enumerate(keys):
            if other is not None:
                total = total + row[..., j, None] * value[(slice(None), slice(None), *other)]
        if more is not None:
            total = total + (row[..., len(keys) :, None] * more).sum(2)
        out.append(total)
    return torch.stack(out, 2).reshape(value.shape)


def _ours(case, name):
    layout, window, stride, dilation, causal = case
    function = getattr(functional, f"na{len(layout)}d_{name}")

    def call(a, b, more=None, **kwargs):
        return function(a, b, window, dilation, more, causal, stride=stride, **kwargs)

    return call


def _inputs(case, dim=3, extra=2, batch=1, heads=2, dtype=torch.float64):
    """query, key, value, rpb, additional keys, additional values"""
    q, k, v = (torch.randn(batch, heads, *case[0], dim, dtype=dtype) for _ in range(3))
    rpb = torch.randn(heads, *(2 * n - 1 for n in case[1]), dtype=dtype)
    more = [torch.randn(batch, heads, extra, dim, dtype=dtype) for _ in range(2)]
    return [x.requires_grad_() for x in (q, k, v, rpb, *more)]


def _whole(case):
    """Attention made of both steps: (q, k, v, rpb, more_k, more_v) -> out."""
    qk, av = _ours(case, "qk"), _ours(case, "av")
    return lambda q, k, v, rpb, mk, mv: av(qk(q, k, mk, rpb=rpb).softmax(-1), v, mv)


@cases
def test_results_and_gradients(case):
    q, k, v, rpb, mk, mv = _inputs(case)
    for table, more, more_v in ((None, None, None), (rpb, mk, mv)):
        inputs = [x for x in (q, k, table, more) if x is not None]
        logits, expected = _ours(case, "qk")(q, k, more, rpb=table), _logits(q, k, case, table, more)
        torch.testing.assert_close(logits, expected)
        gradient = torch.where(expected.isinf(), 0, torch.randn_like(expected))
        torch.testing.assert_close(
            torch.autograd.grad(logits, inputs, gradient), torch.autograd.grad(expected, inputs, gradient)
        )
        weights = torch.randn_like(expected).requires_grad_()  # also where no key is seen: counts nothing
        inputs = [x for x in (weights, v, more_v) if x is not None]
        out, expected = _ours(case, "av")(weights, v, more_v), _sums(weights, v, case, more_v)
        torch.testing.assert_close(out, expected)
        gradient = torch.randn_like(expected)
        torch.testing.assert_close(
            torch.autograd.grad(out, inputs, gradient), torch.autograd.grad(expected, inputs, gradient)
        )


@cases
def test_both_steps_are_the_fused_operation(case):
    layout, window, stride, dilation, causal = case
    q, k, v, rpb, mk, mv = _inputs(case)
    out = _whole(case)(q, k, v, rpb, mk, mv)
    fused = getattr(nearfield, f"na{len(layout)}d")(
        *(x.movedim(1, -2) for x in (q, k, v)),
        window,
        stride,
        dilation,
        causal,
        1.0,
        *(x.movedim(1, -2) for x in (mk, mv)),
        bias=rpb,
    )
    torch.testing.assert_close(out, fused.movedim(-2, 1))


@pytest.mark.parametrize(
    "case",
    [
        ((5,), (3,), (2,), (1,), (True,)),
        pytest.param(((3, 4), (2, 2), (1, 1), (1, 2), (True, False)), id="2d"),
        pytest.param(
            ((2, 4, 2), (2, 3, 1), (1,) * 3, (1,) * 3, (False,) * 3), id="3d", marks=pytest.mark.full
        ),
    ],
)
def test_derivatives(case):
    inputs = _inputs(case, dim=1, extra=1, heads=1)
    whole = _whole(case)
    assert torch.autograd.gradcheck(whole, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(whole, inputs, fast_mode=True)


def test_transforms():
    case = CASES["2d-causal"]
    inputs = [x.detach() for x in _inputs(case)]
    whole = _whole(case)
    changes = [torch.randn_like(x) for x in inputs]
    out, change = torch.func.jvp(whole, tuple(inputs), tuple(changes))
    _, pull = torch.func.vjp(whole, *inputs)
    g = torch.randn_like(out)
    torch.testing.assert_close(
        (g * change).sum(), sum((a * b).sum() for a, b in zip(pull(g), changes, strict=True))
    )
    many = [torch.stack([x, 2 * x], 1) for x in inputs]
    mapped = torch.func.vmap(whole, in_dims=1)(*many)
    torch.testing.assert_close(mapped, torch.stack([whole(*(m[:, i] for m in many)) for i in range(2)]))
    per_sample = torch.func.vmap(torch.func.grad(lambda r: whole(*inputs[:3], r, *inputs[4:]).sum()))(
        torch.stack([inputs[3], -inputs[3]])
    )
    assert per_sample.shape == (2, *inputs[3].shape)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.full)])
def test_compile(backend):
    torch._dynamo.reset()
    window = CASES["1d-causal"][1:]
    compiled = torch.compile(_whole(((8,), *window)), fullgraph=True, backend=backend)
    for layout in ((8,), (9,)):  # windows are tables: another layout is another graph
        inputs = _inputs((layout, *window))
        out, expected = compiled(*inputs), _whole((layout, *window))(*inputs)
        torch.testing.assert_close(out, expected)
        g = torch.randn_like(out)
        torch.testing.assert_close(
            torch.autograd.grad(out, inputs, g), torch.autograd.grad(expected, inputs, g)
        )


def test_older_names():
    q, k, v, rpb, *_ = _inputs(CASES["2d"])
    logits = functional.na2d_qk(q, k, 3, 1, rpb=rpb)
    assert torch.equal(functional.natten2dqkrpb(q, k, rpb, 3, 1), logits)
    assert torch.equal(functional.natten2dqkrpb(q, k, None, 3, 1), functional.natten2dqk(q, k, 3, 1))
    assert torch.equal(functional.natten2dav(logits, v, 3, 1), functional.na2d_av(logits, v, 3, 1))
    q, k, v, rpb, *_ = _inputs(CASES["1d"])
    logits = functional.na1d_qk(q, k, (3,), 2, rpb=rpb)
    assert torch.equal(functional.natten1dqkrpb(q, k, rpb, 3, 2), logits)
    assert torch.equal(functional.natten1dqk(q, k, 3, 2), functional.na1d_qk(q, k, 3, 2))
    assert torch.equal(functional.natten1dav(logits, v, 3, 2), functional.na1d_av(logits, v, 3, 2))
    q, k, v, rpb, *_ = _inputs(((3, 4, 5), (3, 2, 2)))
    logits = functional.na3d_qk(q, k, (3, 2, 2), (1, 2, 2), rpb=rpb)
    assert torch.equal(functional.natten3dqkrpb(q, k, rpb, 3, 2, 1, 2), logits)
    assert torch.equal(
        functional.natten3dqk(q, k, 3, 2, 1, 2), functional.na3d_qk(q, k, (3, 2, 2), (1, 2, 2))
    )
    out = functional.na3d_av(logits, v, (3, 2, 2), (1, 2, 2))
    assert torch.equal(functional.natten3dav(logits, v, 3, 2, 1, 2), out)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes(dtype):
    case = CASES["2d"]
    q, k, v, rpb, mk, mv = (x.detach().to(dtype) for x in _inputs(case))
    eps = torch.finfo(dtype).eps
    logits = _ours(case, "qk")(q, k, mk, rpb=rpb.float())
    assert logits.dtype == dtype
    expected = _logits(q.double(), k.double(), case, rpb.double(), mk.double())
    torch.testing.assert_close(logits.double(), expected, rtol=2 * eps, atol=1e-5)  # summed in float32
    out = _ours(case, "av")(logits.float().softmax(-1), v, mv)  # weights of another dtype, as there
    assert out.dtype == dtype
    expected = _sums(logits.float().softmax(-1).to(dtype).double(), v.double(), case, mv.double())
    torch.testing.assert_close(out.double(), expected, rtol=2 * eps, atol=1e-5)


def test_chunks_and_threads_change_no_bit(monkeypatch, threads):
    case = ((20, 21), (5, 5), (1, 1), (2, 1), (False, True))
    q, k, v, rpb, mk, mv = _inputs(case, dim=8, dtype=torch.float32)
    weights = torch.randn(1, 2, 20, 21, 27).requires_grad_()
    grad_logits, grad_out = torch.randn_like(weights), torch.randn_like(v)
    runs = []
    for chunk, count in ((1 << 20, 1), (1 << 20, 2), (5000, 2)):
        monkeypatch.setattr(nearfield._pairs, "_CHUNK_ELEMENTS", chunk)
        threads(count)
        logits, out = _ours(case, "qk")(q, k, mk, rpb=rpb), _ours(case, "av")(weights, v, mv)
        gradients = torch.autograd.grad(logits, (q, k, mk, rpb), grad_logits)
        runs.append([logits, *gradients, out, *torch.autograd.grad(out, (weights, v, mv), grad_out)])
    for run in runs[1:]:
        for a, b in zip(runs[0], run, strict=True):
            assert torch.equal(a, b)


def test_memory_is_of_the_order_of_the_pairs():
    """What is kept for the backward pass: tokens times channels, and pairs; never their product."""
    q, k, v, rpb, *_ = _inputs(((16, 16), (7, 7)), dim=64, dtype=torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        out = functional.na2d_av(functional.na2d_qk(q, k, 7, rpb=rpb).softmax(-1), v, 7)
    tokens, pairs = 2 * 256, 2 * 256 * 49
    assert sum(kept) <= 2 * pairs + 4 * tokens * 64
    out.sum().backward()


def test_what_is_not_finite_reaches_its_queries_only():
    case = CASES["2d-causal"]
    q, k, v, *_ = _inputs(case)
    seen = dict(_columns(case))
    with torch.no_grad():
        q[:, :, 3, 2] = k[:, :, 2, 1] = v[:, :, 2, 1] = math.nan
    expected = torch.zeros(case[0], dtype=torch.bool)
    for query, keys in seen.items():
        expected[query] = (2, 1) in keys
    out = _ours(case, "av")(torch.ones(1, 2, *case[0], 6, dtype=q.dtype), v)
    assert torch.equal(out.isnan().any(-1)[0, 0], expected)
    expected[3, 2] = True
    logits = _ours(case, "qk")(q, k)
    assert torch.equal(logits.isnan().any(-1)[0, 0], expected)
    (dk,) = torch.autograd.grad(logits, k, torch.ones_like(logits))
    expected = torch.zeros(case[0], dtype=torch.bool)
    for key in seen[3, 2]:
        if key is not None:
            expected[key] = True
    assert torch.equal(dk.isnan().any(-1)[0, 0], expected)


def test_batch_of_nothing():
    q = torch.zeros(0, 2, 5, 4, requires_grad=True)
    logits = functional.na1d_qk(q, q, 3)
    assert logits.shape == (0, 2, 5, 3)
    functional.na1d_av(logits, q, 3).sum().backward()
    assert q.grad.shape == q.shape


def test_autocast():
    q, k, v, rpb, *_ = _inputs(CASES["2d"], dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        logits = functional.na2d_qk(q, k, 3, rpb=rpb)
        out = functional.na2d_av(logits.softmax(-1), v, 3)
    assert logits.dtype == out.dtype == torch.bfloat16


def test_refusals():
    q, k, v, rpb, mk, mv = _inputs(CASES["2d"])
    refused = pytest.raises
    with refused(ValueError, match=r"\[na2d_qk\] got .*; "):
        functional.na2d_qk(q, k, 5)
    with refused(ValueError, match=r"\[na2d_qk\] got a tensor of rank 5.*|\[na2d_qk\] got .*stride"):
        functional.na2d_qk(q, k, 3, stride=4)
    with refused(ValueError, match=r"\[na1d_qk\] got a tensor of rank 5, expected 4: \[batch, heads, 1 axis"):
        functional.na1d_qk(q, k, 3)
    with refused(ValueError, match=r"\[na2d_qk\] got key \[1, 2, 4, 5, 3\].* to go with query"):
        functional.na2d_qk(q, k[..., :5, :], 3)
    with refused(ValueError, match=r"\[na2d_qk\] got rpb \[2, 5, 4\].*expected \[2, 5, 5\]"):
        functional.na2d_qk(q, k, 3, rpb=rpb[..., :4])
    with refused(ValueError, match=r"\[na2d_av\] got attn \[1, 2, 4, 6, 8\].*expected \[1, 2, 4, 6, 9\]"):
        functional.na2d_av(torch.zeros(1, 2, 4, 6, 8), v.float(), 3)
    with refused(ValueError, match=r"\[na2d_av\] got attn .*expected \[1, 2, 4, 6, 11\]"):
        functional.na2d_av(torch.zeros(1, 2, 4, 6, 9), v.float(), 3, 1, mv.float())
    with refused(ValueError, match=r"\[na2d_qk\] got additional_keys of rank 3"):
        functional.na2d_qk(q, k, 3, 1, mk[0])
    with refused(ValueError, match=r"\[na2d_qk\] got additional_keys .*torch.float32"):
        functional.na2d_qk(q, k, 3, 1, mk.float())
    with refused(TypeError, match=r"\[na2d_av\] got value of type list"):
        functional.na2d_av(q, [1], 3)
    with refused(NotImplementedError, match=r"\[na2d_qk\] got a sparse tensor as key"):
        functional.na2d_qk(q, k.detach().to_sparse(), 3)
    with refused(TypeError, match=r"\[na2d_qk\] got kernel_size with an entry of type float"):
        functional.na2d_qk(q, k, (3, 3.0))
