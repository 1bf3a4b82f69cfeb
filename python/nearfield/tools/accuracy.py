# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The error of a run against the `reference` backend in float64 on the same numbers.

The reference is slow plain code. Where all of a problem is too much for it, it computes the first batch
entry and the heads that share the first key/value head; where that is still too much, nothing is compared,
and the row says so.
"""

from __future__ import annotations

import math

import torch

from nearfield import _core
from nearfield.tools.running import Run, in_direction, split

MOST_FLOPS = 2e8  # of a run of the reference: some seconds


def error(run: Run, direction: str) -> tuple[float | None, str]:
    """Largest absolute difference of the outputs (out and lse, or all gradients), and of what it is the
    largest."""
    flops = _core.problem(in_direction(run.problem, direction))["flops"]
    f = run.fields
    if f["dropout"] > 0:
        return None, "dropout draws other numbers in each call"
    if flops <= MOST_FLOPS:
        part, what = None, "all"
    else:
        group = f["heads"] // f["kv_heads"]
        share = 1 / (f["kv_heads"] * (1 if f["varlen"] else f["batch"]))
        part, what = group, "first batch entry and key/value head"
        if flops * share > MOST_FLOPS:
            return None, f"{flops * share:.1g} FLOP are too many for the reference"
    got = _results(run, direction)
    expected = _results(_reference(run, part), direction)
    if part is not None and "bias" in expected and f["batch"] > 1:  # its gradient sums over the batch
        del got["bias"], expected["bias"]
        what += ", but for the gradient of bias"
    if part is not None:
        got = [_first(x, part, f["kv_heads"], name) for name, x in got.items()]
        got = dict(zip(expected, got, strict=True))
    return max(_difference(got[name], expected[name]) for name in expected), what


def _results(run: Run, direction: str) -> dict[str, torch.Tensor]:
    with run.settings():
        if direction == "fwd":
            return dict(zip(("out", "lse"), run.forward(), strict=True))
        return dict(zip(run.tensors, run.backward(), strict=True))


def _reference(run: Run, part: int | None) -> Run:
    """The same run in float64 on the reference backend; part: query heads of the one key/value head."""
    text = split(run.problem)[0]
    fields = text.split(":")
    fields[2] = "f64"
    if part is not None:
        f = run.fields
        fields[3] = f"b1h{part}kv1d{f['head_dim']}v{f['value_dim']}"
    kept = [x for x in fields if not x.startswith(("prec=", "nondet"))]
    other = Run(":".join(kept) + "@reference")
    for name, tensor in run.tensors.items():
        x = tensor.detach() if part is None else _first(tensor.detach(), part, run.fields["kv_heads"], name)
        other.tensors[name] = x.double()
    other.grad_out, other.grad_lse = (
        (x if part is None else _first(x, part, run.fields["kv_heads"], name)).double()
        for name, x in (("query", run.grad_out), ("lse", run.grad_lse))
    )
    if other.fields["scale"] is None and run.fields["scale"] is not None:
        other.fields["scale"] = run.fields["scale"]
    return other


def _first(x: torch.Tensor, heads: int, kv_heads: int, name: str) -> torch.Tensor:
    """The first batch entry and key/value head of a tensor, or the query heads of that head."""
    if name == "bias":
        return x[:heads]
    count = heads if name in ("query", "out", "lse") else 1
    axis = x.dim() - (1 if name == "lse" else 2)
    return x[:1].narrow(axis, 0, count).contiguous()


def _difference(a: torch.Tensor, b: torch.Tensor) -> float:
    if a.numel() == 0:
        return 0.0
    same_infinity = (a == b) & a.isinf()
    difference = (a.double() - b.double()).abs().masked_fill(same_infinity, 0.0)
    return math.inf if difference.isnan().any() else difference.max().item()
