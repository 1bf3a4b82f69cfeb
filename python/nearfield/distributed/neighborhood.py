# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Neighborhood attention over a token layout that is cut among ranks."""

from __future__ import annotations

import torch

from .. import _arguments as arguments
from .._shard_call import current_flags, seed_of
from . import _operators as operators
from ._agree import check_no_transforms, telling
from ._team import team_of
from .plan import check_shard_dims

_OP = "neighborhood_attention"


def neighborhood_attention(
    query,
    key,
    value,
    kernel_size,
    stride=1,
    dilation=1,
    is_causal=False,
    scale=None,
    additional_keys=None,
    additional_values=None,
    return_lse=False,
    *,
    mesh,
    shard_dims,
    layout=None,
    bias=None,
    dropout_p=0.0,
    backend=None,
):
    """`na1d`, `na2d` or `na3d` of a layout of which every rank passes its slab.

    Args:
        query, key, value: this rank's slab, `[B, *local, H, D]`, `[B, *local, Hkv, D]`, and
            `[B, *local, Hkv, Dv]`; slabs may differ in size, and be empty.
        kernel_size, stride, dilation, is_causal, scale: as for `na1d`, of the whole layout.
        additional_keys, additional_values: `[B, S, Hkv, D]`, `[B, S, Hkv, Dv]`: the same on every rank.
        return_lse: also return lse `[B, *local, H]`.
        mesh: a DeviceMesh of 1 to 3 dimensions, or a process group.
        shard_dims: for each dimension of the mesh the axis of the layout that it cuts; slabs lie in rank
            order along it.
        layout: the extents of the whole layout, checked against the slabs; None: the slabs' sum.
        bias: as for `na1d`, the same on every rank.
        dropout_p: as for `na1d`; rank 0's seed counts, so that the mask is that of the unsharded call.
        backend: as for `na1d`.

    The number of axes is that of query; kernel_size is one number, or one per axis. Every rank of the mesh
    makes the call, in the same order among other sharded calls, and every rank's result takes part in the
    backward pass. Gradients of query, key and value are those of the slab; those of additional keys and
    values and bias are summed over the ranks, and whole on each.

    Returns:
        The slab of the output, `[B, *local, H, Dv]`, or (output, lse).

    Raises:
        ValueError, TypeError, NotImplementedError: on every rank, also if only one is wrong.
        PeerError: a rank died or did not answer in time (`set_timeout`).
    """
    return attend_neighborhood(
        _OP,
        (query, key, value, additional_keys, additional_values, bias),
        (kernel_size, stride, dilation, is_causal),
        mesh,
        shard_dims,
        layout,
        scale=scale,
        dropout_p=dropout_p,
        backend=backend,
        return_lse=return_lse,
    )


def attend_neighborhood(
    op,
    tensors,
    window,
    mesh,
    shard_dims,
    layout=None,
    *,
    scale,
    dropout_p,
    backend,
    return_lse,
    sum_bias=True,
):
    """The same for modules. window: kernel_size, stride, dilation, is_causal. sum_bias: whether the gradient
    of bias is summed over the ranks; otherwise it is this rank's part, as that of any other parameter."""
    team, shape = team_of(op, mesh)
    with telling(team):
        check_no_transforms(op)
        for name, x in zip(NAMES, tensors, strict=True):
            check_input(op, name, x)
        rank = tensors[0].dim() - 3
        if not 1 <= rank <= 3:
            raise ValueError(
                f"[{op}] got query of rank {tensors[0].dim()}, expected 4 to 6, [B, *layout, heads, head_dim]"
            )
        if layout is not None:
            layout = [int(n) for n in arguments.per_axis(op, "layout", layout, rank, int)]
        names = ("kernel_size", "stride", "dilation", "is_causal")
        kinds = {"is_causal": bool}
        spec = operators.written(
            team,
            kind="neighborhood",
            **{
                name: arguments.per_axis(op, name, x, rank, kinds.get(name, int))
                for name, x in zip(names, window, strict=True)
            },
            scale=arguments.number(op, "scale", scale, optional=True),
            dropout_p=arguments.number(op, "dropout_p", dropout_p),
            backend=arguments.backend_number(op, backend),
            flags=current_flags(),
            mesh_shape=shape,
            shard_dims=check_shard_dims(op, shard_dims, len(shape), rank),
            layout=layout,
            **needs_gradients(tensors),
        )
        arguments.check_bool(op, "return_lse", return_lse)
        *tensors, bias = arguments.autocast(*tensors)
    more = [operators.replicated(x, n, team) for n, x in zip(NAMES[3:5], tensors[3:], strict=True)]
    bias = operators.replicated(bias, NAMES[5], team) if sum_bias else bias
    seed = seed_of(dropout_p, tensors[0])
    out, lse, *_ = operators.attend(*tensors[:3], *more, bias, seed, *spec)
    return (out, lse) if return_lse else out


NAMES = ("query", "key", "value", "additional_keys", "additional_values", "bias")


def check_input(op: str, name: str, x) -> None:
    arguments.check_tensor(op, name, x, optional=name not in NAMES[:3])
    if x is not None and x.is_meta:
        raise ValueError(
            f"[{op}] got {name} on device meta, expected cpu or cuda; nothing can be sent from there"
        )


def needs_gradients(tensors) -> dict[str, str]:
    """Which inputs a backward pass may follow to: ranks must agree on it."""
    grad = torch.is_grad_enabled()
    names = [
        name for name, x in zip(NAMES, tensors, strict=False) if grad and x is not None and x.requires_grad
    ]
    return {"requires_grad of": ", ".join(names) or "no input"}
