# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The same inputs give the same bits, whatever the thread count and whatever shares the batch."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cases import dense, na


def _bits(case, inputs, backend):
    leaves = [x.clone().requires_grad_() for x in inputs]
    out, lse = case.call(leaves, backend)
    return [out, lse, *torch.autograd.grad((out, lse), leaves, case.upstream(inputs))]


DETERMINISM = [
    na((24, 26), (7, 5), stride=(2, 1), heads=2, kv_heads=1, batch=3, dim=16, value_dim=16),
    na((150,), (31,), dilation=3, causal=True, additional=5, heads=4, batch=2, kv_heads=2),
    na((6, 10, 8), (3, 3, 5), causal=(True, False, False), heads=1, kv_heads=1),
    dense(300, 210, "br", heads=4, kv_heads=1),
    na((80, 20), (7, 7), heads=2, kv_heads=2, dim=32, value_dim=32),
    na((700,), (63,), heads=4, kv_heads=4),
]


@pytest.mark.parametrize("case", DETERMINISM, ids=str)
def test_same_bits_for_any_thread_count(case, threads):
    inputs = case.inputs()
    results = []
    for n in (1, 2, 3, 7, 1):
        threads(n)
        results.append(_bits(case, inputs, "cpu"))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("case", DETERMINISM, ids=str)
def test_same_bits_alone_and_in_a_batch(case):
    inputs = [torch.cat([x, x.flip(0) * 0.5]) for x in case.inputs()]
    together = _bits(case, inputs, "cpu")
    upstream = case.upstream(inputs)
    leaves = [x[1:2].clone().requires_grad_() for x in inputs]
    out, lse = case.call(leaves, "cpu")
    alone = [out, lse, *torch.autograd.grad((out, lse), leaves, [g[1:2] for g in upstream])]
    assert all(torch.equal(a, b[1:2]) for a, b in zip(alone, together, strict=True))


def test_calls_from_several_threads_at_once():
    """Different problems side by side share the pool and the cache of plans, and nothing else."""
    cases = [*DETERMINISM, na((9, 9), (3, 3)), dense(20, 30)]
    inputs = [case.inputs() for case in cases]
    expected = [_bits(case, x, "cpu") for case, x in zip(cases, inputs, strict=True)]
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            (i, pool.submit(_bits, cases[i], inputs[i], "cpu")) for _ in range(6) for i in range(len(cases))
        ]
        for i, job in jobs:
            assert all(torch.equal(a, b) for a, b in zip(job.result(), expected[i], strict=True))
