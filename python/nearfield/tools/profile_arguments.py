# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The arguments of `nearfield profile`: problem strings, or the flags of NATTEN's profiler."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

import torch

from nearfield import _core
from nearfield.tools import CommandError, problems
from nearfield.tools.explain import add_hints
from nearfield.tools.running import canonical, split

DTYPES = {"fp32": "f32", "fp64": "f64", "bf16": "bf16", "fp16": "f16"}
# Legal wherever a backend is, as in compat.natten; they select the automatic choice.
PEER_BACKENDS = ("cutlass-fna", "hopper-fna", "blackwell-fna", "flex-fna")
PEER_DENSE = ("cutlass-fmha", "hopper-fmha", "blackwell-fmha", "flex-fmha", "flex-fna")
PEER_SDPA = ("xformers", "cudnn", "fav2")
# Of the flags, in vain beside a problem string: there they are refused.
DEFAULTS = {"batch_size": 1, "heads": 1, "dim": 64, "dtype": "fp32", "add_kv": 0}
PEERS_ALONE = "sdpa,flex"  # of --compare without names
PEERS = ("sdpa", "masked-sdpa", "flex")


def add_parser(commands, run) -> None:
    parser = commands.add_parser(
        "profile",
        help="time problems, with error, memory and what else computes them",
        description="Times a problem, given as strings, as a file (bench/problems, or what NEARFIELD_TRACE "
        "wrote), or by the flags of NATTEN's profiler, and says how far it is from this machine's limit.",
    )
    parser.add_argument(
        "problems", nargs="*", metavar="PROBLEM|FILE", help="PROBLEM[@BACKEND[/KERNEL][,qTILE]]"
    )
    flags = parser.add_argument_group("a problem by flags")
    flags.add_argument(
        "-i", "--input-size", type=int, nargs="+", metavar="N", help="token layout, 1 to 3 axes"
    )
    flags.add_argument("-b", "--batch-size", type=int, metavar="N", help="(1)")
    flags.add_argument("-n", "--heads", type=int, metavar="N", help="of queries (1)")
    flags.add_argument("--heads-kv", type=int, metavar="N", help="of keys and values (default: as many)")
    flags.add_argument("-d", "--dim", type=int, metavar="N", help="of queries and keys (64)")
    flags.add_argument("--dim-value", type=int, metavar="N", help="of values (default: as --dim)")
    flags.add_argument(
        "-w", "--window-size", type=int, nargs="*", metavar="N", help="-1, and default: everything"
    )
    flags.add_argument("-s", "--stride", type=int, nargs="*", metavar="N", help="one, or one per axis")
    flags.add_argument("--dilation", type=int, nargs="*", metavar="N", help="one, or one per axis")
    flags.add_argument(
        "-c", "--causal", type=boolean, nargs="+", metavar="BOOL", help="True or False, one or one per axis"
    )
    flags.add_argument("--dtype", choices=DTYPES, help="(fp32; NATTEN's profiler: fp16)")
    flags.add_argument("--add-kv", type=int, metavar="N", help="additional keys, seen by all (0)")
    flags.add_argument("--backprop", action="store_true", help="the backward pass too")
    flags.add_argument(
        "--backend",
        help=f"{', '.join(_core.info()['backends'])}; the peer's names "
        f"({', '.join(PEER_BACKENDS + PEER_SDPA)}) "
        "take the automatic choice, and its SDPA names compare with sdpa",
    )
    flags.add_argument("--fmha-backend", choices=PEER_DENSE, help="without effect")
    for side, word in (("q", "queries"), ("kv", "keys")):
        flags.add_argument(
            f"--{side}-tile", type=int, nargs="*", metavar="N", help=f"tile of {word}, forward"
        )
        flags.add_argument(
            f"--backward-{side}-tile", type=int, nargs="*", metavar="N", help="the same backward"
        )
    anywhere = ("input_size", "backprop")
    parser.set_defaults(only_with_layout=[x.dest for x in flags._group_actions if x.dest not in anywhere])
    add_hints(parser)
    how = parser.add_argument_group("how")
    how.add_argument(
        "--warmup-steps", type=int, default=2, metavar="N", help="calls before the first sample (2)"
    )
    how.add_argument("--samples", type=int, default=7, metavar="N", help="(7)")
    how.add_argument("--budget", type=float, default=2.0, metavar="S", help="seconds per row (2)")
    how.add_argument("--threads", type=int, default=torch.get_num_threads(), metavar="N", help="(torch's)")
    how.add_argument(
        "--compare",
        nargs="?",
        const=PEERS_ALONE,
        default="",
        metavar="PEERS",
        help=f"beside {', '.join(PEERS)} in the same run: dense SDPA, SDPA with the window as a mask, "
        "compiled FlexAttention (without names: sdpa,flex)",
    )
    how.add_argument(
        "--no-error", dest="error", action="store_false", help="no comparison with the reference"
    )
    how.add_argument("--dry-run", action="store_true", help="list what could run it, and run nothing")
    how.add_argument(
        "--max-configs", type=int, default=10, metavar="N", help="of them per backend; 0: all (10)"
    )
    how.add_argument(
        "--optimize", action="store_true", help="first search the best kernel: `nearfield optimize`"
    )
    how.add_argument(
        "--optimize-warmup-steps", type=int, default=5, metavar="N", help="calls per candidate (5)"
    )
    how.add_argument("--json", metavar="FILE", help="a line per row there; - is the output")
    how.add_argument("--csv", metavar="FILE", help="the same as CSV")
    parser.set_defaults(run=run)


