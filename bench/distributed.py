# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Sharded neighborhoods on this machine: time at 1 and 2 ranks, bytes and memory at 1, 2, 4, and the model.

Bytes are those that were handed to torch.distributed, without the agreement on a call, of the rank that sends
most; the halo is `ShardPlan`'s. Exposed: the time in which a rank handed messages over or waited for them,
agreement included. Memory: the peak of resident memory in a forward and a backward pass above what was there
before, which includes inputs and the output's gradient: so results, halos, gradients and the kernels'
scratch. Times are medians of calls; with more ranks than cores only bytes and memory mean anything. Two cores
at work share caches and memory, so the model (scaling.py) starts from the whole problem on one core while the
other one computes it, too.

context_parallel.py runs this file.
"""

import functools
import sys
from pathlib import Path

import torch
import torch.distributed as dist

import nearfield as nf
import nearfield.distributed as nd

sys.path.insert(0, str(Path(__file__).parent))
import sharded
from scaling import Problem, predict

# The model was made with all but the last in view.
PROBLEMS = [
    Problem("128×128, window 13×13", (128, 128), (13, 13), 4, 64),
    Problem("96×96, window 25×25", (96, 96), (25, 25), 4, 64),
    Problem("16×32×32, window 5×9×9", (16, 32, 32), (5, 9, 9), 4, 64),
    Problem("160×160, window 9×9", (160, 160), (9, 9), 4, 64),
]
QUICK = [
    Problem("24×24, window 5×5", (24, 24), (5, 5), 4, 64),
    Problem("4×12×12, window 3×5×5", (4, 12, 12), (3, 5, 5), 4, 64),
]
CALLS, REPETITIONS = 7, 5


def one_rank(rank, size, timed, problems, calls):
    """(a row for each problem, the machine if it was measured)."""
    mesh = dist.init_device_mesh("cpu", (size,))
    rows = [one_problem(rank, size, timed, problem, mesh, calls) for problem in problems]
    return rows, sharded.measured_machine() if size == 2 and timed else None


def one_problem(rank, size, timed, problem, mesh, calls):
    plan = problem.plan((size,), (0,))
    local = [e - b for b, e in plan.slab(rank)]
    *inputs, grad = (torch.randn(1, *local, problem.heads, problem.dim) for _ in range(4))
    inputs = [x.requires_grad_() for x in inputs]
    call = functools.partial(nd.neighborhood_attention, mesh=mesh, shard_dims=(0,))
    passes = sharded.Passes(call, inputs, grad, problem.window)
    each = {"kv_heads": problem.heads, "head_dim": problem.dim}
    row = {"halo": plan.bytes_sent(rank, **each), "home": plan.bytes_received(rank, **each)}
    row["forward"], row["backward"] = passes.times(calls if timed else 1)
    row["slab"] = 4 * grad.numel() * grad.element_size()
    if not timed:
        row["memory"] = passes.memory(min(calls, REPETITIONS))
    elif size == 2:
        passes.outputs.clear()
        *inputs, grad = (torch.randn(1, *problem.layout, problem.heads, problem.dim) for _ in range(4))
        inputs = [x.requires_grad_() for x in inputs]
        function = (nf.na1d, nf.na2d, nf.na3d)[len(problem.layout) - 1]
        whole = sharded.Passes(function, inputs, grad, problem.window).times(calls)
        row["whole"] = [seconds for seconds, *_ in whole]
    return row


def measured(problems, times, memory) -> str:
    """Markdown: bytes, times, memory."""
    lines = [
        "| problem | ranks | sent per rank, forward + backward | forward (exposed) | backward (exposed) | "
        "peak memory per rank | q, k, v, out of a rank |",
        "|---|---|---|---|---|---|---|",
    ]
    for i, problem in enumerate(problems):
        for size, ranks in memory.items():
            rows = [found[i] for found, _ in ranks]
            timed = [found[i] for found, _ in times.get(size, ())]
            shown = [sharded.shown(r[way] for r in timed) if timed else "" for way in ("forward", "backward")]
            kept = sharded.memory_text([r["memory"] for r in rows])
            slab = max(r["slab"] for r in rows) / 1e6
            lines.append(
                f"| {problem.name} | {size} | {sent(rows)} | {shown[0]} | {shown[1]} | {kept} MB | "
                f"{slab:.0f} MB |"
            )
    peaks = [r["memory"] for ranks in memory.values() for found, _ in ranks for r in found]
    return "\n".join(lines) + f"\n\n{gains(times)} {sharded.repeated(peaks)}"


def sent(rows) -> str:
    """Bytes of the rank that sends most, beside the plan's halo."""
    most = [max(r[way][2] for r in rows) / 1e6 for way in ("forward", "backward")]
    if not any(most):
        return "0"
    same = all(r["forward"][2] == r["halo"] and r["backward"][2] == r["home"] for r in rows)
    return f"{most[0]:.2f} + {most[1]:.2f} MB, {'the halo' if same else 'NOT THE HALO'}"


def gains(times) -> str:
    """What two ranks gain, in words."""
    words = []
    for way in ("forward", "backward"):
        one, two = (
            [sharded.slowest(r[way] for r in rows) for rows in zip(*(f for f, _ in times[n]), strict=True)]
            for n in (1, 2)
        )
        ratios = [a[0] / b[0] for a, b in zip(one, two, strict=True)]
        exposed = [1e3 * b[1] for b in two]
        words.append(
            f"{min(ratios):.1f} to {max(ratios):.1f} times as fast {way} with {min(exposed):.1f} to "
            f"{max(exposed):.1f} ms exposed"
        )
    return f"Two ranks are {', '.join(words)}."


def predicted(problems, times) -> str:
    """Markdown: the model beside what was measured."""
    machine = times[2][0][1]
    lines = [
        "| problem, 2 ranks | whole on one core of two at work, forward / backward | forward: measured | "
        "model | backward: measured | model |",
        "|---|---|---|---|---|---|",
    ]
    errors = {False: [], True: []}
    for i, problem in enumerate(problems):
        rows = [found[i] for found, _ in times[2]]
        alone = [max(r["whole"][n] for r in rows) for n in (0, 1)]
        passes = predict(problem, (2,), (0,), alone[0], machine, itemsize=4, alone_backward=alone[1])
        took = [sharded.slowest(r[way] for r in rows)[0] for way in ("forward", "backward")]
        unseen = i == len(problems) - 1
        errors[unseen] += [m / t - 1 for m, t in zip((passes.forward, passes.backward), took, strict=True)]
        whole = " / ".join(f"{1e3 * x:.1f}" for x in alone)
        lines.append(
            f"| {problem.name}{' (not used)' if unseen else ''} | {whole} ms | {1e3 * took[0]:.1f} ms | "
            f"{1e3 * passes.forward:.1f} ms | {1e3 * took[1]:.1f} ms | {1e3 * passes.backward:.1f} ms |"
        )
    fitted, other = (sharded.per_cent(errors[unseen]) for unseen in (False, True))
    words = (
        f"The model is off by {fitted} where it was fitted, and by {other} on the problem that was not used."
    )
    return "\n".join(lines) + f"\n\n{words} {sharded.link_text(machine)}"


def sections(quick: bool) -> list[sharded.Section]:
    problems, calls = (QUICK, 2) if quick else (PROBLEMS, CALLS)
    times, memory = sharded.times_and_memory((1, 2, 4), one_rank, problems, calls)
    return [
        sharded.Section("Neighborhoods", measured(problems, times, memory)),
        sharded.Section("Neighborhoods, the model", predicted(problems, times)),
    ]
