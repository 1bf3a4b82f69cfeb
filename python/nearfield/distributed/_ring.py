# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Dense attention in a ring: keys go from rank to rank, and results are merged by their lse.

A rank holds its own keys and those of one other rank, and while it computes on them the next ones arrive:
memory O(L / P). In the backward pass the keys go round again with their gradients, to which every rank adds
its part in the order of the ring; from the last one they go home. Partial results are merged in float32
(float64), gradients travel in it.

Source: Liu et al., Ring Attention with Blockwise Transformers for Near-Infinite Context (2023).
"""

from __future__ import annotations

import torch

from .._shard_call import GlobalCall, lse_dtype
from ..functional import merge_attentions
from . import _pieces as pieces
from ._fetching import Rows
from ._pieces import Pieces
from ._sequence import Ring
from ._share import Task
from ._team import Team


def forward(team: Team, call: GlobalCall, ring: Ring, tensors, seed):
    """(out, lse) of this rank's queries."""
    query, key, value, *more = tensors
    work = lse_dtype(query.dtype)
    out = torch.zeros(*query.shape[:-1], value.shape[-1], dtype=work, device=query.device)
    lse = torch.full(query.shape[:-1], -torch.inf, dtype=work, device=query.device)
    views = [Rows(ring.queries, x) for x in (query, out, lse)]
    for step, block, owner in _blocks(team, ring, key, value):
        if block is None:
            continue
        keys = Pieces(pieces.opened(block, ring.keys[owner], key, value))
        for task, extra in _tasks(ring, step, more):
            q, so_far, so_far_lse = (v.of(task.queries) for v in views)
            part = call.forward(task.queries, task.keys, (q, *keys.take(task.keys), *extra), seed)
            merged = merge_attentions((so_far, part[0].to(work)), (so_far_lse, part[1]))
            so_far.copy_(merged[0])
            so_far_lse.copy_(merged[1])
    return out.to(query.dtype), lse


def backward(team: Team, call: GlobalCall, ring: Ring, tensors, out, lse, grads, seed):
    """The six gradients; those of additional keys and values are this rank's part."""
    query, key, value, *more = tensors
    work, place = lse_dtype(query.dtype), {"device": query.device}
    grad_query = torch.zeros(query.shape, dtype=work, **place)
    sums = [None if x is None else torch.zeros(x.shape, dtype=work, **place) for x in more]
    views = [Rows(ring.queries, x) for x in (query, out, lse, *grads, grad_query)]
    rank, n, what = team.rank, team.size, "gradients of keys and values"
    mine = torch.zeros(pieces.count(ring.keys[rank], key, value), dtype=work, **place)
    arrived = travelling = None
    # Exchanges come in one order on all ranks, keys and gradients of step 0, of step 1, ...: where a message
    # holds up those behind it (NCCL), both ends of each must be found.
    for step, block, owner in _blocks(team, ring, key, value):
        part = None
        if block is not None:
            part = mine if step == 0 else block.new_zeros(block.shape, dtype=work)
            keys, grad_keys = (Pieces(pieces.opened(x, ring.keys[owner], key, value)) for x in (block, part))
            for task, extra in _tasks(ring, step, more):
                q, *rest, grad_q = (v.of(task.queries) for v in views)
                given = (q, *keys.take(task.keys), *extra)
                gradients = call.backward(task.queries, task.keys, given, *rest, seed)
                grad_q += gradients[0]
                grad_keys.add(task.keys, *gradients[1:3])
                for total, gradient in zip(sums, gradients[3:], strict=True):
                    if gradient is not None:
                        total += gradient
        sends, receives, coming = [], [], (rank - step - 1) % n
        if step:
            travelling.wait()  # what the ranks before added
            part = None if part is None else arrived.add_(part)
        if part is not None and ring.last[owner]:
            sends = [((rank + 1) % n if step < ring.last[owner] else owner, part)]
        if step + 1 < n and step + 1 <= ring.last[coming]:
            arrived = mine.new_empty(pieces.count(ring.keys[coming], key, value))
            receives.append(((rank - 1) % n, arrived))
        if step and step == ring.last[rank]:  # the sum of all, this rank's own part first
            mine = torch.empty_like(mine)
            receives.append(((rank + step) % n, mine))
        travelling = team.exchange(what, sends, receives)
    travelling.wait()
    grad_key, grad_value = _laid_out(mine, ring.keys[rank], key, value)
    gradients = (grad_query, grad_key, grad_value, *sums)
    inputs = (query, key, value, *more)
    return tuple(g if g is None else g.to(x.dtype) for g, x in zip(gradients, inputs, strict=True))


def _blocks(team: Team, ring: Ring, key, value):
    """(step, flat keys and values or None where nobody here or behind needs them, their owner) for every
    step; the next ones travel in the meantime."""
    rank, n = team.rank, team.size
    own = pieces.own(ring.keys[rank], key, value)
    block = pieces.packed(own, ring.keys[rank], key)
    for step in range(n):
        owner, coming = (rank - step) % n, (rank - step - 1) % n
        sends = [((rank + 1) % n, block)] if block is not None and step < ring.last[owner] else []
        receives, following = [], None
        if step + 1 < n and step + 1 <= ring.last[coming]:
            following = key.new_empty(pieces.count(ring.keys[coming], key, value))
            receives = [((rank - 1) % n, following)]
        exchange = team.exchange("keys and values", sends, receives)
        yield step, block, owner
        exchange.wait()
        block = following


def _tasks(ring: Ring, step: int, more):
    """(task, additional keys and values and bias) of a step: every query meets the additional ones once, in
    its first call. A query that sees no key of its own rank meets them alone."""
    none, tasks = (None,) * len(more), ring.tasks[step]
    if step or more[0] is None:
        return [(task, none) for task in tasks]
    found, met = [], set()
    for task in tasks:
        found.append((task, none if task.queries in met else more))
        met.add(task.queries)
    alone = (q for q in ring.queries if q not in met and pieces.boxes.volume(q))
    return [*found, *((Task(q, ((0, 0),)), more) for q in alone)]


def _laid_out(flat, message, key, value):
    """A flat message of all own keys and values as two tensors of their shapes, with memory of their own."""
    opened = pieces.opened(flat, message, key, value)
    return tuple(torch.cat([piece[i] for piece in opened], 1) for i in (1, 2))
