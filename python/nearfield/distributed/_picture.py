# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What one rank of a plan holds and fetches, as text."""

from __future__ import annotations

import itertools

from .._shard_call import Box
from ._share import Share


def picture(layout: tuple[int, ...], share: Share) -> str:
    """The tokens as `ShardPlan.draw` shows them."""
    marks = {}
    for task in (*share.remote, *share.local):
        for token in _tokens(task.queries):
            marks[token] = "#" if task in share.local else "+"
    for peer, message in share.fetch:
        for token in _tokens(message[0]):
            marks[token] = str(peer % 10)
    *planes, rows, columns = (1,) * (2 - len(layout)) + layout
    lead = len(layout) - 2
    pictures = []
    for plane in itertools.product(*map(range, planes)):
        lines = []
        for row in range(rows):
            before = (*plane, row) if lead >= 0 else ()
            lines.append("".join(marks.get((*before, column), ".") for column in range(columns)))
        pictures.append("\n".join(lines))
    return "\n\n".join(pictures)


def _tokens(box: Box):
    return itertools.product(*(range(*interval) for interval in box))
