# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Nothing a caller passes crashes the process: huge extents, and a bounded number of random calls."""

import pytest
import torch
from conftest import FULL
from hypothesis import given, settings
from hypothesis import strategies as st

import nearfield as nf

LEGAL = (ValueError, TypeError, NotImplementedError)

# ------------------------------------------------------------------------------------------------
# Extents that no memory holds, on tensors of one element


@pytest.mark.parametrize(
    "layout", [(2**31,), (2**40,), (2**31, 1), (1, 2**31), (2**31, 1, 1), (3, 1, 2**33)], ids=str
)
def test_extents_past_the_limit(layout):
    x = torch.zeros(1).expand(1, *layout, 1, 8)
    function = (nf.na1d, nf.na2d, nf.na3d)[len(layout) - 1]
    with pytest.raises(ValueError, match=r"^\[na.d\] got .*expected"):
        function(x, x, x, 1)
    with pytest.raises(ValueError, match=r"^\[na.d\] got .*expected"):
        function(x.to("meta"), x.to("meta"), x.to("meta"), 1)
    if len(layout) == 1:
        with pytest.raises(ValueError, match=r"^\[attention\] got .*expected"):
            nf.attention(x, x, x)


@pytest.mark.parametrize(
    "shape", [(2**45, 4, 2, 8), (1, 4, 2**45, 8), (2**21, 2**21, 2, 8), (2**31, 2**20, 2, 8)], ids=str
)
def test_outputs_that_no_memory_holds(shape):
    """Each extent is legal or nearly so, the whole is not: an error and no overflow of a product."""
    try:
        x = torch.zeros(1).expand(shape)
    except RuntimeError:
        pytest.skip("torch itself refuses the shape")
    with pytest.raises((ValueError, RuntimeError, MemoryError)):
        nf.na1d(x, x, x, 1)
    with pytest.raises((ValueError, RuntimeError, MemoryError)):
        nf.na1d(x, x, torch.zeros(1).expand(*shape[:-1], 2**20), 1)


def test_many_additional_keys():
    q = torch.zeros(1, 4, 1, 8)
    extra = torch.zeros(1).expand(1, 2**45, 1, 8)
    with pytest.raises((ValueError, RuntimeError, MemoryError)):
        nf.na1d(q, q, q, 3, additional_keys=extra, additional_values=extra)


# ------------------------------------------------------------------------------------------------
# Random calls

SIZES = st.integers(0, 5)
DTYPES = st.sampled_from(
    [
        torch.float32,
        torch.float32,
        torch.float32,
        torch.float64,
        torch.bfloat16,
        torch.float16,
        torch.int64,
        torch.complex64,
        torch.bool,
    ]
)
SCALARS = st.one_of(st.integers(-3, 7), st.sampled_from([None, True, 2.5, "x", 2**31, -(2**63), 2**64]))


def _or_axes(element):
    return st.one_of(element, st.lists(element, max_size=4).map(tuple), st.lists(element, max_size=3))


@st.composite
def _tensor(draw, near=None):
    """A tensor of a shape of its own, or of one near `near`, in any memory layout."""
    kind = draw(st.integers(0, 19))
    if kind == 0:
        return draw(st.sampled_from([None, 3, "q", [1.0], torch.zeros(2, 2).to_sparse()]))
    shape = list(near) if near and kind > 2 else draw(st.lists(SIZES, max_size=7))
    if kind == 3 and shape:
        shape[draw(st.integers(0, len(shape) - 1))] = draw(SIZES)
    x = torch.randn(shape).to(draw(DTYPES) if kind < 6 else torch.float32)
    if kind in (7, 8) and x.ndim > 1:
        x = x.transpose(draw(st.integers(0, x.ndim - 1)), draw(st.integers(0, x.ndim - 1)))
    if kind == 9:
        x = x.to("meta")
    if kind == 10:
        x = torch.full_like(x, draw(st.sampled_from([torch.nan, torch.inf, -torch.inf, 3e38])))
    return x


@st.composite
def _calls(draw):
    """A function and arguments: legal more often than not would be dull, so about half and half."""
    rank = draw(st.integers(0, 3))
    function = (nf.attention, nf.na1d, nf.na2d, nf.na3d)[rank]
    layout = [draw(st.integers(1, 6)) for _ in range(max(rank, 1))]
    batch, kv, group = draw(st.integers(0, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    dim, value_dim = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    q = draw(_tensor([batch, *layout, kv * group, dim]))
    k, v = draw(_tensor([batch, *layout, kv, dim])), draw(_tensor([batch, *layout, kv, value_dim]))
    causal = st.one_of(st.booleans(), st.sampled_from([None, 1, "x"]))
    kw = {"return_lse": draw(causal) if draw(st.integers(0, 9)) == 0 else True}
    if draw(st.integers(0, 4)) == 0:
        kw["scale"] = draw(st.one_of(st.floats(), SCALARS))
    if draw(st.integers(0, 2)) == 0:
        kw["backend"] = draw(st.sampled_from([None, "cpu", "reference", "cuda_sm80", "nope", 3]))
    if draw(st.integers(0, 9)) == 0:
        kw["dropout_p"] = draw(st.floats())
    if rank == 0:
        if draw(st.booleans()):
            kw.update(is_causal=draw(causal), causal_type=draw(st.sampled_from([None, *nf.CausalType, 1])))
        return function, (q, k, v), kw
    wild = draw(st.integers(0, 2)) == 0
    window = draw(_or_axes(SCALARS)) if wild else tuple(draw(st.integers(1, n)) for n in layout)
    if draw(st.booleans()):
        kw["stride"] = draw(_or_axes(SCALARS)) if wild else tuple(draw(st.integers(1, k)) for k in window)
    if draw(st.booleans()):
        kw["dilation"] = (
            draw(_or_axes(SCALARS))
            if wild
            else tuple(draw(st.integers(1, n // k)) for n, k in zip(layout, window, strict=True))
        )
    if draw(st.booleans()):
        kw["is_causal"] = draw(_or_axes(causal if wild else st.booleans())) if wild else draw(st.booleans())
    if draw(st.integers(0, 3)) == 0:
        extra = draw(st.integers(0, 3))
        kw["additional_keys"] = draw(_tensor([batch, extra, kv, dim]))
        kw["additional_values"] = draw(_tensor([batch, extra, kv, value_dim]))
    if draw(st.integers(0, 5)) == 0:
        name = draw(
            st.sampled_from(
                [
                    "q_tile_shape",
                    "kv_tile_shape",
                    "backward_kv_splits",
                    "attention_kwargs",
                    "kernel_schedule",
                    "backward_q_tile_shape",
                ]
            )
        )
        kw[name] = draw(_or_axes(SCALARS))
    return function, (q, k, v, window), kw


@settings(max_examples=5000 if FULL else 250)
@given(_calls())
def test_random_calls(call):
    """A result of the right shape, or one of three errors."""
    function, args, kw = call
    for x in args[:3]:
        if isinstance(x, torch.Tensor) and x.is_floating_point() and x.layout == torch.strided:
            x.requires_grad_()
    try:
        result = function(*args, **kw)
    except LEGAL as error:
        assert str(error)
        return
    assert kw["return_lse"] in (True, False)
    out = result[0] if kw["return_lse"] else result
    q, v = args[0], args[2]
    assert out.shape == (*q.shape[:-1], v.shape[-1]) and out.dtype == q.dtype
    if out.requires_grad:
        gradients = torch.autograd.grad(out, args[:3], torch.ones_like(out))
        assert all(g.shape == x.shape for g, x in zip(gradients, args[:3], strict=True))
