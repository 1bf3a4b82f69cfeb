# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The oracle: dense softmax in float64 under an explicit mask, written from the contract alone.

Nothing here knows the library. Masks are made key by key from the definition of a window, attention is
the textbook formula on materialised logits, gradients are torch's own autograd, and every value comes
with the error that a correct implementation may make (`Expected.bound`).

    mask = grid_mask((10,), window=(3,))                      # [queries, keys], bool
    out, lse = attend(q, k, v, mask)                          # float64, differentiable
    expected = evaluate(q, k, v, mask, grad_out, grad_lse)    # {"out": Expected, ..., "dv": Expected}

Shapes are those of the operators: query [B, *layout, H, D], key [B, *layout, Hkv, D], value
[B, *layout, Hkv, Dv], additional keys and values [B, S, Hkv, D|Dv], lse [B, *layout, H].
"""

import functools
import math
from dataclasses import dataclass

import torch

# ------------------------------------------------------------------------------------------------
# Windows


def window_of(query, extent, window, stride=1, causal=False):
    """The keys `range(begin, end)` that a query sees on an undilated axis of `extent` tokens."""
    group = query // stride * stride
    if causal:
        leader = min(group + stride - 1, extent - 1)
        return range(max(leader - (window - 1), 0), query + 1)
    leader = min(group + stride // 2, extent - 1)
    begin = leader - window // 2
    while begin + window > extent:  # shifted inwards, never cut
        begin -= 1
    begin = max(begin, 0)
    return range(begin, begin + window)


def visible(query, extent, window, stride=1, dilation=1, causal=False):
    """The sorted tokens that `query` sees on an axis: its window among the tokens of its own group."""
    tokens = [t for t in range(extent) if t % dilation == query % dilation]
    place = tokens.index(query)
    return [tokens[i] for i in window_of(place, len(tokens), window, stride, causal)]


def place(query, queries, keys):
    """The key under the centre of a query, where the two have layouts of their own on an axis."""
    return (2 * query + 1) * keys // (2 * queries)


def visible_dense(query, queries, keys, causal=None):
    """The keys that `query` sees in dense attention; causal is None, "tl" or "br"."""
    if causal == "tl":
        return [j for j in range(keys) if j <= query]
    if causal == "br":  # the last query is level with the last key
        return [j for j in range(keys) if keys - 1 - j >= queries - 1 - query]
    return list(range(keys))


def _mask(rows, keys):
    mask = torch.zeros(len(rows), keys, dtype=torch.bool)
    for i, row in enumerate(rows):
        for j in row:
            mask[i, j] = True
    return mask


def _product(axes, combine):
    """[N, M] in raster order from one [Na, Ma] for each axis."""
    whole = axes[0]
    for one in axes[1:]:
        whole = combine(whole[:, None, :, None], one[None, :, None, :]).flatten(2, 3).flatten(0, 1)
    return whole


@functools.lru_cache(256)
def grid_mask(layout, window, stride=None, dilation=None, causal=None, queries=None):
    """[N, M] for M = prod(layout) keys and N = prod(queries or layout): a key is seen if every axis sees
    it. Arguments: one entry per axis."""
    rank = len(layout)
    stride, dilation, causal = stride or (1,) * rank, dilation or (1,) * rank, causal or (False,) * rank
    axes = []
    for extent, own, *axis in zip(layout, queries or layout, window, stride, dilation, causal, strict=True):
        axes.append(_mask([visible(place(q, own, extent), extent, *axis) for q in range(own)], extent))
    return _product(axes, torch.logical_and)


@functools.lru_cache(256)
def bias_index(layout, window, dilation):
    """[N, N]: where each pair looks in a head's table of 2k-1 entries per axis, flattened: key minus query
    in tokens of their dilation group, plus k-1. Pairs that do not see each other get some legal entry."""
    index = None
    for extent, k, d in zip(layout, window, dilation, strict=True):
        tokens = torch.arange(extent)
        offset = torch.div(tokens[None, :] - tokens[:, None], d, rounding_mode="floor") + k - 1
        offset = offset.clamp(0, 2 * k - 2)
        index = offset if index is None else _product([index * (2 * k - 1), offset], torch.add)
    return index


@functools.lru_cache(256)
def dense_mask(queries, keys, causal=None):
    """[queries, keys] of dense attention."""
    return _mask([visible_dense(q, queries, keys, causal) for q in range(queries)], keys)


# ------------------------------------------------------------------------------------------------
# Attention


def _flat(x, heads=None):
    """[B, *layout, h, d] -> [B, heads, N, d] in float64, KV heads repeated for their query heads."""
    b, h, d = x.shape[0], x.shape[-2], x.shape[-1]
    x = x.double().reshape(b, math.prod(x.shape[1:-2]), h, d)
    return x.repeat_interleave((heads or h) // h, dim=2).transpose(1, 2)


def _operands(query, key, value, mask, additional_keys, additional_values):
    """q [B, H, N, D], k [B, H, M + S, D], v [B, H, M + S, Dv], mask [N, M + S]."""
    heads = query.shape[-2]
    q, k, v = _flat(query), _flat(key, heads), _flat(value, heads)
    if additional_keys is not None:
        k = torch.cat([k, _flat(additional_keys, heads)], 2)
        v = torch.cat([v, _flat(additional_values, heads)], 2)
        mask = torch.cat([mask, mask.new_ones(mask.shape[0], additional_keys.shape[1])], 1)
    return q, k, v, mask


def _scores(q, k, scale, bias, index):
    """[B, H, N, M + S]: scaled, and then biased, except for the additional keys."""
    scores = (q @ k.mT) * scale
    if bias is None:
        return scores
    table = bias.double().flatten(1)[:, index]  # [H, N, M]
    return scores + torch.nn.functional.pad(table, (0, k.shape[2] - index.shape[1]))


def attend(
    query,
    key,
    value,
    mask,
    scale=None,
    additional_keys=None,
    additional_values=None,
    bias=None,
    index=None,
    factor=None,
):
    """(out, lse) in float64, differentiable; a query that sees nothing gives 0 and -inf.

    bias [H, 2k-1, ...] with its index (bias_index); factor [B, H, N, M + S] of dropout (philox.factors).
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    q, k, v, mask = _operands(query, key, value, mask, additional_keys, additional_values)
    logits = _scores(q, k, scale, bias, index)
    any_key = mask.any(-1)[:, None]
    top = logits.new_zeros(*logits.shape[:-1], 1)
    if mask.shape[1]:
        top = torch.where(any_key, logits.masked_fill(~mask, -math.inf).amax(-1, keepdim=True), 0).detach()
    p = torch.where(mask, torch.exp(torch.where(mask, logits - top, 0)), 0)
    total = torch.where(any_key, p.sum(-1, keepdim=True), 1)
    lse = torch.where(any_key, total.log() + top, -math.inf)
    layout = query.shape[:-1]
    weights = p / total if factor is None else p / total * factor
    return (
        (weights @ v).transpose(1, 2).reshape(*layout, value.shape[-1]),
        lse.squeeze(-1).transpose(1, 2).reshape(layout),
    )


