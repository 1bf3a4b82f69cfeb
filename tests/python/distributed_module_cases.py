# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What ranks do in test_distributed.py: modules, what stands around attention, compiled graphs."""

import copy
import functools
import pickle
import random

import torch
import torch.distributed as dist
from distributed_cases import close, compare, group_of, mesh_of, normal, prepare, seeded

import nearfield as nf
import nearfield.distributed as nd


def modules(rank):
    """`Attention` with a cp_group and neighborhood modules on a mesh, beside themselves on one process."""
    prepare(rank)
    for size in (1, 2, 3, 4):
        if rank < size:
            for seed in range(4):
                attention_module(rank, size, seed)
    for shape, dims in (((2,), (0,)), ((4,), (1,)), ((2, 2), (1, 0))):
        if mesh_of(*shape).get_coordinate() is not None:
            neighborhood_module(mesh_of(*shape), dims)


def attention_module(rank, size, seed, kind=nf.Attention):
    generator = random.Random(seed)
    layout = tuple(generator.randint(2, 5) for _ in range(generator.randint(1, 3)))
    layout = (generator.randint(1, 19), *layout[1:])
    rope = generator.random() < 0.7
    more = {} if kind is not nf.Attention else {"num_kv_heads": generator.choice((1, 2))}
    width = 12 * len(layout)
    module = kind(
        2 * width,
        2,
        generator.random() < 0.5,
        rope,
        generator.random() < 0.5,
        generator.choice((0.0, 0.4)),
        rope_spatial_dims=layout if rope else None,
        **more,
    ).double()
    channels = [2 * width, *[getattr(module, "num_kv_heads", 2) * width] * 2]
    inputs = [normal((2, *layout, c), i, torch.float64) for i, c in enumerate(channels)]
    extra = [normal((2, 3, module.num_kv_heads, width), 9 + i, torch.float64) for i in range(2)]
    group, slabs = group_of(size), torch.arange(layout[0]).tensor_split(2 * size)
    mine = torch.cat((slabs[rank], slabs[2 * size - 1 - rank]))

    def call(*tensors, cp_group=None, number=5):
        with seeded(number):
            names = ("additional_keys", "additional_values")
            extra = dict(zip(names, tensors[3:], strict=True))
            return module(*tensors[:3], cp_group, return_lse=True, **extra)

    def part(x, i):
        return x if i is not None and i > 2 else x[:, mine]

    local = functools.partial(call, cp_group=group, number=5 + rank)
    compare(f"{module} of {layout} on {size}", [*inputs, *extra], call, local, part, torch.float64)


def neighborhood_module(mesh, dims):
    torch.manual_seed(0)
    more = {"num_kv_heads": 2, "rel_pos_bias": True, "attn_drop": 0.2, "dtype": torch.float64}
    alone = nf.NeighborhoodAttention2D(16, 4, (3, 5), **more)
    module = nf.NeighborhoodAttention2D(16, 4, (3, 5), **more, mesh=mesh, shard_dims=dims)
    module.load_state_dict(alone.state_dict())
    x = normal((2, 8, 10, 16), 0, torch.float64)
    whole = x.clone().requires_grad_()
    with seeded(3):
        expected = alone(whole)
    upstream = normal(expected.shape, 1, torch.float64)
    expected.backward(upstream)
    slab = nd.shard(x, mesh, dims).clone().requires_grad_()
    with seeded(3 + dist.get_rank()):
        out = module(slab)
    out.backward(nd.shard(upstream, mesh, dims))
    nd.sum_gradients(module.parameters(), mesh)
    assert copy.deepcopy(module)._ranks is module._ranks and f"shard_dims={dims}" in repr(module)
    try:
        pickle.dumps(module)
    except TypeError as error:
        assert "got a module on a mesh to pickle" in str(error)
    else:
        raise AssertionError("pickled")
    close(out, nd.shard(expected, mesh, dims), torch.float64, "out")
    close(slab.grad, nd.shard(whole.grad, mesh, dims), torch.float64, "dx")
    for name, p in alone.named_parameters():
        close(module.get_parameter(name).grad, p.grad, torch.float64, name)


def compat_module(rank):
    from nearfield.compat.nvsubquadratic import Attention

    prepare(rank)
    for size in (2, 3):
        if rank < size:
            for seed in range(3):
                attention_module(rank, size, seed, Attention)


# ---- shard, unshard, halo, sums


def sharding(rank):
    prepare(rank)
    for shape, dims, layout in (((2,), (0,), (7, 3)), ((3,), (1,), (2, 8)), ((2, 2), (1, 0), (5, 6))):
        mesh = mesh_of(*shape)
        if mesh.get_coordinate() is None:
            continue
        whole = normal((2, *layout, 3), 0, torch.float64).requires_grad_()
        slab = nd.shard(whole, mesh, dims)
        again = nd.unshard(slab, mesh, dims)
        assert torch.equal(again, whole) and slab.shape[0] == 2
        weight = normal(whole.shape, 1, torch.float64)
        (gradient,) = torch.autograd.grad((again * weight).sum(), whole)
        assert torch.equal(gradient, weight)
        (gradient,) = torch.autograd.grad((nd.unshard(slab, mesh, dims) * weight).sum(), slab)
        assert torch.equal(gradient, nd.shard(weight, mesh, dims))
    if rank < 3:
        group = group_of(3)
        whole = normal((2, 13, 2), 0, torch.float32)
        zigzag = nd.shard(whole, group, pattern="zigzag")
        slabs = whole.tensor_split(6, 1)
        assert torch.equal(zigzag, torch.cat((slabs[rank], slabs[5 - rank]), 1))
        assert torch.equal(nd.unshard(zigzag, group, pattern="zigzag"), whole)
        uneven = nd.shard(whole, group, sizes=[(0, 12, 1)])
        assert torch.equal(nd.unshard(uneven, group), whole)
        p = torch.nn.Parameter(torch.zeros(3))
        p.grad = None if rank == 1 else torch.full((3,), 2.0**rank)
        nd.sum_gradients([p], group)
        assert p.grad.tolist() == [5.0] * 3


