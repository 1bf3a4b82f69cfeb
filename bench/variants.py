# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What threads, 16-bit tensors, bf16 arithmetic and AVX2 do to the times of the bench, in C++.

    python bench/variants.py --out bench/results/NAME.md       speed.txt, five processes of each kind
    python bench/variants.py --only c,d --processes 1

One table. Times are those of the best process, as in run.py, shares of the FMA peak of the same run in the
vectors and threads in use; ratios are taken in one process, and the median is over processes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from datetime import date
from pathlib import Path

from predictions import cpu_model
from report import Figure, figure

HERE = Path(__file__).parent


def listing(file: Path, only: set[str], types: bool) -> list[str]:
    """The float32 lines of a file; types: and each with the other types, named `NAME,VARIANT`."""
    lines = []
    for line in file.read_text().splitlines():
        words = line.partition("#")[0].split()
        if len(words) != 2 or ":f32:" not in words[1] or (only and words[0] not in only):
            continue
        name, text = words
        lines.append(f"{name} {text}")
        if types:
            bf16 = text.replace(":f32:", ":bf16:")
            lines += [f"{name},bf16 {bf16}", f"{name},f16 {text.replace(':f32:', ':f16:')}"]
            if ":fwd:" in text:  # gradients are computed in float32 whatever forward passes may do
                lines.append(f"{name},prec {bf16}:prec=bf16")
    return lines


def measure(args, rows: Path) -> None:
    """Adds rows: what is compared runs in one process, threads in turns, types one after the other."""
    everyone = str(args.threads)
    both = f"{everyone},1" if args.threads > 1 else everyone
    avx2 = {"NEARFIELD_CPU_TARGET": "avx2"}
    runs = (("threads", both, False, {}), ("types", everyone, True, {}), ("avx2", both, False, avx2))
    with tempfile.TemporaryDirectory() as folder:
        problems, out = Path(folder) / "problems.txt", Path(folder) / "rows.jsonl"
        for process in range(args.processes):
            for run, threads, types, environment in runs:
                problems.write_text("\n".join(listing(args.problems, args.only, types)) + "\n")
                command = [args.bench, problems, "--threads", threads, "--budget", args.budget]
                command += ["--process", process, "--json", out]
                subprocess.run(
                    [str(c) for c in command],
                    check=True,
                    stdout=subprocess.DEVNULL,
                    env=os.environ | environment,
                )
                with rows.open("a") as all_rows:
                    for line in out.read_text().splitlines():
                        all_rows.write(json.dumps(json.loads(line) | {"run": run}) + "\n")
                out.unlink()
            print(f"process {process + 1} of {args.processes}", flush=True)


class Times:
    """Rows by (run, name, variant, threads) and direction."""

    def __init__(self, rows: Path):
        self.by: dict[tuple, list[dict]] = {}
        for line in rows.read_text().splitlines():
            row = json.loads(line)
            name, _, variant = row["name"].partition(",")
            key = (row["run"], name, row["direction"], variant, row["threads"])
            self.by.setdefault(key, []).append(row)

    def names(self) -> list[tuple[str, str]]:
        return list(dict.fromkeys((key[1], key[2]) for key in self.by))

    def figure(self, *key) -> Figure | None:
        return figure(self.by.get(key, []))

    def ratio(self, above: tuple, below: tuple) -> str:
        """Of the times: median over the processes that measured both undisturbed."""
        by_process = [{r["process"]: figure([r]) for r in self.by.get(key, [])} for key in (above, below)]
        ratios = [
            f.seconds / g.seconds
            for process, f in by_process[0].items()
            if f and (g := by_process[1].get(process)) and not f.noisy and not g.noisy
        ]
        return f"{statistics.median(ratios):.2f}" if ratios else ""


HEAD = ["", "", "ms", "peak%", "one thread ms", "peak%", "one / all", "bf16", "f16", "prec=bf16"]
HEAD += ["AVX2 ms", "AVX2 peak%", "one thread peak%", "one / all", "kernel", "kernel, AVX2"]


def table(times: Times, threads: int) -> list[list[str]]:
    def cells(found: Figure | None) -> list[str]:
        if found is None:
            return ["", ""]
        mark = "~" if found.noisy else ""
        return [f"{found.seconds * 1e3:.3g}{mark}", f"{100 * found.share:.1f}{mark}"]

    rows = []
    for name, direction in times.names():

        def key(run, count, variant="", at=(name, direction)):
            return (run, *at, variant, count)

        every, one = key("threads", threads), key("threads", 1)
        avx2, avx2_one = key("avx2", threads), key("avx2", 1)
        base = key("types", threads)
        row = [name, direction, *cells(times.figure(*every)), *cells(times.figure(*one))]
        row += [times.ratio(one, every)]
        row += [times.ratio(base, key("types", threads, v)) for v in ("bf16", "f16", "prec")]
        row += [*cells(times.figure(*avx2)), cells(times.figure(*avx2_one))[1], times.ratio(avx2_one, avx2)]
        rows.append([*row, *(times.by[k][0]["kernel"] if k in times.by else "" for k in (every, avx2))])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("problems", nargs="?", type=Path, default=HERE / "problems" / "speed.txt")
    parser.add_argument("--bench", type=Path, default=HERE.parent / "build" / "bench" / "nearfield-bench")
    parser.add_argument("--only", type=lambda text: set(text.split(",")), default=set())
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--budget", type=float, default=1.0, help="seconds for the samples of a row")
    parser.add_argument("--times", type=Path, help="JSON lines: what is measured is added to them")
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    args = parser.parse_args()
    rows = args.times or args.bench.parent / "variants.jsonl"
    if not args.times:
        rows.unlink(missing_ok=True)
    measure(args, rows)
    lines = [
        f"# {cpu_model()}, {args.threads} threads, nearfield-bench; {date.today()}; {args.processes} "
        "processes",
        "",
        f"| {' | '.join(HEAD)} |",
        "|---" * len(HEAD) + "|",
        *(f"| {' | '.join(row)} |" for row in table(Times(rows), args.threads)),
        "",
        "- *one / all*: the time on one thread over that on all, in one process; the median of processes, "
        "times are the best's.",
        "- *bf16*, *f16*: tensors of that type, widened while they are packed; *prec=bf16*: arithmetic as "
        "well. The figure is the float32 time over theirs: above 1 is faster.",
        "- *AVX2*: `NEARFIELD_CPU_TARGET=avx2`, shares of the peak of AVX2's multiply-adds.",
        "- ~: no sample had all cores; not to be trusted.",
        "- repeat it: `python bench/variants.py`, once `make bench` has built the tool.",
        "",
    ]
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
