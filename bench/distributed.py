# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Sharded neighborhoods on this machine: time at 1 and 2 ranks, bytes and memory at 1, 2, 4, and the model.

    python bench/distributed.py [--out bench/results/NAME.md]

Bytes are those that were handed to torch.distributed, per forward and backward pass, without the 4 KiB per
pair of ranks by which calls are agreed on; the halo is `ShardPlan`'s. Exposed: the time in which a rank
handed messages over or waited for them, agreement included. Memory: the peak of forward and backward above
what the inputs take. Times are medians of calls; with more ranks than cores only bytes and memory mean
anything. Two cores at work share caches and memory, so the model (scaling.py) starts from the whole problem
on one core while the other one computes it, too (the columns "whole").
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

PROBLEMS = [
    Problem("2-D, 128x128, window 13x13", (128, 128), (13, 13), 4, 64),
    Problem("2-D, 96x96, window 25x25", (96, 96), (25, 25), 4, 64),
    Problem("3-D, 16x32x32, window 5x9x9", (16, 32, 32), (5, 9, 9), 4, 64),
]
CALLS = 5


def one_rank(rank, size, timed):
    """(a row for each problem, the machine if it was measured)."""
    mesh = dist.init_device_mesh("cpu", (size,))
    rows = [one_problem(rank, size, timed, problem, mesh) for problem in PROBLEMS]
    return rows, sharded.measured_machine() if size == 2 and timed else None


def one_problem(rank, size, timed, problem, mesh):
    plan = problem.plan((size,), (0,))
    local = [e - b for b, e in plan.slab(rank)]
    *inputs, grad = (torch.randn(1, *local, problem.heads, problem.dim) for _ in range(4))
    inputs = [x.requires_grad_() for x in inputs]
    call = functools.partial(nd.neighborhood_attention, mesh=mesh, shard_dims=(0,))
    passes = sharded.Passes(call, inputs, grad, problem.window)
    each = {"kv_heads": problem.heads, "head_dim": problem.dim}
    row = {"halo": plan.bytes_sent(rank, **each), "home": plan.bytes_received(rank, **each)}
    row["forward"], row["backward"] = passes.times(CALLS if timed else 1)
    row["slab"] = 4 * grad.numel() * grad.element_size()
    if not timed:
        row["memory"] = passes.memory()
    elif size == 2:
        passes.outputs.clear()
        *inputs, grad = (torch.randn(1, *problem.layout, problem.heads, problem.dim) for _ in range(4))
        inputs = [x.requires_grad_() for x in inputs]
        function = (nf.na1d, nf.na2d, nf.na3d)[len(problem.layout) - 1]
        whole = sharded.Passes(function, inputs, grad, problem.window).times(CALLS)
        row["whole"] = [seconds for seconds, *_ in whole]
    return row


def table(times, memory) -> str:
    """Markdown."""
    machine = times[2][0][1]
    lines = [
        "| problem | ranks | bytes sent per rank, forward / backward | halo / its gradient | "
        "forward (exposed) | backward (exposed) | whole, forward / backward | model, forward / backward | "
        "peak memory per rank | slabs of q, k, v, out |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for i, problem in enumerate(PROBLEMS):
        for size, ranks in memory.items():
            rows = [found[i] for found, _ in ranks]
            same = all(r["forward"][2] == r["halo"] and r["backward"][2] == r["home"] for r in rows)
            worst = max(rows, key=lambda r: r["halo"])
            numbers = (worst["forward"][2], worst["backward"][2], worst["halo"], worst["home"])
            sent, back, halo, home = (f"{x / 1e6:.3f}" for x in numbers)
            timed, shown = [found[i] for found, _ in times.get(size, ())], ["", ""]
            if timed:
                shown = [sharded.shown(r[way] for r in timed) for way in ("forward", "backward")]
            whole = model = ""
            if size == 2:
                alone = [max(r["whole"][n] for r in timed) for n in (0, 1)]
                whole = " / ".join(f"{1e3 * x:.1f}" for x in alone) + " ms"
                passes = predict(problem, (2,), (0,), alone[0], machine, itemsize=4, alone_backward=alone[1])
                model = f"{1e3 * passes.forward:.1f} / {1e3 * passes.backward:.1f} ms"
            lines.append(
                f"| {problem.name} | {size} | {sent} / {back} MB | {halo} / {home} MB, "
                f"{'equal' if same else 'DIFFERENT'} on every rank | {shown[0]} | {shown[1]} | {whole} | "
                f"{model} | {max(r['memory'] for r in rows) / 1e6:.0f} MB | "
                f"{max(r['slab'] for r in rows) / 1e6:.0f} MB |"
            )
    return "\n".join(lines) + sharded.footer(machine)


def main():
    args = sharded.options(__doc__)
    times, memory = sharded.times_and_memory((1, 2, 4), one_rank, args.times)
    if memory is None:
        return
    title = sharded.heading("Sharded neighborhoods on one machine", "bench/distributed.py")
    sharded.write(title + table(times, memory), args.out)


if __name__ == "__main__":
    main()
