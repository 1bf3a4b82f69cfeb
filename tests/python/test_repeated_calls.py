# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What is remembered of earlier calls (checked arguments in Python, problem and plan in the operators) never
answers a call that differs from them."""

import random

import numpy
import pytest
import torch
from cases import dense, na
from test_errors import refused

import nearfield as nf
from nearfield import _autograd, _call, _neighborhood, _ops

LIKE = [
    na((12,), (5,)), na((12,), (3,)), na((12,), (5,), stride=2), na((12,), (5,), dilation=2),
    na((12,), (5,), causal=True), na((12,), (5,), scale=0.5), na((12,), (5,), kv_heads=1),
    na((12,), (5,), batch=2), na((12,), (5,), dim=4), na((12,), (5,), value_dim=4), na((13,), (5,)),
    na((12,), (5,), additional=2), na((12,), (5,), additional=3), na((12,), (5,), bias=True),
    na((12,), (5,), dropout=0.5), na((12,), (5,), dropout=0.25), na((12,), (5,), queries=(6,)),
    na((3, 4), (3, 3)), na((4, 3), (3, 3)), na((3, 4), (3, 1)), na((3, 4), (3, 3), causal=(True, False)),
    na((3, 4), (3, 3), causal=(False, True)), dense(12, 12), dense(12, 12, "tl"), dense(12, 7, "br"),
    dense(12, 7, "tl"), dense(7, 12),
]  # fmt: skip


def strided(x):
    """The same numbers with gaps between them."""
    return x.repeat_interleave(2, -1)[..., ::2]


def test_calls_that_differ_in_one_thing_each():
    """In random order, several times, both ways, in several dtypes, dense and with gaps, on both backends."""
    draw = random.Random(0)
    calls = [
        (case, dtype, gaps, backend, lse)
        for case in LIKE
        for dtype, gaps, backend, lse in (
            (torch.float32, False, "cpu", True),
            (torch.float32, True, "cpu", False),
            (torch.bfloat16, False, "cpu", True),
            (torch.float32, False, "reference", True),
        )
    ]
    for case, dtype, gaps, backend, lse in draw.sample(calls * 2, 2 * len(calls)):
        inputs = case.inputs(dtype, seed=draw.randrange(100))
        if gaps:
            inputs = [strided(x) for x in inputs]
        grad_out, grad_lse = case.upstream(inputs)
        case.check(inputs, backend, strided(grad_out) if gaps else grad_out, grad_lse if lse else None)


def test_a_repeated_call_is_refused_like_the_first():
    x = torch.randn(1, 12, 2, 8)
    for _ in range(3):
        nf.na1d(x, x, x, 1)
        nf.na1d(x, x, x, (1,), is_causal=True)
        nf.na1d(x, x, x, 5, scale=1.0)
        for kernel_size in (
            True,
            1.0,
            "1",
            [True],
            (1.0,),
            numpy.float64(5),
            numpy.bool_(True),
            {1: 1},
            b"\5",
            [[1]],
        ):
            refused(nf.na1d, x, x, x, kernel_size, error=TypeError, says="kernel_size")
        refused(nf.na1d, x, x, x, 5, is_causal=1, error=TypeError, says="is_causal")
        refused(nf.na1d, x, x, x, 5, scale=True, error=TypeError, says="scale")
        refused(nf.na1d, x, x, x, 5, return_lse=0, error=TypeError, says="return_lse")
        refused(nf.na1d, x, x, x, 5, attention_kwargs={"backend": 1}, error=TypeError, says="backend")
        refused(nf.na1d, x, x, x, 13)
        refused(nf.na1d, x.double(), x, x, 5)
        refused(nf.na1d, x, x[:, :, :1], x, 5)
        refused(nf.na1d, x, x, x, 5, backend="cpu", q_tile_shape=(0,))
        refused(nf.attention, x, x, x, is_causal=1, error=TypeError, says="is_causal")


@pytest.mark.parametrize("five", [numpy.int64(5), numpy.uint8(5), (numpy.int32(5),), [5]], ids=repr)
def test_numbers_of_other_kinds(five):
    x = torch.randn(1, 12, 2, 8)
    expected = nf.na1d(x, x, x, 5)
    for _ in range(2):
        assert torch.equal(nf.na1d(x, x, x, five), expected)


def test_attention_kwargs_count_by_the_tensors(monkeypatch):
    """The same plain arguments, with and without a window over everything and additional keys."""
    configs = []

    def attend(*tensors_and_config):
        configs.append(tensors_and_config[-1])
        return _autograd.attend(*tensors_and_config)

    monkeypatch.setattr(_neighborhood, "attend", attend)
    more = torch.randn(1, 3, 2, 8)
    for _ in range(2):
        for layout, keys, counts in ((12, None, True), (13, None, False), (13, more, True)):
            x = torch.randn(1, layout, 2, 8)
            extra = {"additional_keys": keys, "additional_values": keys}
            nf.na1d(x, x, x, 12, **extra, attention_kwargs={"backend": "reference"})
            assert (configs.pop().backend == _ops.BACKENDS["reference"]) == counts


def test_plain_arguments_are_checked_once_and_few_are_kept():
    checked = []

    @_call.remembered
    def check(op, a):
        checked.append((op, dict(a)))
        return len(checked)

    assert check("f", {"x": 1}) == check("f", {"x": 1}) == 1
    different = [True, 1.0, (1,), [1], "1", None, {1: 1}, -0.0, 0.0, 2**70]
    results = [check("f", {"x": x}) for x in different]
    assert results == [check("f", {"x": x}) for x in different] == list(range(2, 12))
    assert check("g", {"x": 1}) == 12
    for _ in range(2):
        check("f", {"x": numpy.int64(1)})  # not kept: bytes would do for it
        check("f", {"x": torch})
    assert len(checked) == 16
    check("f", {"x": "long" * 2000}), check("f", {"x": "long" * 2000})
    assert len(checked) == 18
    for x in range(3000):
        check("f", {"x": x})
    assert len(check.known) <= 1000
