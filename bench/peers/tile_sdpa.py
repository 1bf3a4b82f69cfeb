# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What an expert writes: boxes of queries, for each the gathered box of keys, one batched SDPA.

Queries and output stay in the order of the tiles, as a network could keep them; keys and values are
gathered in the call, through indices that are built once. With dilation the tiles lie in one residue
class. Masks, where a tile's queries do not all see its whole box of keys, are additive: one for every tile
in one SDPA, or one SDPA for all tiles that share a mask (`grouped`).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from nearfield.tools.peers.tables import all_of, combine

from . import Absent, Peer

# Tokens of a tile per axis.
TILES = {
    1: ((32,), (64,), (128,), (256,)),
    2: ((4, 4), (8, 8), (8, 16), (16, 16)),
    3: ((2, 4, 4), (4, 4, 4), (4, 8, 8)),
}
MOST_MASK_BYTES = 512 << 20


class TileSdpa(Peer):
    name = "tile-sdpa"

    @classmethod
    def candidates(cls, problem):
        if problem.dense:
            raise Absent("every query sees every key: that is SDPA")
        rank = len(problem.layout)
        groupings = (False, True) if rank == 1 else (False,)  # with more axes there are too many kinds
        return [{"tile": tile, "grouped": g} for tile in TILES[rank] for g in groupings]

    def __init__(self, problem, tile, grouped: bool):
        super().__init__(problem)
        axes = [_tiles_of_axis(*problem.intervals(a), tile[a]) for a in range(len(problem.layout))]
        queries, keys = (combine([a[i] for a in axes], problem.layout) for i in (0, 2))
        real = all_of([a[1] for a in axes])
        count = len(keys)
        seen = torch.ones(1, 1, 1, dtype=torch.bool)
        for *_, x in axes:  # [tiles, queries, keys] of the axis
            seen = seen[:, None, :, None, :, None] & x[None, :, None, :, None, :]
            seen = seen.flatten(4, 5).flatten(2, 3).flatten(0, 1)
        seen[~real] = True  # queries that only fill a tile up: a softmax over nothing would be NaN
        if seen.numel() * 4 > MOST_MASK_BYTES:
            raise Absent("the masks take too much memory")
        kinds = [
            torch.cat([x.flatten(1), r], dim=1).unique(dim=0, return_inverse=True)[1] for _, r, _, x in axes
        ]
        kind = combine([k[:, None] for k in kinds], [int(k.max()) + 1 for k in kinds])[:, 0]
        _, kind = kind.unique(return_inverse=True)
        grouped = grouped or int(kind.max()) == 0
        order = kind.argsort(stable=True) if grouped else torch.arange(count)
        self.queries, self.real, self.keys = queries[order], real[order], keys[order].flatten()
        additive = torch.zeros(1).expand(seen.shape).masked_fill(~seen, float("-inf")).to(problem.dtype)
        if grouped:
            sizes = torch.bincount(kind).tolist()
            first = [int((kind == i).nonzero()[0]) for i in range(len(sizes))]
            masks = [None if bool(seen[i].all()) else additive[i] for i in first]
            self.groups = list(zip(sizes, masks, strict=True))
        else:
            self.groups = [(count, additive[:, None].repeat(problem.batch, 1, 1, 1))]
        self.shape = (count, len(self.keys) // count)

    def to_own(self, x, of_query):
        if not of_query:
            return x.flatten(1, -3)  # [B, N, H, D]
        x = x.flatten(1, -3)[:, self.queries]  # [B, tiles, queries, H, D]
        x = torch.where(self.real[..., None, None], x, 0)
        return x.flatten(0, 1).transpose(1, 2).contiguous()  # [B * tiles, H, queries, D]

    def from_own(self, x, of_query):
        p = self.problem
        if not of_query:
            return x.unflatten(1, p.key_layout)
        x = x.transpose(1, 2).unflatten(0, (p.batch, -1))
        natural = x.new_empty(p.batch, p.tokens, *x.shape[-2:])
        natural[:, self.queries[self.real]] = x[:, self.real]
        return natural.unflatten(1, p.layout)

    def _boxes(self, x):
        batch, _, heads, dim = x.shape
        x = x.index_select(1, self.keys)  # F.embedding, whose backward is another, is slower
        return x.reshape(batch, *self.shape, heads, dim).transpose(2, 3)  # [B, tiles, H, keys, D]

    def attend(self, query, key, value):
        key, value = self._boxes(key), self._boxes(value)
        p = self.problem
        if len(self.groups) == 1:
            return self._sdpa(query, key.flatten(0, 1), value.flatten(0, 1), self.groups[0][1])
        query = query.unflatten(0, (p.batch, -1))
        parts, begin = [], 0
        for size, mask in self.groups:
            run = slice(begin, begin := begin + size)
            parts.append(self._sdpa(*(x[:, run].flatten(0, 1) for x in (query, key, value)), mask))
        if p.batch == 1:
            return torch.cat(parts)
        return torch.cat([x.unflatten(0, (p.batch, -1)) for x in parts], dim=1).flatten(0, 1)

    def _sdpa(self, query, key, value, mask):
        gqa = self.problem.heads != self.problem.kv_heads
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=gqa)


def _tiles_of_axis(begin, end, step, size):
    """Of one axis: queries [tiles, size], which are real, keys [tiles, box], seen [tiles, size, box]."""
    tiles = []
    for residue in range(step):
        members = torch.arange(residue, len(begin), step)
        tiles += [(t, members) for t in members.split(size)]
    box = max(math.ceil((end[t].max() - begin[t].min()).item() / step) for t, _ in tiles)
    queries, real, keys, seen = [], [], [], []
    for tile, members in tiles:
        fill = tile[-1:].expand(size - len(tile))
        queries.append(torch.cat([tile, fill]))
        real.append(torch.arange(size) < len(tile))
        last_start = members[max(0, len(members) - box)].item()
        first = min(begin[tile].min().item(), last_start)
        key = first + step * torch.arange(box)
        inside = key < len(begin)
        q = queries[-1][:, None]
        seen.append((key >= begin[q]) & (key < end[q]) & inside)
        keys.append(torch.where(inside, key, members[-1]))
    return tuple(torch.stack(x) for x in (queries, real, keys, seen))
