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
    gradient = torch.is_grad_enabled() and slab.requires_grad
    spec = operators.written(
        team,
        mesh_shape=mesh_shape,
        shard_dims=dims,
        pattern="contiguous",
        width=tuple(width),
        **{"requires_grad of": "slab" if gradient else "no input"},
    )
    return extend(slab, *spec)[0]


@functools.lru_cache(256)
def _plan(op: str, said: tuple[bytes, ...], rank: int):
    """(origin of the extended slab as a box that may pass the border, own box, [(peer, box of it)],
    [(peer, own box that it gets)])."""
    words = said_by(said)[0][0]
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


def _agreed(team, given, slab_shape, tensor, of_call: int = 0):
    common = {"dtype": str(tensor.dtype), "rank of the tensor": len(slab_shape), "batch": slab_shape[0]}
    own = {"shape": list(slab_shape)}
    said, _ = agree(team, {**common, **given}, own, of_call=of_call)
    return _plan(team.op, said, team.rank)


def _rest(box, shape):
    """Of a tensor [B, *box, ...] whose dimensions behind the box are those of `shape`."""
    return shape[0], *boxes.extents(box), *shape[1 + len(box) :]


@torch.library.custom_op("nearfield_distributed::extend", mutates_args=())
def extend(slab: Tensor, text: str, whole: list[int], real: list[float]) -> tuple[Tensor, Tensor]:
    """(the slab with its halo, the number of this call)."""
    team, given = operators.read(text, whole, real)
    with team.turn() as past:
        origin, own, fetch, send = _agreed(team, given, slab.shape, slab)
        with team.work():
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
        return wide, torch.tensor([past.calls], dtype=torch.int64)


@torch.library.custom_op("nearfield_distributed::extend_backward", mutates_args=())
def extend_backward(
    grad: Tensor, shape: list[int], number: Tensor, text: str, whole: list[int], real: list[float]
) -> Tensor:
    """The gradient of the slab from that of the slab with its halo."""
    team, given = operators.read(text, whole, real)
    team = team._replace(op=f"{team.op}, backward")
    work = lse_dtype(grad.dtype)
    with team.turn():
        origin, own, fetch, send = _agreed(team, given, tuple(shape), grad, int(number.item()))
        with team.work():
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
def _(slab, text, whole, real):
    _, given = operators.read(text, whole, real)
    shape = list(slab.shape)
    for axis, width in zip(given["shard_dims"], given["width"], strict=True):
        shape[1 + axis] += 2 * width
    return slab.new_empty(shape), torch.empty(1, dtype=torch.int64)


@extend_backward.register_fake
def _(grad, shape, number, text, whole, real):
    return grad.new_empty(shape)


def _setup_context(ctx, inputs, output):
    ctx.shape, ctx.spec = inputs[0].shape, inputs[1:]
    ctx.save_for_backward(output[1])


def _backward(ctx, grad, _):
    return extend_backward(grad, list(ctx.shape), *ctx.saved_tensors, *ctx.spec), None, None, None


extend.register_autograd(_backward, setup_context=_setup_context)
