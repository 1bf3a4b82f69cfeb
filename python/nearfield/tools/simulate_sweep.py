# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The combinations of `nearfield simulate`: window, stride and tile, what every query sees, at what cost.

Nothing runs: pairs, waste and what a query sees come from the core's geometry, times from its planner. With
stride s, s queries share a window, and the one at its edge sees less on one side: to give each query a field
of F tokens the window has to be F + s - 1 (F + s where both are even). That is more work, of which tiles
waste less. The sweep tries both.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch

from nearfield import _core
from nearfield.tools import CommandError, explain, tables
from nearfield.tools.profile_arguments import DTYPES, above_zero, threads_there
from nearfield.tools.running import canonical

STRIDES = (1, 2, 4, 8, 16)
MOST = 4096  # combinations


@dataclass
class Point:
    """One combination."""

    problem: str
    window: tuple[int, ...]
    stride: tuple[int, ...]
    tiles: str  # of --tiles, or the kernel's
    kernel: str
    field: tuple[int, ...]  # tokens per axis that the worst placed query sees around itself, or at all
    flops: float
    waste: float
    computed: float  # pairs
    seconds: float | None  # predicted, on all threads
    sparsity: float
    enough: bool  # the field is the wanted one

    def row(self) -> dict:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}


def cost(p: Point, args) -> float:
    return p.computed if args.tiles or p.seconds is None else p.seconds


def recommended(points: list[Point], args) -> Point | None:
    """The cheapest that gives the field within the budget."""
    fit = [p for p in points if p.enough and (args.budget is None or (p.seconds or 0) * 1e3 <= args.budget)]
    return min(fit, key=lambda p: cost(p, args), default=None)


