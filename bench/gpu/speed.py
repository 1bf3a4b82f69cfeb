# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""nearfield on a GPU beside PyTorch's dense attention and compiled FlexAttention, interleaved in one run.

    python bench/gpu/speed.py [--file gpu] [--only 3d,2d] [--rounds 15] [--seconds 300] [--out results.json]

Medians of CUDA events over rounds in which every contestant runs once. `cudnn` and `flash` compute all
pairs; `flex` has the equivalent block mask, with tokens in tiles (8x16, 4x4x8) whose permutation is not
timed. TFLOP/s: of useful work. `bound`: how many times fewer pairs there are than dense attention computes;
`fraction`: of it, the speed-up over cuDNN. A row ends early after 6 seconds, and none begins after --seconds:
the table is printed in any case. Host time per call is that of tiny tensors, whose kernels take less.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import problems
from peers.tables import tile_order

import nearfield as nf

TILES = {1: None, 2: (8, 16), 3: (4, 4, 8)}


def ours(p, q, k, v):
    if p.dense:
        return lambda: nf.attention(q, k, v)
    ones = (1,) * len(p.layout)
    causal = tuple(c == "1" for c in p.option("c", "0" * len(p.layout)))
    function = (nf.na1d, nf.na2d, nf.na3d)[len(p.layout) - 1]
    return lambda: function(q, k, v, p.option("k"), p.option("s", ones), p.option("d", ones), causal)


def dense(p, q, k, v, backend):
    q, k, v = (x.flatten(1, -3).transpose(1, 2) for x in (q, k, v))

    def attend():
        with sdpa_kernel([backend]):
            return F.scaled_dot_product_attention(q, k, v, enable_gqa=p.heads != p.kv_heads)

    return attend


