# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Between whole tensors and slabs; sums of gradients over ranks.

A whole tensor is the same on every rank, and so is its gradient: `unshard` passes each rank its part of it,
`shard` puts the parts together. Tensors are `[B, *layout, ...]`: axis a of the layout is dimension a + 1.
"""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor

from .. import _arguments as arguments
from .._shard_call import Box
from . import _boxes as boxes
from . import _operators as operators
from . import _pieces as pieces
from ._agree import agree, said_by, telling
from ._sequence import PATTERNS
from ._team import team_of
from .plan import check_shard_dims, whole_numbers


def shard(tensor, mesh, shard_dims=(0,), *, pattern="contiguous", sizes=None):
    """This rank's part of a whole tensor, `[B, *layout, ...]` to `[B, *local, ...]`; nothing is sent.

    Args:
        mesh, shard_dims: as for `neighborhood_attention`.
        pattern: "contiguous", or "zigzag" as for `attention` (a mesh of one dimension).
        sizes: for each dimension of the mesh the extents of the slabs along it; default: as
            `torch.tensor_split` cuts. Not with zigzag.

    Its backward pass gathers the slabs' gradients: the whole gradient, on every rank.
    """
    op = "shard"
    team, mesh_shape, dims = check_slab(op, tensor, mesh, shard_dims, pattern)
    layout = tuple(tensor.shape[1 : 2 + max(dims)])
    axes = len(layout)
    parts = _sizes(op, layout, mesh_shape, dims, pattern, sizes)
    mine = _boxes_of(layout, mesh_shape, dims, pattern, parts, team.rank)
    spec = operators.written(team, mesh_shape=mesh_shape, shard_dims=dims, pattern=pattern)
    places = torch.tensor(mine).reshape(-1, axes, 2)
    return _Shard.apply(tensor, places, *spec) if team.size > 1 else tensor


def unshard(slab, mesh, shard_dims=(0,), *, pattern="contiguous"):
    """The whole tensor from every rank's slab, on every rank; the opposite of `shard`, for slabs of any
    extents. Its backward pass takes this rank's part of the gradient, which is the same on all ranks."""
    op = "unshard"
    with telling(team_of(op, mesh)[0]):
        team, mesh_shape, dims = check_slab(op, slab, mesh, shard_dims, pattern)
    spec = operators.written(team, mesh_shape=mesh_shape, shard_dims=dims, pattern=pattern)
    return gather_slabs(slab, *spec)[0] if team.size > 1 else slab


def sum_gradients(parameters, mesh) -> None:
    """Adds up the `.grad` of parameters over all ranks, in rank order: with the same parameters on every
    rank, in one order, each on its own tokens, this makes the gradients those of all tokens. Absent gradients
    count as zero.

    Raises:
        ValueError, TypeError: on every rank, also if the parameters differ in number, dtype or shape.
    """
    op = "sum_gradients"
    team, _ = team_of(op, mesh)
    with telling(team):
        parameters = list(parameters)
        for p in parameters:
            arguments.check_tensor(op, "a parameter", p)
            for x in (p, p.grad):
                if x is not None and (x.layout != torch.strided or not x.is_floating_point()):
                    raise ValueError(
                        f"[{op}] got a parameter of dtype {x.dtype} and layout {x.layout}, expected dense "
                        "floating-point numbers"
                    )
        parameters = [p for p in parameters if p.requires_grad]
    words = [f"{p.dtype} {tuple(p.shape)}" for p in parameters]
    alike = f"{len(words)}, dtypes and shapes {zlib.crc32(' '.join(words).encode()):08x}"
    with team.turn():
        agree(team, {"parameters": alike}, {})
        spec, totals = operators.written(team), []
        for dtype in dict.fromkeys(p.dtype for p in parameters):
            some = [p for p in parameters if p.dtype == dtype]
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in some]
            flat = torch.cat([g.detach().reshape(-1) for g in grads])
            total = operators.sum_of_ranks(flat, "gradients", spec.text)
            totals += zip(some, total.split([p.numel() for p in some]), strict=True)
    for p, part in totals:
        p.grad = part.view(p.shape).clone()


# ---- arguments


def check_slab(op: str, tensor, mesh, shard_dims, pattern):
    """(team, shape of the mesh, shard_dims); raises for other arguments than these."""
    team, mesh_shape = team_of(op, mesh)
    arguments.check_tensor(op, "tensor", tensor)
    if tensor.dim() < 2:
        raise ValueError(f"[{op}] got a tensor of shape {tuple(tensor.shape)}, expected [B, *layout, ...]")
    dims = check_shard_dims(op, shard_dims, len(mesh_shape), tensor.dim() - 1)
    if pattern not in PATTERNS:
        raise ValueError(f"[{op}] got pattern {pattern!r}, expected one of {', '.join(map(repr, PATTERNS))}")
    if pattern == "zigzag" and dims != (0,):
        raise ValueError(f"[{op}] got pattern 'zigzag' with shard_dims {dims}, expected (0,), the first axis")
    return team, mesh_shape, dims


def _sizes(op, layout, mesh_shape, dims, pattern, sizes):
    if sizes is None:
        return [boxes.cut(layout[axis], n) for axis, n in zip(dims, mesh_shape, strict=True)]
    if isinstance(sizes, (str, int)) or len(sizes) != len(dims):
        raise ValueError(
            f"[{op}] got sizes {sizes!r}, expected the extents of the slabs for each of the {len(dims)} "
            "dimensions of the mesh, [(3, 5)] say"
        )
    sizes = [whole_numbers(op, "sizes", part) for part in sizes]
    for axis, n, part in zip(dims, mesh_shape, sizes, strict=True):
        if pattern == "zigzag" or len(part) != n or min(part) < 0 or sum(part) != layout[axis]:
            raise ValueError(
                f"[{op}] got sizes {part} along axis {axis}, expected {n} extents from 0 on that add up to "
                f"{layout[axis]}, and none with pattern 'zigzag'"
            )
    return sizes


