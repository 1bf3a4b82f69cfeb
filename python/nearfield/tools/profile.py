# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""`nearfield profile`: what a call takes, of what it could take, and what else would take.

Samples are taken in turns with those of the peers, each between two readings of the machine's FMA peak
(measure.py): a sample during which a thread had no core of its own does not count.
"""

from __future__ import annotations

import contextlib
import math
import time

import torch

from nearfield import _core
from nearfield._tuner import tuner_text
from nearfield.tools import (
    CommandError,
    accuracy,
    candidates,
    explain,
    measure,
    optimizer,
    outputs,
    problems,
    profile_arguments,
    tables,
)
from nearfield.tools.peers import Absent
from nearfield.tools.running import Run, dense, in_direction, split


def add_parser(commands) -> None:
    profile_arguments.add_parser(commands, run)


def run(args) -> None:
    outputs.all_writable(args.json, args.csv)
    calls, remarks = profile_arguments.calls_of(args)
    if any(dense(call) != call for call in calls):
        calls = list(dict.fromkeys(map(dense, calls)))
        remarks.append("tensors are dense here, whatever strides a problem names")
    compare = _peer_names(args.compare)
    rank = _core.problem(split(calls[0])[0])["rank"]
    try:
        without_effect = explain.hints_of(args, rank)
    except ValueError as error:
        raise CommandError(str(error)) from error
    if without_effect:
        remarks.append(f"without effect in every backend of this build: {', '.join(without_effect)}")
    if args.dry_run:
        for call in calls:
            dry_run(call, args.threads, args.max_configs)
        tables.show(*remarks)
        return
    tuned = {}
    before = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    try:
        with contextlib.ExitStack() as stack:
            if args.optimize:
                steps = args.optimize_warmup_steps
                lines = optimizer.search(calls, args.budget, args.threads, steps, say=remarks.append)
                stack.enter_context(tuner_text("\n".join(line.text for line in lines), "--optimize"))
                tuned = {line.problem: line.choice for line in lines}
                remarks += [str(line) for line in lines]
            rows, faults, stopped = profile_all(calls, args, compare, tuned)
    finally:
        torch.set_num_threads(before)
    tables.write_rows(rows, args.json, args.csv)
    if rows and "-" not in (args.json, args.csv):
        show(rows, compare, args.threads)
        tables.show(*remarks)
    if stopped:
        raise KeyboardInterrupt
    if faults:
        raise CommandError("; ".join(faults))


def profile_all(calls: list[str], args, compare, tuned) -> tuple[list[dict], list[str], bool]:
    """(rows, what could not be run and why, whether the user stopped it): one call does not cost the others
    their rows."""
    rows, faults = [], []
    with tables.progress("profile", len(calls)) as advance:
        for call in calls:
            advance(0, call)
            try:
                rows.append(profile(call, args, compare, tuned))
            except CommandError as error:
                text = str(error)
                faults.append(text if len(calls) == 1 or split(call)[0] in text else f"{call}: {text}")
            except KeyboardInterrupt:
                return rows, faults, True
            advance()
    return rows, faults, False


def _peer_names(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    if unknown := set(names) - set(profile_arguments.PEERS):
        raise CommandError(
            f"got --compare {', '.join(sorted(unknown))}, expected some of "
            f"{', '.join(profile_arguments.PEERS)}"
        )
    return names


def profile(call: str, args, compare: list[str], tuned: dict[str, str]) -> dict:
    """One row: times of the call and of the peers, what it did, and how far it is from float64. tuned: what
    --optimize chose, by the problem of one sequence."""
    answer = next((a for a in explain.plans(call) if a["chosen"]), None)
    if answer is None:
        raise CommandError("; ".join(f"{a['backend']}: {a['refusal']}" for a in explain.plans(call)))
    run = Run(call)
    direction = run.fields["direction"]
    work = run.forward if direction == "fwd" else run.backward
    absent: dict[str, str] = {}
    with run.settings():
        run.check((direction,))
        functions = {"nearfield": work}
        for name in compare:
            try:
                functions[name] = _peer(name, run, direction)
            except Absent as why:
                absent[name] = str(why)
            except (RuntimeError, NotImplementedError) as error:  # it cannot, and says so
                absent[name] = f"{type(error).__name__}: {(str(error) or 'no reason').splitlines()[0]}"
        end = time.perf_counter() + args.budget
        for _ in range(args.warmup_steps):
            work()
            if time.perf_counter() > end:  # warm enough
                break
        target = _core.info().get("cpu_target", "scalar")
        samples = measure.interleaved(functions, target, args.threads, args.samples, args.budget)
    figures = {name: measure.summary(s, args.threads) for name, s in samples.items()}
    ours = figures.pop("nearfield")
    flops = _core.problem(run.problem)["flops"]
    peak = ours.peak / 2 if run.fields["dtype"] == "f64" else ours.peak  # half as many to a vector
    wrong, of = accuracy.error(run, direction) if args.error else (None, "not asked for")
    return {
        "problem": call if run.suffix else run.problem,
        "same_again": _same_again(run, call, tuned),
        "direction": direction,
        "backend": answer["backend"],
        "kernel": answer["kernel"],
        "note": answer["note"],
        "threads": args.threads,
        "seconds": ours.seconds,
        "spread": ours.spread,
        "noisy": ours.noisy,
        "samples": [s["s"] for s in samples["nearfield"]],
        "flops": flops,
        "gflops": flops / ours.seconds * 1e-9,
        "peak_gflops": ours.peak,
        "share_of_peak": flops / ours.seconds * 1e-9 / peak,
        "waste": answer["waste"],
        "scratch_bytes": answer["shared_bytes"] + args.threads * answer["private_bytes"],
        "tensor_bytes": run.tensor_bytes,
        "predicted_seconds": answer["seconds"] / args.threads if "seconds" in answer else None,
        "peers": {name: f.seconds for name, f in figures.items()},
        "absent": absent,
        "error": wrong,
        "error_of": of,
    }


def _same_again(run: Run, call: str, tuned: dict[str, str]) -> str:
    """The call that repeats a row without --optimize."""
    if "/" in run.suffix or "," in run.suffix:
        return call
    choices = {tuned.get(problem) for problem in _core.tuner_problems(run.problem)}
    choice = choices.pop() if len(choices) == 1 else None  # sequences of one call may run on several kernels
    return f"{run.problem}@{choice}" if choice else call


def _peer(name: str, run: Run, direction: str):
    """The pass of a peer, on the tensors of the run; compared with nearfield's where it computes the same."""
    problem = problems.Problem("profile", {direction: run.problem})
    if not problem.plain:
        raise Absent("it has no such feature, or none is written here")
    if name == "flex":
        from nearfield.tools.peers.flex import Flex as kind
    else:
        from nearfield.tools.peers.sdpa import DenseSdpa, Sdpa

        kind = Sdpa if name == "masked-sdpa" else DenseSdpa
    if direction == "bwd" and not kind.has_backward:
        raise Absent("no backward pass on CPUs")
    peer = kind(problem, **kind.candidates(problem)[0])
    peer.load(*(t.detach() for t in run.tensors.values()), run.grad_out)
    if name != "sdpa" or problem.dense:
        expected = [run.forward()[0]] if direction == "fwd" else run.backward()
        for a, b in zip(peer.results(direction), expected, strict=True):
            most = measure.AGREEMENT[problem.dtype] * max(1.0, b.abs().max().item())
            if not (a.double() - b.double()).abs().max().item() <= most:
                raise Absent("its numbers are others than nearfield's: no peer")
    return peer.forward if direction == "fwd" else peer.backward


