# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""na1d, na2d, na3d and attention against the oracle: values, lse and every gradient, on every backend."""

import os
import random
import subprocess
import sys

import pytest
import torch
from cases import CASES, NEIGHBORHOOD, na


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_and_gradients(case, dtype, backend):
    inputs = case.inputs(dtype)
    case.check(inputs, backend, *case.upstream(inputs))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "f16"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_half_precision(case, dtype, backend):
    inputs = case.inputs(dtype)
    case.check(inputs, backend, *case.upstream(inputs))


@pytest.mark.parametrize("case", [CASES[1], CASES[12], CASES[-3]], ids=str)
def test_gradient_of_one_output_alone(case, backend):
    inputs = case.inputs()
    grad_out, grad_lse = case.upstream(inputs)
    case.check(inputs, backend, grad_out)  # lse has no gradient
    leaves = case.inputs(requires_grad=True)
    lse = case.call(leaves, backend)[1]
    finite = torch.where(lse.isinf(), 0, lse)
    gradients = torch.autograd.grad(finite, leaves, grad_lse, allow_unused=True)
    expected = case.expected(inputs, torch.zeros_like(grad_out), grad_lse)
    for name, gradient in zip(("dq", "dk", "dv", "dak", "dav"), gradients, strict=False):
        if gradient is None:  # values have no influence on lse
            assert name in ("dv", "dav")
        else:
            expected[name].check(gradient, name, str(case))


def test_automatic_choice_and_lse_are_optional():
    case = na((6, 7), (3, 3))
    inputs = case.inputs()
    case.check(inputs, None, *case.upstream(inputs))
    out = case.call(inputs, None, return_lse=False)
    assert isinstance(out, torch.Tensor)
    assert torch.equal(out, case.call(inputs, None)[0])


# ------------------------------------------------------------------------------------------------
# Long


@pytest.mark.full
@pytest.mark.parametrize("target", ["avx512", "avx2", "sse4", "scalar"])
def test_every_cpu_target(target):
    """The whole file once more, in a process that is told which instructions to use."""
    environment = dict(os.environ, NEARFIELD_CPU_TARGET=target, NEARFIELD_TEST_FULL="0")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__, "-k", "cpu"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if "NEARFIELD_CPU_TARGET" in done.stdout and "not supported" in done.stdout:
        pytest.skip(f"this processor has no {target}")
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.full
@pytest.mark.parametrize("number", range(150))
def test_random_cases(number, backend, threads):
    r = random.Random(number)
    threads(r.randint(1, 5))
    rank = r.randint(1, 3)
    layout = tuple(r.randint(1, (60, 14, 7)[rank - 1]) for _ in range(rank))
    dilation = tuple(r.randint(1, min(3, n)) for n in layout)
    window = tuple(r.randint(1, n // d) for n, d in zip(layout, dilation, strict=True))
    stride = tuple(r.randint(1, k) for k in window)
    kv = r.randint(1, 3)
    case = na(
        layout,
        window,
        stride=stride,
        dilation=dilation,
        causal=tuple(r.random() < 0.4 for _ in layout),
        batch=r.randint(1, 2),
        heads=kv * r.randint(1, 3),
        kv_heads=kv,
        dim=r.randint(1, 70),
        value_dim=r.randint(1, 70),
        additional=r.choice([None, None, 0, 1, 9]),
    )
    inputs = case.inputs(r.choice([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
    case.check(inputs, backend, *case.upstream(inputs))


def test_the_cases_cover_every_feature():
    """A reader who prunes the list above should notice what is lost."""
    assert {len(c.layout) for c in NEIGHBORHOOD} == {1, 2, 3}
    assert any(c.additional for c in CASES) and any(c.additional == 0 for c in CASES)
    assert any(c.heads > c.kv_heads for c in CASES) and any(c.dim != c.value_dim for c in CASES)
    assert any(c.scale == 0.0 for c in CASES)
