# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Inputs lie anywhere in memory, in any order, may be one another, and are never written."""

import re
from pathlib import Path

import pytest
import torch
from cases import CASES, dense, na

import nearfield


def _layouts(x):
    """The same values in other memory: every list entry equals x."""
    moved = x.movedim(1, -1).contiguous().movedim(-1, 1)
    wide = torch.full((*x.shape[:-1], 2 * x.shape[-1] + 1), torch.nan, dtype=x.dtype)
    wide[..., 1::2] = x
    heads_first = x.transpose(1, -2).contiguous().transpose(1, -2)
    padded = torch.full((x.shape[0] + 1, *(n + 2 for n in x.shape[1:])), torch.nan, dtype=x.dtype)
    inner = padded[(slice(1, None), *(slice(1, n + 1) for n in x.shape[1:]))]
    inner.copy_(x)
    channel_first = x.transpose(-1, -2).contiguous().transpose(-1, -2)
    flipped = torch.empty(x.numel() + 3, dtype=x.dtype)[3:].view(x.shape).copy_(x)  # misaligned
    return {
        "moved": moved,
        "every_second": wide[..., 1::2],
        "heads_first": heads_first,
        "slice": inner,
        "channel_first": channel_first,
        "misaligned": flipped,
    }


STRIDED = [
    na((6, 7), (3, 4), dilation=(2, 1), kv_heads=1, batch=2, value_dim=5),
    na((7, 5), (3, 3), additional=4, causal=(True, False)),
    dense(9, 14, "br"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("case", STRIDED, ids=str)
def test_any_strides(case, dtype, backend):
    dense_inputs = case.inputs(dtype)
    grad_out, grad_lse = case.upstream(dense_inputs)
    views = [_layouts(x) for x in dense_inputs]
    for name in views[0]:
        inputs = [view[name] for view in views]
        kept = [x.clone() for x in inputs]
        case.check(inputs, backend, _layouts(grad_out)[name], grad_lse)
        for x, y in zip(inputs, kept, strict=True):
            assert torch.equal(x, y), f"{name}: an input was written"


def test_expanded_inputs(backend):
    """Stride 0 over batch, a token axis, the heads, the channels; and of an upstream gradient."""
    case = na((5, 6), (3, 3), batch=2, heads=2, kv_heads=2, dim=4, value_dim=4)
    for axis in range(5):
        inputs = [x.narrow(axis, 0, 1).expand_as(x) for x in case.inputs()]
        grad_out, grad_lse = case.upstream(inputs)
        case.check(inputs, backend, grad_out, grad_lse)
        case.check(
            case.inputs(),
            backend,
            grad_out.narrow(axis, 0, 1).expand_as(grad_out),
            grad_lse.narrow(axis % 4, 0, 1).expand_as(grad_lse),
        )
    leaves = case.inputs(requires_grad=True)
    case.call(leaves, backend)[0].sum().backward()  # the gradient of a sum is expanded over everything
    expected = case.expected([x.detach() for x in leaves], torch.ones(2, 5, 6, 2, 4))
    for name, x in zip(("dq", "dk", "dv"), leaves, strict=True):
        expected[name].check(x.grad, name)


@pytest.mark.parametrize("case", [na((7, 6), (3, 3)), dense(9, 9, "tl")], ids=str)
def test_query_key_and_value_may_be_one_tensor(case, backend):
    x = case.inputs()[0]
    grad_out, grad_lse = case.upstream([x, x, x])
    case.check([x, x, x], backend)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(case.call([leaf] * 3, backend), leaf, (grad_out, grad_lse))
    parts = [case.expected([x, x, x], grad_out, grad_lse)[n] for n in ("dq", "dk", "dv")]
    error = (gradient - sum(p.value for p in parts)).abs()
    assert (error <= sum(p.bound for p in parts) + 4e-7 * gradient.abs()).all()


def test_slices_of_one_projection(backend):
    """q, k and v as the views that a fused projection gives."""
    case = na((7, 6), (3, 3), heads=2, dim=8)
    qkv = torch.randn(1, 7, 6, 3, 2, 8)
    inputs = list(qkv.unbind(3))
    case.check(inputs, backend, *case.upstream(inputs))


def test_lazily_negated_tensors(backend):
    """The imaginary part of a conjugate view: its memory holds the negative of its values."""
    case = na((7, 6), (3, 3))
    inputs = [torch.complex(torch.zeros_like(x), -x).conj().imag for x in case.inputs()]
    assert all(x.is_neg() for x in inputs)
    case.check(inputs, backend, *case.upstream(inputs))


@pytest.mark.parametrize("case", [CASES[3], CASES[12], CASES[-3]], ids=str)
def test_inputs_are_never_modified(case, backend):
    leaves = case.inputs(requires_grad=True)
    grad_out, grad_lse = case.upstream(leaves)
    everything = [*leaves, grad_out, grad_lse]
    kept, versions = [x.detach().clone() for x in everything], [x._version for x in everything]
    out, lse = case.call(leaves, backend)
    torch.where(lse.isinf(), 0, lse)  # does not change what is given to backward
    torch.autograd.backward([out, lse], [grad_out, grad_lse])
    assert versions == [x._version for x in everything]
    assert all(torch.equal(x, y) for x, y in zip(everything, kept, strict=True))


def test_large_results_lie_in_huge_pages_where_the_system_has_some():
    """Fresh memory is written to page by page, which small pages make a fifth of the time of such a call."""
    smaps = Path("/proc/self/smaps")
    modes = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not smaps.exists() or not modes.exists() or "[never]" in modes.read_text():
        pytest.skip("a system without transparent huge pages, or without a way to ask for them")
    x = torch.zeros(1, 2**16, 1, 64)  # 16 MiB
    out = nearfield.na1d(x, x, x, 1)
    middle, inside = out.data_ptr() + 2**23, False
    for line in smaps.read_text().splitlines():
        if area := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(area[1], 16) <= middle < int(area[2], 16)
        elif inside and line.startswith("VmFlags:"):
            assert "hg" in line.split()
            return
    raise AssertionError("the output's memory is not listed")
