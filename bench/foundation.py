# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Speed of the CPU backend's general path beside stock scaled_dot_product_attention with the equivalent
boolean mask, in one process, interleaved, and backward beside forward. Prints one table.

    python bench/foundation.py [--threads 2] [--repeats 5] [--only c,d]

`lead` is SDPA's time over ours; `needed` is an eighth of the sparsity factor (keys / mean visible keys),
what this path must reach. `GF/s` counts useful work only. Times are noise; ratios of one run are not.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

import nearfield as nf
from nearfield import _core

PROBLEMS = {
    "a": "att:fwd:f32:b1h8kv8d64:4096,4096",
    "b": "na:fwd:f32:b1h4kv4d64:32768:k255",
    "c": "na:fwd:f32:b1h8kv8d32:64x64:k7x7",
    "c4": "na:fwd:f32:b1h8kv8d32:64x64:k7x7:d4x4",
    "d": "na:fwd:f32:b1h4kv4d64:128x128:k13x13",
    "e": "na:fwd:f32:b1h4kv4d64:16x32x32:k5x9x9",
    "f": "na:fwd:f32:b1h4kv4d64:8x16x16:k8x7x7:c100",
    "g16": "na:fwd:f32:b1h8kv8d64:64x64:k16x16:s16x16",
    "g8": "na:fwd:f32:b1h8kv8d64:64x64:k16x16:s8x8",
    "h": "na:fwd:f32:b8h4kv4d32:56x56:k7x7",
    "i": "na:fwd:f32:b1h8kv8d64:256:k63",
}
MOST_MASK_BYTES = 1 << 30


def parse(text: str):
    """(layout, batch, heads, head_dim, call) of the problem strings above."""
    parts = text.split(":")
    batch, rest = parts[3][1:].split("h")
    heads, dim = int(rest.split("kv")[0]), int(rest.split("d")[1])
    if parts[0] == "att":
        return (int(parts[4].split(",")[0]),), int(batch), heads, dim, nf.attention
    layout = tuple(int(n) for n in parts[4].split("x"))
    options = {p[0]: p[1:] for p in parts[5:]}
    axes = {
        name: tuple(int(n) for n in options[k].split("x"))
        for k, name in (("k", "kernel_size"), ("s", "stride"), ("d", "dilation"))
        if k in options
    }
    if "c" in options:
        axes["is_causal"] = tuple(x == "1" for x in options["c"])
    function = {1: nf.na1d, 2: nf.na2d, 3: nf.na3d}[len(layout)]
    return layout, int(batch), heads, dim, lambda q, k, v: function(q, k, v, **axes)


def mask_of(text: str, layout) -> torch.Tensor | None:
    tokens = math.prod(layout)
    if text.startswith("att"):
        return None
    mask = torch.ones(1, 1, dtype=torch.bool)
    for axis, extent in enumerate(layout):
        table = _core.intervals(text, 0, axis)
        key = torch.arange(extent)
        begin, end = torch.tensor(table["begin"])[:, None], torch.tensor(table["end"])[:, None]
        seen = (key >= begin) & (key < end) & ((key - begin) % table["dilation"] == 0)
        n = mask.shape[0] * extent
        mask = (mask[:, None, :, None] & seen[None, :, None, :]).reshape(n, n)
    assert mask.shape == (tokens, tokens)
    return mask


def seconds(fn) -> float:
    start = time.perf_counter()
    fn()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    title = (
        f"float32, {args.threads} threads, cpu target {nf.info()['cpu_target']}, torch {torch.__version__}"
    )
    columns = ("id", "forward ms", "GF/s", "SDPA ms", "lead", "needed", "backward ms", "bwd/fwd", "problem")
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="left" if name in ("id", "problem") else "right", no_wrap=True)

    for name, text in PROBLEMS.items():
        if args.only and name not in args.only.split(","):
            continue
        layout, batch, heads, dim, call = parse(text)
        q, k, v = (torch.randn(batch, *layout, heads, dim, requires_grad=True) for _ in range(3))
        grad = torch.randn_like(q)
        numbers = _core.problem(text)
        flat = [t.detach().flatten(1, -3).transpose(1, 2).contiguous() for t in (q, k, v)]
        fits = math.prod(layout) ** 2 <= MOST_MASK_BYTES
        mask = mask_of(text, layout) if fits else None

        def forward(q=q, k=k, v=v, call=call):
            with torch.no_grad():
                call(q, k, v)

        def sdpa(flat=flat, mask=mask):
            with torch.no_grad():
                F.scaled_dot_product_attention(*flat, attn_mask=mask)

        ours, theirs, back = [], [], []
        for i in range(args.repeats + 1):  # the first warms up
            out = call(q, k, v)
            times = (
                seconds(forward),
                seconds(sdpa) if fits else math.nan,
                seconds(lambda out=out, inputs=(q, k, v), grad=grad: torch.autograd.grad(out, inputs, grad)),
            )
            if i:
                for values, t in zip((ours, theirs, back), times, strict=True):
                    values.append(t)
        fwd, peer, bwd = statistics.median(ours), statistics.median(theirs), statistics.median(back)
        lead = f"{peer / fwd:.1f}" if fits else "no memory"
        table.add_row(
            name,
            f"{fwd * 1e3:.2f}",
            f"{numbers['flops'] / fwd * 1e-9:.0f}",
            f"{peer * 1e3:.1f}" if fits else "-",
            lead,
            f"{numbers['sparsity'] / 8:.1f}",
            f"{bwd * 1e3:.2f}",
            f"{bwd / fwd:.2f}",
            text,
        )
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