def sweep(args) -> list[Point]:
    layout = args.input_size
    if not 1 <= len(layout) <= 3:
        raise CommandError(f"got -i with {len(layout)} numbers, expected 1 to 3")
    if least := [n for n in layout if n < 1]:
        raise CommandError(f"got -i with {least[0]}, expected numbers of tokens from 1 on")
    if args.tiles:
        _tiles_are_both(args)
    args.threads = torch.get_num_threads() if args.threads is None else args.threads
    threads_there(args.threads)
    if args.budget is not None:
        above_zero("--budget", args.budget)
    if args.max_configs < 0:
        raise CommandError(f"got --max-configs {args.max_configs}, expected a number from 0 on")
    field, dilation = per_axis(args, "field", None), per_axis(args, "dilation", [1])
    causal = per_axis(args, "causal", [False])
    axes = []
    for n, f, d in zip(layout, field, dilation, strict=True):
        if not 1 <= d <= n:
            raise CommandError(f"got --dilation {d} on an axis of {n}, expected 1 to {n}")
        if f < 1 or f * d > n:
            raise CommandError(
                f"got field {f} at dilation {d} on an axis of {n}, expected 1 to {n // d} tokens"
            )
        axes.append(_choices(f, n // d, args.stride))
    combinations = list(_combinations(axes, list(zip(layout, field, dilation, causal, strict=True))))
    if len(combinations) * len(args.tiles or [0]) > MOST:
        raise CommandError(f"{len(combinations)} combinations, expected at most {MOST}; name strides by -s")
    points = []
    with tables.progress("simulate", len(combinations)) as advance:
        for combination in combinations:
            window, stride = zip(*combination, strict=True)
            points += _points(args, window, stride, dilation, causal, field)
            advance()
    return points


def _tiles_are_both(args) -> None:
    """Of --tiles: both are named, and nothing that counts predicted times is asked for."""
    for tile in args.tiles:
        if sorted(part.rstrip("0123456789x") for part in tile.split(",")) != ["kv", "q"]:
            raise CommandError(f"got --tiles {tile}, expected a qTILE and a kvTILE, such as q8x8,kv8x16")
    given = {"--budget": args.budget is not None, "--backprop": args.backprop, "--threads": args.threads}
    if no_effect := [name for name, there in given.items() if there]:
        raise CommandError(
            f"got {no_effect[0]} with --tiles, which counts the forward pass's pairs and predicts no time: "
            "expected one of the two"
        )


def per_axis(args, name: str, default) -> list:
    values = getattr(args, name) or default
    values = list(values) * len(args.input_size) if len(values) == 1 else list(values)
    if len(values) != len(args.input_size):
        raise CommandError(f"got --{name} with {len(values)} values, expected 1 or {len(args.input_size)}")
    return values


def _choices(field: int, most: int, asked) -> list[tuple[int, int]]:
    """(window, stride) of one axis worth trying: the field as window, and the window that keeps it."""
    found = {}
    for s in asked or (*STRIDES, field):
        # Even windows see one token more before than behind, which even strides take away.
        keeps = field + s - (field % 2 == 1 or s % 2 == 1)
        for k in (field, min(field + s - 1, most), min(keeps, most), min(-(-keeps // 8) * 8, most)):
            if 1 <= s <= k:
                found[k, s] = None
    if not found or min(asked or [1]) < 1:
        given = " ".join(map(str, asked))
        raise CommandError(f"got -s {given}, expected strides from 1 to {most} on an axis of so many tokens")
    return sorted(found)


def _combinations(axes, kinds):
    """Products of the choices of the axes; axes that are alike choose alike."""
    first = {kind: i for i, kind in reversed(list(enumerate(kinds)))}
    free = sorted(set(first.values()))
    for chosen in itertools.product(*(axes[i] for i in free)):
        of = dict(zip(free, chosen, strict=True))
        yield tuple(of[first[kind]] for kind in kinds)


def _points(args, window, stride, dilation, causal, field) -> list[Point]:
    def joined(values):
        return "x".join(map(str, values))

    text = f"na:fwd:{DTYPES[args.dtype]}:b{args.batch_size}h{args.heads}kv{args.heads}d{args.dim}"
    text += f":{joined(args.input_size)}:k{joined(window)}:s{joined(stride)}:d{joined(dilation)}"
    problem = canonical(text + ":c" + "".join(str(int(c)) for c in causal))
    said = _core.problem(problem)
    sees = tuple(field_of(problem, a, causal[a], args.one_sided) for a in range(len(window)))
    common = {
        "problem": problem,
        "window": window,
        "stride": stride,
        "field": sees,
        "flops": said["flops"],
        "sparsity": said["sparsity"],
        "enough": all(a >= b for a, b in zip(sees, field, strict=True)),
    }
    points = []
    for tile in args.tiles or []:
        try:
            found = _core.tiles(f"{problem}@cpu,{tile}")
        except ValueError as error:
            raise CommandError(str(error)) from error
        own = {"tiles": tile, "kernel": "any", "waste": found["waste"], "computed": found["computed"]}
        points.append(Point(**common, **own, seconds=None))
    if points:
        return points
    seconds, answer = _predicted(problem, args)
    own = {
        "tiles": tables.tile(answer.get("query_tile")),
        "kernel": explain.kernels(answer),
        "waste": answer["waste"],
    }
    return [Point(**common, **own, computed=said["pairs"] * answer["waste"], seconds=seconds)]


def _predicted(problem: str, args) -> tuple[float | None, dict]:
    """Seconds on all threads, and the plan of the forward pass. The planner predicts one thread; n of them
    are taken to need an n-th of it, of which bench/scaling.py measures how true it is."""
    passes = [problem] + ([problem.replace(":fwd:", ":bwd:", 1)] if args.backprop else [])
    answers = [next(a for a in explain.plans(text) if a["chosen"]) for text in passes]
    if any("seconds" not in a for a in answers):
        return None, answers[0]
    return sum(a["seconds"] for a in answers) / args.threads, answers[0]


def field_of(problem: str, axis: int, causal: bool, one_sided: bool) -> int:
    """The largest F for which every query sees the F tokens of its dilation group around it: F // 2 before
    it and (F - 1) // 2 behind it, or all there are up to the border; causal: itself and F - 1 before it.
    one_sided: the F tokens may lie anywhere around it. At most what the widest window holds."""
    table = _core.intervals(problem, 0, axis)
    d, extent = table["dilation"], len(table["begin"])
    windows = list(enumerate(zip(table["begin"], table["end"], strict=True)))
    counts = [(end - 1 - begin) // d + 1 for _, (begin, end) in windows]
    if one_sided and not causal:
        return min(counts)
    least = max(counts)
    for q, (begin, end) in windows:
        left, right = (q - begin) // d, (end - 1 - q) // d
        if begin >= d:  # tokens of the group lie before the window
            least = min(least, left + 1 if causal else 2 * left + 1)
        if end <= extent - d and not causal:  # behind it
            least = min(least, 2 * right + 2)
    return least
