# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Sums over the pairs of a window: attention taken apart, differentiable any number of times.

With j running over the columns of a row, key(n, j) the table of `_tables.visible`, and all of it over
heads-first tensors `[G, tokens, channels]` and weights `[G, queries, columns]`:

    score(q, k)[n, j] = sum_d q[n, d] k[key(n, j), d]              0 where a column is not seen
    weigh(p, v)[n, d] = sum_j p[n, j] v[key(n, j), d]
    spread(p, x)[m, d] = sum_{n, j: key(n, j) = m} p[n, j] x[n, d]

Each is linear in both arguments, and their derivatives are one another, so three rules give gradients,
gradients of gradients and forward mode. So do two for a table of relative positions, `[H, 2k-1, ...]`, and
its sums: `expand` looks the pairs up, `contract` adds up the pairs of each entry. Sums run in a fixed
order: they gather by inverse tables instead of scattering. Rows are taken in chunks, so that memory stays
O(pairs), not O(pairs * channels).
"""

from __future__ import annotations

import torch
from torch.autograd import Function, forward_ad

from . import _core, _tables
from ._forward_levels import check_forward_levels

_CHUNK_ELEMENTS = 1 << 20  # of a gathered tensor, so that it stays in a cache


# Constants of a compiled graph: the sizes that they come from are guarded.
@torch.compiler.assume_constant_result
@_tables.untraced
def _table(problem: str, device: str):
    """(key, seen), each [queries, columns]; seen is None where all are."""
    index, seen = _tables.visible(problem, 0)
    return index.to(device), None if seen.all() else seen.to(device)


@torch.compiler.assume_constant_result
@_tables.untraced
def _inverse_table(problem: str, device: str):
    """(query, pair, seen), each [keys, most queries]; pair = query * columns + column."""
    rank = _core.problem(problem)["rank"]
    tables, extents, widths = [], [], []
    for axis in range(rank):
        keys, inside, _ = _tables.axis_table(problem, 0, axis)
        tables.append(_tables.inverse(keys, inside, len(keys)))
        extents.append(keys.shape[0])
        widths.append(keys.shape[1])
    query = _tables.raster([t[0] for t in tables], extents)
    pair = query * torch.Size(widths).numel() + _tables.raster([t[1] for t in tables], widths)
    seen = _tables.every([t[2] for t in tables])
    return query.to(device), pair.to(device), None if seen.all() else seen.to(device)


@torch.compiler.assume_constant_result
@_tables.untraced
def _relative_tables(problem: str, device: str):
    """Of each axis: (entry [queries, columns], seen), and (pair [entries, most pairs], seen) the other way.
    Entry = key minus query in group units, plus k-1."""
    tables = []
    for axis in range(_core.problem(problem)["rank"]):
        keys, inside, dilation = _tables.axis_table(problem, 0, axis)
        columns = keys.shape[1]  # the window: some query sees all of it
        entry = (keys - torch.arange(len(keys))[:, None]) // dilation + columns - 1
        query, column, counted = _tables.inverse(entry, inside, 2 * columns - 1)
        pair = query * columns + column
        tables.append(tuple(t.to(device) for t in (entry, inside, pair, counted)))
    return tuple(tables)


def _rows(tensor, index):
    """[G, rows, columns, channels]: the tokens that a table names. Columns that are not seen repeat one that
    is, so that what is not finite reaches nobody whom it would not reach anyway."""
    return tensor.index_select(1, index.flatten()).reshape(-1, *index.shape, tensor.shape[-1])


def _only(seen, weights):
    """Zeros where a column is not seen; seen is None where all are."""
    return weights if seen is None else torch.where(seen, weights, weights.new_zeros(()))


def _chunks(table, tensor):
    per_row = max(tensor.shape[0] * table.shape[1] * tensor.shape[-1], 1)
    step = max(_CHUNK_ELEMENTS // per_row, 1)
    return [slice(at, at + step) for at in range(0, table.shape[0], step)] or [slice(0, 0)]


def _score(query, key, problem):
    index, seen = _table(problem, str(query.device))
    parts = [(_rows(key, index[c]) * query[:, c, None]).sum(-1) for c in _chunks(index, key)]
    return _only(seen, torch.cat(parts, 1))


def _weigh(weights, value, problem):
    index, seen = _table(problem, str(value.device))
    weights = _only(seen, weights)
    parts = [weights[:, c, None] @ _rows(value, index[c]) for c in _chunks(index, value)]
    return torch.cat(parts, 1).squeeze(-2)


def _spread(weights, x, problem):
    query, pair, seen = _inverse_table(problem, str(x.device))
    own = weights.reshape(weights.shape[0], weights.shape[1] * weights.shape[2])
    own = _only(seen, own.index_select(1, pair.flatten()).reshape(-1, *pair.shape))
    parts = [own[:, c, None] @ _rows(x, query[c]) for c in _chunks(query, x)]
    return torch.cat(parts, 1).squeeze(-2)


def expanded(bias, problem: str):
    """`expand` without its derivatives."""
    tables = _relative_tables(problem, str(bias.device))
    for i, (entry, inside, *_) in enumerate(tables):  # [H, L0, k0, ..., remaining axes]
        bias = bias.movedim(1 + 2 * i, -1)[..., entry.flatten()]
        bias = _only(inside.flatten(), bias)
        bias = bias.reshape(*bias.shape[:-1], *entry.shape)
        bias = bias.movedim((-2, -1), (1 + 2 * i, 2 + 2 * i))
    rank = len(tables)
    order = [0, *range(1, 2 * rank, 2), *range(2, 2 * rank + 1, 2)]
    bias = bias.permute(order)
    return bias.reshape(bias.shape[0], bias.shape[1 : 1 + rank].numel(), -1)


def _contract(sums, problem):
    tables = _relative_tables(problem, str(sums.device))
    queries, columns = zip(*(entry.shape for entry, *_ in tables), strict=True)
    sums, rank = sums.reshape(-1, *queries, *columns), len(tables)
    for i, (_, _, pair, counted) in enumerate(tables):  # always the first axis left; entries go last
        left = rank - i
        sums = sums.movedim((1, 1 + left), (-2, -1))
        sums = sums.reshape(*sums.shape[:-2], -1)[..., pair]
        sums = _only(counted, sums).sum(-1)
    return sums


_SUMS = {"score": _score, "weigh": _weigh, "spread": _spread}
# sum -> of (a, b, gradient): what gives the gradient of a, what gives that of b
_DERIVATIVES = {
    "score": (lambda q, k, g: ("weigh", g, k), lambda q, k, g: ("spread", g, q)),
    "weigh": (lambda p, v, g: ("score", g, v), lambda p, v, g: ("spread", p, g)),
    "spread": (lambda p, x, g: ("score", x, g), lambda p, x, g: ("weigh", p, g)),
}


class _Bilinear(Function):
    @staticmethod
    def forward(name, problem, a, b):
        return _SUMS[name](a, b, problem)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.name, ctx.problem, a, b = inputs
        ctx.save_for_backward(a, b)
        ctx.save_for_forward(a, b)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, gradient):
        return _gradients(ctx, gradient, type_of=_Bilinear)


class _Differentiable(_Bilinear):
    """With forward mode and vmap, which dynamo refuses to see."""

    generate_vmap_rule = True

    @staticmethod
    def backward(ctx, gradient):
        return _gradients(ctx, gradient, type_of=_Differentiable)

    @staticmethod
    def jvp(ctx, _name, _problem, da, db):
        a, b = ctx.saved_tensors
        parts = []
        if da is not None:
            parts.append(_Differentiable.apply(ctx.name, ctx.problem, da, b))
        if db is not None:
            parts.append(_Differentiable.apply(ctx.name, ctx.problem, a, db))
        return sum(parts) if parts else None


def _gradients(ctx, gradient, type_of):
    if gradient is None:
        return None, None, None, None
    a, b = ctx.saved_tensors
    of_a, of_b = (rule(a, b, gradient) for rule in _DERIVATIVES[ctx.name])
    needs_a, needs_b = ctx.needs_input_grad[2:]
    return (
        None,
        None,
        type_of.apply(of_a[0], ctx.problem, *of_a[1:]) if needs_a else None,
        type_of.apply(of_b[0], ctx.problem, *of_b[1:]) if needs_b else None,
    )


class _Linear(Function):
    """`expand` and `contract`, each the transpose of the other."""

    @staticmethod
    def forward(name, problem, x):
        return (expanded if name == "expand" else _contract)(x, problem)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.name, ctx.problem, _ = inputs

    @staticmethod
    def backward(ctx, gradient):
        return None, None, _Linear.apply(_TRANSPOSE[ctx.name], ctx.problem, gradient)


class _DifferentiableLinear(_Linear):
    generate_vmap_rule = True

    @staticmethod
    def backward(ctx, gradient):
        return None, None, _DifferentiableLinear.apply(_TRANSPOSE[ctx.name], ctx.problem, gradient)

    @staticmethod
    def jvp(ctx, _name, _problem, change):
        return _DifferentiableLinear.apply(ctx.name, ctx.problem, change)


_TRANSPOSE = {"expand": "contract", "contract": "expand"}


def _apply(eager, compiled, *arguments):
    if not torch.compiler.is_compiling():
        check_forward_levels("nearfield")
        return eager.apply(*arguments)
    if forward_ad._current_level >= 0:
        return _outside_graph(eager, *arguments)
    return compiled.apply(*arguments)


@torch._dynamo.disable
def _outside_graph(function, *arguments):
    """Forward mode inside a compiled function breaks the graph (and is refused by fullgraph=True)."""
    return function.apply(*arguments)


def score(query, key, problem: str):
    """Query `[G, N, D]`, key `[G, N, D]` -> `[G, N, columns]`; 0 where a column is not seen."""
    return _apply(_Differentiable, _Bilinear, "score", problem, query, key)


def weigh(weights, value, problem: str):
    """Weights `[G, N, columns]`, value `[G, N, Dv]` -> `[G, N, Dv]`; columns not seen count nothing."""
    return _apply(_Differentiable, _Bilinear, "weigh", problem, weights, value)


def expand(bias, problem: str):
    """Relative positions `[H, 2k-1, ...]` -> `[H, N, columns]`; 0 where a column is not seen."""
    return _apply(_DifferentiableLinear, _Linear, "expand", problem, bias)


def seen(problem: str, device) -> torch.Tensor | None:
    """[queries, columns]: whether a column of a row is a key that the query sees; None where all are."""
    return _table(problem, str(device))[1]
