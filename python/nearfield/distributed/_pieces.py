# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Keys and values that lie in pieces: a rank's own tensors, and what came from others in flat messages.

A message holds, box after box, the keys and then the values, each `[B, *box, Hkv, channels]`.
"""

from __future__ import annotations

import math

import torch

from .._shard_call import Box
from . import _boxes as boxes


def held(tensor, held_boxes):
    """(box, view) of the boxes that a tensor [B, *layout, heads, channels] holds along its first axis."""
    at, found = 0, []
    for box in held_boxes:
        length = box[0][1] - box[0][0]
        found.append((box, tensor.narrow(1, at, length)))
        at += length
    return found


def shapes(box: Box, key, value) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of the keys and of the values of a box."""
    lead = (key.shape[0], *boxes.extents(box))
    return (*lead, *key.shape[-2:]), (*lead, *value.shape[-2:])


def count(message, key, value) -> int:
    """Numbers in a message of these boxes."""
    return sum(math.prod(shape) for box in message for shape in shapes(box, key, value))


def opened(flat, message, key, value):
    """(box, keys, values) of a flat message, as views."""
    at, found = 0, []
    for box in message:
        pair = []
        for shape in shapes(box, key, value):
            n = math.prod(shape)
            pair.append(flat[at : at + n].view(shape))
            at += n
        found.append((box, *pair))
    return found


class Pieces:
    """The keys and values that a rank has, as (box, keys, values)."""

    def __init__(self, pieces):
        self._pieces = list(pieces)

    def __iter__(self):
        return iter(self._pieces)

    def take(self, box: Box):
        """(keys, values) of a box: a view where one piece holds it, else put together. Every token of the box
        is in exactly one piece."""
        for origin, key, value in self._pieces:
            if boxes.contains(origin, box):
                at = boxes.slices(box, origin)
                return key[at], value[at]
        _, key, value = self._pieces[0]
        taken = tuple(
            x.new_empty(shape) for x, shape in zip((key, value), shapes(box, key, value), strict=True)
        )
        for (origin, *tensors), common in self._meeting(box):
            for x, y in zip(taken, tensors, strict=True):
                x[boxes.slices(common, box)] = y[boxes.slices(common, origin)]
        return taken

    def add(self, box: Box, key, value) -> None:
        """Adds to every piece what of a box's gradients belongs to it."""
        for (origin, *tensors), common in self._meeting(box):
            for x, y in zip(tensors, (key, value), strict=True):
                x[boxes.slices(common, origin)] += y[boxes.slices(common, box)]

    def _meeting(self, box: Box):
        for piece in self._pieces:
            common = boxes.intersection(piece[0], box)
            if common is not None:
                yield piece, common


def own(held_boxes, key, value) -> Pieces:
    """A rank's keys and values, in boxes one behind the other."""
    keys, values = held(key, held_boxes), held(value, held_boxes)
    return Pieces((box, k, v) for (box, k), (_, v) in zip(keys, values, strict=True))


def packed(own: Pieces, message, like) -> torch.Tensor:
    """A flat message of boxes of one's own keys and values."""
    if not message:
        return like.new_empty(0)
    return torch.cat([x.reshape(-1) for box in message for x in own.take(box)])
