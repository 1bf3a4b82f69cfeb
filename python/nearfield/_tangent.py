# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Forward-mode derivatives of attention, as a composite of torch operations over gathered keys.

With s_j = scale q.k_j + b_j, p_j = exp(s_j - lse) and m_j = 1, or what dropout makes of it:

    ds_j = scale (dq.k_j + q.dk_j) + db_j      dlse = sum_j p_j ds_j
    dout = sum_j m_j p_j ((ds_j - dlse) v_j + dv_j)

Which keys a query sees comes from the core's interval tables. Queries are taken in chunks, so that the
gathered keys stay small; cost O(pairs * (D + Dv)).
"""

from __future__ import annotations

import math

import torch

from . import _core, _ops, _pairs, _tables

_CHUNK_ELEMENTS = 1 << 24  # of a gathered tensor


def _kept(config: _ops.Config, batches: range, heads: int, queries, keys):
    """[B, queries, heads, keys]: 0 or 1 / (1 - p) for raster numbers [queries, keys] of both."""
    try:
        seed = int(config.seed)
    except RuntimeError:  # vmap's, where every entry has a seed of its own
        raise NotImplementedError(
            f"[{config.op}] got vmap of a jvp with a dropout mask per entry, expected randomness='same', or "
            "the jvp of a vmap"
        ) from None
    pairs = [t.expand_as(keys).flatten().tolist() for t in (queries, keys)]  # torch.func hides the memory
    kept = [
        torch.tensor(list(_core.kept(seed, config.dropout_p, batch, head, *pairs)))
        for batch in batches
        for head in range(heads)
    ]
    kept = torch.stack(kept).reshape(len(batches), heads, *keys.shape)
    return kept.transpose(1, 2).double() / (1 - config.dropout_p)


def tangents(saved, tangent, config: _ops.Config, first_batch: int = 0):
    """(dout, dlse) for tangents of (q, k, v, additional k, additional v, bias), None meaning zero.
    first_batch: by which dropout counts the first batch entry."""
    query, key, value, more_keys, more_values, bias, out, lse = saved
    if config.ranges:
        raise NotImplementedError(
            f"[{config.op}] got forward-mode differentiation of a shard, expected whole layouts"
        )
    if config.varlen:
        return _of_each_sequence(saved, tangent, config)
    problem = _ops.problem_string(query, key, value, more_keys, more_values, bias, config)
    index, seen = _tables.visible(problem, 0)
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
    row_lse = grouped(lse.reshape(batch, tokens, heads, 1))
    if more_keys is not None:
        mk, mv = more_keys.to(work), more_values.to(work)
        dmk = torch.zeros_like(mk) if tangent[3] is None else tangent[3].to(work)
        dmv = torch.zeros_like(mv) if tangent[4] is None else tangent[4].to(work)

    def grouped_heads(t):  # [B, queries, heads, keys] -> [B, queries, Hkv, heads per Hkv, keys]
        return t.reshape(*t.shape[:2], kv_heads, heads // kv_heads, t.shape[-1])

    if bias is not None:
        zero = torch.zeros_like(bias) if tangent[5] is None else tangent[5]
        # [1, queries, Hkv, heads per Hkv, keys]
        of_pairs, dof_pairs = (
            grouped_heads(_pairs.expanded(t.to(work), problem).permute(1, 0, 2)[None]) for t in (bias, zero)
        )

    def kept(at, end, keys):
        queries = torch.arange(at, end)[:, None]
        batches = range(first_batch, first_batch + batch)
        factors = _kept(config, batches, heads, queries, keys).to(query.device, work)
        return grouped_heads(factors)

    # Products by matmul: legacy vmap (vectorized Jacobians) has no rule for einsum.
    def shared_product(a, b):  # [B, queries, Hkv, heads, x], [B, Hkv, x, y], the same for every query
        rows = a.permute(0, 2, 1, 3, 4)
        product = rows.reshape(*rows.shape[:2], rows.shape[2] * rows.shape[3], rows.shape[4]) @ b
        return product.reshape(*rows.shape[:-1], b.shape[-1]).permute(0, 2, 1, 3, 4)

    def scores(a, keys, shared):
        return shared_product(a, keys.permute(0, 2, 3, 1)) if shared else a @ keys.permute(0, 1, 3, 4, 2)

    def weigh(weights, values, shared):
        if shared:
            return shared_product(weights, values.permute(0, 2, 1, 3))
        return weights @ values.permute(0, 1, 3, 2, 4)

    def part(tensor, at, end):  # legacy vmap has no rule for a slice of everything
        return tensor if (at, end) == (0, tokens) else tensor[:, at:end]

    def chunk(at: int, end: int):
        rows, mask = index[at:end], seen[at:end][None, :, None, None, :]
        own_q, own_dq, own_lse = (part(t, at, end) for t in (q, dq, row_lse))
        # Padding gathers keys that the query does not see: 0 times what is not finite would be NaN.
        inside_keys = seen[at:end][None, :, :, None, None]
        gathered = (torch.where(inside_keys, t[:, rows], t.new_zeros(())) for t in (k, dk, v, dv))
        blocks = [(*gathered, False, mask)]
        if more_keys is not None:
            blocks.append((mk, dmk, mv, dmv, True, None))
        parts = []
        for keys, dkeys, values, dvalues, shared, inside in blocks:
            logits = scale * scores(own_q, keys, shared)
            if bias is not None and not shared:
                logits = logits + part(of_pairs, at, end)
            # Masked before exp: the derivative of what it would give outside is 0 * inf.
            counts = ~torch.isneginf(own_lse) if inside is None else inside & ~torch.isneginf(own_lse)
            weights = torch.exp(torch.where(counts, logits - own_lse, logits.new_full((), -math.inf)))
            ds = scale * (scores(own_dq, keys, shared) + scores(own_q, dkeys, shared))
            if bias is not None and not shared:
                ds = ds + part(dof_pairs, at, end)
            kept_weights = weights
            if config.dropout_p > 0:
                numbers = (
                    torch.arange(keys.shape[1])[None] + math.prod(key.shape[1:-2]) if shared else rows.cpu()
                )
                kept_weights = weights * kept(at, end, numbers.expand(end - at, -1))
            parts.append((weights, kept_weights, ds, values, dvalues, shared))
        dlse = sum((w * ds).sum(-1, keepdim=True) for w, _, ds, *_ in parts)
        dout = sum(weigh(m * (ds - dlse), x, s) + weigh(m, dx, s) for _, m, ds, x, dx, s in parts)
        return dout, dlse.squeeze(-1)

    per_query = max(batch * index.shape[1] * kv_heads * max(dim, value_dim), 1)
    step = max(_CHUNK_ELEMENTS // per_query, 1)
    pieces = [chunk(at, min(at + step, tokens)) for at in range(0, tokens, step)]
    if not pieces:
        return torch.zeros_like(out), torch.zeros_like(lse)
    dout, dlse = (torch.cat(p, dim=1) for p in zip(*pieces, strict=True))
    return dout.reshape(out.shape).to(out.dtype), dlse.reshape(lse.shape)


def _of_each_sequence(saved, tangent, config: _ops.Config):
    """Packed sequences: the tangents of each alone, side by side; those of a tail are zero."""
    query, key, value, *_, out, lse = saved
    first_query = first_key = 0
    parts = []
    for i, (single, queries, keys) in enumerate(_sequences(config)):  # both: token layouts
        end_query, end_key = first_query + math.prod(queries), first_key + math.prod(keys)

        def of_queries(x, layout=queries, begin=first_query, end=end_query):
            return _part(x, layout, begin, end)

        def of_keys(x, layout=keys, begin=first_key, end=end_key):
            return _part(x, layout, begin, end)

        absent = (None,) * (len(tangent) - 3)
        own_out, own_lse = of_queries(out), of_queries(lse)
        if end_query > first_query and end_key > first_key:
            own = (of_queries(query), of_keys(key), of_keys(value), *absent, own_out, own_lse)
            change = (of_queries(tangent[0]), of_keys(tangent[1]), of_keys(tangent[2]), *absent)
            dout, dlse = tangents(own, change, single, first_batch=i)
        else:
            dout, dlse = torch.zeros_like(own_out), torch.zeros_like(own_lse)
        parts.append(tuple(t.reshape(1, -1, *t.shape[1 + len(queries) :]) for t in (dout, dlse)))
        first_query, first_key = end_query, end_key
    parts.append((torch.zeros_like(out[:, first_query:]), torch.zeros_like(lse[:, first_query:])))
    dout, dlse = (torch.cat(p, dim=1) for p in zip(*parts, strict=True))
    return dout, dlse


def _part(x, layout, begin: int, end: int):
    """Tokens [begin, end) of a packed tensor as a layout; None stays."""
    if x is None:
        return None
    part = x if (begin, end) == (0, x.shape[1]) else x[:, begin:end]  # see `part` in tangents
    return part.reshape(1, *layout, *x.shape[2:])


def _sequences(config: _ops.Config):
    """For each packed sequence: the Config of the call with it alone, its query and its key layout."""
    if config.offsets_query is not None:
        single = config._replace(offsets_query=None, offsets_key=None, grids=None)
        try:
            queries, keys = (t.diff().tolist() for t in (config.offsets_query, config.offsets_key))
        except RuntimeError:  # vmap's
            raise NotImplementedError(
                f"[{config.op}] got vmap of a jvp over cumulative offsets, expected it over tensors only, or "
                "the jvp of a vmap"
            ) from None
        for n, m in zip(queries, keys, strict=True):
            yield single, (n,), (m,)
        return
    rank = len(config.axes) // 4
    single = config._replace(grids=None, function=_core.FUNCTIONS.index("multi_dimensional_attention"))
    for at in range(0, len(config.grids or ()), 5 * rank):
        layout, *axes = (config.grids[at + i * rank : at + (i + 1) * rank] for i in range(5))
        axes = tuple(x for axis in zip(*axes, strict=True) for x in axis)
        yield single._replace(axes=axes), tuple(layout), tuple(layout)
