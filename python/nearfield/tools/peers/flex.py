# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Compiled FlexAttention with the equivalent block mask, in raster order or with the tokens in tiles.

The block lists are computed here from the pairs themselves (create_block_mask would evaluate all
tokens x tokens of them). FlexAttention has no backward pass on CPUs.
"""

from __future__ import annotations

import functools

import torch
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from . import Absent, Peer
from .tables import neighbors, tile_order

TILES = {1: (), 2: ((8, 8), (8, 16)), 3: ((4, 4, 4), (4, 4, 8))}
BLOCKS = {
    1: ((64, 64), (128, 128), (128, 64)),
    2: ((64, 64), (128, 64), (128, 128)),
    3: ((64, 64), (128, 128)),
}


@functools.cache
def _compiled():
    torch._dynamo.config.cache_size_limit = 256  # every problem and block size is a compilation
    return torch.compile(flex_attention, dynamic=False)


class Flex(Peer):
    name = "flex"
    has_backward = False

    @classmethod
    def candidates(cls, problem):
        if problem.dense:
            return [{"tile": None, "block": None}]
        rank = len(problem.layout)
        return [{"tile": t, "block": b} for t in (None, *TILES[rank]) for b in BLOCKS[rank]]

    def __init__(self, problem, tile, block):
        super().__init__(problem)
        if problem.dense and problem.causal:
            raise Absent("dense and causal: not written here")
        self.order = torch.arange(problem.tokens) if not tile else tile_order(problem.layout, tile)
        self.rank = self.order.argsort()
        self.mask = None if problem.dense else self._block_mask(tuple(block))

    def _block_mask(self, block):
        keys, seen = neighbors(self.problem)
        tokens = self.problem.tokens
        blocks = [-(-tokens // b) for b in block]
        pair = (self.rank // block[0])[:, None] * blocks[1] + self.rank[keys] // block[1]
        pairs = torch.bincount(pair[seen], minlength=blocks[0] * blocks[1]).reshape(blocks)
        full = pairs == block[0] * block[1]
        lists = [_lists(kind) for kind in ((pairs > 0) & ~full, full)]
        return BlockMask.from_kv_blocks(
            *lists[0], *lists[1], BLOCK_SIZE=block, mask_mod=self._mask_mod(), seq_lengths=(tokens, tokens)
        )

    def _mask_mod(self):
        """Visibility by tables: per axis the interval of every query and the coordinate of every key."""
        p, axes, inner = self.problem, [], self.problem.tokens
        for axis, extent in enumerate(p.layout):
            inner //= extent
            coordinate = self.order // inner % extent
            begin, end, step = p.intervals(axis)
            at = coordinate.int()
            axes.append((at, begin[coordinate].int(), end[coordinate].int(), (at % step).int(), step))

        def visible(b, h, q, k):
            result = None
            for at, begin, end, residue, step in axes:
                seen = (at[k] >= begin[q]) & (at[k] < end[q])
                if step > 1:
                    seen = seen & (residue[k] == residue[q])
                result = seen if result is None else result & seen
            return result

        return visible

    def to_own(self, x, of_query):
        return x.flatten(1, -3)[:, self.order].transpose(1, 2)

    def from_own(self, x, of_query):
        return x.transpose(1, 2)[:, self.rank].unflatten(1, self.problem.layout)

    def attend(self, query, key, value):
        gqa = self.problem.heads != self.problem.kv_heads
        return _compiled()(query, key, value, block_mask=self.mask, enable_gqa=gqa)


def _lists(blocks):
    """Numbers of blocks and their indices, as BlockMask takes them, of a table [query blocks, key blocks]."""
    count = blocks.sum(1, dtype=torch.int32)[None, None]
    index = blocks.to(torch.int8).argsort(dim=1, descending=True, stable=True).int()[None, None]
    return count, index.contiguous()
