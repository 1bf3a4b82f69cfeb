# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What ranks do in test_distributed_errors.py: calls that differ, ranks that fail, die or hang."""

import contextlib
import os
import time
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from distributed_cases import mesh_of, normal, prepare

import nearfield as nf
import nearfield.distributed as nd


def refused(rank, size, change, odd):
    """The text of the error that every rank must raise when rank `odd` makes another call; the group is then
    as good as new."""
    prepare(rank)
    if rank >= size:
        return None
    mesh, call = mesh_of(size), _call_of(size)
    call(mesh)
    try:
        call(mesh, **(change if rank == odd else {}))
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    else:
        text = None
    call(mesh)
    return text


def _call_of(size):
    def call(mesh, function=nd.neighborhood_attention, **change):
        dtype = change.pop("dtype", torch.float32)
        shape = change.pop("shape", (1, 4, 6, 2, 8))
        more = change.pop("additional", 2)
        q = change.pop("query", torch.ones(shape, dtype=dtype))
        kv = torch.ones(change.pop("key_shape", shape), dtype=dtype)
        extra = torch.ones(shape[0], more, 2, 8, dtype=dtype)
        if change.pop("gradient", False):
            kv.requires_grad_()
        fixed = {
            "kernel_size": 3,
            "additional_keys": extra,
            "additional_values": extra,
            "mesh": mesh,
            "shard_dims": (0,),
        }
        fixed.update(change)
        if function is nd.attention:
            return function(q.flatten(1, 2), kv.flatten(1, 2), kv.flatten(1, 2), group=mesh)
        return function(q, kv, kv, **fixed)

    return lambda mesh, **change: call(mesh, **change)


def other_function(rank):
    prepare(rank)
    try:
        _call_of(4)(mesh_of(4), function=nd.attention if rank == 2 else nd.neighborhood_attention)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def wrong_mesh(rank):
    """Refused by every rank alone: nothing is sent."""
    prepare(rank)
    call = _call_of(4)
    for error, mesh in ((TypeError, None), (TypeError, "mesh")):
        with pytest.raises(error, match=r"^\[neighborhood_attention\] got .*expected"):
            call(mesh)
    if rank >= 2:
        with pytest.raises(ValueError, match="no part of"):
            call(mesh_of(2))
    with pytest.raises(ValueError, match="expected one axis for each"):
        call(mesh_of(4), shard_dims=(0, 1))
    with pytest.raises(NotImplementedError, match=r"torch\.func"):
        torch.func.vmap(lambda x: call(mesh_of(4), query=x))(torch.ones(2, 1, 4, 6, 2, 8))
    q = torch.ones(1, 4, 6, 2, 8, requires_grad=True)
    out = call(mesh_of(4), query=q)
    (gradient,) = torch.autograd.grad(out.sum(), q, create_graph=True)
    if gradient.requires_grad:
        with pytest.raises(NotImplementedError, match="second"):
            gradient.sum().backward()


def one_rank_says(rank, what):
    """The text of the error on every rank where rank 1 differs in some other function than the first one."""
    prepare(rank)
    if rank >= 2:
        return None
    mesh, odd = mesh_of(2), rank == 1
    x = normal((1, 6, 5, 2, 4), 0, torch.float32)

    def backward_order():
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        outputs = [nd.neighborhood_attention(y, y, y, 3, mesh=mesh, shard_dims=0) for y in inputs]
        for out in reversed(outputs) if odd else outputs:
            out.sum().backward()

    def halo():
        nd.halo(x.clone().requires_grad_(not odd), 1, mesh)

    def parameters():
        both = [torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(6))]
        nd.sum_gradients(both[::-1] if odd else both, mesh)

    def no_parameters():
        nd.sum_gradients([] if odd else [torch.nn.Parameter(torch.ones(2))], mesh)

    def no_parameter():
        nd.sum_gradients([1.0] if odd else [torch.nn.Parameter(torch.ones(2))], mesh)

    def dense_parameters():
        p = torch.nn.Parameter(torch.ones(4, 2))
        p.grad = torch.ones(4, 2).to_sparse() if odd else torch.ones(4, 2)
        nd.sum_gradients([p], mesh)

    def backend():
        nd.neighborhood_attention(x, x, x, 3, mesh=mesh, shard_dims=0, backend="cuda_sm90")

    def too_long():
        nd.neighborhood_attention(x, x, x, 3, mesh=mesh, shard_dims=0, layout=None)
        from nearfield.distributed import _agree

        with _team_of(mesh).turn():
            _agree.agree(_team_of(mesh), {"words": "x" * 5000 if odd else "x"}, {})

    def projection():
        layer = nf.NeighborhoodAttention2D(8, 2, 3, mesh=mesh, shard_dims=(0,))
        layer(x.flatten(-2).to(torch.float64 if odd else torch.float32))

    def meta():
        nd.neighborhood_attention(*[x.to("meta") if odd else x] * 3, 3, mesh=mesh, shard_dims=0)

    def axes():
        nd.neighborhood_attention(*[x[:, 0] if odd else x] * 3, 3, mesh=mesh, shard_dims=0)

    try:
        locals()[what]()
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    else:
        text = None
    nd.neighborhood_attention(x, x, x, 3, mesh=mesh, shard_dims=0)  # the group is as good as new
    return text