def halos(rank):
    """A convolution over slabs with their halos is the convolution of the whole, with its gradients."""
    prepare(rank)
    cuts = (((2,), (0,), [(5, 4)]), ((4,), (1,), [(1, 6, 1, 1)]), ((2, 2), (1, 0), [(4, 5), (3, 6)]))
    for shape, dims, sizes in cuts:
        mesh = mesh_of(*shape)
        if mesh.get_coordinate() is None:
            continue
        for kernel in (3, 7):
            weight = normal((2, 3, kernel, kernel), 5, torch.float64)
            whole = normal((2, 9, 9, 3), 0, torch.float64).requires_grad_()

            def convolve(x, padding, weight=weight):
                moved = torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), weight, padding=padding)
                return moved.permute(0, 2, 3, 1)

            expected = convolve(whole, kernel // 2)
            upstream = normal(expected.shape, 1, torch.float64)
            (gradient,) = torch.autograd.grad(expected, whole, upstream)
            slab = nd.shard(whole.detach(), mesh, dims, sizes=sizes).clone().requires_grad_()
            padding = tuple(0 if axis in dims else kernel // 2 for axis in (0, 1))
            out = convolve(nd.halo(slab, kernel // 2, mesh, dims), padding)
            close(out, nd.shard(expected, mesh, dims, sizes=sizes), torch.float64, "convolution")
            (mine,) = torch.autograd.grad(out, slab, nd.shard(upstream, mesh, dims, sizes=sizes))
            close(mine, nd.shard(gradient, mesh, dims, sizes=sizes), torch.float64, "its gradient")


def example(rank, words):
    """The losses of examples/digits/sharded.py, whole and sharded."""
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "digits"))
    import sharded

    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        return [run.train_loss for run in sharded.main(words)]
    finally:
        torch.use_deterministic_algorithms(deterministic)


# ---- compiled


def compiled(rank):
    """fullgraph=True, forward and backward, of functions and modules."""
    if rank >= 2:
        return prepare(rank)
    prepare(rank)
    mesh, group = mesh_of(2), group_of(2)
    slab = [
        normal((1, 4 + rank, 5, h, 4), i, torch.float32).requires_grad_() for i, h in enumerate((2, 1, 1))
    ]
    more = [normal((1, 2, 1, 4), 7 + i, torch.float32).requires_grad_() for i in range(2)]
    attention = nf.Attention(16, 2, True, True, rope_spatial_dims=(6, 2))
    layer = nf.NeighborhoodAttention2D(16, 2, (3, 2), rel_pos_bias=True, mesh=mesh)

    def neighborhood(q, k, v, ak, av):
        fixed = {
            "additional_keys": ak,
            "additional_values": av,
            "return_lse": True,
            "mesh": mesh,
            "shard_dims": (0,),
        }
        return nd.neighborhood_attention(q * 2, k, v, 3, **fixed)

    def dense(q, k, v, ak, av):
        flat = (x.flatten(1, 2) for x in (q, k, v))
        return (nd.attention(*flat, additional_keys=ak, additional_values=av, group=mesh, method="ring"),)

    def modules(q, k, v, ak, av):
        x = q[:, :3, :2, 0].repeat(1, 1, 1, 4)
        return (layer(attention(x, x, x, group)),)

    for function in (neighborhood, dense, modules):
        torch._dynamo.reset()
        outputs = torch.compile(function, fullgraph=True, backend="aot_eager")(*slab, *more)
        expected = function(*slab, *more)
        leaves = [*slab, *more] if function is not modules else slab[:1]
        for results in zip(outputs, expected, strict=True):
            torch.testing.assert_close(*results)
        for results in zip(
            *(torch.autograd.grad([o.sum() for o in out], leaves) for out in (outputs, expected)), strict=True
        ):
            torch.testing.assert_close(*results)


def compiled_of_many_shapes(rank):
    """Sizes and numbers may be symbols of a compiled graph."""
    if rank >= 2:
        return prepare(rank)
    prepare(rank)
    mesh, x = mesh_of(2), normal((1, 6, 5, 2, 4), 0, torch.float32)
    attention = nf.Attention(48, 4, apply_qk_norm=True, use_rope=False)
    layer = nf.NeighborhoodAttention2D(48, 4, 3, mesh=mesh, shard_dims=(0,))
    wide = normal((1, 6, 5, 48), 1, torch.float32)
    cases = [
        (lambda x, n: nd.neighborhood_attention(x, x, x, n, mesh=mesh, shard_dims=0), x, (1, 3, 4)),
        (lambda x, s: nd.neighborhood_attention(x, x, x, 3, scale=s, mesh=mesh, shard_dims=0), x, (0.3, 0.5)),
        (lambda x, n: nd.attention(*[x[:, :, :n].flatten(1, 2)] * 3, group=mesh), x, (5, 3)),
        (lambda x, n: attention(*[x[:, :, :n]] * 3, cp_group=mesh), wide, (5, 2)),
        (lambda x, n: layer(x[:, :, :n]), wide, (5, 3)),
        (lambda x, n: nd.halo(x, n, mesh), x, (1, 2, 3)),
    ]
    for function, tensor, numbers in cases:
        torch._dynamo.reset()
        one = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
        for number in numbers:
            torch.testing.assert_close(one(tensor, number), function(tensor, number))
