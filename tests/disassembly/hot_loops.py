# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads what the compiler made of the kernels: `python3 tests/disassembly/hot_loops.py LIBRARY [--all]`.

LIBRARY is an archive or object file with symbols (a wheel's library is stripped) of x86-64 or aarch64, say
build/release/src/libnearfield.a. A loop is what lies between a backward branch and its target; it is
innermost if no other lies inside. A *hot* loop is an innermost one with at least HOT fused multiply-adds of
vectors (FMAs). In every hot loop of the library:

    spills     no vector is loaded from or stored to the stack: the register tile fits the registers
    reloads    no FMA reads memory that the loop has loaded before: a value that feeds several is loaded once.
               g++ 12 may fold the load into each of them; pinned() of src/cpu/micro-inl.h stops it
    folded     no FMA reads a whole vector from memory, whatever its address; broadcasts ({1to16}) and
               constants (those of exp) may

and every row of X86_64 or AARCH64 must find its functions, and in each a loop of the register tile that it
was written for: so a kernel that is no longer vectorised, or whose tile fell apart, is seen as well.

To add a kernel, add a row; one line is enough:

    Kernel(r"N_AVX3::score_b16<", fmas=16),

    symbol   a regular expression, searched in the demangled names. Code that is inlined has no name of its
             own: name the function that it ends up in, or mark it HWY_NOINLINE
    fmas     the FMAs of the largest hot loop of each such function, lambdas inside it included, are at least
             these: rows x vectors of the tile, times the unrolling
    spills, reloads, folded
             how many are allowed in a hot loop of these functions (default 0); say why in the row
    scalars  how many scalars, pointers mostly, a loop may fetch from the stack (default: any number, for they
             cost load slots only)

The first row that matches is the one that allows. `--all` prints every hot loop. hot_loops_test.py tests it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass, field

HOT = 8  # FMAs; smaller tiles are remainders


@dataclass(frozen=True)
class Kernel:
    symbol: str
    fmas: int
    spills: int = 0
    reloads: int = 0
    folded: int = 0
    scalars: int = sys.maxsize


X86_64 = [
    Kernel(r"N_AVX3::dot_rows<", fmas=16),
    Kernel(r"N_AVX3::accumulate_rows<", fmas=16),
    Kernel(r"N_AVX3::score_run<1, 16, \d\d+>", fmas=16),
    Kernel(r"N_AVX3::score_run<2, 32, \d\d+>", fmas=24),
    Kernel(r"N_AVX3::score_run<2, 32, 0>", fmas=8),
    Kernel(r"N_AVX3::weigh_chunk<", fmas=16),
    Kernel(r"N_AVX3::score_pairs<16, 1, 16, \d\d+>", fmas=16),
    Kernel(r"N_AVX3::score_pairs<12, 2, 32, \d\d+>", fmas=24),
    Kernel(r"N_AVX3::score_pairs<4, 2, 32, 0>", fmas=8),
    Kernel(r"N_AVX3::weigh_pairs<4, ", fmas=16),
    Kernel(r"N_AVX3::spread_run<[234], ", fmas=24),
    Kernel(r"N_AVX3::stencil_score<1, [89]>", fmas=8, folded=9),  # one row: no load is shared
    Kernel(r"N_AVX3::stencil_score<[23], [78]>", fmas=14),
    Kernel(r"N_AVX3::stencil_score<4, [456]>", fmas=16),
    Kernel(r"N_AVX3::stencil_weigh<2, 4>", fmas=16, spills=5),  # around the last column, once per row of keys
    Kernel(r"N_AVX2::stencil_score<1, [89]>", fmas=8, folded=9),
    Kernel(r"N_AVX2::stencil_score<2, [45]>", fmas=8),
    Kernel(r"N_AVX2::stencil_weigh<2, 2>", fmas=8),
    Kernel(r"N_AVX2::FloatArithmetic<16> >::run_streamed", fmas=8, spills=2),  # exp, as below
    Kernel(r"N_AVX2::dot_rows<", fmas=8),
    Kernel(r"N_AVX2::accumulate_rows<", fmas=8),
    Kernel(r"N_AVX2::score_run<2, \d+, \d\d+>", fmas=12),
    Kernel(r"N_AVX2::score_run<2, \d+, 0>", fmas=8),
    Kernel(r"N_AVX2::weigh_chunk<", fmas=8),
    Kernel(r"N_AVX2::spread_run<", fmas=12),
    Kernel(r"N_AVX2::weigh_gradients<.*double>", fmas=8, spills=1),  # exp has more constants than registers
]
AARCH64 = [
    Kernel(r"N_NEON::dot_rows<", fmas=16),
    Kernel(r"N_NEON::accumulate_rows<", fmas=16),
    Kernel(r"N_NEON::score_run<4, \d+, \d\d+>", fmas=20),
    Kernel(r"N_NEON::score_run<4, \d+, 0>", fmas=16),
    Kernel(r"N_NEON::weigh_chunk<", fmas=16),
    Kernel(r"N_NEON::spread_run<[24], ", fmas=20),
    Kernel(r"N_NEON::weigh_gradients<.*double>", fmas=8, spills=4),  # exp has more constants than registers
]


@dataclass
class Function:
    name: str
    address: list[int] = field(default_factory=list)
    text: list[str] = field(default_factory=list)  # "mnemonic operands"


@dataclass
class Loop:
    function: str
    begin: int
    end: int
    fmas: int = 0
    spills: int = 0
    reloads: int = 0
    folded: int = 0
    scalars: int = 0  # loads of scalars from the stack

    def __str__(self) -> str:
        return (
            f"{self.fmas} FMAs, {self.spills} spills, {self.reloads} reloads, {self.folded} folded, "
            f"{self.scalars} scalars: {short(self.function)} at {self.begin:#x}-{self.end:#x}"
        )


def short(name: str) -> str:
    """Without the result and the parameters: lambdas inside a function go by its name."""
    return re.sub(r"(?<=.)\(.*", "", re.sub(r"^\S+ (?=nearfield::)", "", name).replace("nearfield::", ""))


# --- the listing ----------------------------------------------------------------------------------

HEADER = re.compile(r"^[0-9a-f]+ <(.*)>:$")
LINE = re.compile(r"^ *([0-9a-f]+):\t(.*)$")
BRANCH = {
    "x86-64": re.compile(r"^(?:bnd )?j\w+ +([0-9a-f]+) <"),
    "aarch64": re.compile(r"^(?:b(?:\.\w+)?|cbn?z|tbn?z)\b.*?\b([0-9a-f]+) <"),
}


def functions(listing: str) -> list[Function]:
    found: list[Function] = []
    for line in listing.splitlines():
        if match := HEADER.match(line):
            found.append(Function(match[1]))
        elif found and (match := LINE.match(line)):
            found[-1].address.append(int(match[1], 16))
            found[-1].text.append(re.sub(r"[ \t]+", " ", match[2]).strip())
    return found


def innermost_loops(function: Function, machine: str) -> list[tuple[int, int]]:
    """First and last instruction of each, as indices."""
    index = {address: i for i, address in enumerate(function.address)}
    ends: dict[int, int] = {}
    for i, text in enumerate(function.text):
        if match := BRANCH[machine].match(text):
            target = index.get(int(match[1], 16))
            if target is not None and target <= i:
                ends[target] = max(i, ends.get(target, i))
    loops = list(ends.items())
    return [
        (b, e)
        for b, e in loops
        if not any(
            b <= other_b and other_e <= e and (b, e) != (other_b, other_e) for other_b, other_e in loops
        )
    ]


# --- x86-64 (AT&T syntax) -------------------------------------------------------------------------

FMA_X86 = re.compile(r"^v(?:fn?m(?:add|sub)\d+p|dpbf16p)[sdh] ")
MEMORY = re.compile(r"(?:%[cdefgs]s:)?-?(?:0x[0-9a-f]+)?\(([^)]*)\)(\{1to\d+\})?")
REGISTER = re.compile(r"%(\w+)")
FULL = {f"{half}{x}": f"r{x}" for half in ("e", "") for x in ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp")}


def full(register: str) -> str:
    """The 64-bit register that a general one is a part of."""
    return FULL.get(register, re.sub(r"^(r\d+)[dwb]$", r"\1", register))


def measure_x86(function: Function, begin: int, end: int) -> Loop:
    loop = Loop(function.name, function.address[begin], function.address[end])
    framed = any(re.match(r"mov %rsp,%rbp$", t) for t in function.text[:40])
    stack = {"rsp", "rbp"} if framed else {"rsp"}
    loaded: set[str] = set()  # memory operands of vectors whose registers have not changed since
    for text in function.text[begin : end + 1]:
        memory = MEMORY.search(text)
        where = REGISTER.findall(memory[1]) if memory else []
        of_vectors = re.search(r"%[xyz]mm", text) is not None
        if memory and where[:1] and where[0] in stack:
            loop.spills += of_vectors
            loop.scalars += not of_vectors
        is_fma = bool(FMA_X86.match(text))
        loop.fmas += is_fma
        if memory and of_vectors and "rip" not in where:
            loop.folded += is_fma and memory[2] is None
            place = memory[0].removesuffix(memory[2] or "")
            loop.reloads += is_fma and place in loaded
            loaded.add(place)
        if not text.startswith(("cmp", "test")) and ")" not in text.rsplit(",", 1)[-1]:
            written = {full(r) for r in REGISTER.findall(text.rsplit(",", 1)[-1])}
            loaded = {m for m in loaded if written.isdisjoint(map(full, REGISTER.findall(m)))}
    return loop


# --- aarch64 --------------------------------------------------------------------------------------

FMA_ARM = re.compile(r"^(?:fml[as] v\d+\.|bf(?:dot|mmla) v\d+\.)")


def measure_arm(function: Function, begin: int, end: int) -> Loop:
    """FMAs take registers only: there are no reloads."""
    loop = Loop(function.name, function.address[begin], function.address[end])
    framed = any(re.match(r"mov x29, sp", t) for t in function.text[:40])
    stack = re.compile(r"\[(?:sp|x29)\b" if framed else r"\[sp\b")
    for text in function.text[begin : end + 1]:
        loop.fmas += bool(FMA_ARM.match(text))
        if stack.search(text):
            if re.match(r"^(?:ld|st)\w+ (?:\{ ?v\d+|[qds]\d+)", text):
                loop.spills += 1
            else:
                loop.scalars += text.startswith("ld")
    return loop


MEASURE = {"x86-64": measure_x86, "aarch64": measure_arm}


def hot_loops(listing: str, machine: str) -> list[Loop]:
    loops = [
        MEASURE[machine](function, begin, end)
        for function in functions(listing)
        for begin, end in innermost_loops(function, machine)
    ]
    return [loop for loop in loops if loop.fmas >= HOT]


# --- the verdict ----------------------------------------------------------------------------------


def complaints(loops: list[Loop], names: list[str], kernels: list[Kernel]) -> list[str]:
    found = []
    for kernel in kernels:
        owners = sorted({short(n) for n in names if re.search(kernel.symbol, n)})
        if not owners:
            found.append(f"no function matches {kernel.symbol}: inlined, renamed or not built")
        for owner in owners:
            most = max((loop.fmas for loop in loops if short(loop.function) == owner), default=0)
            if most < kernel.fmas:
                found.append(
                    f"{owner}: got {most} FMAs in its largest innermost loop, expected {kernel.fmas}"
                )
    for loop in loops:
        allowed = next((k for k in kernels if re.search(k.symbol, loop.function)), Kernel("", 0))
        for what in ("spills", "reloads", "folded", "scalars"):
            if getattr(loop, what) > getattr(allowed, what):
                found.append(f"{what}: got {getattr(loop, what)}, expected {getattr(allowed, what)}: {loop}")
    return found


def objdump(library: str) -> tuple[str, str]:
    """The machine and the listing of all code."""
    for tool, machine in (("objdump", "x86-64"), ("aarch64-linux-gnu-objdump", "aarch64")):
        head = subprocess.run([tool, "-f", library], capture_output=True, text=True, check=False)
        if head.returncode == 0 and re.search(rf"file format elf64-(?:little)?{machine}", head.stdout):
            command = [tool, "-d", "-C", "-w", "--no-show-raw-insn", library]
            return machine, subprocess.run(command, capture_output=True, text=True, check=True).stdout
    sys.exit(f"{library}: got no x86-64 or aarch64 code, expected a library or object file of one of them")


def main() -> int:
    parser = argparse.ArgumentParser(description="no spills, no reloads in the hot loops of the kernels")
    parser.add_argument("library")
    parser.add_argument("--all", action="store_true", help="print every hot loop")
    options = parser.parse_args()
    machine, listing = objdump(options.library)
    loops = hot_loops(listing, machine)
    if options.all:
        print("\n".join(sorted(map(str, loops), key=lambda line: line.split(": ")[1])))
    names = [function.name for function in functions(listing)]
    found = complaints(loops, names, X86_64 if machine == "x86-64" else AARCH64)
    good = f"OK: {len(loops)} hot loops of {machine} code, no spill or reload but those listed in this file"
    print("\n".join(found) if found else good)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
