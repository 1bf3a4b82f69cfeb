# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Sharded attention with 2, 3 and 4 processes: outputs, lse and all gradients are those of one process, and
bits repeat."""

import pytest
import torch
from ranks import Ranks

torch.distributed.is_available() or pytest.skip("torch without torch.distributed", allow_module_level=True)

MESHES = ((2,), (3,), (4,), (2, 2), (1, 3), (2, 1, 2))


@pytest.fixture(scope="module")
def ranks():
    with Ranks(4) as ranks:
        yield ranks


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_neighborhoods(ranks, shape):
    ranks.run("distributed_cases.neighborhoods", 1, 12, (shape,), torch.float64)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_sequences(ranks, size):
    ranks.run("distributed_cases.sequences", 2, 25, (size,), torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_other_dtypes(ranks, dtype):
    ranks.run("distributed_cases.neighborhoods", 3, 8, MESHES, dtype)
    ranks.run("distributed_cases.sequences", 3, 8, (2, 3, 4), dtype)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(100, 112))
def test_long_sweep(ranks, seed):
    ranks.run("distributed_cases.neighborhoods", seed, 60, MESHES, torch.float64)
    ranks.run("distributed_cases.sequences", seed, 60, (2, 3, 4), torch.float64)


def test_modules(ranks):
    ranks.run("distributed_cases.modules")


def test_compat_module(ranks):
    ranks.run("distributed_cases.compat_module")


def test_shard_and_unshard(ranks):
    ranks.run("distributed_cases.sharding")


def test_halo(ranks):
    ranks.run("distributed_cases.halos")


def test_compiled_in_one_graph(ranks):
    ranks.run("distributed_cases.compiled")
