# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What ptxas makes of the CUDA kernels, held against a budget: `python tests/cuda/compile_gate.py`.

Builds the kernels of src/cuda as they are shipped, or for other GPUs (--gpus 100,120), in build/cuda-* (with
ccache, what another build has compiled comes from there), and reads what ptxas says: no kernel may spill,
have a stack or take more registers than budget.txt allows, no file may grow by more than a tenth, and
nothing may be warned of. --write makes what there is the budget.

Lines of budget.txt: `ARCH KERNEL REGISTERS` and `FILE bytes BYTES` (of an object as shipped).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUDGET = Path(__file__).with_name("budget.txt")
ENTRY = re.compile(r"Compiling entry function '([^']+)' for 'sm_(\w+)'")
USED = re.compile(r"Used (\d+) registers")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


def build(gpus: list[str]) -> tuple[str, Path]:
    """(everything the compilers said, folder of the objects)."""
    folder = ROOT / "build" / ("cuda-" + ("-".join(gpus) or "shipped"))  # as deep as other builds: ccache
    configure = ["cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release"]
    configure += ["-DNEARFIELD_CUDA=ON"]
    if gpus:
        configure += ["-DCMAKE_CUDA_ARCHITECTURES=80-virtual", f"-DNEARFIELD_CUDA_ALSO={';'.join(gpus)}"]
    subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
    command = ["cmake", "--build", folder, "--clean-first", "--target", "nearfield_cuda"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(done.stdout[-4000:] + "\nFAILED: the kernels do not compile")
    return done.stdout, folder


def demangled(name: str) -> str:
    """Without namespaces and types of arguments: `kernel<ForwardBody,Shape<BF16,64,4,2,64,1>>`."""
    text = subprocess.run(["c++filt", name], capture_output=True, text=True).stdout.strip()
    text = re.sub(r"^void |\(anonymous namespace\)::|nearfield::(sm80::|ptx::)?", "", text)
    text = re.sub(r"\((?:Owner|sm80::Owner)\)0", "queries", text)
    text = re.sub(r"\((?:Owner|sm80::Owner)\)1", "keys", text)
    return re.sub(r" >", ">", text.rsplit("(", 1)[0]).replace(" ", "")


def kernels_of(log: str) -> dict[tuple[str, str], tuple[int, int, int]]:
    """(architecture, kernel) -> (registers, bytes of stack, bytes spilled)."""
    found, at, stack = {}, None, (0, 0)
    for line in log.splitlines():
        if match := ENTRY.search(line):
            at = (f"sm_{match[2]}", demangled(match[1]))
        elif match := STACK.search(line):
            stack = (int(match[1]), int(match[2]) + int(match[3]))
        elif (match := USED.search(line)) and at:
            found[at] = (int(match[1]), *stack)
            at = None
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gpus", default="", help="instead of those that are shipped: 100,120")
    parser.add_argument("--write", action="store_true", help="make what there is the budget")
    arguments = parser.parse_args()
    begin = time.monotonic()
    log, folder = build([gpu for gpu in arguments.gpus.split(",") if gpu])
    kernels = kernels_of(log)
    sizes = {}
    if not arguments.gpus:
        sizes = {file.name.removesuffix(".o"): file.stat().st_size for file in sorted(folder.rglob("*.cu.o"))}
    if arguments.write:
        measured = {arch for arch, _ in kernels}
        kept = [
            line
            for line in BUDGET.read_text().splitlines()
            if line.split(" ")[0] not in measured and not (sizes and " bytes " in line)
        ]
        new = [f"{arch} {kernel} {used[0]}" for (arch, kernel), used in sorted(kernels.items())]
        new += [f"{name} bytes {size}" for name, size in sizes.items()]
        BUDGET.write_text("\n".join(sorted(kept + new)) + "\n")
    budget = dict(line.rsplit(" ", 1) for line in BUDGET.read_text().splitlines() if line)
    wrong = [line for line in log.splitlines() if "warning" in line.lower()]
    for (arch, kernel), (registers, stack, spilled) in sorted(kernels.items()):
        print(f"{arch} {kernel}: {registers} registers, {stack} bytes of stack, {spilled} bytes spilled")
        allowed = budget.get(f"{arch} {kernel}")
        if stack or spilled:
            wrong.append(f"{arch} {kernel}: {stack} bytes of stack, {spilled} bytes spilled, expected none")
        if allowed is None:
            wrong.append(f"{arch} {kernel} is not in {BUDGET.name}; add it with --write")
        elif registers > int(allowed):
            wrong.append(f"{arch} {kernel}: {registers} registers, expected at most {allowed}")
    for name, size in sizes.items():
        print(f"{name}: {size} bytes")
        if size > 1.1 * int(budget.get(f"{name} bytes", 0)):
            wrong.append(
                f"{name}: {size} bytes, expected at most a tenth more than {budget.get(f'{name} bytes')}"
            )
    if not kernels:
        wrong.append("ptxas said nothing of any kernel")
    print("\n".join(wrong))
    if wrong:
        print(f"FAILED: {len(wrong)} findings")
        return 1
    print(f"OK: {len(kernels)} kernels within their budget, {time.monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
