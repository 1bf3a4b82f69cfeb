# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Every way to run a problem on this machine: backends, their kernels, and tiles where a kernel takes
them."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass

from nearfield import _core
from nearfield.tools import explain
from nearfield.tools.running import split

LANES = 16  # tokens of a query tile of the general path, at most


@dataclass(frozen=True)
class Candidate:
    backend: str
    kernel: str  # "" where the backend has one only
    call: str  # the problem with its suffix
    suffix: str  # `cpu/b16`, `cpu,q4x4`
    waste: float
    predicted: float | None  # seconds of one thread
    default: bool  # what runs if nothing is forced


def of(call: str) -> list[Candidate]:
    """Those of a problem, fastest predicted first, backend by backend. What the call forces stays forced."""
    problem, suffix = split(call)
    found = []
    chosen = next((a for a in explain.plans(call) if a["chosen"]), None)
    for answer in explain.plans(call):
        if "refusal" in answer:
            continue
        backend = answer["backend"]
        name = explain.kernels(answer).split()[0]
        default = chosen is not None and backend == chosen["backend"]
        own = []
        forced = [s for s in (suffix,) if re.search("[/,]", s)]
        kernels = [k.split()[0] for k in answer["kernels"]]
        for option in forced or [f"{backend}/{kernel}" for kernel in kernels] or [backend]:
            own.append(_candidate(problem, option, default and (bool(forced) or option.endswith("/" + name))))
        if not forced and "general" in kernels:
            own += [_candidate(problem, f"{backend},{tile}", False) for tile in _tiles(problem)]
        own = [c for c in own if c is not None]
        known = [c for c in own if c.predicted is not None]
        found += sorted(known, key=lambda c: c.predicted) + [c for c in own if c.predicted is None]
    return found


def _candidate(problem: str, suffix: str, default: bool) -> Candidate | None:
    """None where the backend refuses."""
    answer = _core.plan(f"{problem}@{suffix}")[0]
    if "refusal" in answer:
        return None
    return Candidate(
        answer["backend"],
        explain.kernels(answer),
        f"{problem}@{suffix}",
        suffix,
        answer["waste"],
        answer.get("seconds"),
        default,
    )


def _tiles(problem: str) -> list[str]:
    """Query tiles (backward: and key tiles) of as many tokens as the kernel has lanes."""
    said = _core.problem(problem)
    rank, backward = said["rank"], said["fields"]["direction"] == "bwd"
    lengths = [2**i for i in range(LANES.bit_length())]
    shapes = [s for s in itertools.product(lengths, repeat=rank) if math.prod(s) == LANES]
    texts = ["x".join(map(str, s)) for s in shapes]
    return [f"q{t},kv{t}" if backward else f"q{t}" for t in texts] if rank > 1 else []