def _team_of(mesh):
    from nearfield.distributed import _team

    return _team.team_of("agree", mesh)[0]


def threads(rank):
    """Two threads with a mesh each, and the same calls in one order per mesh."""
    import threading

    prepare(rank)
    meshes = [
        dist.DeviceMesh("cpu", torch.tensor(ranks)) for ranks in ([[0, 1], [2, 3]], [[0], [1]], [[2], [3]])
    ]
    mine = [m for m in meshes if m.get_coordinate() is not None]
    x = [normal((1, 8, 6, 2, 4), i, torch.float64) for i in range(2)]
    expected = [nf.na2d(y, y, y, 3) for y in x]
    wrong = []

    def run(i):
        mesh = mine[i]
        for _ in range(20):
            part = nd.shard(x[i], mesh, (0, 1))
            out = nd.neighborhood_attention(part, part, part, 3, mesh=mesh, shard_dims=(0, 1))
            if not torch.allclose(out, nd.shard(expected[i], mesh, (0, 1)), rtol=1e-12, atol=1e-12):
                wrong.append(i)

    both = [threading.Thread(target=run, args=(i,)) for i in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert not wrong, wrong


def arguments_of_shard(rank):
    prepare(rank)
    mesh = mesh_of(4)
    for sizes in ((1, 3), [(1, 1), (2, 2)], 3, [(0.5, 3.5, 1, 1)], [(1, 1, 1, 0)]):
        with pytest.raises((ValueError, TypeError), match=r"^\[shard\] got .*expected"):
            nd.shard(torch.ones(1, 4, 2), mesh, sizes=sizes)
    with pytest.raises(ValueError, match=r"^\[shard\] got a tensor of shape \(4,\), expected"):
        nd.shard(torch.ones(4), mesh)
    outside = dist.GroupMember.NON_GROUP_MEMBER
    with pytest.raises(ValueError, match="no part of"):
        nd.attention(*[torch.ones(1, 4, 1, 4)] * 3, group=outside)


def fails_inside(rank, way, seconds):
    """Rank 1 raises between the agreement and its messages, and calls again: what every rank sees."""
    from nearfield import _shard_call

    nd.set_timeout(seconds)
    mesh, texts = mesh_of(dist.get_world_size()), []
    x = torch.ones(1, 6, 2, 4, requires_grad=True)

    def no_memory(*arguments):
        raise MemoryError("no memory")

    def call():
        nd.neighborhood_attention(x, x, x, 5, mesh=mesh, shard_dims=0).sum().backward()

    call()
    with mock.patch.object(_shard_call.GlobalCall, way, no_memory) if rank == 1 else contextlib.nullcontext():
        for _ in range(2):
            try:
                call()
            except (nd.PeerError, MemoryError) as error:
                texts.append(f"{type(error).__name__}: {error}")
    return texts


def lost(rank, how, odd, seconds):
    """One rank goes away in the middle; what the others say, and after how long."""
    from nearfield.distributed import _team

    nd.set_timeout(seconds)
    call = _call_of(dist.get_world_size())
    mesh = mesh_of(dist.get_world_size())
    call(mesh)
    if rank == odd and how == "dies":
        os._exit(7)
    if rank == odd and how == "hangs":
        time.sleep(3 * seconds)
        return None
    backward = how.endswith("gradients")
    if rank == odd:  # dies between the agreement and its messages
        exchange = _team.Team.exchange

        def leave(team, what, *messages):
            if what.startswith("gradients" if backward else "keys"):
                os._exit(7)
            return exchange(team, what, *messages)

        _team.Team.exchange = leave
    begin = time.monotonic()
    try:
        for _ in range(2):
            out = call(mesh, gradient=backward)
            if backward:
                out.sum().backward()
    except nd.PeerError as error:
        return str(error), time.monotonic() - begin
    return "no error", time.monotonic() - begin