def boolean(text: str) -> bool:
    """`True`, `False`, `1`, `0`: `-c False` means what it says."""
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected True or False")
    return words[text.lower()]


def calls_of(args) -> tuple[list[str], list[str]]:
    """The calls that the arguments ask for, each with its direction, and remarks for the user."""
    check_numbers(args)
    if args.dry_run and (args.json or args.csv):
        raise CommandError("got --dry-run with --json or --csv, expected one of them; `explain` has --json")
    if ":" in args.compare or os.path.isfile(args.compare):  # `--compare PROBLEM`: the word is no peer
        args.problems.insert(0, args.compare)
        args.compare = PEERS_ALONE
    if bool(args.problems) == bool(args.input_size):
        raise CommandError("expected problem strings, or -i with a token layout, and not both")
    if args.problems:
        if extra := [x for x in args.only_with_layout if getattr(args, x) is not None]:
            names = ", ".join("--" + x.replace("_", "-") for x in extra)
            raise CommandError(
                f"got a problem string and {names}, expected it in the string, or -i with flags"
            )
        calls = [call for word in args.problems for call in named(word)]
        if args.backprop:
            both = [(call, call.replace(":fwd:", ":bwd:", 1)) for call in calls]
            calls = list(dict.fromkeys(call for pair in both for call in pair))
        return calls, []
    remarks: list[str] = []
    if not args.backprop and (args.backward_q_tile or args.backward_kv_tile):
        remarks.append("tiles of the backward pass have no effect: add --backprop")
    problem = canonical(problem_of(args))
    calls = [problem + _suffix(args, "", remarks)]
    if args.backprop:
        calls.append(problem.replace(":fwd:", ":bwd:", 1) + _suffix(args, "backward_", []))
    if args.fmha_backend:
        remarks.append(f"--fmha-backend {args.fmha_backend} has no effect: one kernel serves every window")
    return calls, remarks


def check_numbers(args) -> None:
    least = {"samples": 1, "threads": 1, "warmup_steps": 0, "max_configs": 0, "optimize_warmup_steps": 0}
    least |= {"batch_size": 0, "heads": 1, "dim": 1, "add_kv": 0}
    for name, low in least.items():
        value = getattr(args, name)
        if value is not None and value < low:
            raise CommandError(f"got --{name.replace('_', '-')} {value}, expected a number from {low} on")
    threads_there(args.threads)
    above_zero("--budget", args.budget)
    if args.dry_run and args.optimize:
        raise CommandError("got --dry-run and --optimize, expected one of them")


