# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What ptxas makes of the CUDA kernels, held against a budget: `python tests/cuda/compile_gate.py`.

Builds the kernels of src/cuda as they are shipped, or for other GPUs (--gpus 100,120), in build/cuda-* (with
ccache, what another build has compiled comes from there), and reads what ptxas says: no kernel may spill,
have a stack or take more registers than budget.txt allows, no kernel's code may grow by more than a tenth,
and nothing may be warned of. --write makes what there is the budget.

Lines of budget.txt: `ARCH KERNEL REGISTERS BYTES`, bytes of its machine code.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import struct
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


def code_of(folder: Path) -> dict[tuple[str, str], int]:
    """(architecture, kernel) -> bytes of machine code, from the sections of the cubins in the objects."""
    found = {}
    for file in folder.rglob("*.cu.o"):
        for cubin in cubins(file.read_bytes()):
            (table,) = struct.unpack_from("<Q", cubin, 40)
            flags, _, _, _, step, count, names = struct.unpack_from("<I6H", cubin, 48)
            sections = [struct.unpack_from("<IIQQQQ", cubin, table + i * step) for i in range(count)]
            for section in sections:
                begin = sections[names][4] + section[0]
                name = cubin[begin : cubin.index(b"\0", begin)].decode()
                if name.startswith(".text."):
                    found[f"sm_{flags >> 8 & 0xFF}", demangled(name.removeprefix(".text."))] = section[5]
    return found


def cubins(data: bytes):
    """The ELF files in an object of nvcc, which compresses them with zstd, the library that dpkg uses."""
    try:
        zstd = ctypes.CDLL("libzstd.so.1")
    except OSError as error:
        sys.exit(
            f"FAILED: no libzstd ({error}), without which the code of a kernel is not found; Debian: libzstd1"
        )
    zstd.ZSTD_decompress.argtypes = (ctypes.c_char_p, ctypes.c_size_t) * 2
    for name in ("ZSTD_getFrameContentSize", "ZSTD_findFrameCompressedSize", "ZSTD_decompress"):
        getattr(zstd, name).restype = ctypes.c_size_t
    for name in ("ZSTD_getFrameContentSize", "ZSTD_findFrameCompressedSize"):
        getattr(zstd, name).argtypes = (ctypes.c_char_p, ctypes.c_size_t)
    magic = bytes.fromhex("28b52ffd")
    at = data.find(magic)
    while at >= 0:
        frame = data[at:]
        size = zstd.ZSTD_getFrameContentSize(frame, len(frame))
        taken = zstd.ZSTD_findFrameCompressedSize(frame, len(frame))
        if size > 1 << 30 or taken > len(frame):  # an error code: these four bytes were no frame
            size, taken = 0, len(magic)
        whole = ctypes.create_string_buffer(max(size, 1))
        if size and zstd.ZSTD_decompress(whole, size, frame, taken) == size and whole.raw[:4] == b"\x7fELF":
            yield whole.raw
        at = data.find(magic, at + taken)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gpus", default="", help="instead of those that are shipped: 100,120")
    parser.add_argument("--write", action="store_true", help="make what there is the budget")
    arguments = parser.parse_args()
    begin = time.monotonic()
    log, folder = build([gpu for gpu in arguments.gpus.split(",") if gpu])
    kernels, code = kernels_of(log), code_of(folder)
    if arguments.write:
        measured = {arch for arch, _ in kernels}
        kept = [x for x in BUDGET.read_text().splitlines() if x.split(" ")[0] not in measured]
        new = [f"{arch} {name} {kernels[arch, name][0]} {code[arch, name]}" for arch, name in kernels]
        BUDGET.write_text("\n".join(sorted(kept + new)) + "\n")
    lines = (line.split(" ") for line in BUDGET.read_text().splitlines())
    budget = {(arch, name): (int(registers), int(size)) for arch, name, registers, size in lines}
    wrong = [line for line in log.splitlines() if "warning" in line.lower()]
    for (arch, kernel), (registers, stack, spilled) in sorted(kernels.items()):
        size = code.get((arch, kernel), 0)
        print(
            f"{arch} {kernel}: {registers} registers, {stack} bytes of stack, {spilled} bytes spilled, "
            f"{size} bytes of code"
        )
        if stack or spilled:
            wrong.append(f"{arch} {kernel}: {stack} bytes of stack, {spilled} bytes spilled, expected none")
        if not size:
            wrong.append(f"{arch} {kernel}: its code was not found in the objects")
        if (arch, kernel) not in budget:
            wrong.append(f"{arch} {kernel} is not in {BUDGET.name}; add it with --write")
            continue
        allowed, bytes_allowed = budget[arch, kernel]
        if registers > allowed:
            wrong.append(f"{arch} {kernel}: {registers} registers, expected at most {allowed}")
        if size > 1.1 * bytes_allowed:
            wrong.append(
                f"{arch} {kernel}: {size} bytes of code, expected at most a tenth more than {bytes_allowed}"
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
