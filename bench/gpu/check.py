# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The CUDA backend on a device against `reference` on the host, and the same bits twice.

    python bench/gpu/check.py [--small] [--device cuda]

Outputs come from memory full of NaN. Numbers may differ by what rounding the weights to the dtype explains,
relative to the largest of a tensor; the emulated harness of tests/cpp holds kernels to their exact bounds.
Also: calls are captured in CUDA graphs, on a stream of their own, without synchronisation. --small: few tiny
problems, for compute-sanitizer. --device cpu: nothing but this program itself is checked.
"""

from __future__ import annotations

import argparse
import itertools
import sys

import torch

import nearfield as nf

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

    yield "packed lengths", with_lengths, ((1, total_of_lengths, 4, 64),) * 3
    yield "packed layouts", packed, ((1, total, 4, 64), (1, total, 2, 64), (1, total, 2, 64))


def _windows(d, dv):
    for layout, window, stride, dilation, causal in (
        ((333,), (63,), (1,), (1,), (False,)),
        ((300,), (65,), (7,), (4,), (True,)),
        ((33, 35), (13, 13), (1, 1), (1, 1), (False, False)),
        ((18, 17), (8, 6), (3, 5), (1, 2), (True, False)),
        ((7, 9, 10), (2, 4, 3), (2, 4, 1), (3, 2, 3), (False, True, False)),
        ((8, 16, 16), (5, 8, 8), (1, 1, 1), (1, 1, 1), (True, False, False)),
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


def graph_replays() -> bool:
    """Whether forward and backward in a CUDA graph follow its inputs; nothing may wait for the device."""
    leaves = [torch.randn(1, 24, 24, h, 64, device="cuda", requires_grad=True) for h in (4, 2, 2)]

    def step():
        out = nf.na2d(*leaves, 7)
        return [out, *torch.autograd.grad(out, leaves, torch.ones_like(out))]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda.set_sync_debug_mode("error")
        step()
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        for leaf in leaves:
            leaf.copy_(torch.randn_like(leaf))
    graph.replay()
    return all(torch.equal(x, y) for x, y in zip(captured, step(), strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    device = arguments.device
    wrong = checked = 0
    for (name, function, shapes), dtype in itertools.product(calls(arguments.small, device), TOLERANCE):
        torch.manual_seed(0)
        tensors = [torch.randn(s).to(dtype) for s in shapes]
        grad_out = torch.randn(*shapes[0][:-1], shapes[2][-1]).to(dtype)
        grad_lse = torch.randn(shapes[0][:-1])
        torch.full((64 << 20,), float("nan"), device=device)  # what the allocator hands out next
        got = run(function, tensors, grad_out, grad_lse, device, dtype)
        again = run(function, tensors, grad_out, grad_lse, device, dtype)
        expected = run(function, tensors, grad_out, grad_lse, "cpu", torch.float64, backend="reference")
        checked += 1
        for part, x, y, exact in zip(("out", "lse", "dq", "dk", "dv"), got, again, expected, strict=True):
            same = torch.equal(x, y)
            x, finite = x.double().cpu(), exact.isfinite()
            error = ((x - exact)[finite].abs().max() / exact[finite].abs().max().clamp(min=1e-30)).item()
            if not same or error > TOLERANCE[dtype] or not torch.equal(x[~finite], exact[~finite]):
                wrong += 1
                print(f"WRONG {name} {dtype} {part}: error {error:.2e}, the same bits again: {same}")
    if device == "cuda" and not graph_replays():
        wrong += 1
        print("WRONG: a replayed CUDA graph gives other numbers than the calls in it")
    word, where = "FAILED" if wrong else "OK", torch.cuda.get_device_name() if device == "cuda" else device
    print(f"{word}: {checked} problems on {where}, {wrong} findings")
    return wrong != 0


if __name__ == "__main__":
    sys.exit(main())