def above_zero(flag: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise CommandError(f"got {flag} {value}, expected a number above 0")


def threads_there(threads: int) -> None:
    """Refuses more threads than this process has CPUs: nobody could measure, or predict, what they do."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not 1 <= threads <= max(cpus, torch.get_num_threads()):
        raise CommandError(f"got --threads {threads}, expected 1 to {cpus}, the CPUs of this process")


def named(word: str) -> list[str]:
    """A problem string as it is, or those of a file."""
    a_file = os.path.isfile(word)  # not Path's, which raises where a problem is too long for a file's name
    if ":" in word and not a_file:
        text, suffix = split(word)
        return [canonical(text) + (f"@{suffix}" if suffix else "")]
    if not a_file:
        raise CommandError(
            f"got {word!r}, expected a problem string such as na:fwd:f32:b1h8kv8d64:64x64:k7x7, "
            "or a file of them"
        )
    try:
        found = [text for _, text in problems.lines(Path(word))]
    except ValueError as error:
        raise CommandError(str(error)) from error
    if not found:
        raise CommandError(f"got {word}, expected a file with at least one problem")
    return list(dict.fromkeys(found))


def problem_of(args) -> str:
    """The forward problem string of the flags."""
    for name, default in DEFAULTS.items():
        if getattr(args, name) is None:
            setattr(args, name, default)
    layout = args.input_size
    if not 1 <= len(layout) <= 3:
        raise CommandError(f"got -i with {len(layout)} numbers, expected 1 to 3")

    def per_axis(flag: str, values, default):
        values = values or default
        if len(values) == 1:
            values = list(values) * len(layout)
        if len(values) != len(layout):
            raise CommandError(
                f"got {flag} with {len(values)} values, expected 1 or {len(layout)}, one per axis of -i"
            )
        return values

    window = per_axis("-w", args.window_size, layout)
    window = [n if w == -1 else w for w, n in zip(window, layout, strict=True)]  # as in Python
    stride, dilation = per_axis("-s", args.stride, [1]), per_axis("--dilation", args.dilation, [1])
    causal = per_axis("-c", args.causal, [False])
    kv_heads = args.heads if args.heads_kv is None else args.heads_kv
    value_dim = args.dim if args.dim_value is None else args.dim_value

    def joined(values):
        return "x".join(map(str, values))

    text = f"na:fwd:{DTYPES[args.dtype]}:b{args.batch_size}h{args.heads}kv{kv_heads}d{args.dim}v{value_dim}"
    text += f":{joined(layout)}:k{joined(window)}:s{joined(stride)}:d{joined(dilation)}"
    text += ":c" + "".join(str(int(c)) for c in causal)
    return text + (f":add={args.add_kv}" if args.add_kv else "")


def _suffix(args, prefix: str, remarks: list[str]) -> str:
    """`@BACKEND,qTILE,kvTILE`; tiles belong to the `cpu` backend where none is named."""
    backend = args.backend or ""
    if backend in PEER_BACKENDS + PEER_SDPA:
        remarks.append(f"--backend {backend} is the peer's name for a kernel: the automatic choice runs")
        if backend in PEER_SDPA and not args.compare:
            args.compare = "sdpa"
        backend = ""
    tiles = ""
    for side in ("q", "kv"):
        shape = getattr(args, f"{prefix}{side}_tile")
        if shape:
            if len(shape) != len(args.input_size):
                flag = f"--{prefix.replace('_', '-')}{side}-tile"
                raise CommandError(f"got {flag} with {len(shape)} numbers, expected {len(args.input_size)}")
            tiles += f",{side}" + "x".join(map(str, shape))
    if not backend and not tiles:
        return ""
    return f"@{backend or 'cpu'}{tiles}"
