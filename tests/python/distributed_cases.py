# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What ranks do in test_distributed.py: sharded calls beside the same call unsharded, which each computes."""

import functools
import itertools
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
