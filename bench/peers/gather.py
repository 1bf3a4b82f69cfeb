# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What most people write: gather the keys and values of every query, then two products and a softmax.

Queries are taken in chunks, so that what is gathered stays in a cache or at least in memory; where the
gathered tensors of the whole do not fit, the backward pass gathers them again (checkpointing).
"""

from __future__ import annotations

import torch
from torch.utils.checkpoint import checkpoint

from nearfield.tools.peers.tables import neighbors

from . import Absent, Peer

MOST_SAVED_BYTES = 2 << 30


class Gather(Peer):
    name = "gather"

    @classmethod
    def candidates(cls, problem):
        if problem.dense:
            raise Absent("every query sees every key: nothing to gather")
        if problem.heads != problem.kv_heads:
            raise Absent("shared key/value heads")
        return [{"chunk_mib": m, "product": p} for m in (64, 1024) for p in ("matmul", "sum")]

    def __init__(self, problem, chunk_mib: int, product: str):
        super().__init__(problem)
        self.keys, seen = neighbors(problem)
        zeros = torch.zeros(seen.shape, dtype=problem.dtype)
        self.mask = None if bool(seen.all()) else zeros.masked_fill(~seen, float("-inf"))
        row = self.keys.shape[1] * problem.batch * problem.heads * problem.dim * problem.dtype.itemsize
        self.chunk = max(1, (chunk_mib << 20) // row)
        self.saved = 2 * row * problem.tokens <= MOST_SAVED_BYTES
        self.attend_chunk = self._matmul if product == "matmul" else self._sum

    def to_own(self, x, of_query):
        return x.flatten(1, -3).transpose(1, 2)  # [B, H, N, D]

    def from_own(self, x, of_query):
        return x.transpose(1, 2).unflatten(1, self.problem.layout)

    def _weights(self, scores, mask):
        scores = scores * self.problem.dim**-0.5
        return torch.softmax(scores if mask is None else scores + mask, dim=-1)

    def _matmul(self, query, key, value, index, mask):
        key, value = key[:, :, index], value[:, :, index]  # [B, H, n, K, D]
        weights = self._weights((query[..., None, :] @ key.transpose(-1, -2))[..., 0, :], mask)
        return (weights[..., None, :] @ value)[..., 0, :]

    def _sum(self, query, key, value, index, mask):
        key, value = key[:, :, index], value[:, :, index]
        weights = self._weights((query[..., None, :] * key).sum(-1), mask)
        return (weights[..., None] * value).sum(-2)

    def attend(self, query, key, value):
        parts = []
        for begin in range(0, self.problem.tokens, self.chunk):
            run = slice(begin, begin + self.chunk)
            arguments = (query[:, :, run], key, value, self.keys[run])
            mask = None if self.mask is None else self.mask[run]
            if self.saved or not torch.is_grad_enabled():
                parts.append(self.attend_chunk(*arguments, mask))
            else:
                parts.append(checkpoint(self.attend_chunk, *arguments, mask, use_reentrant=False))
        return torch.cat(parts, dim=2)
