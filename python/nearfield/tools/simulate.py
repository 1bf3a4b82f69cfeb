# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""`nearfield simulate`: which window, stride and tile gives every query a wanted field, at what cost."""

from __future__ import annotations

import functools
import math

from nearfield.tools import CommandError, outputs, simulate_plot, tables
from nearfield.tools.profile_arguments import DTYPES, boolean
from nearfield.tools.simulate_sweep import Point, cost, per_axis, recommended, sweep


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "simulate",
        help="find a window, strides and tiles for a wanted receptive field",
        description="Sweeps windows, strides and tiles by the library's own geometry and planner, without "
        "running anything, and recommends the fastest that gives every query the wanted field within the "
        "budget.",
    )
    parser.add_argument(
        "-i", "--input-size", type=int, nargs="+", required=True, metavar="N", help="token layout"
    )
    parser.add_argument(
        "-f",
        "--field",
        type=int,
        nargs="+",
        required=True,
        metavar="N",
        help="tokens that a query has to see per axis",
    )
    parser.add_argument(
        "--one-sided",
        action="store_true",
        help="the field may lie to one side of a query at the edge of its stride (default: as for stride 1)",
    )
    parser.add_argument(
        "-s", "--stride", type=int, nargs="+", metavar="N", help="try only these, on every axis"
    )
    parser.add_argument("--dilation", type=int, nargs="+", metavar="N", help="one, or one per axis (1)")
    parser.add_argument(
        "-c", "--causal", type=boolean, nargs="+", metavar="BOOL", help="one, or one per axis"
    )
    parser.add_argument("-b", "--batch-size", type=int, default=1, metavar="N")
    parser.add_argument("-n", "--heads", type=int, default=8, metavar="N", help="(8)")
    parser.add_argument("-d", "--dim", type=int, default=64, metavar="N", help="of a head (64)")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument(
        "--backprop", action="store_true", help="time of both passes (all else is of the forward one)"
    )
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="that share the predicted time evenly (torch's)",
    )
    parser.add_argument(
        "--budget", type=float, metavar="MS", help="milliseconds that a call may take, predicted"
    )
    parser.add_argument(
        "--tiles",
        nargs="+",
        metavar="qTILE,kvTILE",
        help="count whole tiles of these shapes, of any kernel: of queries and of keys, such as "
        "q8x8,kv8x16; recommends by computed pairs, for there is no time to predict",
    )
    parser.add_argument(
        "--max-configs", type=int, default=12, metavar="N", help="rows of the table; 0: all (12)"
    )
    parser.add_argument(
        "--plot", metavar="FILE", help="time over field, FILE.svg or FILE.png (needs matplotlib)"
    )
    parser.add_argument("--json", metavar="FILE", help="a line per combination there; - is the output")
    parser.add_argument("--csv", metavar="FILE", help="the same as CSV")
    parser.set_defaults(run=run)


def run(args) -> None:
    outputs.all_writable(args.json, args.csv, args.plot)
    if args.plot:
        simulate_plot.check(args.plot)
    points = sweep(args)
    best = recommended(points, args)
    ordered = sorted(points, key=lambda p: (not p.enough, cost(p, args)))
    if "-" not in (args.json, args.csv):
        show(ordered, best, args)
    tables.write_rows([{**p.row(), "recommended": p is best} for p in ordered], args.json, args.csv)
    if args.plot:
        wanted = math.prod(per_axis(args, "field", None))
        simulate_plot.save(points, best, args, functools.partial(cost, args=args), wanted)
    if best is None:
        least = min((p.seconds for p in points if p.enough and p.seconds is not None), default=None)
        what = "the sweep has no combination that gives every query"
        if least is not None:
            what = f"got --budget {args.budget:g} ms, expected about {tables.seconds(least)} or more for"
        raise CommandError(f"{what} a field of {tables.tile(per_axis(args, 'field', None))}")


def show(ordered: list[Point], best: Point | None, args) -> None:
    shown = ordered if args.max_configs == 0 else ordered[: args.max_configs]
    rows = [
        (
            "*" if p is best else "" if p.enough else "-",
            tables.tile(p.window),
            tables.tile(p.stride),
            tables.tile(p.field),
            p.tiles,
            p.kernel,
            f"{p.flops:.3g}",
            f"{p.waste:.2f}",
            f"{p.computed:.3g}",
            tables.seconds(p.seconds),
            f"{p.sparsity / p.waste:.1f}",
        )
        for p in shown
    ]
    columns = (
        "",
        "window",
        "stride",
        "field",
        "tile",
        "kernel",
        ">FLOP",
        ">waste",
        ">pairs",
        ">predicted",
        ">of dense",
    )
    more = len(ordered) - len(shown)
    title = f"{len(ordered)} combinations" + (f", {more} not shown (--max-configs 0)" if more else "")
    tables.show(
        tables.table(title, columns, rows, keys=3),
        "* recommended; - not the whole field. field: what the worst placed query sees; of dense: pairs "
        "of dense attention over computed ones",
    )
    if args.backprop:
        tables.show("predicted: forward and backward pass together; all else is of the forward pass alone")
    if best is None:
        return
    window, stride = (v[0] if len(set(v)) == 1 else v for v in (best.window, best.stride))
    tables.show(f"recommended: kernel_size={window}, stride={stride}    {best.problem}")
