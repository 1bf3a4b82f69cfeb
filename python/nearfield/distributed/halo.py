# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""A slab with the tokens around it: what a convolution needs beside attention."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from .. import _arguments as arguments
from .._shard_call import lse_dtype
from . import _boxes as boxes
from . import _operators as operators
from ._agree import agree, said_by, telling
from ._team import team_of
from .sharding import check_slab, held_by


def halo(slab, width, mesh, shard_dims=(0,)):
    """`[B, *local, ...]` with `width` more tokens on both sides along every axis that the mesh cuts: those of
    the neighbours, and zeros beyond the border of the layout.

    Args:
        width: one number, or one per dimension of the mesh. It may reach over several ranks.
        mesh, shard_dims: as for `neighborhood_attention`.

    Gradients of the neighbours' tokens travel home and are added in rank order. A slab without tokens gives
    the halo of the place where it would be.
    """
    op = "halo"
    with telling(team_of(op, mesh)[0]):
        team, mesh_shape, dims = check_slab(op, slab, mesh, shard_dims, "contiguous")
        width = arguments.per_axis(op, "width", width, len(dims), int)
        if min(width) < 0:
            raise ValueError(f"[{op}] got width {width}, expected numbers from 0 on")
    spec = operators.written(
        team, mesh_shape=mesh_shape, shard_dims=dims, pattern="contiguous", width=tuple(width)
    )
    return extend(slab, spec)


@functools.lru_cache(256)
def _plan(op: str, given: str, said: tuple[bytes, ...], rank: int):
    """(origin of the extended slab as a box that may pass the border, own box, [(peer, box of it)],
    [(peer, own box that it gets)])."""
    _, words = operators.read(given)
    shapes = [tuple(own["shape"]) for _, own in said_by(said)]
    slabs = [part[0] for part in held_by(op, words, shapes)]
    grow = dict(zip(words["shard_dims"], words["width"], strict=True))

    def wide(box):
        return tuple((b - grow.get(a, 0), e + grow.get(a, 0)) for a, (b, e) in enumerate(box))

    fetch, send = [], []
    for peer, slab in enumerate(slabs):
        if peer == rank:
            continue
        mine, its = boxes.intersection(wide(slabs[rank]), slab), boxes.intersection(wide(slab), slabs[rank])
        if mine:
            fetch.append((peer, mine))
        if its:
            send.append((peer, its))
    return wide(slabs[rank]), slabs[rank], fetch, send


def _agreed(slab_shape, tensor, spec):
    team, given = operators.read(spec)
    common = {"dtype": str(tensor.dtype), "rank of the tensor": len(slab_shape), "batch": slab_shape[0]}
    own = {"shape": list(slab_shape)}
    said, _ = agree(team, {**common, **given}, own, 0, operators.device_of(tensor))
    return team, _plan(team.op, spec, said, team.rank)


def _rest(box, shape):
    """Of a tensor [B, *box, ...] whose dimensions behind the box are those of `shape`."""
    return shape[0], *boxes.extents(box), *shape[1 + len(box) :]


@torch.library.custom_op("nearfield_distributed::extend", mutates_args=())
def extend(slab: Tensor, spec: str) -> Tensor:
    """The slab with its halo."""
    team, (origin, own, fetch, send) = _agreed(slab.shape, slab, spec)
    wide = slab.new_zeros(_rest(origin, slab.shape))
    wide[boxes.slices(own, origin)] = slab
    parts = [(peer, box, slab.new_empty(_rest(box, slab.shape))) for peer, box in fetch]
    team.exchange(
        "halo",
        [(peer, slab[boxes.slices(box, own)].contiguous().reshape(-1)) for peer, box in send],
        [(peer, part.view(-1)) for peer, _, part in parts],
    ).wait()
    for _, box, part in parts:
        wide[boxes.slices(box, origin)] = part
    return wide


@torch.library.custom_op("nearfield_distributed::extend_backward", mutates_args=())
def extend_backward(grad: Tensor, shape: list[int], spec: str) -> Tensor:
    """The gradient of the slab from that of the slab with its halo."""
    team, (origin, own, fetch, send) = _agreed(tuple(shape), grad, spec)
    work = lse_dtype(grad.dtype)
    total = grad[boxes.slices(own, origin)].to(work, copy=True)
    parts = [(box, grad.new_empty(_rest(box, shape)), peer) for peer, box in send]
    team.exchange(
        "gradients of a halo",
        [(peer, grad[boxes.slices(box, origin)].contiguous().reshape(-1)) for peer, box in fetch],
        [(peer, part.view(-1)) for _, part, peer in parts],
    ).wait()
    for box, part, _ in parts:
        total[boxes.slices(box, own)] += part
    return total.to(grad.dtype).contiguous()


@extend.register_fake
def _(slab, spec):
    _, given = operators.read(spec)
    shape = list(slab.shape)
    for axis, width in zip(given["shard_dims"], given["width"], strict=True):
        shape[1 + axis] += 2 * width
    return slab.new_empty(shape)


@extend_backward.register_fake
def _(grad, shape, spec):
    return grad.new_empty(shape)


def _setup_context(ctx, inputs, output):
    ctx.shape, ctx.spec = inputs[0].shape, inputs[1]


def _backward(ctx, grad):
    return extend_backward(grad, list(ctx.shape), ctx.spec), None


extend.register_autograd(_backward, setup_context=_setup_context)
