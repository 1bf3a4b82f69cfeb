# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""`nearfield optimize`: measures the kernels and tiles that could run a problem, and writes a tuner file."""

from __future__ import annotations

import os

import torch

from nearfield.tools import CommandError, optimizer, tables
from nearfield.tools.profile_arguments import named


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "optimize",
        help="search the fastest kernel of a problem and write a tuner file",
        description="Times every kernel and tile that could run a problem, in turns, and writes what is "
        "best to a "
        "file that later calls read: NEARFIELD_TUNER=FILE, or nearfield.tuner_file(FILE) in Python. What "
        "the file "
        "has on other problems stays.",
    )
    parser.add_argument("problems", nargs="+", metavar="PROBLEM|FILE", help="a file: of NEARFIELD_TRACE, say")
    parser.add_argument(
        "-o",
        "--out",
        metavar="FILE",
        default=os.environ.get("NEARFIELD_TUNER") or "nearfield-tuner.jsonl",
        help="(default: NEARFIELD_TUNER's, or nearfield-tuner.jsonl)",
    )
    parser.add_argument("--budget", type=float, default=5.0, metavar="S", help="seconds per problem (5)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), metavar="N", help="(torch's)")
    parser.add_argument("--backprop", action="store_true", help="both passes of every problem")
    parser.set_defaults(run=run)


def run(args) -> None:
    if args.budget <= 0 or args.threads < 1:
        raise CommandError(
            f"got --budget {args.budget} and --threads {args.threads}, expected numbers above 0"
        )
    calls = [call for word in args.problems for call in named(word)]
    if args.backprop:
        calls += [c.replace(":fwd:", ":bwd:", 1) for c in calls if ":fwd:" in c]
    before = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    try:
        optimizer.write(args.out, [])  # complains before the work
        lines = optimizer.search(list(dict.fromkeys(calls)), args.budget, args.threads)
    finally:
        torch.set_num_threads(before)
    optimizer.write(args.out, lines)
    rows = [
        (
            line.problem,
            line.choice,
            tables.seconds(line.seconds),
            line.default,
            tables.seconds(line.default_seconds),
            str(line.tried),
        )
        for line in lines
    ]
    columns = ("problem", "choice", ">time", "default", ">time", ">tried")
    tables.show(
        tables.table(f"{args.threads} threads", columns, rows),
        f"{len(lines)} lines in {args.out}; NEARFIELD_TUNER={args.out} uses them",
    )
