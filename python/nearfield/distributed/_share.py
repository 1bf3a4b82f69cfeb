# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What one rank holds, fetches, sends and computes in a sharded call."""

from __future__ import annotations

from typing import NamedTuple

from .._shard_call import Box
from . import _boxes as boxes


class Task(NamedTuple):
    """One call of the operator: a box of this rank's queries against all the keys that they see."""

    queries: Box
    keys: Box


class Share(NamedTuple):
    """The part of one rank.

    queries, keys: the boxes that its tensors hold, one behind the other along the first axis of the layout.
    fetch: for each peer, in rank order, the boxes of keys that come from it, in the order of the message.
    send: the same of what goes to it.
    local: tasks that need no other rank's keys; remote: the others.
    """

    queries: tuple[Box, ...]
    keys: tuple[Box, ...]
    fetch: tuple[tuple[int, tuple[Box, ...]], ...]
    send: tuple[tuple[int, tuple[Box, ...]], ...]
    local: tuple[Task, ...]
    remote: tuple[Task, ...]


def tokens(messages) -> int:
    """Tokens of all boxes of `Share.fetch` or `Share.send`."""
    return sum(boxes.volume(box) for _, message in messages for box in message)
