# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Sharded attention with 2, 3 and 4 processes: outputs, lse and all gradients are those of one process, and
bits repeat."""

import re
import subprocess
import sys
from pathlib import Path

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


def test_many_ranks_agree_by_a_collective(ranks):
    ranks.run("distributed_cases.by_collective")


def test_order_of_ranks_and_empty_batches(ranks):
    ranks.run("distributed_cases.meshes_in_another_order")


def test_a_mesh_that_is_a_part_of_the_world(ranks):
    ranks.run("distributed_cases.part_of_the_world")


def test_modules(ranks):
    ranks.run("distributed_module_cases.modules")


def test_compat_module(ranks):
    ranks.run("distributed_module_cases.compat_module")


def test_shard_and_unshard(ranks):
    ranks.run("distributed_module_cases.sharding")


def test_halo(ranks):
    ranks.run("distributed_module_cases.halos")


def test_only_the_halo_travels(ranks):
    ranks.run("distributed_exchange_cases.traffic")


@pytest.mark.parametrize(
    "law", ["wide_gradients", "overlap", "blocking", "lse_of_one_rank", "same_sums", "chosen"]
)
def test_what_is_exchanged(ranks, law):
    """16-bit gradients in float32; computing in the meantime; one exchange at a time; a loss
    with one rank's lse; sums in rank order; the method chosen."""
    ranks.run(f"distributed_exchange_cases.{law}")


def test_the_example_on_four_ranks(ranks):
    """The digits transformer on one row of tokens per rank: the loss of one process."""
    pytest.importorskip("sklearn")
    for one, many in ranks.run("distributed_module_cases.example", ["--epochs", "2", "--pictures", "64"]):
        assert many == pytest.approx(one, rel=1e-4)


@pytest.mark.full
def test_the_example_under_torchrun():
    """The digits transformer on two ranks, launched as users do: the loss of one process."""
    pytest.importorskip("sklearn")
    script = Path(__file__).parents[2] / "examples" / "digits" / "sharded.py"
    words = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(script),
    ]
    done = subprocess.run(
        [*words, "--epochs", "2", "--pictures", "64"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if re.match(r" +\d+ +[\d.]+ ", line)]
    assert len(rows) == 2
    for _, one, many, _ in rows:
        assert abs(float(one) - float(many)) < 1e-4 * float(one), done.stdout


def test_compiled_in_one_graph(ranks):
    ranks.run("distributed_module_cases.compiled")


def test_compiled_of_many_shapes(ranks):
    ranks.run("distributed_module_cases.compiled_of_many_shapes")
