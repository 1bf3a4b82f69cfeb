# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The plot of `nearfield simulate`: cost over field."""

from __future__ import annotations

import importlib
import itertools
import math

from nearfield.tools import CommandError, tables
from nearfield.tools.drawing import needs_matplotlib

MARKS = "os^vD*XPph"  # a shape of --tiles each
MOST_LINES = 24  # of the legend, in a column


def check(path: str) -> None:
    """Before the sweep: whether there will be a plot."""
    kinds = (".svg", ".png", ".pdf")
    if not path.lower().endswith(kinds):
        raise CommandError(f"cannot write {path}: expected a name that ends with {', '.join(kinds)}")
    with needs_matplotlib():
        importlib.import_module("matplotlib.figure")


def save(points: list, best, args, cost, wanted: int) -> None:
    """Cost over the field of the worst placed query: a colour per stride (of many: per number of queries
    that share a window), a mark per shape of --tiles."""
    figure = figure_of(points, best, args, cost, wanted)
    try:
        figure.savefig(args.plot, dpi=150)
    except (OSError, ValueError) as error:
        raise CommandError(f"cannot write {args.plot}: {error}") from error


def figure_of(points, best, args, cost, wanted):
    with needs_matplotlib():
        from matplotlib import colormaps
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    kind, name = (lambda p: p.stride), (lambda s: f"stride {tables.tile(s)}")
    if len({p.stride for p in points}) > MOST_LINES:  # of three axes, hundreds
        kind, name = (lambda p: math.prod(p.stride)), (lambda n: f"{n} share a window")
    strides = sorted({kind(p) for p in points})
    shapes = list(dict.fromkeys(p.tiles for p in points)) if args.tiles else [""]
    legends = -(-(len(strides) + len(shapes) + 3) // MOST_LINES)  # columns
    figure = Figure(figsize=(5.6 + 1.5 * legends, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    by_pairs = bool(args.tiles) or any(p.seconds is None for p in points)
    unit = 1e-6 if by_pairs else 1e3

    def draw(some, label, **more):
        some = sorted(some, key=lambda p: math.prod(p.field))
        values = [math.prod(p.field) for p in some], [cost(p) * unit for p in some]
        axes.plot(*values, label=label, ls="none", **more)

    # No two look the same.
    many = colormaps["tab10" if len(strides) <= 10 else "turbo"]
    colors = [many(i if len(strides) <= 10 else i / (len(strides) - 1)) for i in range(len(strides))]
    for s, color in zip(strides, colors, strict=True):
        for shape, mark in zip(shapes, itertools.cycle(MARKS)):
            own = [p for p in points if kind(p) == s and (not shape or p.tiles == shape)]
            label = name(s) if shape == shapes[0] else None
            draw(own, label, marker=mark, color=color, alpha=0.85)
    for shape, mark in zip(shapes, itertools.cycle(MARKS)) if args.tiles else ():
        draw([], f"tiles {shape}", marker=mark, color="grey")
    if best is not None:
        draw([best], "recommended", marker="o", ms=14, mfc="none", mec="black")
    axes.axvline(wanted, color="grey", lw=1, ls="--", label="wanted field")
    if args.budget is not None and not by_pairs:
        axes.axhline(args.budget, color="grey", lw=1, ls=":", label="budget")
    axes.set_xlabel("keys that the worst placed query sees around itself")
    axes.set_ylabel(
        "computed pairs per head, millions" if by_pairs else f"predicted ms, {args.threads} threads"
    )
    axes.set_title(
        f"{tables.tile(args.input_size)}, {args.heads} heads of {args.dim}, {args.dtype}", fontsize=10
    )
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=7, ncols=legends)  # beside the points, not on them
    return figure
