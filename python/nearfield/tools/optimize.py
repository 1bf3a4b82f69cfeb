# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""`nearfield optimize`: measures the kernels and tiles that could run a problem, and writes a tuner file."""

from __future__ import annotations

import os

import torch

from nearfield._tuner import tuner_text
from nearfield.tools import CommandError, optimizer, tables
from nearfield.tools.profile_arguments import above_zero, named, threads_there


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "optimize",
        help="search the fastest kernel of a problem and write a tuner file",
        description="Times every kernel and tile that could run a problem, in turns, and writes what is "
        "best to a file that later calls read: NEARFIELD_TUNER=FILE, or nearfield.tuner_file(FILE) in "
        "Python. What the file has on other problems stays. Where the budget is too short for all, those "
        "predicted slowest are left out; at least, a problem takes a call that checks it, and a warm-up and "
        "a sample of two candidates.",
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
    above_zero("--budget", args.budget)
    threads_there(args.threads)
    if args.out == "-":
        raise CommandError("got -o -, expected a file, which later calls read")
    optimizer.check(args.out)  # complains before the work
    before = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    try:
        # NEARFIELD_TUNER's file may be the one to write: not there yet, or with lines to be replaced.
        with tuner_text("", "none"):
            _run(args)
    finally:
        torch.set_num_threads(before)


def _run(args) -> None:
    calls = [call for word in args.problems for call in named(word)]
    if args.backprop:
        calls += [c.replace(":fwd:", ":bwd:", 1) for c in calls if ":fwd:" in c]
    calls = list(dict.fromkeys(calls))
    lines, remarks = [], []

    def keep(line) -> None:
        optimizer.write(args.out, [line])  # at once: what is found stays, whatever comes next
        lines.append(line)

    optimizer.write(args.out, [], optimizer.targets(calls))
    try:
        optimizer.search(calls, args.budget, args.threads, keep=keep, say=remarks.append)
    except BaseException:
        if lines:
            show(lines, remarks, args)
        raise
    show(lines, remarks, args)


def show(lines: list[optimizer.Line], remarks: list[str], args) -> None:
    rows = [
        (
            line.problem,
            line.choice,
            _time(line.seconds, line.noisy),
            f"{line.spread * 100:.1f}",
            line.default,
            _time(line.default_seconds, line.noisy),
            f"{line.default_spread * 100:.1f}",
            str(line.tried),
        )
        for line in lines
    ]
    columns = ("problem", "choice", ">time", ">± %", "default", ">time", ">± %", ">tried")
    if rows:
        tables.show(tables.table(f"{args.threads} threads", columns, rows))
    if any(line.noisy for line in lines):
        tables.show("~ too few samples had all cores: something else runs on this machine")
    tables.show(*remarks)
    if lines:
        count = f"{len(lines)} line" + ("s" if len(lines) > 1 else "")
        tables.show(f"{count} in {args.out}; NEARFIELD_TUNER={args.out} uses them")
    else:
        tables.show(f"no line for {args.out}")


def _time(seconds: float, noisy: bool) -> str:
    return ("~" if noisy else "") + tables.seconds(seconds)
