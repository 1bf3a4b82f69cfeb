# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""`nearfield info`: the environment, to be pasted into a bug report."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
from pathlib import Path

import torch

from nearfield import _core
from nearfield._tuner import tuner_text
from nearfield.tools import tables

PROBLEM = "na:fwd:f32:b1h1kv1d64:64:k7"  # which backends are asked about
PACKAGES = ("numpy", "rich", "matplotlib", "triton", "natten")


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "info",
        help="the environment, to be pasted into a bug report",
        description="Versions, processor, backends and the variables that change what nearfield does.",
    )
    parser.add_argument("--json", metavar="FILE", help="the same as one object there; - is the output")
    parser.set_defaults(run=run)


def cpu_name() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = (x.partition(":")[2].strip() for x in lines if x.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def report() -> dict:
    """Everything, as text by name."""
    info = _core.info()
    found = {"nearfield": info["version"], "compiler": info["compiler"]}
    found |= {"python": platform.python_version(), "torch": torch.__version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    found["system"] = platform.platform()
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found["processor"] = f"{cpu_name()}, {cpus} of {os.cpu_count()} CPUs"
    found["threads"] = f"{torch.get_num_threads()} of torch"
    found["CPU target"] = f"{info.get('cpu_target', 'none')} of {', '.join(info.get('cpu_targets', []))}"
    with contextlib.ExitStack() as stack:
        faults = []  # of variables; a report has to come whatever is wrong
        try:
            _check_a_call()  # NEARFIELD_VERBOSE, NEARFIELD_BF16_ARITHMETIC
        except ValueError as error:
            faults.append(str(error))
        try:
            _core.plan(PROBLEM)
        except ValueError as error:  # NEARFIELD_TUNER, NEARFIELD_BACKEND
            faults.append(str(error))
            stack.enter_context(tuner_text("", "none"))
        if faults:
            found["fault"] = "; ".join(faults)
        for name in info["backends"]:
            found[f"backend {name}"] = _of_backend(name)
    if torch.cuda.is_available():
        found["GPU"] = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    else:
        found["GPU"] = f"none that torch sees (built for CUDA {torch.version.cuda})"
    variables = sorted(k for k in os.environ if k.startswith("NEARFIELD_"))
    found["variables"] = ", ".join(f"{k}={os.environ[k]}" for k in variables) or "no NEARFIELD_* is set"
    return found


def _check_a_call() -> None:
    """What every call does before it runs, which reads the variables that have nothing to do with plans."""
    tensor = ("float32", "cpu", 0, (1, 8, 1, 8))
    _core.check(
        [tensor] * 3 + [None] * 5, None, 0.0, _core.FUNCTIONS.index("na1d"), 0, 0, (3, 1, 1, 0), (), ()
    )


def _of_backend(name: str) -> str:
    """Its device class, or why it cannot run here."""
    device = "cuda" if name.startswith("cuda") else "cpu"
    answer = _core.plan(f"{PROBLEM}@{name}", device)[0]
    return answer.get("refusal") or f"device class {_core.device_class(name)}"


def run(args) -> None:
    found = report()
    if args.json != "-":
        width = max(map(len, found))
        tables.show(*(f"{name:{width}}  {value}" for name, value in found.items()))
    tables.write_rows([found], args.json, None)
