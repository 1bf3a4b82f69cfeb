# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Ranks that disagree, die or hang: an error on every rank within a bounded time, which names the rank."""

import re

import pytest
import torch
from ranks import RankFailed, Ranks

torch.distributed.is_available() or pytest.skip("torch without torch.distributed", allow_module_level=True)


@pytest.fixture(scope="module")
def ranks():
    with Ranks(4) as ranks:
        yield ranks


CHANGES = [
    ({"kernel_size": 5}, r"got kernel_size \[5, 5\] on rank 1, expected \[3, 3\]"),
    ({"stride": 2}, r"got stride \[2, 2\] on rank 1"),
    ({"dilation": (1, 2)}, r"got dilation \[1, 2\] on rank 1"),
    ({"is_causal": True}, r"got is_causal \[True, True\] on rank 1, expected \[False, False\]"),
    ({"scale": 0.5}, r"got scale 0.5 on rank 1, expected None"),
    ({"dropout_p": 0.5}, r"got dropout_p 0.5 on rank 1, expected 0.0"),
    ({"backend": "reference"}, r"got backend .* on rank 1"),
    ({"shard_dims": (1,)}, r"got shard_dims \[1\] on rank 1, expected \[0\]"),
    ({"layout": (8, 6)}, r"got layout \[8, 6\] on rank 1, expected None"),
    ({"dtype": torch.float64}, r"got query float64 .* on rank 1, expected float32"),
    ({"shape": (2, 4, 6, 2, 8)}, r"got query .*\[2, 2 axes, 2, 8\] on rank 1, expected .*\[1, 2 axes"),
    ({"shape": (1, 4, 6, 4, 8)}, r"got query .* on rank 1"),
    ({"shape": (1, 4, 5, 2, 8)}, r"got a slab of 5 tokens along axis 1 on rank 1, expected 6, as on rank 0"),
    (
        {"key_shape": (1, 3, 6, 2, 8)},
        r"got a query of layout \(4, 6\) and a key of layout \(3, 6\) on rank 1",
    ),
    (
        {"additional": 5},
        r"got additional_keys float32 cpu \[1, 5, 2, 8\] on rank 1, expected .*\[1, 2, 2, 8\]",
    ),
    ({"gradient": True}, r"got requires_grad of key, value on rank 1, expected no input"),
    # What one rank refuses before it can say what it was called with.
    ({"query": [1.0]}, r"got query of type list|got an error on rank 1, expected none; there: .*type list"),
    ({"kernel_size": 2.5}, r"kernel_size of type float"),
    ({"backend": "cpus"}, r"'cpus'"),
    ({"shard_dims": (0, 1)}, r"for a mesh of 1 dimensions"),
]


@pytest.mark.parametrize("change, pattern", CHANGES, ids=[next(iter(c)) for c, _ in CHANGES])
@pytest.mark.parametrize("size", [3])
def test_every_rank_says_what_differs(ranks, change, pattern, size):
    said = ranks.run("distributed_error_cases.refused", size, change, 1)
    for text in said[:size]:
        assert text and re.search(pattern, text), text
        assert re.match(r"(ValueError|TypeError): \[neighborhood_attention\] got ", text), text
    shared = {text for rank, text in enumerate(said[:size]) if rank != 1}
    assert len(shared) == 1


def test_two_ranks_disagree(ranks):
    """No majority: the first rank counts."""
    said = ranks.run("distributed_error_cases.refused", 2, {"stride": 2}, 0)
    assert said[0] == said[1] and "got stride [1, 1] on rank 1, expected [2, 2], that of rank 0" in said[0]


def test_windows_that_do_not_fit_are_refused_by_all(ranks):
    for size in (2, 4):
        said = ranks.run("distributed_error_cases.refused", size, {"key_shape": (1, 4, 6, 2, 7)}, 0)
        assert len(set(said[:size])) == 1 and "ValueError: [neighborhood_attention] got key" in said[0]


