# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What ranks do in test_distributed.py: sharded calls beside the same call unsharded, which each computes."""

import copy
import functools
import itertools
import pickle
import random
from unittest import mock

import torch
import torch.distributed as dist

import nearfield as nf
import nearfield.distributed as nd
from nearfield import _call

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 4e-2}


@functools.cache
def mesh_of(*shape):
    """The first ranks as a mesh."""
    ranks = torch.arange(torch.Size(shape).numel()).reshape(shape)
    return dist.DeviceMesh("cpu", ranks, mesh_dim_names=("x", "y", "z")[: len(shape)])


@functools.cache
def group_of(size):
    return dist.new_group(list(range(size)))


@functools.cache
def prepare(rank):
    """Groups are made by all ranks, in one order."""
    for shape in ((1,), (2,), (3,), (4,), (2, 2), (1, 3), (2, 1, 2)):
        if torch.Size(shape).numel() <= dist.get_world_size():
            mesh_of(*shape)
    for size in range(1, dist.get_world_size() + 1):
        group_of(size)


def normal(shape, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def cut(n, parts, generator):
    """Random sizes of slabs, empty ones among them; or even ones."""
    if generator.random() < 0.4:
        return tuple(len(x) for x in torch.arange(n).tensor_split(parts))
    ends = sorted(generator.randint(0, n) for _ in range(parts - 1))
    return tuple(b - a for a, b in itertools.pairwise((0, *ends, n)))


def close(actual, expected, dtype, name):
    """Within rounding of what the largest numbers are made of."""
    assert actual.shape == expected.shape, f"{name}: {actual.shape}, not {expected.shape}"
    actual, expected = actual.double(), expected.double()
    assert torch.equal(actual.isinf(), expected.isinf()), name
    error = torch.where(expected.isinf(), 0, actual - expected).abs()
    bound = TOLERANCE[dtype] * (1 + torch.where(expected.isinf(), 0, expected).abs())
    assert bool((error <= bound).all()), f"{name} is off by {error.max().item():.3g}"


def compare(name, inputs, whole, local, part, dtype, gradient_of=None):
    """whole(*inputs) beside local(*parts): outputs, lse and gradients, twice with the same bits.

    part(x, i): this rank's part of the i-th input, or of a result (i None)."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    results = whole(*leaves)
    upstream = [normal(x.shape, 77 + i, x.dtype) for i, x in enumerate(results)]
    expected = torch.autograd.grad(results, leaves, upstream)
    found = []
    for _ in range(2):
        mine = [part(x, i).clone().requires_grad_() for i, x in enumerate(inputs)]
        outputs = local(*mine)
        gradients = torch.autograd.grad(outputs, mine, [part(x, None) for x in upstream])
        found.append((*outputs, *gradients))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True)), f"{name}: other bits"
    labels = ["out", "lse", "dq", "dk", "dv", "dak", "dav", "dbias"]
    expected = [*(part(x, None) for x in results), *(part(x, i) for i, x in enumerate(expected))]
    for label, actual, wanted in zip(labels, found[0], expected, strict=False):
        close(actual, wanted, dtype, f"{label} of {name}")


# ---- neighborhoods


def random_neighborhood(generator, shapes):
    shape = generator.choice(shapes)
    rank = generator.randint(len(shape), 3)
    most = {1: 24, 2: 9, 3: 6}[rank]
    layout = tuple(generator.randint(3, most) for _ in range(rank))
    dilation = tuple(generator.choice((1, 1, 1, generator.randint(1, n))) for n in layout)
    window = tuple(generator.randint(1, n // d) for n, d in zip(layout, dilation, strict=True))
    stride = tuple(generator.choice((1, 1, generator.randint(1, k))) for k in window)
    causal = tuple(generator.random() < 0.3 for _ in layout)
    kv_heads = generator.choice((1, 2))
    shard_dims = tuple(generator.sample(range(rank), len(shape)))
    return {
        "shape": shape,
        "layout": layout,
        "window": (window, stride, dilation, causal),
        "shard_dims": shard_dims,
        "sizes": [cut(layout[a], n, generator) for a, n in zip(shard_dims, shape, strict=True)],
        "heads": kv_heads * generator.choice((1, 2)),
        "kv_heads": kv_heads,
        "dims": generator.choice(((4, 4), (8, 8), (5, 3))),
        "batch": generator.choice((1, 2)),
        "additional": generator.choice((None, None, 0, 3)),
        "bias": generator.random() < 0.25,
        "dropout": generator.choice((0.0, 0.0, 0.3)),
        "scale": generator.choice((None, 0.7)),
        "give_layout": generator.random() < 0.5,
        "by_group": len(shape) == 1 and generator.random() < 0.3,
    }


def neighborhood_inputs(c, dtype):
    lead, (d, dv), hkv = (c["batch"], *c["layout"]), c["dims"], c["kv_heads"]
    shapes = [(*lead, c["heads"], d), (*lead, hkv, d), (*lead, hkv, dv)]
    if c["additional"] is not None:
        shapes += [(c["batch"], c["additional"], hkv, d), (c["batch"], c["additional"], hkv, dv)]
    if c["bias"]:
        shapes.append((c["heads"], *(2 * k - 1 for k in c["window"][0])))
    return [normal(s, i, dtype) for i, s in enumerate(shapes)]


def split(c, tensors):
    """Keyword arguments of the tensors behind query, key and value."""
    more, tensors = {}, list(tensors)
    if c["additional"] is not None:
        more.update(additional_keys=tensors[0], additional_values=tensors[1])
    return more | ({"bias": tensors[-1]} if c["bias"] else {})


def neighborhood(rank, c, dtype):
    """One case on the first ranks; the others have nothing to do."""
    prepare(rank)
    mesh = mesh_of(*c["shape"])
    if mesh.get_coordinate() is None:
        return
    slab = [slice(0, n) for n in c["layout"]]
    for dim, axis in enumerate(c["shard_dims"]):
        at = mesh.get_coordinate()[dim]
        slab[axis] = slice(sum(c["sizes"][dim][:at]), sum(c["sizes"][dim][: at + 1]))
    slab = (slice(None), *slab)
    fixed = {"return_lse": True, "dropout_p": c["dropout"], "scale": c["scale"]}
    function = (nf.na1d, nf.na2d, nf.na3d)[len(c["layout"]) - 1]

    def whole(q, k, v, *more):
        with seeded(5):
            return function(q, k, v, *c["window"], **split(c, more), **fixed)

    def local(q, k, v, *more):
        with seeded(5 + rank):  # rank 0's counts
            return nd.neighborhood_attention(
                q,
                k,
                v,
                *c["window"],
                **split(c, more),
                **fixed,
                mesh=mesh.get_group() if c["by_group"] else mesh,
                shard_dims=c["shard_dims"],
                layout=c["layout"] if c["give_layout"] else None,
            )

    def part(x, i):
        return x[slab] if i is None or i < 3 else x

    compare(c, neighborhood_inputs(c, dtype), whole, local, part, dtype)


class seeded:
    """Dropout of the calls inside takes this seed in place of the one that they draw."""

    def __init__(self, number):
        def seed(p, query):
            return torch.tensor([number]) if p else None

        from nearfield.distributed import dense, neighborhood

        self._patches = [mock.patch.object(m, "seed_of", seed) for m in (_call, dense, neighborhood)]

    def __enter__(self):
        for patch in self._patches:
            patch.start()

    def __exit__(self, *_):
        for patch in self._patches:
            patch.stop()


def neighborhoods(rank, seed, count, shapes, dtype):
    generator = random.Random(seed)
    for _ in range(count):
        neighborhood(rank, random_neighborhood(generator, shapes), dtype)


def by_collective(rank):
    """Many ranks agree by one all-gather: made to by a low limit."""
    from nearfield.distributed import _agree

    with mock.patch.object(_agree, "_PAIRWISE", 1):
        neighborhoods(rank, 9, 4, ((2, 2), (3,)), torch.float64)


def meshes_in_another_order(rank):
    """A mesh may list its ranks in any order; ranks that do so differently are told."""
    prepare(rank)
    mesh = dist.DeviceMesh("cpu", torch.tensor([2, 0, 3, 1]))
    whole = normal((1, 9, 2, 4), 0, torch.float64)
    x = nd.shard(whole, mesh)
    out = nd.neighborhood_attention(x, x, x, 5, mesh=mesh, shard_dims=0)
    close(nd.unshard(out, mesh), nf.na1d(whole, whole, whole, 5), torch.float64, "out")
    other = mesh_of(4) if rank == 1 else mesh
    try:
        nd.neighborhood_attention(x, x, x, 5, mesh=other, shard_dims=0)
    except ValueError as error:
        assert "order of the ranks" in str(error), error
    else:
        raise AssertionError("no error")
    empty = torch.zeros(0, 3, 2, 4, requires_grad=True)  # no batch
    out = nd.neighborhood_attention(empty, empty, empty, 3, mesh=mesh, shard_dims=0)
    out.sum().backward()
    assert out.shape == empty.shape == empty.grad.shape


def part_of_the_world(rank):
    """A mesh of two dimensions that is not the whole world needs no group of its own, nor names."""
    prepare(rank)
    whole = normal((1, 4, 9, 2, 4), 0, torch.float64).requires_grad_()
    expected = nf.na2d(whole, whole, whole, 3)
    for mesh in (
        dist.init_device_mesh("cpu", (2, 1, 2), mesh_dim_names=("data", "rows", "columns"))[
            "rows", "columns"
        ],
        dist.DeviceMesh("cpu", torch.tensor([[0], [3]])),
    ):
        if mesh.get_coordinate() is None:
            continue
        x = nd.shard(whole, mesh, (0, 1))
        out = nd.neighborhood_attention(x, x, x, 3, mesh=mesh, shard_dims=(0, 1))
        close(nd.unshard(out, mesh, (0, 1)), expected, torch.float64, "out")
        gradients = (
            torch.autograd.grad(y.square().sum(), whole, retain_graph=True)[0] for y in (out, expected)
        )
        close(*gradients, torch.float64, "gradient")


# ---- sequences


def random_sequence(generator, sizes):
    ranks = generator.choice(sizes)
    queries = generator.randint(1, 30)
    causal = generator.choice((None, "TopLeft", "BottomRight", "DontCare"))
    keys = queries if causal == "DontCare" or generator.random() < 0.6 else generator.randint(1, 30)
    method = generator.choice((None, "ring", "ring", "gather", "heads"))
    kv_heads = ranks if method == "heads" else generator.choice((1, 2, 3))
    return {
        "ranks": ranks,
        "lengths": (queries, keys),
        "causal": causal,
        "method": method,
        "pattern": generator.choice(("contiguous", "zigzag")),
        "cuts": (cut(queries, ranks, generator), cut(keys, ranks, generator)),
        "heads": kv_heads * generator.choice((1, 2)),
        "kv_heads": kv_heads,
        "dims": generator.choice(((4, 4), (5, 3))),
        "batch": generator.choice((1, 2)),
        "additional": generator.choice((None, 0, 3)),
        "dropout": 0.0 if method == "heads" else generator.choice((0.0, 0.3)),
    }


def places(c, rank):
    """The tokens of this rank: of queries, of keys."""
    found = []
    for n, cuts in zip(c["lengths"], c["cuts"], strict=True):
        if c["pattern"] == "contiguous":
            found.append(torch.arange(sum(cuts[:rank]), sum(cuts[: rank + 1])))
        else:
            slabs = torch.arange(n).tensor_split(2 * c["ranks"])
            found.append(torch.cat((slabs[rank], slabs[2 * c["ranks"] - 1 - rank])))
    return found


def sequence(rank, c, dtype):
    prepare(rank)
    if rank >= c["ranks"]:
        return
    (lq, lk), (d, dv), hkv, b = c["lengths"], c["dims"], c["kv_heads"], c["batch"]
    shapes = [(b, lq, c["heads"], d), (b, lk, hkv, d), (b, lk, hkv, dv)]
    if c["additional"] is not None:
        shapes += [(b, c["additional"], hkv, d), (b, c["additional"], hkv, dv)]
    inputs = [normal(s, i, dtype) for i, s in enumerate(shapes)]
    causal = getattr(nf.CausalType, c["causal"]) if c["causal"] else None
    fixed = {"is_causal": causal is not None, "causal_type": causal, "dropout_p": c["dropout"]}

    def whole(q, k, v, *more):
        from nearfield._dense import attend_dense

        more = more or (None, None)
        with seeded(5):
            return attend_dense((q, k, v, *more), causal, dropout_p=c["dropout"])

    def local(q, k, v, *more):
        names = ("additional_keys", "additional_values")
        with seeded(5 + rank):
            return nd.attention(
                q,
                k,
                v,
                **fixed,
                **dict(zip(names, more, strict=False)),
                return_lse=True,
                group=group_of(c["ranks"]),
                pattern=c["pattern"],
                method=c["method"],
            )

    mine = places(c, rank)

    def part(x, i):
        return x if i is not None and i > 2 else x[:, mine[1 if i in (1, 2) else 0]]

    compare(c, inputs, whole, local, part, dtype)


def sequences(rank, seed, count, sizes, dtype):
    generator = random.Random(seed)
    for _ in range(count):
        sequence(rank, random_sequence(generator, sizes), dtype)


# ---- modules


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


# ---- what is sent


def traffic(rank):
    """Bytes of keys and values, and of their gradients, are the plan's; a ring sends one slab per step."""
    from nearfield.distributed import _team

    prepare(rank)
    sent, exchange = [], _team.Team.exchange

    def counted(team, what, sends, receives):
        sent.append((what, [(place, x.numel() * x.element_size()) for place, x in sends if x.numel()]))
        return exchange(team, what, sends, receives)

    mesh, layout = mesh_of(2, 2), (10, 12)
    plan = nd.ShardPlan(layout, (3, 5), mesh_shape=(2, 2), shard_dims=(0, 1))
    local = [end - begin for begin, end in plan.slab(rank)]
    q, k, v = (torch.randn(2, *local, h, d, requires_grad=True) for h, d in ((4, 8), (2, 8), (2, 6)))
    each = {"kv_heads": 2, "head_dim": 8, "value_dim": 6, "batch": 2}
    with mock.patch.object(_team.Team, "exchange", counted):
        out = nd.neighborhood_attention(q, k, v, (3, 5), mesh=mesh, shard_dims=(0, 1))
        messages = [m for what, m in sent if what == "keys and values"]
        assert [sum(n for _, n in m) for m in messages] == [plan.bytes_sent(rank, **each)]
        assert [[place for place, _ in m] for m in messages] == [list(plan.send(rank))]
        out.sum().backward()
        messages = [m for what, m in sent if what == "gradients of keys and values"]
        assert [sum(n for _, n in m) for m in messages] == [plan.bytes_received(rank, **each)]
        sent.clear()
        x = torch.randn(1, 16, 2, 4)
        nd.attention(x, x, x, group=group_of(4), method="ring")
        messages = [m for what, m in sent if what == "keys and values" and m]
        assert messages == [[((rank + 1) % 4, 2 * x.numel() * 4)]] * 3
        sent.clear()
        nd.attention(x, x, x, True, nf.CausalType.TopLeft, group=group_of(4), method="ring")
        messages = [m for what, m in sent if what == "keys and values" and m]
        assert len(messages) == (rank + 1 if rank < 3 else 0)  # nobody behind the last rank sees its keys


def wide_gradients(rank):
    """Gradients of 16-bit keys travel as float32, in a fetch and in a ring, which also merges in float32."""
    from nearfield.distributed import _ring, _team

    prepare(rank)
    group, sent, merged = group_of(4), [], []
    exchange, merge = _team.Team.exchange, _ring.merge_attentions

    def watched(team, what, sends, receives):
        sent.extend((what, x.dtype) for _, x in sends if x.numel())
        return exchange(team, what, sends, receives)

    def merging(outputs, lses):
        merged.extend(x.dtype for x in outputs)
        return merge(outputs, lses)

    with (
        mock.patch.object(_team.Team, "exchange", watched),
        mock.patch.object(_ring, "merge_attentions", merging),
    ):
        for method in ("gather", "ring"):
            x = torch.randn(1, 4, 2, 4, dtype=torch.bfloat16, requires_grad=True)
            nd.attention(x, x, x, group=group, method=method).sum().backward()
            assert x.grad.dtype == torch.bfloat16
    found = set(sent)
    assert ("keys and values", torch.bfloat16) in found
    assert {dtype for what, dtype in found if what.startswith("gradients")} == {torch.float32}
    assert merged and set(merged) == {torch.float32}


def overlap(rank):
    """What needs no other rank's keys is computed between posting messages and waiting for them."""
    from nearfield import _shard_call
    from nearfield.distributed import _team

    prepare(rank)
    events, call = [], _shard_call.GlobalCall
    exchange, wait = _team.Team.exchange, _team.Exchange.wait

    def posted(team, what, *messages):
        events.append(what)
        return exchange(team, what, *messages)

    def waited(one):
        events.append("wait")
        return wait(one)

    def computed(way):
        original = getattr(call, way)
        return lambda *arguments: events.append("compute") or original(*arguments)

    patches = [
        mock.patch.object(_team.Team, "exchange", posted),
        mock.patch.object(_team.Exchange, "wait", waited),
    ]
    patches += [mock.patch.object(call, way, computed(way)) for way in ("forward", "backward")]
    for patch in patches:
        patch.start()
    try:
        x = torch.randn(1, 12, 2, 4, requires_grad=True)
        out = nd.neighborhood_attention(x, x, x, 3, mesh=mesh_of(4), shard_dims=0)
        fetched = events[2:]  # behind the agreement and its wait
        events.clear()
        out.sum().backward()
        home = events[2:]
        events.clear()
        nd.attention(x, x, x, group=group_of(4), method="ring")
        ring = events[2:]
    finally:
        for patch in patches:
            patch.stop()
    assert fetched[:3] == ["keys and values", "compute", "wait"] and set(fetched[3:]) == {"compute"}, fetched
    sent = home.index("gradients of keys and values")
    assert set(home[:sent]) == {"compute"} and home[sent + 1 :] == ["compute", "wait"], home
    assert ring == ["keys and values", "compute", "wait"] * 4, ring


def blocking(rank):
    """Results are the same where every exchange ends before the next begins, as a backend with one stream of
    messages (NCCL) may have it."""
    from nearfield.distributed import _team

    exchange = _team.Team.exchange

    def at_once(*arguments):
        posted = exchange(*arguments)
        posted.wait()
        return posted

    with mock.patch.object(_team.Team, "exchange", at_once):
        neighborhoods(rank, 5, 4, ((3,), (2, 2)), torch.float64)
        sequences(rank, 5, 25, (2, 3, 4), torch.float64)


def lse_of_one_rank(rank):
    """The loss of rank 0 alone has lse in it."""
    prepare(rank)
    if rank >= 2:
        return
    whole = [normal((1, 6, 2, 4), i, torch.float64).requires_grad_() for i in range(3)]
    out, lse = nf.attention(*whole, return_lse=True)
    expected = torch.autograd.grad(out.sum() + lse[:, :3].square().sum(), whole)
    for method in ("heads", "ring", "gather"):
        mine = [nd.shard(x.detach(), mesh_of(2)).requires_grad_() for x in whole]
        out, lse = nd.attention(*mine, return_lse=True, group=group_of(2), method=method)
        loss = out.sum() + (lse.square().sum() if rank == 0 else 0)
        for actual, due in zip(torch.autograd.grad(loss, mine), expected, strict=True):
            close(nd.unshard(actual, mesh_of(2)), due, torch.float64, method)


def same_sums(rank):
    """Sums over ranks are added in rank order: the same bits everywhere, even where order shows."""
    prepare(rank)
    p = torch.nn.Parameter(torch.zeros(2))
    p.grad = torch.tensor([[1e8, 1.0], [1.0, 1e8], [-1e8, 1.0], [1.0, -1e8]][rank])
    nd.sum_gradients([p], mesh_of(4))
    one = torch.tensor([1e8, 1.0])
    for row in ([1.0, 1e8], [-1e8, 1.0], [1.0, -1e8]):
        one += torch.tensor(row)
    assert torch.equal(p.grad, one), (p.grad, one)


def chosen(rank):
    """Without a method: one exchange for small keys, a ring for large ones. Other messages of the program
    that are on their way between the same ranks stay apart."""
    from nearfield.distributed import _team

    prepare(rank)
    found, exchange = [], _team.Team.exchange

    def watched(team, what, sends, receives):
        found.append(what)
        return exchange(team, what, sends, receives)

    group, peer = group_of(2), 1 - rank
    if rank >= 2:
        return
    theirs = torch.zeros(4096, dtype=torch.uint8)
    coming = dist.irecv(theirs, group_src=peer, group=group)
    with mock.patch.object(_team.Team, "exchange", watched):
        for tokens, exchanges in ((8, 1), (1100, 2)):
            x = torch.ones(1, tokens, 1, 64)
            found.clear()
            nd.attention(x, x, x, group=group)
            assert found.count("keys and values") == exchanges, (tokens, found)
    dist.send(torch.full((4096,), rank + 1, dtype=torch.uint8), group_dst=peer, group=group)
    coming.wait()
    assert bool((theirs == peer + 1).all())
