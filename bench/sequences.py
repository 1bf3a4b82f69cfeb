# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Sharded dense attention on this machine: time at 1 and 2 ranks, bytes and memory at 1, 2, 4, and a model.

Causal attention over one sequence, in a ring or gathered, in slabs or in a zigzag; times, exposed times and
memory are those of distributed.py. Due are the bytes that must travel by the masks: in a ring the own keys
and those that are passed on, and in the backward pass also their gradients; the keys of others that a rank's
queries see if they are gathered. The model: every rank's visible pairs at the rate of the whole problem on
one core beside another one, a ring's steps one after the other, what travels (with gloo the ranks' own cores
carry it) and the agreement; of all ranks the slowest.

context_parallel.py runs this file.
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

TOKENS, QUICK_TOKENS, HEADS, DIM = 4096, 256, 4, 64
CASES = [(method, pattern) for method in ("ring", "gather") for pattern in ("contiguous", "zigzag")]
CALLS, REPETITIONS = 5, 5
_CAUSAL = (True, nf.CausalType.TopLeft)


def held_by(rank, size, pattern, tokens):
    """(the tokens of a rank, the Sequence of all)."""
    if pattern == "zigzag":
        lengths = [sum(e - b for b, e in boxes.zigzag(tokens, size, r)) for r in range(size)]
    else:
        lengths = boxes.cut(tokens, size)
    parts = parts_of("bench", "query", pattern, lengths, 1)
    return lengths[rank], Sequence.of(parts, parts, 1)


def one_rank(rank, size, timed, tokens, calls):
    """(a row for each case, and with times at two ranks the whole's; the machine, if it was measured)."""
    rows = []
    for method, pattern in CASES:
        local, sequence = held_by(rank, size, pattern, tokens)
        *inputs, grad = (torch.randn(1, local, HEADS, DIM) for _ in range(4))
        inputs = [x.requires_grad_() for x in inputs]
        call = functools.partial(nd.attention, group=dist.group.WORLD, pattern=pattern, method=method)
        passes = sharded.Passes(call, inputs, grad, *_CAUSAL)
        row = {"due": due(sequence, rank, method), "slab": 4 * grad.numel() * 4}
        row["forward"], row["backward"] = passes.times(calls if timed else 1)
        if not timed:
            row["memory"] = passes.memory(min(calls, REPETITIONS))
        rows.append(row)
    machine = sharded.measured_machine() if size == 2 and timed else None
    if machine:
        *inputs, grad = (torch.randn(1, tokens, HEADS, DIM) for _ in range(4))
        inputs = [x.requires_grad_() for x in inputs]
        whole = sharded.Passes(nf.attention, inputs, grad, *_CAUSAL).times(calls)
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


def model(method, pattern, size, tokens, alone, machine, way):
    """Seconds of a pass (way 0: forward, 1: backward) of the slowest rank."""
    found, whole = [], tokens * (tokens + 1) // 2
    for rank in range(size):
        _, sequence = held_by(rank, size, pattern, tokens)
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
    return alone * sum(map(max, steps)) / whole + travel + link.latency + machine.agreement(size)


def sent(rows, way) -> str:
    """Bytes of the rank that sends most; way 0: forward, 1: backward."""
    amounts = [r[("forward", "backward")[way]][2] for r in rows]
    same = amounts == [r["due"][way] for r in rows]
    return f"{max(amounts) / 1e6:.2f}" + ("" if same else " NOT DUE")


def timed(tokens, times) -> str:
    """Markdown: two ranks beside the model."""
    machine = times[2][0][1]
    alone = [max(found[-1][way] for found, _ in times[2]) for way in (0, 1)]
    lines = [
        "| method, pattern, 2 ranks | sent by the rank that sends most, forward / backward | "
        "forward (exposed) | model | backward (exposed) | model |",
        "|---|---|---|---|---|---|",
    ]
    for i, (method, pattern) in enumerate(CASES):
        rows = [found[i] for found, _ in times[2]]
        shown = [sharded.shown(r[way] for r in rows) for way in ("forward", "backward")]
        both = [model(method, pattern, 2, tokens, alone[way], machine, way) for way in (0, 1)]
        lines.append(
            f"| {method}, {pattern} | {sent(rows, 0)} / {sent(rows, 1)} MB | {shown[0]} | "
            f"{1e3 * both[0]:.0f} ms | {shown[1]} | {1e3 * both[1]:.0f} ms |"
        )
    one = [
        [1e3 * sharded.slowest(found[i][way] for found, _ in times[1])[0] for i in range(len(CASES))]
        for way in ("forward", "backward")
    ]
    ranges = [f"{min(x):.0f} to {max(x):.0f} ms" for x in one]
    whole = " and ".join(f"{1e3 * x:.0f}" for x in alone)
    note = (
        f"{tokens:,} tokens. One rank takes {ranges[0]} forward and {ranges[1]} backward, and the whole on "
        f"one core while the other computes it, too, {whole} ms. {sharded.link_text(machine)}"
    )
    return "\n".join(lines) + "\n\n" + note


def kept(tokens, memory) -> str:
    """Markdown: memory and bytes."""
    sizes = list(memory)
    count = ", ".join(map(str, sizes))
    more = ", ".join(str(n) for n in sizes if n > 1)
    lines = [
        f"| method, pattern | peak memory at {count} ranks | sent forward at {more} | "
        f"sent backward at {more} |",
        "|---|---|---|---|",
    ]
    for i, (method, pattern) in enumerate(CASES):
        rows = {n: [found[i] for found, _ in ranks] for n, ranks in memory.items()}
        peaks = ", ".join(sharded.memory_text([r["memory"] for r in x]) for x in rows.values())
        both = [", ".join(sent(x, way) for n, x in rows.items() if n > 1) for way in (0, 1)]
        lines.append(f"| {method}, {pattern} | {peaks} MB | {both[0]} MB | {both[1]} MB |")
    slabs = ", ".join(f"{ranks[0][0][0]['slab'] / 1e6:.1f}" for ranks in memory.values())
    repeated = [r["memory"] for ranks in memory.values() for found, _ in ranks for r in found]
    note = f"{tokens:,} tokens; q, k, v and out of a rank are {slabs} MB. {sharded.repeated(repeated)}"
    return "\n".join(lines) + "\n\n" + note


def sections(quick: bool) -> list[sharded.Section]:
    tokens, calls = (QUICK_TOKENS, 2) if quick else (TOKENS, CALLS)
    times, memory = sharded.times_and_memory((1, 2, 4), one_rank, tokens, calls)
    return [
        sharded.Section("Dense causal attention", timed(tokens, times)),
        sharded.Section("Dense causal attention, memory", kept(tokens, memory)),
    ]
