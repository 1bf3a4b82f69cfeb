# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Files of problem strings, and what the peers need to know of a problem.

A line of a file is `NAME PROBLEM`; forward and backward strings of one name are one row each. `#` begins a
comment. What a query sees is asked of nearfield's geometry, never computed here.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch

from nearfield import _core

FOLDER = Path(__file__).parent / "problems"
DTYPES = {"f32": torch.float32, "f64": torch.float64, "bf16": torch.bfloat16, "f16": torch.float16}
_PLAIN = r"[0-9x]+(,[0-9]+)?|[ksd][0-9x]+|c([01]+|tl|br)"  # layouts, window, stride, dilation, causality


@dataclass
class Problem:
    """One name of a file: a problem in one or both directions."""

    name: str
    texts: dict[str, str] = field(default_factory=dict)  # fwd, bwd -> problem string

    def __post_init__(self):
        self._parts = next(iter(self.texts.values())).partition("@")[0].split(":")
        batch, rest = self._parts[3][1:].split("h")
        heads, rest = rest.split("kv")
        kv_heads, rest = rest.split("d", 1)
        dim, _, value_dim = rest.partition("v")
        self.batch, self.heads, self.kv_heads, self.dim = int(batch), int(heads), int(kv_heads), int(dim)
        self.value_dim = int(value_dim or dim)
        self.dense = self._parts[0] == "att"
        self.dtype = DTYPES[self._parts[2]]
        # All else (packed sequences, ranges, additional keys, forced kernels, ...) is for nearfield-bench.
        texts = "".join(self.texts.values())
        self.plain = "@" not in texts and all(re.fullmatch(_PLAIN, part) for part in self._parts[4:])
        if self.plain:
            layouts = self._parts[4].split(",")
            self.layout, *_, self.key_layout = (tuple(int(n) for n in x.split("x")) for x in layouts * 2)
            self.plain = self.layout == self.key_layout or self.option("c") is None

    def option(self, letter: str, default=None):
        """The numbers of `k7x7` and the like, or what stands behind the letter in `ctl`, `c100`."""
        for part in self._parts[5:]:
            if part[0] == letter:
                return tuple(int(n) for n in part[1:].split("x")) if letter != "c" else part[1:]
        return default

    @property
    def causal(self) -> bool:
        return self.option("c") is not None

    @property
    def tokens(self) -> int:
        return math.prod(self.layout)

    @property
    def keys(self) -> int:
        return math.prod(self.key_layout)

    def flops(self, direction: str) -> float:
        return _core.problem(self.texts[direction])["flops"]

    def intervals(self, axis: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        """begin [L], end [L] and dilation of what the queries of an axis see."""
        table = _core.intervals(next(iter(self.texts.values())), 0, axis)
        return torch.tensor(table["begin"]), torch.tensor(table["end"]), table["dilation"]


def read(path: str | Path, only: set[str] | None = None, directions=("fwd", "bwd")) -> list[Problem]:
    """The problems of a file, in its order; a name without a folder is one of bench/problems."""
    path = Path(path)
    if not path.exists() and path.name == str(path):
        path = FOLDER / path.with_suffix(".txt")
    found: dict[str, dict] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2:
            raise ValueError(f"[bench] got {line!r} in {path}:{number}, expected NAME PROBLEM")
        name, text = words
        _core.problem(text.partition("@")[0])  # its errors name what is wrong
        direction = text.split(":")[1]
        if (not only or name in only) and direction in directions:
            found.setdefault(name, {})[direction] = text
    if only and only - set(found):
        raise ValueError(f"[bench] got {', '.join(sorted(only - set(found)))}, expected names of {path}")
    return [Problem(name, texts) for name, texts in found.items()]
