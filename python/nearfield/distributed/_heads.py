# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Dense attention by heads: an all-to-all gives every rank all tokens of its share of the heads.

Work is balanced under any mask; the exchange moves queries and results beside keys and values, and its size
per rank falls as 1 / P. Source: Jacobs et al., DeepSpeed Ulysses (2023).
"""

from __future__ import annotations

import torch

from .._shard_call import GlobalCall
from . import _boxes as boxes
from ._sequence import Sequence
from ._team import Team


def forward(team: Team, call: GlobalCall, sequence: Sequence, tensors, seed):
    """(out, lse, kept): kept are the query, key, value and out of this rank's heads, flat."""
    query, key, value, *more = tensors
    sides = (sequence.queries, sequence.keys, sequence.keys)
    by_head = _to_heads(team, (query, key, value), sides)
    out, lse = call.forward(*_everything(call), (*by_head, *_of_rank(team, more)), seed)
    kept = torch.cat([x.reshape(-1) for x in (*by_head, out)])
    (home,) = _from_heads(team, (out,), sides[:1])
    (home_lse,) = _from_heads(team, (lse.unsqueeze(-1),), sides[:1])
    return home, home_lse.squeeze(-1), kept


def backward(team: Team, call: GlobalCall, sequence: Sequence, tensors, lse, kept, grads, seed):
    """The six gradients; those of additional keys and values are this rank's part."""
    query, key, value, *more = tensors
    sides = (sequence.queries, sequence.keys, sequence.keys)
    shapes = [_shape(team, x, side) for x, side in zip((query, key, value), sides, strict=True)]
    shapes.append((*shapes[0][:-1], shapes[2][-1]))
    sizes = [torch.Size(shape).numel() for shape in shapes]
    *by_head, out = (x.view(shape) for x, shape in zip(kept.split(sizes), shapes, strict=True))
    grad_out, grad_lse = grads
    if grad_out is None:
        grad_out = query.new_zeros(*query.shape[:-1], value.shape[-1])
    # Zeros where this rank's loss has no lse: another's may.
    grad_lse = torch.zeros_like(lse) if grad_lse is None else grad_lse.to(lse.dtype)
    rows = _to_heads(team, [lse.unsqueeze(-1), grad_lse.unsqueeze(-1)], [sequence.queries] * 2)
    (grad_out,) = _to_heads(team, (grad_out,), sides[:1])
    lse, grad_lse = (x.squeeze(-1) for x in rows)
    given = (*by_head, *_of_rank(team, more))
    *main, grad_keys, grad_values, _ = call.backward(
        *_everything(call), given, out, lse, grad_out, grad_lse, seed
    )
    parts = []
    for whole, part in zip(more, (grad_keys, grad_values, None), strict=True):
        if whole is not None:
            padded = torch.zeros_like(whole)
            padded.chunk(team.size, 2)[team.rank].copy_(part)
            part = padded
        parts.append(part)
    return *_from_heads(team, main, sides), *parts


def _everything(call: GlobalCall):
    return ((0, call.query_layout[0]),), ((0, call.layout[0]),)


def _of_rank(team: Team, more):
    """This rank's heads of additional keys and values; there is no bias."""
    return [None if x is None else x.chunk(team.size, 2)[team.rank] for x in more]


def _shape(team: Team, x, side):
    """Of the tensor of all tokens of this rank's heads."""
    return x.shape[0], sum(_tokens(side, r) for r in range(team.size)), x.shape[2] // team.size, x.shape[3]


def _to_heads(team: Team, tensors, sides):
    """From [B, own tokens, all heads, D] to [B, all tokens, own heads, D]."""
    received = _exchanged(
        team,
        [[x.chunk(team.size, 2)[peer] for x in tensors] for peer in range(team.size)],
        [
            [
                (x.shape[0], _tokens(side, peer), x.shape[2] // team.size, x.shape[3])
                for x, side in _zip(tensors, sides)
            ]
            for peer in range(team.size)
        ],
    )
    whole = [x.new_empty(_shape(team, x, side)) for x, side in _zip(tensors, sides)]
    for peer, pieces in enumerate(received):
        for target, piece, side in zip(whole, pieces, sides, strict=False):
            at = 0
            for ((begin, end),) in side[peer]:
                target[:, begin:end] = piece[:, at : at + end - begin]
                at += end - begin
    return whole


def _from_heads(team: Team, tensors, sides):
    """The way back."""
    received = _exchanged(
        team,
        [
            [torch.cat([x[:, b:e] for ((b, e),) in side[peer]], 1) for x, side in _zip(tensors, sides)]
            for peer in range(team.size)
        ],
        [
            [(x.shape[0], _tokens(side, team.rank), *x.shape[2:]) for x, side in _zip(tensors, sides)]
            for _ in range(team.size)
        ],
    )
    return [torch.cat(parts, 2) for parts in zip(*received, strict=True)]


def _zip(tensors, sides):
    return zip(tensors, sides, strict=False)


def _tokens(side, rank: int) -> int:
    return sum(boxes.volume(box) for box in side[rank])


def _exchanged(team: Team, outgoing, shapes):
    """What every rank sends here: lists of tensors for each, of these shapes. All have one dtype."""
    dtype, device = outgoing[0][0].dtype, outgoing[0][0].device
    sends, receives, flat = [], [], []
    for peer, (tensors, expected) in enumerate(zip(outgoing, shapes, strict=True)):
        message = torch.cat([x.reshape(-1) for x in tensors])
        sizes = [torch.Size(shape).numel() for shape in expected]
        if peer == team.rank:
            flat.append((message, sizes))
            continue
        buffer = torch.empty(sum(sizes), dtype=dtype, device=device)
        sends.append((peer, message))
        receives.append((peer, buffer))
        flat.append((buffer, sizes))
    team.exchange("heads", sends, receives).wait()
    return [
        [x.view(shape) for x, shape in zip(buffer.split(sizes), expected, strict=True)]
        for (buffer, sizes), expected in zip(flat, shapes, strict=True)
    ]
