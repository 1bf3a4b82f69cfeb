# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The CUDA backend on a device against `reference` on the host, and the same bits twice.

    python bench/gpu/check.py [--small] [--device cuda] [--seconds 150]

Outputs come from memory full of NaN. Numbers may differ by what rounding the weights to the dtype explains,
relative to the largest of a tensor; the emulated harness of tests/cpp holds kernels to their exact bounds.
Also: calls are captured in CUDA graphs, on a stream of their own, without synchronisation. --small: few tiny
problems, for compute-sanitizer. No problem begins after --seconds: how many are left is said, and a failure.
--device cpu: nothing but this program itself is checked.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch

import nearfield as nf

# Inputs are multiples of 1/64 below 4: every dtype has them, so that one answer of the oracle serves all.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}


def calls(small: bool, device: str):
    """(name, function of (q, k, v, device) -> outputs, shapes of q, k, v)."""
    dims = (
        [(40, 24)]
        if small
        else [(8, 8), (20, 33), (32, 32), (64, 64), (80, 80), (128, 128), (192, 128), (256, 256)]
    )
    for d, dv in dims:
        yield from _windows(d, dv)
        for causal in (None, nf.CausalType.TopLeft, nf.CausalType.BottomRight):
            shapes = ((2, 130, 4, d), (2, 77, 2, d), (2, 77, 2, dv))
            yield f"dense {causal} d{d}v{dv}", lambda q, k, v, c=causal, **kw: nf.attention(
                q, k, v, is_causal=c is not None, causal_type=c, **kw), shapes  # fmt: skip
    if small:
        return
    layouts = [(5, 9), (16, 16), (1, 40)]
    metadata = nf.varlen.generate_multi_dim_varlen_parameters(
        layouts, 64, device, torch.float32, True, window_size_list=[(3, 3), (7, 5), (1, 9)]
    )
    total = sum(a * b for a, b in layouts)

    def packed(q, k, v, **kw):
        return nf.multi_dimensional_attention_varlen(q, k, v, metadata, **kw)

    lengths, total_of_lengths = torch.tensor([5, 0, 130, 33], dtype=torch.int32), 168

    def with_lengths(q, k, v, **kw):
        n = lengths.to(q.device)
        kind = nf.CausalType.TopLeft
        return nf.attention(q, k, v, seqlens_Q=n, seqlens_KV=n, is_causal=True, causal_type=kind, **kw)

    offsets = {}

    def with_offsets(q, k, v, **kw):  # which only the device reads, where there is one
        if q.device not in offsets:  # once: copying them waits for the device
            offsets[q.device] = torch.tensor([0, 5, 5, 135, 168], dtype=torch.int32, device=q.device)
        n = offsets[q.device]
        kind = nf.CausalType.BottomRight
        lists = {
            "cumulative_seqlen_Q": n,
            "cumulative_seqlen_KV": n,
            "max_seqlen_Q": 130,
            "max_seqlen_KV": 130,
        }
        return nf.attention(q, k, v, is_causal=True, causal_type=kind, **lists, **kw)

    yield "packed offsets", with_offsets, ((1, total_of_lengths, 4, 64),) * 3
    yield "packed lengths", with_lengths, ((1, total_of_lengths, 4, 64),) * 3
    yield "packed layouts", packed, ((1, total, 4, 64), (1, total, 2, 64), (1, total, 2, 64))


def _windows(d, dv):
    for layout, window, stride, dilation, causal in (
        ((333,), (63,), (1,), (1,), (False,)),
        ((300,), (65,), (7,), (4,), (True,)),
        ((25, 26), (11, 9), (1, 1), (1, 1), (False, False)),
        ((18, 17), (8, 6), (3, 5), (1, 2), (True, False)),
        ((7, 9, 10), (2, 4, 3), (2, 4, 1), (3, 2, 3), (False, True, False)),
        ((6, 10, 12), (5, 6, 7), (1, 1, 1), (1, 1, 1), (True, False, False)),
    ):
        function = (nf.na1d, nf.na2d, nf.na3d)[len(layout) - 1]
        shapes = ((2, *layout, 4, d), (2, *layout, 2, d), (2, *layout, 2, dv))
        axes = (window, stride, dilation, causal)
        name = f"{layout} k{window} s{stride} d{dilation} c{causal} d{d}v{dv}"
        yield name, lambda q, k, v, f=function, a=axes, **kw: f(q, k, v, *a, **kw), shapes


