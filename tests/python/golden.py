# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The contract's golden vectors: which keys every query of a small axis sees."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Golden:
    """An axis and its rows as the contract prints them: inclusive ranges `0-2` (repeated: `0-2x3`), or,
    with dilation, comma-separated tokens."""

    extent: int
    window: int
    stride: int
    dilation: int
    causal: bool
    rows: str

    def __str__(self):
        text = f"L{self.extent}k{self.window}s{self.stride}d{self.dilation}"
        return text + "causal" * self.causal


GOLDEN = [
    Golden(10, 3, 1, 1, False, "0-2 0-2 1-3 2-4 3-5 4-6 5-7 6-8 7-9 7-9"),
    Golden(10, 2, 1, 1, False, "0-1 0-1 1-2 2-3 3-4 4-5 5-6 6-7 7-8 8-9"),
    Golden(10, 4, 1, 1, False, "0-3 0-3 0-3 1-4 2-5 3-6 4-7 5-8 6-9 6-9"),
    Golden(10, 5, 2, 1, False, "0-4 0-4 1-5 1-5 3-7 3-7 5-9 5-9 5-9 5-9"),
    Golden(10, 4, 3, 1, False, "0-3x3 2-5x3 5-8x3 6-9"),
    Golden(12, 5, 5, 1, False, "0-4x5 5-9x5 7-11x2"),
    Golden(11, 4, 4, 1, False, "0-3x4 4-7x4 7-10x3"),
    Golden(10, 3, 1, 1, True, "0-0 0-1 0-2 1-3 2-4 3-5 4-6 5-7 6-8 7-9"),
    Golden(10, 5, 2, 1, True, "0-0 0-1 0-2 0-3 1-4 1-5 3-6 3-7 5-8 5-9"),
    Golden(10, 4, 4, 1, True, "0-0 0-1 0-2 0-3 4-4 4-5 4-6 4-7 6-8 6-9"),
    Golden(10, 4, 3, 1, True, "0-0 0-1 0-2 2-3 2-4 2-5 5-6 5-7 5-8 6-9"),
    Golden(10, 3, 1, 3, False, "0,3,6 1,4,7 2,5,8 0,3,6 1,4,7 2,5,8 3,6,9 1,4,7 2,5,8 3,6,9"),
    Golden(10, 2, 1, 4, False, "0,4 1,5 2,6 3,7 0,4 1,5 2,6 3,7 4,8 5,9"),
    Golden(7, 2, 2, 3, True, "0, 1, 2, 0,3 1,4 2,5 3,6"),
]


def tokens_of(golden):
    """The sorted tokens that each query sees, one list per query."""
    rows = []
    for item in golden.rows.split():
        if "," in item:
            rows.append([int(x) for x in item.split(",") if x])
            continue
        span, _, times = item.partition("x")
        first, last = map(int, span.split("-"))
        rows += [list(range(first, last + 1))] * int(times or 1)
    assert len(rows) == golden.extent
    return rows
