# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Files of problem strings, and what the peers need to know of a problem.

A line of a file is `NAME PROBLEM`, or `PROBLEM`; forward and backward strings of one name are one row each.
`#` begins a comment. What a query sees is asked of nearfield's geometry, never computed here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch

from nearfield import _core

DTYPES = {"f32": torch.float32, "f64": torch.float64, "bf16": torch.bfloat16, "f16": torch.float16}


@dataclass
class Problem:
    """One name of a file: a problem in one or both directions."""

    name: str
    texts: dict[str, str] = field(default_factory=dict)  # fwd, bwd -> problem string

    def __post_init__(self):
        texts = list(self.texts.values())
        f = _core.problem(texts[0].partition("@")[0])["fields"]
        self.batch, self.heads, self.kv_heads = f["batch"], f["heads"], f["kv_heads"]
        self.dim, self.value_dim = f["head_dim"], f["value_dim"]
        self.dense = f["operation"] == "att"
        self.dtype = DTYPES[f["dtype"]]
        # All else (packed sequences, ranges, additional keys, forced kernels, ...) is for nearfield-bench.
        self.plain = not (
            any("@" in text for text in texts) or f["offsets"] or f["varlen"] or f["query_layout"]
        )
        self.plain &= not any(
            f[x] for x in ("additional", "ranges", "strides", "dropout", "bias", "precision")
        )
        usual = f["scale"] is None or math.isclose(
            f["scale"], self.dim**-0.5, rel_tol=1e-15
        )  # as modules say it
        self.plain &= usual and not f["nondeterministic"] and "bwd" not in _asked_for_lse(texts)
        if not self.plain:
            return
        axes = f["layouts"][0]
        self.layout, self.key_layout = tuple(axes["query_extent"]), tuple(axes["extent"])
        self.window, self.stride = tuple(axes["window"]), tuple(axes["stride"])
        self.dilation, self.is_causal = tuple(axes["dilation"]), tuple(bool(c) for c in axes["causal"])
        self.causal_type = f["causal_type"]  # none, tl or br
        self.plain = self.layout == self.key_layout or not self.causal

    @property
    def causal(self) -> bool:
        return self.causal_type != "none" if self.dense else any(self.is_causal)

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


def _asked_for_lse(texts) -> set[str]:
    """The directions of the strings with `lse`: forward it costs nothing, backward it is one gradient
    more."""
    return {text.split(":")[1] for text in texts if ":lse" in text}


def lines(path: Path) -> list[tuple[str, str]]:
    """(name, problem) of each line of a file: of the bench, or of NEARFIELD_TRACE. Each problem once."""
    found: dict[tuple[str, str], None] = {}
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"[problems] got {path}, expected a file of problems; {error}") from error
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) == 1 and ":" in words[0]:  # a string alone is its own name
            words = words * 2
        if len(words) != 2:
            raise ValueError(f"[problems] got {line!r} in {path}:{number}, expected NAME PROBLEM, or PROBLEM")
        try:
            _core.problem(words[1].partition("@")[0])
        except ValueError as error:
            raise ValueError(f"[problems] got {path}:{number}: {error}") from None
        found[words[0], words[1]] = None
    return list(found)


def read(path: str | Path, only: set[str] | None = None, directions=("fwd", "bwd")) -> list[Problem]:
    """The problems of a file, in its order; forward and backward strings of one name are one."""
    found: dict[str, dict] = {}
    for name, text in lines(Path(path)):
        direction = text.split(":")[1]
        if (not only or name in only) and direction in directions:
            found.setdefault(name, {})[direction] = text
    if only and only - set(found):
        raise ValueError(f"[problems] got {', '.join(sorted(only - set(found)))}, expected names of {path}")
    return [Problem(name, texts) for name, texts in found.items()]