# ------------------------------------------------------------------------------------------------
# Tolerance


@dataclass
class Expected:
    """A value of the oracle and how far a correct implementation may be from it, element by element."""

    value: torch.Tensor
    bound: torch.Tensor

    def check(self, actual, name, case=""):
        """The largest error over its bound, which must not pass 1."""
        assert actual is not None, f"{name} is missing {case}"
        assert actual.shape == self.value.shape, f"{name}: {actual.shape}, not {self.value.shape} {case}"
        same = actual.double() == self.value  # infinities too
        error = torch.where(same, 0, (actual.double() - self.value).abs())
        ratio = torch.where(error > 0, error / self.bound.clamp_min(1e-300), error)
        worst = ratio.max().item() if ratio.numel() else 0.0
        assert worst <= 1, f"{name} is off by {worst:.3g} times its tolerance {case}"  # a NaN fails here
        return worst


def evaluate(
    query,
    key,
    value,
    mask,
    grad_out=None,
    grad_lse=None,
    scale=None,
    additional_keys=None,
    additional_values=None,
    eps_p=None,
    bias=None,
    index=None,
    factor=None,
):
    """out, lse and, given grad_out, all gradients: {name: Expected}. eps_p: the rounding of P and dS.

    The law of the tolerance, everywhere: eps_out |result| + c eps_p * (the absolute sum of the products
    that make the result), c = 4 + log2(terms); where delta = rowsum(dO * O) comes in, O was rounded to the
    output's dtype, hence eps_out |dO||O| in place of that product. In gradients P is exp(s - lse), where
    s - lse is rounded at its own size: c is larger by half of that. Below the normal range of the dtype the
    grid of representable numbers is even, so |result| counts as at least the smallest normal number.
    """
    dtype = query.dtype
    eps_out, tiny = torch.finfo(dtype).eps, torch.finfo(dtype).smallest_normal
    eps_lse = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    eps_p = eps_p or eps_lse
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    given = {"dq": query, "dk": key, "dv": value, "dak": additional_keys, "dav": additional_values}
    given["dbias"] = bias
    leaves = {n: None if x is None else x.detach().double().requires_grad_() for n, x in given.items()}
    more = (leaves["dak"], leaves["dav"], leaves["dbias"], index, factor)
    out, lse = attend(leaves["dq"], leaves["dk"], leaves["dv"], mask, scale, *more)
    bounds = {}  # what products add to the bound of a gradient
    with torch.no_grad():
        heads, groups = query.shape[-2], query.shape[-2] // key.shape[-2]
        q, k, v, seen = _operands(*list(leaves.values())[:3], mask, *more[:2])
        lse_rows = _flat(lse[..., None])
        exponent = torch.where(seen, _scores(q, k, scale, *more[2:4]) - lse_rows, 0)
        p = torch.where(seen, torch.exp(exponent), 0)
        kept = p if factor is None else p * factor
        c = 4 + math.log2(max(p.shape[-1], p.shape[-2] * groups, 1))
        rows = (query.shape[0], *query.shape[1:-2])
        bound = eps_out * out.abs().clamp_min(tiny) + c * eps_p * (kept @ v.abs()).transpose(1, 2).reshape(
            *rows, heads, value.shape[-1]
        )
        result = {
            "out": Expected(out.detach(), bound),
            # In float64 the oracle rounds as much as what it checks.
            "lse": Expected(lse.detach(), eps_lse * (8 + lse.abs()) * (2 if dtype == torch.float64 else 1)),
        }
        if grad_out is None:
            return result
        do = _flat(grad_out).abs()
        size = (do * _flat(out).abs()).sum(-1, keepdim=True)  # |dO||O|, one per query
        rounded = (do * _flat(out).abs().clamp_min(tiny)).sum(-1, keepdim=True)  # ... as O was rounded
        dlse = 0 if grad_lse is None else _flat(grad_lse[..., None]).abs()
        exact = kept * (do @ v.abs().mT) + p * (size + dlse)  # |dS|
        c = c + exponent.abs() / 2
        ds = (c * eps_p * exact + eps_out * p * rounded) * abs(scale)
        keys = key.shape[1:-2].numel()

        def unflat(x, like):  # [B, H, N, d] -> like's shape, summed over the query heads of a KV head
            x = x.unflatten(1, (like.shape[-2], heads // like.shape[-2])).sum(2)
            return x.transpose(1, 2).reshape(like.shape)

        dk, dv = ds.mT @ q.abs(), eps_p * ((c * kept).mT @ do)
        bounds = {"dq": unflat(ds @ k.abs(), query)}
        bounds.update(dk=unflat(dk[:, :, :keys], key), dv=unflat(dv[:, :, :keys], value))
        if additional_keys is not None:
            bounds["dak"] = unflat(dk[:, :, keys:], additional_keys)
            bounds["dav"] = unflat(dv[:, :, keys:], additional_values)
        if bias is not None:  # a sum over the batch and over queries
            c = 4 + math.log2(max(p.shape[0] * p.shape[2], 1))
            pairs = (c * eps_p * exact + eps_out * p * rounded)[..., :keys].sum(0).flatten(1)
            table = pairs.new_zeros(heads, bias[0].numel())
            bounds["dbias"] = table.index_add(1, index.flatten(), pairs).reshape(bias.shape)
    loss = (out * grad_out.double()).sum()
    if grad_lse is not None:
        loss = loss + torch.where(lse == -math.inf, 0, lse * grad_lse.double()).sum()
    inputs = [leaves[name] for name in bounds]
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True)
    for (name, bound), x, gradient in zip(bounds.items(), inputs, gradients, strict=True):
        gradient = torch.zeros_like(x) if gradient is None else gradient
        result[name] = Expected(gradient, eps_out * gradient.abs().clamp_min(tiny) + bound)
    return result