def test_different_functions(ranks):
    said = ranks.run("distributed_error_cases.other_function")
    assert len({s.partition(" got ")[2] for s in said}) == 1
    assert all("got op attention on rank 2, expected neighborhood_attention" in text for text in said)


def test_wrong_meshes_and_transforms(ranks):
    ranks.run("distributed_error_cases.wrong_mesh")


SAYINGS = {
    "backward_order": r"got the backward pass of call \d+ on rank 1, expected that of call \d+, as on rank 0",
    "halo": r"\[halo\] got requires_grad of no input on rank 1, expected slab",
    "parameters": r"\[sum_gradients\] got parameters 2, dtypes and shapes \w+ on rank 1",
    "no_parameters": r"\[sum_gradients\] got parameters 0, .* on rank 1",
    "no_parameter": r"\[sum_gradients\] got a parameter of type float",
    "dense_parameters": r"got a parameter of dtype torch.float32 and layout torch.sparse_coo",
    "backend": r"ValueError: \[neighborhood_attention\] got backend cuda_sm90, expected one that serves",
    "too_long": r"got arguments of 50\d\d bytes, expected at most 4064",
    "projection": r"same dtype",
    "meta": r"got query on device meta, expected cpu or cuda",
    "axes": r"got query float32 cpu \[1, 1 axes, 2, 4\] on rank 1, expected float32 cpu \[1, 2 axes, 2, 4\]",
}


@pytest.mark.parametrize("what", SAYINGS)
def test_every_function_says_what_differs(ranks, what):
    for text in ranks.run("distributed_error_cases.one_rank_says", what)[:2]:
        assert text and re.search(SAYINGS[what], text), text


def test_threads_with_a_mesh_each(ranks):
    ranks.run("distributed_error_cases.threads")


def test_arguments_of_shard(ranks):
    ranks.run("distributed_error_cases.arguments_of_shard")


@pytest.mark.parametrize("way", ["forward", "backward"])
def test_a_rank_that_fails_inside(way):
    """Nothing it sends later is taken for what it owes."""
    with Ranks(3) as ranks:
        results = ranks.run("distributed_error_cases.fails_inside", way, 3.0)
    assert results[1][0] == "MemoryError: no memory"
    # Rank 2 may have what it needs of rank 1, and then miss rank 0 in the next step.
    assert all(re.search(r"got no (answer from|way to) rank [01] on", results[r][0]) for r in (0, 2)), results
    assert any("rank 1 on rank" in results[rank][0] for rank in (0, 2)), results
    for rank in range(3):
        assert f"whose last call failed on rank {rank}, expected one in step" in results[rank][1], results


@pytest.mark.parametrize("how", ["dies", "dies with its keys", "dies with its gradients"])
def test_a_rank_that_dies(how):
    """At once: the connection is closed."""
    with Ranks(3) as ranks:
        with pytest.raises(RankFailed) as failure:
            ranks.run("distributed_error_cases.lost", how, 1, 20.0)
        assert failure.value.died == (1,), failure.value
        results = failure.value.results
    for rank in (0, 2):
        text, seconds = results[rank]
        assert text.startswith("[neighborhood_attention"), text
        assert re.search(rf"\] got no (answer from|way to) rank 1 on rank {rank} ", text), text
        assert seconds < 20


def test_a_rank_that_hangs():
    """After the time that set_timeout gave."""
    with Ranks(3) as ranks:
        results = ranks.run("distributed_error_cases.lost", "hangs", 1, 2.0)
    for rank in (0, 2):
        text, seconds = results[rank]
        assert f"got no answer from rank 1 on rank {rank} (arguments), expected one within 2 s" in text, text
        assert 1.9 < seconds < 10


def test_timeouts_are_numbers():
    from nearfield import distributed as nd

    before = nd.set_timeout(5)
    assert nd.set_timeout(before) == 5.0
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"^\[set_timeout\] got "):
            nd.set_timeout(wrong)
    with pytest.raises(TypeError):
        nd.set_timeout("soon")
    assert nd.set_timeout(before) == before
