# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""A problem string as a call of the public functions: tensors, forward and backward passes.

    run = Run("na:bwd:f32:b1h8kv8d32:64x64:k7x7@cpu/b16")
    run.forward()                # (out, lse)
    run.backward()               # gradients of everything that has one

What the functions cannot express (ranges of a shard, strides, offsets that only a device can read) is
refused: the call that is made must print as the problem that was asked for.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re

import torch

import nearfield as nf
from nearfield import _core
from nearfield._tuner import tuner_text
from nearfield.tools import CommandError
from nearfield.tools.problems import DTYPES

_CAUSAL = {"none": None, "tl": nf.CausalType.TopLeft, "br": nf.CausalType.BottomRight}
_NATIVE = "; `nearfield-bench` (bench/README.md) runs every problem"


def split(call: str) -> tuple[str, str]:
    """PROBLEM and what stands behind @ of `PROBLEM[@BACKEND[/KERNEL][,qTILE[,kvTILE]]]`."""
    problem, _, suffix = call.partition("@")
    return problem, suffix


def canonical(text: str) -> str:
    """The canonical string of a problem; a CommandError says what is wrong with it."""
    try:
        return _core.problem(text)["problem"]
    except ValueError as error:
        raise CommandError(str(error)) from error


def in_direction(problem: str, direction: str) -> str:
    """The same problem, `fwd` or `bwd`. Arithmetic in bf16 is asked of both passes alike."""
    return re.sub(r"^(na|att):(fwd|bwd):", rf"\1:{direction}:", problem)


def dense(call: str) -> str:
    """The same call on dense tensors: no `str=`, which no kernel is chosen by."""
    problem, suffix = split(call)
    return re.sub(r":str=[^:]*", "", problem) + (f"@{suffix}" if suffix else "")


def tuner_line(problem: str, suffix: str, **more) -> str:
    """A line of a tuner file for a problem of one sequence; suffix: `cpu/b16` or `cpu,q4x4`."""
    info = _core.info()
    backend = re.split("[/,]", suffix)[0]
    return json.dumps(
        {
            "nearfield_tuner": 1,
            "problem": problem,
            "device": _core.device_class(backend) if backend in info["backends"] else "",
            "version": info["version"],
            "choice": suffix,
            **more,
        }
    )