def run(function, tensors, grad_out, grad_lse, device, dtype, **kw):
    leaves = [t.to(device=device, dtype=dtype).requires_grad_() for t in tensors]
    out, lse = function(*leaves, return_lse=True, **kw)
    grads = torch.autograd.grad((out, lse), leaves, (grad_out.to(out), grad_lse.to(lse)))
    return [x.detach() for x in (out, lse, *grads)]


def poison(device) -> None:
    """Fills what the allocator will hand out next with NaN: a large block, and small ones."""
    blocks = [torch.full((64 << 20,), float("nan"), device=device)]
    blocks += [torch.full((1 << n,), float("nan"), device=device) for n in range(6, 18) for _ in range(32)]
    del blocks


def numbers(*shape) -> torch.Tensor:
    return (torch.randn(shape) * 64).round().clamp(-255, 255) / 64


def graph_replays(function, shapes, dtype) -> bool:
    """Whether forward and backward in a CUDA graph follow its inputs; nothing may wait for the device."""
    leaves = [numbers(*s).to("cuda", dtype).requires_grad_() for s in shapes]

    def step():
        out, lse = function(*leaves, return_lse=True)
        ones = (torch.ones_like(out), torch.ones_like(lse))
        return [out, lse, *torch.autograd.grad((out, lse), leaves, ones)]

    step()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        for leaf in leaves:
            leaf.copy_(torch.randn_like(leaf))
    graph.replay()
    same = [torch.equal(x, y) for x, y in zip(captured, step(), strict=True)]
    return all(same)


def findings(name, function, shapes, device, dtypes):
    """What is wrong with a call, a line each."""
    torch.manual_seed(0)
    tensors = [numbers(*s) for s in shapes]
    given = numbers(*shapes[0][:-1], shapes[2][-1]), numbers(*shapes[0][:-1])
    expected = run(function, tensors, *given, "cpu", torch.float64, backend="reference")
    for dtype in dtypes:
        got = []
        for _ in range(2):
            poison(device)
            got.append(run(function, tensors, *given, device, dtype))
        for part, x, y, exact in zip(("out", "lse", "dq", "dk", "dv"), *got, expected, strict=True):
            same = torch.equal(x, y)
            x, finite = x.double().cpu(), exact.isfinite()
            size = exact[finite].abs().max() if finite.any() else torch.tensor(1.0)
            error = ((x - exact)[finite].abs().max() / size.clamp(min=1e-30)).item() if finite.any() else 0.0
            if not same or not error <= TOLERANCE[dtype] or not torch.equal(x[~finite], exact[~finite]):
                yield f"{name} {dtype} {part}: error {error:.2e}, the same bits again: {same}"


def main() -> int:
    start = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=150)
    arguments = parser.parse_args()
    device, graphs = arguments.device, ("(25, 26)", "(300,)", "packed offsets")
    wrong = checked = left = 0

    def look(name, lines) -> None:
        nonlocal wrong
        try:
            for line in lines():
                wrong += 1
                print(f"WRONG {line}", flush=True)
        except Exception as e:  # the next problem may say more
            wrong += 1
            print(f"WRONG {name}: {type(e).__name__}: {e}", flush=True)

    def graph_findings(name, function, shapes, dtype):
        if not graph_replays(function, shapes, dtype):
            yield f"{name} {dtype}: a replayed CUDA graph gives other numbers than the calls in it"

    for name, function, shapes in calls(arguments.small, device):
        if time.monotonic() - start > arguments.seconds:
            left += 1
            continue
        look(name, lambda f=function, n=name, s=shapes: findings(n, f, s, device, TOLERANCE))
        checked += len(TOLERANCE)
        if device == "cuda" and not arguments.small and name.startswith(graphs) and shapes[0][-1] == 64:
            look(name, lambda f=function, n=name, s=shapes: graph_findings(n, f, s, torch.bfloat16))
    word, where = (
        "FAILED" if wrong or left else "OK",
        torch.cuda.get_device_name() if device == "cuda" else device,
    )
    print(
        f"{word}: {checked} problems on {where}, {wrong} findings"
        + (f", no time for {left} more" if left else "")
    )
    return wrong != 0 or left != 0


if __name__ == "__main__":
    sys.exit(main())