# ---- for people


def show(rows: list[dict], compare: list[str], threads: int) -> None:
    lines = []
    target = _core.info().get("cpu_target", "scalar")
    total = _total(rows)
    numbers = [f"{i} " if len(rows) > 1 and total is None else "" for i in range(1, len(rows) + 1)]
    for number, row in zip(numbers, rows, strict=True):
        mark = "~" if row["noisy"] else ""
        leads = (f"{row['peers'][n] / row['seconds']:.2f}" if n in row["peers"] else "-" for n in compare)
        wrong = "-" if row["error"] is None else f"{row['error']:.1e}"
        lines.append(
            (
                number + {"fwd": "forward", "bwd": "backward"}[row["direction"]],
                f"{row['backend']} {explain.kernels(row)}",
                f"{mark}{tables.seconds(row['seconds'])}",
                f"{row['spread'] * 100:.1f}" if len(row["samples"]) > 1 else "-",
                f"{row['gflops']:.1f}",
                f"{row['share_of_peak'] * 100:.1f}",
                f"{row['waste']:.2f}",
                tables.size(row["scratch_bytes"]),
                tables.size(row["tensor_bytes"]),
                *leads,
                wrong,
            )
        )
    if total is not None:
        lines.append(("both", "", tables.seconds(total), *[""] * (len(lines[0]) - 3)))
    columns = ["phase", "kernel", ">time", ">± %", ">GFLOP/s", ">peak %", ">waste", ">scratch", ">tensors"]
    columns += [f">x {name}" for name in compare] + [">error"]
    peak = max(row["peak_gflops"] for row in rows)
    title = f"{threads} thread{'s'[: threads > 1]}, measured FMA peak {peak:.0f} GFLOP/s ({target})"
    tables.show(tables.table(title, columns, lines, keys=2))
    for number, row in zip(numbers, rows, strict=True):
        more = f" --threads {threads}" if threads != torch.get_num_threads() else ""
        tables.show(f"{number}nearfield profile {row['same_again']}{more}")
        if "tuner" in row["note"] and row["same_again"] == row["problem"]:  # else the line names the choice
            tables.show(f"  {row['note']}: the line repeats it with the same NEARFIELD_TUNER")
        if row["error"] is None and row["error_of"] != "not asked for":
            tables.show(f"  not compared with the reference: {row['error_of']}")
        elif row["error"] is not None and row["error_of"] != "all":
            tables.show(f"  error of: {row['error_of']}")
        for name, why in row["absent"].items():
            tables.show(f"  {name} is not there: {why}")
    if any(row["noisy"] for row in rows):
        tables.show("~ no sample had all cores: something else runs on this machine")


def _total(rows: list[dict]) -> float | None:
    """Seconds of both passes, where the rows are those of one problem."""
    both = len(rows) == 2 and {r["direction"] for r in rows} == {"fwd", "bwd"}
    first, second = (in_direction(split(r["problem"])[0], "fwd") for r in (rows[0], rows[-1]))
    return math.fsum(r["seconds"] for r in rows) if both and first == second else None


def dry_run(call: str, threads: int, most: int) -> None:
    """The table of `explain`, and the kernels and tiles that each backend could use."""
    said = _core.problem(split(call)[0])
    explain.show(call, said, explain.plans(call), threads)
    found = candidates.of(call)
    for backend in dict.fromkeys(c.backend for c in found):
        own = [c for c in found if c.backend == backend]
        kept = own if most == 0 else own[:most]
        rows = [(c.call, tables.ratio(c.waste), tables.seconds(c.predicted)) for c in kept]
        more = f", {len(own) - len(kept)} more: --max-configs 0" if len(kept) < len(own) else ""
        tables.show(
            tables.table(
                f"{backend}: {len(own)} configurations{more}", ("call", ">waste", ">predicted"), rows
            )
        )
