# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The mask of dropout, written from the contract alone: which weights every seed keeps.

Philox4x32 with ten rounds. Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
1, 2, 3" (SC 2011), section 3.3. The key is the seed (low word, high word), the counter (batch, query head,
query, key); a weight is kept if word 0 is at least floor(p 2^32).
"""

import math

import torch

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def _product(a, b):
    """(high word, low word) of the product of words; int64 wraps around, its bits are right."""
    product = a * b
    return (product >> 32) & _WORD, product & _WORD


def philox4x32(counter, key, rounds=10):
    """Four words, int64 tensors of one shape, from four counter words (tensors) and two key words (ints)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        high0, low0 = _product(c0, _MULTIPLIERS[0])
        high1, low1 = _product(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


def kept(seed, p, batches, heads, queries, keys):
    """[batches, heads, queries, keys], bool; each argument behind p is a list of numbers."""
    key = (seed & _WORD, (seed >> 32) & _WORD)  # Python shifts keep the sign, like two's complement
    axes = [torch.as_tensor(list(numbers), dtype=torch.int64) for numbers in (batches, heads, queries, keys)]
    counter = torch.broadcast_tensors(*(axis[(...,) + (None,) * (3 - i)] for i, axis in enumerate(axes)))
    return philox4x32(counter, key)[0] >= math.floor(p * 2**32)


def factors(seed, p, batches, heads, queries, keys):
    """What dropout multiplies the weights by, in float64: 1 / (1 - p) or 0."""
    return kept(seed, p, batches, heads, queries, keys).double() / (1 - p)
