# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""One process of the bench: nearfield and its peers on the problems of a file, interleaved; JSON lines out.

run.py starts it, several times. Lines are objects with a `kind`: `machine` (one), `row` (a contestant on a
problem, with every sample) and `absent` (why a peer is not there).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
from pathlib import Path

import peers
import torch
import tuning

import nearfield as nf
from nearfield.tools import measure, problems


def machine(threads: int) -> dict:
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), cpu)
    git = subprocess.run(
        ["git", "-C", Path(__file__).parent, "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
    )
    return {
        "kind": "machine",
        "cpu": cpu,
        "cpus": os.cpu_count(),
        "target": nf.info()["cpu_target"],
        "threads": threads,
        "torch": torch.__version__,
        "nearfield": nf.info()["version"],
        "commit": git.stdout.strip(),
        "date": datetime.date.today().isoformat(),
    }


def _file(name: str) -> Path:
    """A file, or the name of one in bench/problems."""
    path = Path(name)
    return path if path.exists() else Path(__file__).parent / "problems" / path.with_suffix(".txt")


def tensors_of(problem):
    """query, key, value and the gradient of the output: the same numbers in every process."""
    torch.manual_seed(0)
    p = problem
    shapes = [(p.layout, p.heads, p.dim), (p.key_layout, p.kv_heads, p.dim)]
    shapes += [(p.key_layout, p.kv_heads, p.value_dim), (p.layout, p.heads, p.value_dim)]
    return [torch.randn(p.batch, *layout, heads, dim).to(p.dtype) for layout, heads, dim in shapes]


class Contest:
    """All contestants of one problem."""

    def __init__(self, problem, args, settings, emit):
        self.problem, self.args, self.settings, self.emit = problem, args, settings, emit
        self.tensors = tensors_of(problem)
        self.ours = peers.everyone()["nearfield"](problem).load(*self.tensors)

    def run(self) -> None:
        for direction in self.problem.texts:
            expected = self.ours.results(direction)
            contestants = {} if self.args.label else {"nearfield": (self.ours, {})}
            for name in self.args.peers:
                try:
                    contestants[name] = self._peer(name, direction, expected)
                except peers.Absent as why:
                    self._absent(name, direction, str(why))
                except (RuntimeError, NotImplementedError) as error:  # it cannot, and says so
                    self._absent(name, direction, f"{type(error).__name__}: {str(error).splitlines()[0]}")
            calls = {n: p.forward if direction == "fwd" else p.backward for n, (p, _) in contestants.items()}
            rows = measure.interleaved(
                calls, nf.info()["cpu_target"], self.args.threads, self.args.samples, self.args.budget
            )
            for name, samples in rows.items():
                self._row(name, direction, samples, contestants[name][1])

    def _peer(self, name, direction, expected):
        kind, problem = peers.everyone()[name], self.problem
        if direction == "bwd" and not kind.has_backward:
            raise peers.Absent("no backward pass")
        setting = self.settings.get(name, problem.name, direction)
        if setting is None:
            found = tuning.best(kind, problem, self.tensors, [direction])
            setting = found[direction]
            self.settings.put(name, problem.name, direction, setting)
        if "skip" in setting:
            raise peers.Absent(setting["skip"])
        kind.candidates(problem)
        peer = kind(problem, **setting).load(*self.tensors)
        for a, b in zip(peer.results(direction), expected, strict=True):
            difference = (a.double() - b.double()).abs().max().item()
            allowed = measure.AGREEMENT[problem.dtype] * max(1.0, b.abs().max().item())
            if not difference <= allowed:
                raise peers.Absent(f"it differs by {difference:.1e} from nearfield: no peer")
        return peer, setting

    def _common(self, name, direction) -> dict:
        by = name + self.args.label
        return {"name": self.problem.name, "direction": direction, "by": by, "process": self.args.process}

    def _absent(self, name, direction, why) -> None:
        self.emit({"kind": "absent", **self._common(name, direction), "why": why})

    def _row(self, name, direction, samples, setting) -> None:
        row = {
            "kind": "row",
            **self._common(name, direction),
            "problem": self.problem.texts[direction],
            "threads": self.args.threads,
            "flops": self.problem.flops(direction),
            "setting": setting,
            "samples": samples,
        }
        if name == "nearfield":
            row |= self.ours.plan(direction, self.args.threads)
            if self.args.errors:
                row["error"], row["error_of"] = self.ours.error(direction)
        self.emit(row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("problems", help="a file, or the name of one in bench/problems")
    parser.add_argument("--only", default="", help="names of the file, by commas")
    parser.add_argument("--directions", default="fwd,bwd")
    parser.add_argument("--peers", default="", help="names, by commas")
    parser.add_argument("--label", default="", help="appended to the peers' names; they run alone")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--samples", type=int, default=7)
    parser.add_argument("--budget", type=float, default=2.0, help="seconds for the samples of a contestant")
    parser.add_argument("--errors", action="store_true", help="compare with the reference backend too")
    parser.add_argument("--process", type=int, default=0, help="its number, for the record")
    parser.add_argument("--settings", help="JSON file of the peers' best settings, read and written")
    parser.add_argument("--out", required=True, help="file that lines are appended to")
    args = parser.parse_args()
    args.peers = [name for name in args.peers.split(",") if name]
    torch.set_num_threads(args.threads)
    only = set(args.only.split(",")) if args.only else None
    settings = tuning.Settings(args.settings)
    with open(args.out, "a") as out:

        def emit(line: dict) -> None:
            print(json.dumps(line), file=out, flush=True)

        emit(machine(args.threads))
        for problem in problems.read(_file(args.problems), only, args.directions.split(",")):
            if problem.plain:
                Contest(problem, args, settings, emit).run()


if __name__ == "__main__":
    main()
