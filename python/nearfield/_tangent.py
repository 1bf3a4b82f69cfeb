# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Forward-mode derivatives of attention, as a composite of torch operations over gathered keys.

With s_j = scale q.k_j and p_j = exp(s_j - lse):

    ds_j = scale (dq.k_j + q.dk_j)      dlse = sum_j p_j ds_j
    dout = sum_j p_j ((ds_j - dlse) v_j + dv_j)

Which keys a query sees comes from the core's interval tables. Queries are taken in chunks, so that the
gathered keys stay small; cost O(pairs * (D + Dv)).
"""

from __future__ import annotations

import math

import torch

from . import _core, _ops

_CHUNK_ELEMENTS = 1 << 24  # of a gathered tensor


def _visible(problem: str, sequence: int):
    """(index [queries, most keys seen], seen [queries, most keys seen]): key tokens in raster order."""
    layout, rank = [], _core.problem(problem)["rank"]
    index, seen = torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.bool)
    for axis in range(rank):
        table = _core.intervals(problem, sequence, axis)
        begin, end = torch.tensor(table["begin"]), torch.tensor(table["end"])
        width = int(((end - begin + table["dilation"] - 1) // table["dilation"]).max()) if len(begin) else 0
        keys = begin[:, None] + torch.arange(width) * table["dilation"]
        inside = keys < end[:, None]
        layout.append((keys.clamp(max=max(int(end.max()) - 1, 0)) if len(begin) else keys, inside))
    extents = _key_extents(problem, rank)
    for (keys, inside), extent in zip(layout, extents, strict=True):
        n, w = keys.shape
        index = (index[:, None, :, None] * extent + keys[None, :, None, :]).reshape(
            index.shape[0] * n, index.shape[1] * w
        )
        seen = (seen[:, None, :, None] & inside[None, :, None, :]).reshape(
            seen.shape[0] * n, seen.shape[1] * w
        )
    return index, seen


def _key_extents(problem: str, rank: int) -> list[int]:
    grids = problem.split(":")[4]
    return [int(grids.split(",")[1])] if "," in grids else [int(n) for n in grids.split("x")][:rank]


def tangents(saved, tangent, config: _ops.Config):
    """(dout, dlse) for tangents of (q, k, v, additional k, additional v), None meaning zero."""
    query, key, value, more_keys, more_values, out, lse = saved
    if config.varlen or config.ranges:
        raise NotImplementedError(
            f"[{config.op}] got forward-mode differentiation of packed or sharded sequences, expected whole "
            "layouts; differentiate each sequence by itself"
        )
    problem = _ops.problem_string(query, key, value, more_keys, more_values, config)
    index, seen = _visible(problem, 0)
    index, seen = index.to(query.device), seen.to(query.device)
    batch, heads, dim = query.shape[0], query.shape[-2], query.shape[-1]
    kv_heads, value_dim, tokens = key.shape[-2], value.shape[-1], math.prod(query.shape[1:-2])
    work = lse.dtype
    scale = dim**-0.5 if config.scale is None else config.scale

    def flat(tensor, primal):  # [B, tokens, heads, channels] in the dtype of the statistics
        tensor = torch.zeros_like(primal) if tensor is None else tensor
        return tensor.to(work).reshape(batch, math.prod(primal.shape[1:-2]), *primal.shape[-2:])

    def grouped(tensor):  # query heads as [Hkv, heads per Hkv]
        return tensor.reshape(batch, tokens, kv_heads, heads // kv_heads, tensor.shape[-1])

    q, dq = grouped(flat(query, query)), grouped(flat(tangent[0], query))
    k, dk, v, dv = flat(key, key), flat(tangent[1], key), flat(value, value), flat(tangent[2], value)
    row_lse = grouped(lse.reshape(batch, tokens, heads, 1)).squeeze(-1)
    if more_keys is not None:
        mk, mv = more_keys.to(work), more_values.to(work)
        dmk = torch.zeros_like(mk) if tangent[3] is None else tangent[3].to(work)
        dmv = torch.zeros_like(mv) if tangent[4] is None else tangent[4].to(work)

    def scores(a, keys, shared):
        return torch.einsum("bqhgd,bshd->bqhgs" if shared else "bqhgd,bqshd->bqhgs", a, keys)

    def weigh(weights, values, shared):
        return torch.einsum("bqhgs,bshd->bqhgd" if shared else "bqhgs,bqshd->bqhgd", weights, values)

    def chunk(at: int, end: int):
        rows, mask = index[at:end], seen[at:end][None, :, None, None, :]
        own_q, own_dq, own_lse = q[:, at:end], dq[:, at:end], row_lse[:, at:end, :, :, None]
        # Padding gathers keys that the query does not see: 0 times what is not finite would be NaN.
        inside_keys = seen[at:end][None, :, :, None, None]
        gathered = (torch.where(inside_keys, t[:, rows], t.new_zeros(())) for t in (k, dk, v, dv))
        blocks = [(*gathered, False, mask)]
        if more_keys is not None:
            blocks.append((mk, dmk, mv, dmv, True, None))
        parts = []
        for keys, dkeys, values, dvalues, shared, inside in blocks:
            weights = torch.exp(scale * scores(own_q, keys, shared) - own_lse)
            weights = torch.where(torch.isneginf(own_lse), torch.zeros_like(weights), weights)
            if inside is not None:
                weights = torch.where(inside, weights, torch.zeros_like(weights))
            ds = scale * (scores(own_dq, keys, shared) + scores(own_q, dkeys, shared))
            parts.append((weights, ds, values, dvalues, shared))
        dlse = sum((w * ds).sum(-1, keepdim=True) for w, ds, *_ in parts)
        dout = sum(weigh(w * (ds - dlse), x, s) + weigh(w, dx, s) for w, ds, x, dx, s in parts)
        return dout, dlse.squeeze(-1)

    per_query = max(batch * index.shape[1] * kv_heads * max(dim, value_dim), 1)
    step = max(_CHUNK_ELEMENTS // per_query, 1)
    pieces = [chunk(at, min(at + step, tokens)) for at in range(0, tokens, step)]
    if not pieces:
        return torch.zeros_like(out), torch.zeros_like(lse)
    dout, dlse = (torch.cat(p, dim=1) for p in zip(*pieces, strict=True))
    return dout.reshape(out.shape).to(out.dtype), dlse.reshape(lse.shape)
