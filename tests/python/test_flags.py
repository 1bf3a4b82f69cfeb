# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The permissions of a call, from the context managers and the environment to the operators' `flags`."""

import os
import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import nearfield as nf
from nearfield import _flags, _ops

NONDETERMINISTIC, BF16 = 1, 4


class _Flags(TorchDispatchMode):
    """The flags of every call of our operators."""

    def __init__(self):
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "nearfield":
            self.seen.append(args[-1])
        return function(*args, **(kwargs or {}))


def _x(requires_grad=False):
    return torch.randn(1, 12, 2, 8, dtype=torch.bfloat16).requires_grad_(requires_grad)


def _attend(x):
    return nf.na1d(x, x, x, 5)


def test_permissions_nest_and_add():
    assert _flags.flags() == 0
    with nf.allow_bf16_arithmetic():
        assert _flags.flags() == BF16
        with nf.allow_nondeterministic(), nf.allow_bf16_arithmetic():
            assert _flags.flags() == BF16 | NONDETERMINISTIC
            torch.use_deterministic_algorithms(True)
            try:
                assert _flags.flags() == BF16
            finally:
                torch.use_deterministic_algorithms(False)
        assert _flags.flags() == BF16
    with pytest.raises(KeyError), nf.allow_bf16_arithmetic():
        raise KeyError
    assert _flags.flags() == 0


@pytest.mark.parametrize("attend", [
    _attend,
    lambda x: nf.attention(x, x, x),
    lambda x: nf.multi_dimensional_attention(x, x, x, 5),
], ids=["na1d", "attention", "multi_dimensional"])  # fmt: skip
def test_backward_has_the_flags_of_its_forward(attend):
    x = _x(True)
    with _Flags() as calls:
        with nf.allow_bf16_arithmetic():
            allowed = attend(x)
        allowed.sum().backward()
        attend(x).sum().backward()
    assert calls.seen == [BF16, BF16, 0, 0]


def _inside(x):
    with nf.allow_bf16_arithmetic():
        y = _attend(x)
    return y + _attend(x)


def test_compiled_code_has_the_flags_of_its_time():
    seen = []

    def backend(graph, _):
        nodes = [n for n in graph.graph.nodes if str(n.target).startswith("nearfield.")]

        def run(*inputs):
            seen.extend(n.args[-1] for n in nodes)
            return graph(*inputs)

        return run

    torch._dynamo.reset()
    compiled = torch.compile(_attend, fullgraph=True, backend=backend)
    compiled(_x())
    with nf.allow_bf16_arithmetic():
        compiled(_x())
    compiled(_x())
    torch.compile(_inside, fullgraph=True, backend=backend)(_x())
    assert seen == [0, BF16, 0, BF16, 0]


def test_exported_programs_keep_the_flags():
    class Model(torch.nn.Module):
        def forward(self, x):
            return _inside(x)

    x = _x()
    with _Flags() as calls:
        torch.export.export(Model(), (x,)).module()(x)
    assert calls.seen[-2:] == [BF16, 0]


def _problem(dtype):
    x = torch.empty(1, 12, 2, 8, dtype=dtype)
    config = _ops.Config(axes=(5, 1, 1, 0), flags=_flags.flags())
    return _ops.problem_string(x, x, x, None, None, None, config)


def test_the_permission_is_a_part_of_bf16_problems_only():
    before = _problem(torch.bfloat16)
    with nf.allow_bf16_arithmetic():
        assert _problem(torch.bfloat16) == before + ":prec=bf16"
        assert "prec" not in _problem(torch.float32) + _problem(torch.float16)


def test_other_dtypes_and_lse_are_untouched():
    for dtype in (torch.float32, torch.float16, torch.float64):
        q, k, v = (torch.randn(1, 40, 2, 16, dtype=dtype, requires_grad=True) for _ in range(3))
        results = []
        for allow in (False, True):
            if allow:
                with nf.allow_bf16_arithmetic():
                    out, lse = nf.na1d(q, k, v, 9, return_lse=True)
            else:
                out, lse = nf.na1d(q, k, v, 9, return_lse=True)
            results.append((out, lse, *torch.autograd.grad((out.sum() + lse.sum()), (q, k, v))))
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


_SCRIPT = """
import torch, nearfield as nf
from nearfield import _ops
x = torch.randn(1, 12, 2, 8, dtype=torch.bfloat16)
nf.na1d(x, x, x, 5)
print(_ops.problem_string(x, x, x, None, None, None, _ops.Config(axes=(5, 1, 1, 0))))
"""


@pytest.mark.parametrize("value", ["1", "yes"])
def test_the_environment_allows_it_everywhere(value):
    environment = dict(os.environ, NEARFIELD_BF16_ARITHMETIC=value)
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], env=environment, capture_output=True, text=True, check=False
    )
    if value == "1":
        assert done.returncode == 0, done.stderr
        assert ":prec=bf16" in done.stdout
    else:
        assert done.returncode != 0
        assert "got NEARFIELD_BF16_ARITHMETIC=yes, expected 0 or 1" in done.stderr
