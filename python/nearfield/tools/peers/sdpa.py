# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""torch.nn.functional.scaled_dot_product_attention on all tokens: dense, or with the equivalent mask.

The mask is additive float, made once: a boolean one is converted in every call.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from . import Absent, Peer
from .tables import neighbors

MOST_MASK_BYTES = 1 << 30


class Sdpa(Peer):
    name = "sdpa"

    @classmethod
    def candidates(cls, problem):
        size = problem.tokens * problem.keys * problem.dtype.itemsize
        if not problem.dense and size > MOST_MASK_BYTES:
            raise Absent(f"a mask of {size / 2**30:.1f} GiB")
        return [{}]

    def __init__(self, problem):
        super().__init__(problem)
        self.arguments = {"enable_gqa": problem.heads != problem.kv_heads}
        if problem.dense and problem.causal:
            self.arguments["is_causal"] = True  # top-left; as long as the keys, the two are the same
        elif not problem.dense:
            mask = torch.full((problem.tokens, problem.keys + 1), float("-inf"), dtype=problem.dtype)
            keys, seen = neighbors(problem)
            mask.scatter_(1, torch.where(seen, keys, problem.keys), 0.0)
            self.arguments["attn_mask"] = mask[:, :-1].contiguous()

    def to_own(self, x, of_query):
        return x.flatten(1, -3).transpose(1, 2)

    def from_own(self, x, of_query):
        layout = self.problem.layout if of_query else self.problem.key_layout
        return x.transpose(1, 2).unflatten(1, layout)

    def attend(self, query, key, value):
        return F.scaled_dot_product_attention(query, key, value, **self.arguments)


class DenseSdpa(Sdpa):
    """Of every query with every key, whatever the windows: what dense attention would take."""

    name = "dense-sdpa"

    @classmethod
    def candidates(cls, problem):
        return [{}]

    def __init__(self, problem):
        Peer.__init__(self, problem)
        self.arguments = {"enable_gqa": problem.heads != problem.kv_heads}
        if problem.dense and problem.causal:
            self.arguments["is_causal"] = True
