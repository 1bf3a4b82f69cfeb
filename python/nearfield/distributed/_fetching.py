# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Sharded attention by fetching keys: every query is computed by one call of the operator.

Forward: send and receive keys; meanwhile the local tasks; then the others. Backward: the tasks that used
foreign keys first, whose gradients travel home meanwhile the local ones run; what arrives is added in rank
order, so that the bits repeat. Gradients of 16-bit keys travel and are added in float32.
"""

from __future__ import annotations

import torch

from .._shard_call import GlobalCall, lse_dtype
from . import _pieces as pieces
from ._pieces import Pieces
from ._share import Share
from ._team import Team


def forward(team: Team, call: GlobalCall, share: Share, tensors, seed):
    """(out, lse, fetched) of this rank's queries; fetched: the keys and values of others, flat."""
    query, key, value, *more = tensors
    own = pieces.own(share.keys, key, value)
    sizes = [pieces.count(boxes, key, value) for _, boxes in share.fetch]
    fetched = key.new_empty(sum(sizes))
    parts = fetched.split(sizes)
    exchange = team.exchange(
        "keys and values",
        [(peer, pieces.packed(own, boxes, key)) for peer, boxes in share.send],
        [(peer, part) for (peer, _), part in zip(share.fetch, parts, strict=True)],
    )
    out = query.new_empty(*query.shape[:-1], value.shape[-1])
    lse = query.new_empty(query.shape[:-1], dtype=lse_dtype(query.dtype))
    views = [Rows(share.queries, x) for x in (query, out, lse)]
    _compute(call, share.local, own, views, more, seed)
    exchange.wait()
    _compute(call, share.remote, _all(share, own, parts, key, value), views, more, seed)
    return out, lse, fetched


def backward(team: Team, call: GlobalCall, share: Share, tensors, out, lse, fetched, grads, seed):
    """The six gradients; those of additional keys and values and of the bias are this rank's part."""
    query, key, value, *more = tensors
    own = pieces.own(share.keys, key, value)
    sizes = [pieces.count(boxes, key, value) for _, boxes in share.fetch]
    work = lse_dtype(key.dtype)
    grad_key, grad_value = (torch.zeros(x.shape, dtype=work, device=x.device) for x in (key, value))
    grad_own = pieces.own(share.keys, grad_key, grad_value)
    grad_fetched = fetched.new_zeros(fetched.shape, dtype=work)
    grad_parts = grad_fetched.split(sizes)
    grad_query = query.new_empty(query.shape)
    sums = [None if x is None else torch.zeros(x.shape, dtype=work, device=x.device) for x in more]
    views = [Rows(share.queries, x) for x in (query, out, lse, *grads, grad_query)]

    everything = _all(share, own, fetched.split(sizes), key, value)
    grad_everything = _all(share, grad_own, grad_parts, grad_key, grad_value)
    _differentiate(call, share.remote, everything, grad_everything, views, more, sums, seed)
    home = [grad_fetched.new_empty(pieces.count(boxes, key, value)) for _, boxes in share.send]
    exchange = team.exchange(
        "gradients of keys and values",
        [(peer, part) for (peer, _), part in zip(share.fetch, grad_parts, strict=True)],
        [(peer, part) for (peer, _), part in zip(share.send, home, strict=True)],
    )
    _differentiate(call, share.local, own, grad_own, views, more, sums, seed)
    exchange.wait()
    for (_, boxes), part in zip(share.send, home, strict=True):
        for piece in pieces.opened(part, boxes, key, value):
            grad_own.add(*piece)
    gradients = (grad_query, grad_key, grad_value, *sums)
    inputs = (query, key, value, *more)
    return tuple(g if g is None else g.to(x.dtype) for g, x in zip(gradients, inputs, strict=True))


class Rows:
    """A tensor of this rank's queries; None passes for one that is absent."""

    def __init__(self, queries, tensor):
        self._held = None if tensor is None else pieces.held(tensor, queries)

    def of(self, box):
        """The view of a box of queries."""
        if self._held is None:
            return None
        origin, view = next(pair for pair in self._held if pieces.boxes.contains(pair[0], box))
        return view[pieces.boxes.slices(box, origin)]


def _all(share: Share, own: Pieces, parts, key, value) -> Pieces:
    found = list(own)
    for (_, boxes), part in zip(share.fetch, parts, strict=True):
        found += pieces.opened(part, boxes, key, value)
    return Pieces(found)


def _compute(call, tasks, keys: Pieces, views, more, seed) -> None:
    query, out, lse = views
    for task in tasks:
        tensors = (query.of(task.queries), *keys.take(task.keys), *more)
        results = call.forward(task.queries, task.keys, tensors, seed)
        for whole, result in zip((out, lse), results, strict=True):
            whole.of(task.queries).copy_(result)


def _differentiate(call, tasks, keys: Pieces, grad_keys: Pieces, views, more, sums, seed) -> None:
    for task in tasks:
        query, out, lse, grad_out, grad_lse, grad_query = (v.of(task.queries) for v in views)
        tensors = (query, *keys.take(task.keys), *more)
        gradients = call.backward(task.queries, task.keys, tensors, out, lse, grad_out, grad_lse, seed)
        grad_query.copy_(gradients[0])
        grad_keys.add(task.keys, *gradients[1:3])
        for total, gradient in zip(sums, gradients[3:], strict=True):
            if total is not None:
                total += gradient