def _boxes_of(layout, mesh_shape, dims, pattern, sizes, rank: int) -> list[Box]:
    """The boxes that a rank holds."""
    whole = tuple((0, n) for n in layout)
    if pattern == "zigzag":
        return [(interval, *whole[1:]) for interval in boxes.zigzag(layout[0], mesh_shape[0], rank)]
    box = list(whole)
    for axis, part, c in zip(dims, sizes, boxes.coordinate(mesh_shape, rank), strict=True):
        box[axis] = boxes.intervals(part)[c]
    return [tuple(box)]


# ---- operators


@torch.library.custom_op("nearfield_distributed::gather_slabs", mutates_args=())
def gather_slabs(slab: Tensor, text: str, numbers: list[int], real: list[float]) -> tuple[Tensor, Tensor]:
    """(the whole tensor, the boxes of it that are this rank's: int64 [boxes, axes, 2])."""
    team, given = operators.read(text, numbers, real)
    common = {"dtype": str(slab.dtype), "rank of the tensor": slab.dim(), "batch": slab.shape[0], **given}
    with team.turn():
        said, _ = agree(team, common, {"shape": list(slab.shape)})
        shapes = [tuple(own["shape"]) for _, own in said_by(said)]
        held = held_by(team.op, given, shapes)
        with team.work():
            whole = _put_together(team, slab, shapes, held)
    return whole, torch.tensor(held[team.rank]).reshape(-1, len(held[0][0]), 2)


def _put_together(team, slab, shapes, held):
    layout = tuple(max(box[a][1] for part in held for box in part) for a in range(len(held[0][0])))
    axes = len(layout)
    whole = slab.new_empty(slab.shape[0], *layout, *slab.shape[1 + axes :])
    parts = [
        slab.contiguous().reshape(-1) if r == team.rank else slab.new_empty(math.prod(shape))
        for r, shape in enumerate(shapes)
    ]
    others = [r for r in range(team.size) if r != team.rank]
    team.exchange("slabs", [(r, parts[team.rank]) for r in others], [(r, parts[r]) for r in others]).wait()
    for part, shape, its in zip(parts, shapes, held, strict=True):
        for box, view in pieces.held(part.view(shape), its):
            whole[boxes.slices(box, ((0, 0),) * axes)] = view
    return whole


def held_by(op: str, given, shapes):
    """The boxes of every rank, from the shapes of the slabs."""
    mesh, dims, pattern = tuple(given["mesh_shape"]), tuple(given["shard_dims"]), given["pattern"]
    axes, layout, sizes = max(dims) + 1, list(shapes[0][1 : max(dims) + 2]), []
    for dim, axis in enumerate(dims):
        step = math.prod(mesh[dim + 1 :])
        sizes.append(tuple(shapes[c * step][1 + axis] for c in range(mesh[dim])))
        layout[axis] = sum(sizes[-1])
    held = [_boxes_of(tuple(layout), mesh, dims, pattern, sizes, r) for r in range(len(shapes))]
    for rank, (part, shape) in enumerate(zip(held, shapes, strict=True)):
        first = sum(b - a for (a, b), *_ in part)
        expected = (first, *boxes.extents(part[0])[1:], *shapes[0][1 + axes :])
        if shape[1:] != expected:
            raise ValueError(
                f"[{op}] got a slab of shape {shape} on rank {rank}, expected {(shape[0], *expected)}, from "
                "the slabs of the others"
            )
    return held


@gather_slabs.register_fake
def _(slab, text, numbers, real):
    _, given = operators.read(text, numbers, real)
    dims, shape = given["shard_dims"], list(slab.shape)
    for axis in dims:
        shape[1 + axis] = torch.library.get_ctx().new_dynamic_size()
    count = 2 if given["pattern"] == "zigzag" else 1
    return slab.new_empty(shape), torch.empty(count, max(dims) + 1, 2, dtype=torch.int64)


@torch.library.custom_op("nearfield_distributed::take_boxes", mutates_args=())
def take_boxes(whole: Tensor, places: Tensor, shape: list[int]) -> Tensor:
    """These boxes of a whole tensor, one behind the other along the first axis."""
    return _take(whole, places).reshape(shape).clone()


def _take(whole, places):
    found = [whole[boxes.slices(box, ((0, 0),) * len(box))] for box in places.tolist()]
    return torch.cat(found, 1) if len(found) > 1 else found[0]


@take_boxes.register_fake
def _(whole, places, shape):
    return whole.new_empty(shape)


def _setup_context(ctx, inputs, output):
    ctx.save_for_backward(output[1])
    ctx.shape = inputs[0].shape


def _backward(ctx, grad, _):
    (places,) = ctx.saved_tensors
    return take_boxes(grad, places, list(ctx.shape)), None, None, None


gather_slabs.register_autograd(_backward, setup_context=_setup_context)


class _Shard(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor, places, *spec):
        ctx.spec = spec
        return _take(tensor, places).clone()

    @staticmethod
    def backward(ctx, grad):
        return gather_slabs(grad, *ctx.spec)[0], None, None, None, None
