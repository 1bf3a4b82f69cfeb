# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""`nearfield explain PROBLEM`: what a call would do, without doing it."""

from __future__ import annotations

import re

import torch

from nearfield import _core, _explain
from nearfield.tools import CommandError, tables


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "explain",
        help="which backend and kernel a problem would run on, and why not the others",
        description="The dry run: every backend with its reason to refuse, or its kernel, tiles, waste "
        "(computed over useful pairs), scratch memory and predicted time; and the performance arguments "
        "without effect.",
    )
    parser.add_argument(
        "problems", nargs="+", metavar="PROBLEM", help="PROBLEM[@BACKEND[/KERNEL][,qTILE[,kvTILE]]]"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the tensors are")
    parser.add_argument(
        "--threads",
        type=int,
        default=torch.get_num_threads(),
        help="of the scratch memory (default: torch's)",
    )
    add_hints(parser)
    parser.add_argument("--json", metavar="FILE", help="an object per backend there; - is the output")
    parser.set_defaults(run=run)


def add_hints(parser) -> None:
    """Performance arguments that the operations take, in the peer profiler's spelling."""
    group = parser.add_argument_group("performance arguments of the operations")
    group.add_argument("--schedule", help="kernel schedule, such as non, coop, pp")
    group.add_argument("--persistent", action="store_true", help="persistent tile scheduler")
    group.add_argument("--compile", action="store_true", help="compile FlexAttention in the peer's backends")
    group.add_argument("--try-fuse-add-kv", action="store_true", help="additional keys in the same kernel")
    group.add_argument("--backward-kv-splits", type=int, nargs="+", metavar="N", help="splits of the keys")


def hints_of(args, rank: int) -> list[str]:
    """Those without effect, `NAME=VALUE`. The operations' default is a persistent kernel, which none has."""
    given = {"kernel_schedule": args.schedule, "torch_compile": args.compile}
    given |= {"try_fuse_additional_kv": args.try_fuse_add_kv}
    if args.backward_kv_splits:
        given["backward_kv_splits"] = tuple(args.backward_kv_splits)
    names = _explain.ignored("explain", rank, given)
    return names + (["run_persistent_kernel=True"] if args.persistent else [])


def plans(call: str, device: str = "cpu") -> list[dict]:
    try:
        return _core.plan(call, device)
    except ValueError as error:
        raise CommandError(str(error)) from error


def kernels(answer: dict) -> str:
    """Those of a plan: `s2` of `s2, avx512`; of packed sequences all, with how many run on each:
    `s2 (3), b16 (1)`."""
    parts = answer["kernel"].split(", ")
    return ", ".join([part for part in parts if re.search(r" \(\d+\)$", part)] or parts[:1])


def run(args) -> None:
    if args.threads < 1:
        raise CommandError(f"got --threads {args.threads}, expected a number from 1 on")
    rows, shown = [], []
    for call in args.problems:
        answers = plans(call, args.device)
        said = _core.problem(call.partition("@")[0])
        try:
            without_effect = hints_of(args, said["rank"])
        except ValueError as error:
            raise CommandError(str(error)) from error
        rows += [{"call": call, "problem": said["problem"], **a} for a in answers]
        shown.append((call, said, answers, without_effect))
    tables.write_rows(rows, args.json, None)
    for call, said, answers, without_effect in shown if args.json != "-" else ():
        show(call, said, answers, args.threads)
        if without_effect:
            tables.show(f"without effect in every backend of this build: {', '.join(without_effect)}")
    served = {row["call"] for row in rows if row["chosen"]}
    if missing := [call for call in args.problems if call not in served]:
        raise CommandError(f"nothing runs {', '.join(missing)} on {args.device} tensors")


def _work(said: dict) -> str:
    """What the windows ask for."""
    if said["fields"]["offsets"]:  # `var=`: the lengths are in a tensor of the device
        return "pairs known on the device only"
    return (
        f"{said['pairs']:.4g} visible pairs per head, {said['flops']:.4g} useful FLOP, "
        f"1 / {said['sparsity']:.4g} of dense"
    )


def show(call: str, said: dict, answers: list[dict], threads: int) -> None:
    """The tables of one call."""
    lines, refusals = [], []
    for a in answers:
        mark = "*" if a["chosen"] else ""
        if "refusal" in a:
            refusals.append(f"  {a['backend']}: no, {a['refusal']}")
            continue
        work = a["shared_bytes"] + threads * a["private_bytes"]
        kernel = a["kernel"] + (f" ({a['note']})" if a["note"] else "")
        tiles = tables.tile(a.get("query_tile")), tables.tile(a.get("key_tile"))
        waste = tables.ratio(a["waste"]) if "query_tile" in a else "-"
        lines.append(
            (mark, a["backend"], kernel, *tiles, waste, tables.size(work), tables.seconds(a.get("seconds")))
        )
    columns = ("", "backend", "kernel", "query tile", "key tile", ">waste")
    columns += (f">scratch, {threads} threads", ">predicted, 1 thread")
    suffix = call.partition("@")[2]
    tables.show(
        said["problem"] + (f"@{suffix}" if suffix else ""),
        _work(said),
        *([tables.table(None, columns, lines, keys=2)] if lines else []),
        *refusals,
    )
    for a in answers:
        if a.get("kernels"):
            ordered = sorted(a["kernels"].items(), key=lambda k: k[1])
            times = ", ".join(f"{name} {tables.seconds(s)}" for name, s in ordered)
            tables.show(f"  {a['backend']}, predicted on one thread: {times}")
