# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The bench: nearfield beside its peers, as several processes whose best counts. `make bench`, or

    python bench/run.py                       bench/problems/speed.txt with all peers, five processes
    python bench/run.py --quick --only c,d    one process, few samples
    python bench/run.py no_cliff --peers none

Prints one table; JSON lines go to --out, for compare.py and plot.py. bench/README.md says how to read it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from plot import draw
from report import NATIVE, OURS, Results, markdown, show
from tuning import Settings

HERE = Path(__file__).parent
BUILD = HERE.parent / "build" / "bench"
PEERS = ("sdpa", "flex", "tile-sdpa", "gather", "openvino", "onnxruntime")
MKL_PEERS = ("sdpa", "flex", "tile-sdpa")  # those that multiply through MKL and may be the best
HOPELESS = 3  # a peer that takes so many times as long as the best one is in the first process only


def build(source: Path, library: Path, *flags: str) -> Path:
    """Compiles one file into a shared library unless that is newer."""
    if not library.exists() or library.stat().st_mtime < source.stat().st_mtime:
        library.parent.mkdir(parents=True, exist_ok=True)
        fresh = library.with_suffix(f".{time.time_ns()}")  # another process may load or write it meanwhile
        subprocess.run(["c++", *flags, "-shared", "-fPIC", "-o", fresh, source], check=True)
        fresh.replace(library)
    return library


def mkl_shim() -> Path | None:
    """What lets MKL use AVX-512 here, where it would not by itself: on AMD processors that have it."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    if "AuthenticAMD" not in text or "avx512f" not in text:
        return None
    return build(HERE / "native" / "mkl_amd.c", BUILD / "libmkl_amd.so", "-x", "c")


def drop_hopeless(results: Results, settings: Path) -> None:
    """Later processes leave out what cannot become the best."""
    known = Settings(str(settings))
    for key, by in results.figures.items():
        best = results.best_peer(key)
        if best is None:  # none was measured undisturbed
            continue
        for name, figure in by.items():
            plain = name.partition("+")[0]
            if plain in PEERS and name == plain and figure.seconds > HOPELESS * best[1].seconds:
                why = f"{figure.seconds / best[1].seconds:.1f} times as slow as {best[0]}"
                known.put(plain, *key, {**(known.get(plain, *key) or {}), "skip": why})


def start(command: list, **environment) -> None:
    done = subprocess.run([str(c) for c in command], env={**os.environ, **environment})
    if done.returncode:
        raise SystemExit(
            f"[bench] got exit status {done.returncode} of {command[0]} {command[1]}, expected 0"
        )


def measure_all(args) -> None:
    common = ["--threads", args.threads, "--samples", args.samples, "--budget", args.budget]
    common += ["--only", args.only, "--directions", args.directions]
    python = [sys.executable, HERE / "worker.py", args.problems, *common, "--out", args.out]
    python += ["--settings", args.settings]
    shim = mkl_shim() if args.mkl512 and set(args.peers) & set(MKL_PEERS) else None
    for process in range(args.processes):
        number = ["--process", process, *(["--errors"] if process == 0 else [])]
        start([*python, *number, "--peers", ",".join(args.peers)])
        if process == 0 and args.processes > 1:
            drop_hopeless(Results(args.out), Path(args.settings))
        if shim:
            number = ["--process", process, "--label", "+mkl512"]
            chosen = ",".join(p for p in args.peers if p in MKL_PEERS)
            start([*python, *number, "--peers", chosen], LD_PRELOAD=str(shim))
        if args.native:
            number = ["--process", process, *([] if process else ["--errors"])]
            forced = ["--with", args.forced] if args.forced else []
            start([args.native, args.problems_file, *common, *number, *forced, "--json", args.out])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("problems", nargs="?", default="speed", help="a file, or a name in bench/problems")
    parser.add_argument("--only", default="", help="names of that file, by commas")
    parser.add_argument("--directions", default="fwd,bwd")
    parser.add_argument("--peers", default="all", help=f"all, none, or some of {','.join(PEERS)}")
    parser.add_argument("--no-mkl512", dest="mkl512", action="store_false", help="leave these rows out")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--samples", type=int, default=7, help="per contestant and process")
    parser.add_argument("--budget", type=float, default=2.0, help="seconds for the samples of a contestant")
    parser.add_argument("--quick", action="store_true", help="one process, three samples")
    parser.add_argument("--native", default=BUILD / "nearfield-bench", help="the C++ tool; skipped if absent")
    parser.add_argument("--with", dest="forced", default="", help="suffixes for it, as `cpu/b16,cpu/general`")
    parser.add_argument("--out", type=Path, default=BUILD / "run.jsonl", help="JSON lines, written anew")
    parser.add_argument("--append", action="store_true", help="add to --out instead")
    parser.add_argument("--settings", type=Path, default=BUILD / "settings.json", help="the peers' best ones")
    parser.add_argument("--markdown", type=Path, help="write the table there too")
    parser.add_argument("--plot", type=Path, help="draw the shares of the peak there")
    args = parser.parse_args()
    args.peers = {"all": list(PEERS), "none": []}.get(args.peers, args.peers.split(","))
    if unknown := set(args.peers) - set(PEERS):
        parser.error(f"got peers {', '.join(sorted(unknown))}, expected some of {', '.join(PEERS)}")
    if args.quick:
        args.processes, args.samples = 1, min(args.samples, 3)
    file = Path(args.problems)
    args.problems_file = file if file.exists() else HERE / "problems" / file.with_suffix(".txt")
    args.native = args.native if args.native and Path(args.native).exists() else None
    return args


def main() -> None:
    args = arguments()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if not args.append:
        args.out.unlink(missing_ok=True)
        args.settings.unlink(missing_ok=True)
    measure_all(args)
    results = Results(args.out)
    show(results)
    if args.markdown:
        args.markdown.write_text(markdown(results))
    if args.plot:
        draw(results, str(args.plot))
    if args.native is None:
        print(f"no {NATIVE} in build/bench: only {OURS} through PyTorch was measured")


if __name__ == "__main__":
    main()