def flex(p, q, k, v):
    """Compiled FlexAttention; the mask asks tables of nearfield's geometry."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    q, k, v = (x.flatten(1, -3).transpose(1, 2).contiguous() for x in (q, k, v))
    mask = None
    if not p.dense:
        tile = TILES[len(p.layout)]
        order = tile_order(p.layout, tile) if tile else torch.arange(p.tokens)
        axes, inner = [], p.tokens
        for axis, extent in enumerate(p.layout):
            inner //= extent
            at = (order // inner % extent).int()
            begin, end, step = p.intervals(axis)
            if step > 1:
                raise NotImplementedError("dilation")
            axes.append([x.int().cuda() for x in (at, begin[at.long()], end[at.long()])])

        def visible(b, h, i, j):
            seen = None
            for at, begin, end in axes:
                inside = (at[j] >= begin[i]) & (at[j] < end[i])
                seen = inside if seen is None else seen & inside
            return seen

        mask = create_block_mask(visible, None, None, p.tokens, p.tokens, device="cuda", _compile=True)
    compiled = torch.compile(flex_attention, dynamic=False)
    return lambda: compiled(q, k, v, block_mask=mask, enable_gqa=p.heads != p.kv_heads)


def timed(step) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    step()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def contestants(p, direction):
    """(name, something to time), or (name, why not)."""
    backward = direction == "bwd"
    shapes = [
        (p.layout, p.heads, p.dim),
        (p.key_layout, p.kv_heads, p.dim),
        (p.key_layout, p.kv_heads, p.value_dim),
    ]
    for name, make in (
        ("nearfield", ours),
        ("cudnn", lambda *a: dense(*a, SDPBackend.CUDNN_ATTENTION)),
        ("flash", lambda *a: dense(*a, SDPBackend.FLASH_ATTENTION)),
        ("flex", flex),
    ):
        torch.manual_seed(0)
        leaves = [
            torch.randn(p.batch, *layout, h, d, device="cuda").to(p.dtype).requires_grad_(backward)
            for layout, h, d in shapes
        ]
        try:
            attend = make(p, *leaves)
            out = attend()
            if backward:
                grad = torch.randn_like(out)

                def step(out=out, leaves=leaves, grad=grad):
                    torch.autograd.grad(out, leaves, grad, retain_graph=True)
            else:
                step = attend
            for _ in range(2):
                step()
            torch.cuda.synchronize()
            yield name, step
        except Exception as e:  # a peer that cannot is a gap of the table, not the end of it
            yield name, f"{type(e).__name__}: {str(e).splitlines()[0][:120] if str(e) else ''}"


def host_times(calls=500) -> dict[str, float]:
    """Microseconds of the host per forward call, medians, with a plan that is known."""
    q, k, v = torch.randn(3, 1, 16, 16, 2, 64, device="cuda", dtype=torch.bfloat16)
    flat = [x.flatten(1, 2).transpose(1, 2) for x in (q, k, v)]
    steps = {
        "na2d": lambda: nf.na2d(q, k, v, 7),
        "attention": lambda: nf.attention(q.flatten(1, 2), k.flatten(1, 2), v.flatten(1, 2)),
        "sdpa": lambda: F.scaled_dot_product_attention(*flat),
    }
    result = {}
    with torch.no_grad():
        for name, step in steps.items():
            times = []
            for _ in range(calls):
                begin = time.perf_counter()
                step()
                times.append(time.perf_counter() - begin)
                torch.cuda.synchronize()
            result[name] = statistics.median(times) * 1e6
    return result


def main():
    start = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--file", default="gpu")
    parser.add_argument("--only", type=lambda s: set(s.split(",")))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows, notes = [], []
    host = host_times()
    for p in problems.read(arguments.file, arguments.only):
        for direction, text in p.texts.items():
            if time.monotonic() - start > arguments.seconds:
                notes.append(f"{p.name} {direction}: no time left")
                continue
            steps = {}
            for name, step in contestants(p, direction):
                if callable(step):
                    steps[name] = step
                else:
                    notes.append(f"{p.name} {direction} {name}: {step}")
            times = {name: [] for name in steps}
            begin = time.monotonic()
            for i in range(arguments.rounds):
                if i >= 3 and time.monotonic() - begin > 6:
                    break
                for name, step in steps.items():
                    times[name].append(timed(step))
            flops, pairs = p.flops(direction), p.tokens * p.keys
            whole = (
                4 * p.batch * p.heads * pairs * (p.dim + p.value_dim) / 2 * (2.5 if direction == "bwd" else 1)
            )
            row = {"name": p.name, "direction": direction, "problem": text}
            row |= {"flops": flops, "bound": whole / flops}
            rows.append(row | {"ms": {n: statistics.median(t) for n, t in times.items()}})
            del steps
            torch.cuda.empty_cache()
    if arguments.out:
        machine = {"device": torch.cuda.get_device_name(), "date": datetime.date.today().isoformat()}
        machine |= {"torch": torch.__version__, "cuda": torch.version.cuda}
        machine |= {"cudnn": torch.backends.cudnn.version()}
        arguments.out.write_text(
            json.dumps({"machine": machine, "host_us": host, "rows": rows, "notes": notes}, indent=1) + "\n"
        )
    print("\n".join(notes))
    print("host time per call, us: " + ", ".join(f"{name} {us:.1f}" for name, us in host.items()))
    print(f"\n{torch.cuda.get_device_name()}, torch {torch.__version__}, {datetime.date.today().isoformat()}")
    print(f"{'problem':16}{'nearfield ms':>13}{'TFLOP/s':>9}{'cudnn ms':>10}{'flash ms':>10}{'flex ms':>9}"
          f"{'x cudnn':>9}{'bound':>7}{'fraction':>9}{'x flex':>8}")  # fmt: skip
    for row in rows:
        ms = row["ms"]
        own = ms.get("nearfield")
        cells = [f"{row['name'] + ' ' + row['direction']:16}"]
        cells.append(f"{own:13.3f}{row['flops'] / own / 1e9:9.1f}" if own else f"{'-':>13}{'-':>9}")
        cells += [
            f"{ms[n]:{w}.3f}" if n in ms else f"{'-':>{w}}"
            for n, w in (("cudnn", 10), ("flash", 10), ("flex", 9))
        ]
        gain = ms["cudnn"] / own if own and "cudnn" in ms else None
        cells.append(
            f"{gain:9.2f}{row['bound']:7.2f}{gain / row['bound']:9.2f}"
            if gain
            else f"{'-':>9}{row['bound']:7.2f}{'-':>9}"
        )
        cells.append(f"{ms['flex'] / own:8.2f}" if own and "flex" in ms else f"{'-':>8}")
        print("".join(cells))


if __name__ == "__main__":
    main()