class Run:
    """Tensors of one problem and its passes. `call`: a problem string, with or without a suffix; its
    direction does not matter here."""

    def __init__(self, call: str, seed: int = 0):
        text, self.suffix = split(call)
        self.problem = canonical(text)
        self.fields = f = _core.problem(self.problem)["fields"]
        for name, what in (
            ("offsets", "offsets that only a device can read"),
            ("ranges", "a shard's ranges"),
        ):
            if f[name]:
                raise CommandError(
                    f"{self.problem} has {what}, which the Python functions do not take{_NATIVE}"
                )
        if f["strides"]:
            raise CommandError(f"{self.problem} has tensors that are not dense{_NATIVE}")
        if f["precision"] == 1:
            raise CommandError(f"{self.problem} asks for TF32, which no backend of this build has")
        self.forced = self._forced()
        self._check_memory()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._make_tensors()
        self._out = None

    # ---- tensors

    def _check_memory(self) -> None:
        """Refuses what no memory of this machine holds: the allocation may succeed, and the process die."""
        f, layouts = self.fields, self.fields["layouts"]
        queries, keys = (
            max(f["batch"], 1) * sum(math.prod(x[side]) for x in layouts)
            for side in ("query_extent", "extent")
        )
        numbers = queries * f["heads"] * (f["head_dim"] + 2 * f["value_dim"])
        numbers += keys * f["kv_heads"] * (f["head_dim"] + f["value_dim"])
        needed = numbers * DTYPES[f["dtype"]].itemsize
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > there:
            from nearfield.tools import tables

            raise CommandError(
                f"{self.problem} has tensors of {tables.size(needed)}, "
                f"this machine has {tables.size(there)} of memory"
            )

    def _make_tensors(self) -> None:
        f = self.fields
        dtype = DTYPES[f["dtype"]]

        def random(*shape):
            return torch.randn(*shape, dtype=torch.float64 if dtype == torch.float64 else torch.float32).to(
                dtype
            )

        layouts = f["layouts"]
        if f["varlen"]:
            tail = f["tail"]
            queries = sum(math.prod(x["query_extent"]) for x in layouts) + tail[0]
            keys = sum(math.prod(x["extent"]) for x in layouts) + tail[1]
            query_shape, key_shape = (1, queries), (1, keys)
        else:
            query_shape = (f["batch"], *layouts[0]["query_extent"])
            key_shape = (f["batch"], *layouts[0]["extent"])
        h, g, d, v = f["heads"], f["kv_heads"], f["head_dim"], f["value_dim"]
        self.tensors = {
            "query": random(*query_shape, h, d),
            "key": random(*key_shape, g, d),
            "value": random(*key_shape, g, v),
        }
        if f["additional"]:
            self.tensors["additional_keys"] = random(f["batch"], f["additional"], g, d)
            self.tensors["additional_values"] = random(f["batch"], f["additional"], g, v)
        if f["bias"]:
            self.tensors["bias"] = random(h, *(2 * k - 1 for k in layouts[0]["window"]))
        self.grad_out = random(*query_shape, h, v)
        self.grad_lse = random(*query_shape, h).to(_lse_dtype(dtype))

    @property
    def tensor_bytes(self) -> int:
        """Of the inputs and the output; backward also of the output's gradient and those of the inputs."""
        inputs = sum(t.numel() * t.element_size() for t in self.tensors.values())
        output = self.grad_out.numel() * self.grad_out.element_size()
        return (inputs + output) * (2 if self._direction == "bwd" else 1)

    # ---- what is forced

    def _forced(self) -> dict:
        """Keyword arguments, and the lines of a tuner file where a kernel is named."""
        if not self.suffix:
            return {}
        head, *tiles = self.suffix.split(",")
        backend, _, kernel = head.partition("/")
        if kernel:
            return {"lines": [tuner_line(p, self.suffix) for p in self._tuner_problems()]}
        forced = {"backend": backend or None}
        for tile in tiles:
            name = "kv" if tile.startswith("kv") else "q"
            numbers = tuple(int(n) for n in re.findall(r"\d+", tile))
            forced[name] = numbers
        return forced

    def _tuner_problems(self) -> list[str]:
        both = [in_direction(self.problem, d) for d in ("fwd", "bwd")]
        return [p for text in both for p in dict.fromkeys(_core.tuner_problems(text))]

    def _performance(self) -> dict:
        word = "size" if self.fields["operation"] == "att" else "shape"
        given = {"backend": self.forced.get("backend")}
        for side in ("q", "kv"):
            if side in self.forced:
                given[f"{side}_tile_{word}"] = given[f"backward_{side}_tile_{word}"] = self.forced[side]
        if "kv" in self.forced:  # forward and backward key tiles are of different kinds
            given.pop(f"kv_tile_{word}" if self._direction == "bwd" else f"backward_kv_tile_{word}")
        return given

    @property
    def _direction(self) -> str:
        return self.fields["direction"]

    # ---- passes

    @contextlib.contextmanager
    def settings(self):
        """Process-wide settings that the problem names, and its forced kernel; around the passes."""
        with contextlib.ExitStack() as stack:
            if self.fields["precision"] == 2:
                stack.enter_context(nf.allow_bf16_arithmetic())
            if self.fields["nondeterministic"]:
                stack.enter_context(nf.allow_nondeterministic())
            if "lines" in self.forced:
                stack.enter_context(tuner_text("\n".join(self.forced["lines"]), "@" + self.suffix))
            yield self

    def _attend(self):
        f, t, layouts = self.fields, self.tensors, self.fields["layouts"]
        common = {"scale": f["scale"], "return_lse": True}
        if f["operation"] == "att":
            kind = _CAUSAL[f["causal_type"]]
            more = {}
            if f["varlen"]:
                lengths = [[x[side][0] for x in layouts] for side in ("query_extent", "extent")]
                offsets = [
                    torch.tensor([0, *torch.tensor(n).cumsum(0).tolist()], dtype=torch.int32) for n in lengths
                ]
                more = {"cumulative_seqlen_Q": offsets[0], "cumulative_seqlen_KV": offsets[1]}
                more |= {
                    "max_seqlen_Q": max(lengths[0], default=0),
                    "max_seqlen_KV": max(lengths[1], default=0),
                }
            return nf.attention(
                *t.values(),
                is_causal=kind is not None,
                causal_type=kind,
                dropout_p=f["dropout"],
                **common,
                **more,
                **self._performance(),
            )
        if f["varlen"]:
            names = ("extent", "window", "stride", "dilation")
            layout, window, stride, dilation = ([tuple(x[name]) for x in layouts] for name in names)
            metadata = nf.varlen.generate_multi_dim_varlen_parameters(
                layout,
                f["head_dim"],
                "cpu",
                t["query"].dtype,
                t["query"].requires_grad,
                window_size_list=window,
                stride_list=stride,
                dilation_list=dilation,
                # On axes of one token nothing is causal: what one sequence says holds for all.
                is_causal=tuple(any(c) for c in zip(*(x["causal"] for x in layouts), strict=True)) or False,
            )
            given = {k: v for k, v in self._performance().items() if k == "backend"}
            return nf.multi_dimensional_attention_varlen(*t.values(), metadata, **common, **given)
        one = layouts[0]
        function = (nf.na1d, nf.na2d, nf.na3d)[len(one["extent"]) - 1]
        rest = {k: v for k, v in t.items() if k not in ("query", "key", "value")}
        return function(
            t["query"],
            t["key"],
            t["value"],
            tuple(one["window"]),
            tuple(one["stride"]),
            tuple(one["dilation"]),
            tuple(bool(c) for c in one["causal"]),
            dropout_p=f["dropout"],
            **rest,
            **common,
            **self._performance(),
        )

    def forward(self):
        """(out, lse)."""
        with torch.no_grad():
            return self._attend()

    def backward(self) -> tuple:
        """The gradients of the tensors, in their order; the forward pass runs at the first call only."""
        if self._out is None:
            for tensor in self.tensors.values():
                tensor.requires_grad_()
            self._out = self._attend()
        out, lse = self._out
        outputs, gradients = ((out, lse), (self.grad_out, self.grad_lse))
        if not (self._direction == "bwd" and self.fields["lse"]):
            outputs, gradients = ((out,), (self.grad_out,))
        return torch.autograd.grad(outputs, tuple(self.tensors.values()), gradients, retain_graph=True)

    def check(self, directions=("fwd",)) -> None:
        """Runs each direction once; a CommandError where that is another problem than the one asked for."""
        with _core.collected() as ran:
            try:
                self.forward()
                if "bwd" in directions:
                    self.backward()
            except (ValueError, NotImplementedError) as error:
                raise CommandError(str(error)) from error
        wanted = {in_direction(_plain(self.problem), d) for d in directions}
        if not wanted <= {_plain(text) for text in ran} and self._has_work():
            raise CommandError(f"the Python functions make {', '.join(ran)} of {self.problem}{_NATIVE}")

    def _has_work(self) -> bool:
        return self.tensors["query"].numel() > 0


def _plain(problem: str) -> str:
    """Without lse, which the functions always have forward."""
    return problem.replace(":lse", "")


def _lse_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
