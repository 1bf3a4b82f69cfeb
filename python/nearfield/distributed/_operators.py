# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Sharded attention as two operators of torch, so that compiled graphs hold it whole.

Arguments that are no tensors travel as a text, and the process group as its name, as in torch's functional
collectives. All communication of a pass happens inside its operator.
"""

from __future__ import annotations

import functools
import json
from typing import NamedTuple

import torch
from torch import Tensor

from .._shard_call import lse_dtype
from . import _boxes as boxes
from . import _fetching, _heads, _ring
from ._agree import agree
from ._problem import described, resolved
from ._team import Team

_INPUTS = 6  # query, key, value, additional keys and values, bias


class Spec(NamedTuple):
    """A call but for its tensors, as operators take it: a text in which numbers have places, and the numbers,
    which a compiled graph may hold as symbols."""

    text: str
    whole: list[int]
    real: list[float]


@functools.lru_cache(256)
def _parsed(text: str):
    given = json.loads(text)
    team = Team(given.pop("op"), given.pop("group"), int(given.pop("rank")), tuple(given.pop("members")))
    return team, given


def read(text: str, whole, real) -> tuple[Team, dict]:
    """(team, the words of `written`)."""
    team, given = _parsed(text)

    def filled(x):
        if isinstance(x, list):
            return [filled(y) for y in x]
        if isinstance(x, dict):
            return {"i": whole, "f": real}[next(iter(x))][next(iter(x.values()))]
        return x

    return team, {name: filled(x) for name, x in given.items()}


def written(team: Team, **given) -> Spec:
    """The same on every rank but for `rank`."""
    whole, real = [], []
    team_words = {"op": team.op, "group": team.name, "rank": str(team.rank)}
    words = [f'"{name}":{_json(x, whole, real)}' for name, x in {**team_words, **given}.items()]
    members = ",".join([str(m) for m in team.members])
    return Spec("{" + ",".join([*words, f'"members":[{members}]']) + "}", whole, real)


def _json(x, whole, real) -> str:
    """As json.dumps, which compilation cannot trace; texts need no escapes."""
    if x is None or isinstance(x, bool):
        return {None: "null", True: "true", False: "false"}[x]
    if isinstance(x, str):
        return f'"{x}"'
    if isinstance(x, (tuple, list)):
        return "[" + ",".join([_json(y, whole, real) for y in x]) + "]"
    kind, numbers = ("i", whole) if isinstance(x, (int, torch.SymInt)) else ("f", real)
    numbers.append(x)
    return f'{{"{kind}":{len(numbers) - 1}}}'


@torch.library.custom_op("nearfield_distributed::attend", mutates_args=())
def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    additional_keys: Tensor | None,
    additional_values: Tensor | None,
    bias: Tensor | None,
    seed: Tensor | None,
    text: str,
    whole: list[int],
    real: list[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(out, lse, kept, seed, call): kept is what the backward pass needs of other ranks; seed is rank 0's;
    call is the number of this one among those of the group."""
    team, given = read(text, whole, real)
    tensors = (query, key, value, additional_keys, additional_values, bias)
    common, own = described(tensors)
    number = 0 if seed is None else int(seed.item())
    with team.turn() as past:
        said, number = agree(team, {**common, **given}, own, number)
        call, method, share = resolved(team.op, said, team.rank)
        with team.work():
            seed = torch.tensor([number], dtype=torch.int64, device=query.device)
            if method == "ring":
                out, lse = _ring.forward(team, call, share, tensors, seed)
                kept = query.new_empty(0)
            else:
                forward = {"fetch": _fetching.forward, "heads": _heads.forward}[method]
                out, lse, kept = forward(team, call, share, tensors, seed)
        return out, lse, kept, seed, torch.tensor([past.calls], dtype=torch.int64)


