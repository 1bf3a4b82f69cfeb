# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Sharded dense attention on this machine: time at 1 and 2 ranks, bytes and memory at 1, 2, 4, and a model.

    python bench/sequences.py [--out bench/results/NAME.md]

Causal attention over one sequence, in a ring or gathered, in slabs or in a zigzag. Columns are those of
distributed.py. "Due" are the bytes that must travel by the masks: in a ring the own keys and those that are
passed on, and in the backward pass also their gradients; the keys of others that a rank's queries see if they
are gathered. The model: every rank's visible pairs at the rate of the whole problem on one core beside
another one, a ring's steps one after the other, what travels (with gloo the ranks' own cores carry it) and
the agreement; of all ranks the slowest.
"""

import functools
import sys
from pathlib import Path

import torch
import torch.distributed as dist

import nearfield as nf
import nearfield.distributed as nd
from nearfield.distributed import _boxes as boxes
from nearfield.distributed._sequence import Sequence, parts_of, ring_of

sys.path.insert(0, str(Path(__file__).parent))
import sharded

TOKENS, HEADS, DIM = 4096, 4, 64
CASES = [(method, pattern) for method in ("ring", "gather") for pattern in ("contiguous", "zigzag")]
CALLS = 3
_CAUSAL = (True, nf.CausalType.TopLeft)


def held_by(rank, size, pattern):
    """(the tokens of a rank, the Sequence of all)."""
    if pattern == "zigzag":
        lengths = [sum(e - b for b, e in boxes.zigzag(TOKENS, size, r)) for r in range(size)]
    else:
        lengths = boxes.cut(TOKENS, size)
    parts = parts_of("bench", "query", pattern, lengths, 1)
    return lengths[rank], Sequence.of(parts, parts, 1)


def one_rank(rank, size, timed):
    """(a row for each case, the machine if it was measured)."""
    rows = []
    for method, pattern in CASES:
        local, sequence = held_by(rank, size, pattern)
        *inputs, grad = (torch.randn(1, local, HEADS, DIM) for _ in range(4))
        inputs = [x.requires_grad_() for x in inputs]
        call = functools.partial(nd.attention, group=dist.group.WORLD, pattern=pattern, method=method)
        passes = sharded.Passes(call, inputs, grad, *_CAUSAL)
        row = {"due": due(sequence, rank, method), "slab": 4 * grad.numel() * 4}
        row["forward"], row["backward"] = passes.times(CALLS if timed else 1)
        if not timed:
            row["memory"] = passes.memory()
        rows.append(row)
    machine = sharded.measured_machine() if size == 2 and timed else None
    if machine:
        *inputs, grad = (torch.randn(1, TOKENS, HEADS, DIM) for _ in range(4))
        inputs = [x.requires_grad_() for x in inputs]
        whole = sharded.Passes(nf.attention, inputs, grad, *_CAUSAL).times(2)
        rows.append([seconds for seconds, *_ in whole])
    return rows, machine


def due(sequence, rank, method):
    """Bytes that a rank must send, forward and backward."""
    token = 2 * 4 * HEADS * DIM
    if method == "gather":
        share = sequence.share(rank)
        amounts = (sum(boxes.volume(b) for _, m in side for b in m) for side in (share.send, share.fetch))
        return [token * n for n in amounts]
    ring, n = ring_of(sequence, rank), sequence.ranks
    held = [sum(map(boxes.volume, part)) for part in ring.keys]
    keys = sum(held[(rank - s) % n] for s in range(n) if s < ring.last[(rank - s) % n])
    # Gradients leave from every rank but the owner that handles its keys, the last one's go home.
    gradients = sum(
        held[(rank - s) % n] for s in range(n) if s <= ring.last[(rank - s) % n] and _leaves(ring, rank, s)
    )
    return [token * keys, token * (keys + gradients)]


def _leaves(ring, rank, step):
    """Whether the gradients of the keys that a rank has at a step go on or home from it."""
    return step > 0 or ring.last[rank] > 0


def pairs(task) -> int:
    """Visible pairs of a run of queries and one of keys under the causal mask."""
    ((first, last),), ((begin, end),) = task
    return sum(min(max(q + 1 - begin, 0), end - begin) for q in range(first, last))


def model(method, pattern, size, alone, machine, way):
    """Seconds of a pass (way 0: forward, 1: backward) of the slowest rank."""
    found, whole = [], TOKENS * (TOKENS + 1) // 2
    for rank in range(size):
        _, sequence = held_by(rank, size, pattern)
        sent = due(sequence, rank, method)[way]
        if method == "ring":
            work = [sum(map(pairs, tasks)) for tasks in ring_of(sequence, rank).tasks]
        else:
            share = sequence.share(rank)
            work = [sum(map(pairs, (*share.local, *share.remote)))]
        found.append((work, sent))
    # A step ends for nobody before its keys have arrived, and the busiest computes for its full time.
    link, steps = machine.link, zip(*(work for work, _ in found), strict=True)
    travel = max(sent for _, sent in found) / link.rate
    return alone * sum(map(max, steps)) / whole + travel + 2 * link.latency


def table(times, memory) -> str:
    """Markdown."""
    machine = times[2][0][1]
    alone = [max(found[-1][way] for found, _ in times[2]) for way in (0, 1)]
    lines = [
        "| method, pattern | ranks | bytes sent per rank, forward / backward | due | forward (exposed) | "
        "backward (exposed) | model, forward / backward | peak memory per rank | slabs of q, k, v, out |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for i, (method, pattern) in enumerate(CASES):
        for size, ranks in memory.items():
            rows = [found[i] for found, _ in ranks]
            sent = [[r["forward"][2], r["backward"][2]] for r in rows]
            same = all(s == r["due"] for s, r in zip(sent, rows, strict=True))
            most = [f"{max(column) / 1e6:.2f}" for column in zip(*sent, strict=True)]
            shown, predicted = ["", ""], ""
            if size in times:
                timed = [found[i] for found, _ in times[size]]
                shown = [sharded.shown(r[way] for r in timed) for way in ("forward", "backward")]
            if size == 2:
                both = [model(method, pattern, size, alone[way], machine, way) for way in (0, 1)]
                predicted = " / ".join(f"{1e3 * x:.0f}" for x in both) + " ms"
            lines.append(
                f"| {method}, {pattern} | {size} | {most[0]} / {most[1]} MB | "
                f"{'equal' if same else 'DIFFERENT'} on every rank | {shown[0]} | {shown[1]} | {predicted} | "
                f"{max(r['memory'] for r in rows) / 1e6:.0f} MB | "
                f"{max(r['slab'] for r in rows) / 1e6:.0f} MB |"
            )
    whole = " / ".join(f"{1e3 * x:.0f}" for x in alone)
    note = f"\n\nThe whole on one core while the other computes it, too, forward / backward: {whole} ms."
    return "\n".join(lines) + note + sharded.footer(machine)


def main():
    args = sharded.options(__doc__)
    times, memory = sharded.times_and_memory((1, 2, 4), one_rank, args.times)
    if memory is None:
        return
    title = sharded.heading(
        f"Sharded causal attention over {TOKENS} tokens on one machine", "bench/sequences.py"
    )
    sharded.write(title + table(times, memory), args.out)


if __name__ == "__main__":
    main()