@torch.library.custom_op("nearfield_distributed::attend_backward", mutates_args=())
def attend_backward(
    grad_out: Tensor | None,
    grad_lse: Tensor | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    additional_keys: Tensor | None,
    additional_values: Tensor | None,
    bias: Tensor | None,
    out: Tensor,
    lse: Tensor,
    kept: Tensor,
    seed: Tensor,
    number: Tensor,
    text: str,
    whole: list[int],
    real: list[float],
) -> list[Tensor]:
    """The gradients of the six inputs; for absent ones a tensor without entries."""
    team, given = read(text, whole, real)
    team = team._replace(op=f"{team.op}, backward")
    tensors = (query, key, value, additional_keys, additional_values, bias)
    common, own = described(tensors)
    with team.turn():
        said, _ = agree(team, {**common, **given}, own, of_call=int(number.item()))
        call, method, share = resolved(team.op, said, team.rank)
        grads = (grad_out, grad_lse)
        with team.work():
            if method == "fetch":
                results = _fetching.backward(team, call, share, tensors, out, lse, kept, grads, seed)
            elif method == "ring":
                results = _ring.backward(team, call, share, tensors, out, lse, grads, seed)
            else:
                results = _heads.backward(team, call, share, tensors, lse, kept, grads, seed)
    return [query.new_empty(0) if g is None else g.contiguous() for g in results]


@attend.register_fake
def _(query, key, value, additional_keys, additional_values, bias, seed, *spec):
    kept = torch.library.get_ctx().new_dynamic_size()
    return (
        query.new_empty((*query.shape[:-1], value.shape[-1])),
        query.new_empty(query.shape[:-1], dtype=lse_dtype(query.dtype)),
        query.new_empty(kept),
        query.new_empty(1, dtype=torch.int64),
        torch.empty(1, dtype=torch.int64),
    )


@attend_backward.register_fake
def _(grad_out, grad_lse, query, key, value, additional_keys, additional_values, bias, *rest):
    inputs = (query, key, value, additional_keys, additional_values, bias)
    return [query.new_empty(0 if x is None else x.shape) for x in inputs]


def _setup_context(ctx, inputs, output):
    *tensors, _ = inputs[: _INPUTS + 1]
    ctx.spec = inputs[_INPUTS + 1 :]
    ctx.save_for_backward(*tensors, *output)
    ctx.set_materialize_grads(False)


def _backward(ctx, grad_out, grad_lse, *_):
    saved = ctx.saved_tensors
    gradients = attend_backward(grad_out, grad_lse, *saved, *ctx.spec)
    inputs = saved[:_INPUTS]
    return *(None if x is None else g for x, g in zip(inputs, gradients, strict=True)), None, None, None, None


attend.register_autograd(_backward, setup_context=_setup_context)


def _refuse(ctx, *gradients):
    raise NotImplementedError(
        "[nearfield.distributed] got a second differentiation, expected first derivatives only; drop "
        "create_graph=True"
    )


attend_backward.register_autograd(_refuse)


# ---- replicated inputs


@torch.library.custom_op("nearfield_distributed::sum_of_ranks", mutates_args=())
def sum_of_ranks(tensor: Tensor, what: str, text: str) -> Tensor:
    """The sum of a tensor over all ranks, added in rank order; the same bits on every rank. Each rank adds up
    one part of it and sends it to the others."""
    team, given = read(text, [], [])
    alike = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
    with team.turn():
        agree(team, {what: alike, **given}, {})
        with team.work():
            flat = tensor.contiguous().reshape(-1)
            parts = flat.split(boxes.cut(flat.numel(), team.size))
            others = [r for r in range(team.size) if r != team.rank]
            addends = {r: torch.empty_like(parts[team.rank]) for r in others}
            addends[team.rank] = parts[team.rank]
            team.exchange(what, [(r, parts[r]) for r in others], [(r, addends[r]) for r in others]).wait()
            mine = addends[0].to(lse_dtype(tensor.dtype), copy=True)
            for r in range(1, team.size):
                mine += addends[r]
            total = torch.empty_like(flat)
            sums = total.split(boxes.cut(flat.numel(), team.size))
            sums[team.rank].copy_(mine)
            team.exchange(what, [(r, sums[team.rank]) for r in others], [(r, sums[r]) for r in others]).wait()
    return total.view(tensor.shape)


@sum_of_ranks.register_fake
def _(tensor, what, text):
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


class _Replicated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor, what, text):
        ctx.what, ctx.text = what, text
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, gradient):
        return sum_of_ranks(gradient, ctx.what, ctx.text), None, None


def replicated(tensor, what: str, team: Team):
    """A tensor that every rank has: its gradient is the sum of all ranks' parts, on every rank."""
    if tensor is None or team.size == 1 or not tensor.requires_grad:
        return tensor
    return _Replicated.apply(tensor, f"gradient of {what}", written(team).text)
