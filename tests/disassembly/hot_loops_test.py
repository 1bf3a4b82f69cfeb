# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""That hot_loops.py finds what it looks for, on listings made up here."""

import unittest

from hot_loops import Kernel, complaints, functions, hot_loops

FMAS = [f"vfmadd231ps %zmm0,%zmm1,%zmm{i}" for i in range(2, 10)]
FMLAS = [f"fmla v{i}.4s, v0.4s, v1.s[0]" for i in range(2, 10)]


def listing(*code, name="void kernel<float>(float const*)"):
    """One instruction per 16 bytes; "loop" marks where a branch goes, "back to loop" is one."""
    lines, marks = [f"0000000000000000 <{name}>:"], {}
    for text in code:
        if text.startswith("mark "):
            marks[text[5:]] = 16 * (len(lines) - 1)
            continue
        branch, _, target = text.partition(" @")
        lines.append(
            f"{16 * (len(lines) - 1):4x}:\t{branch}"
            + (f"   {marks[target]:x} <kernel+0x1>" if target else "")
        )
    return "\n".join(lines) + "\n"


def x86(*code):
    return listing(
        "push %rbp", "mov %rsp,%rbp", "mark loop", "vmovaps (%rax),%zmm0", *code, "add $1,%rdx", "jne @loop"
    )


def only(text, machine="x86-64"):
    (loop,) = hot_loops(text, machine)
    return loop


class HotLoops(unittest.TestCase):
    def test_a_clean_loop(self):
        loop = only(x86(*FMAS))
        self.assertEqual((loop.fmas, loop.spills, loop.reloads, loop.folded, loop.scalars), (8, 0, 0, 0, 0))
        self.assertEqual((loop.begin, loop.end), (0x20, 0xC0))

    def test_small_loops_and_straight_code_are_not_hot(self):
        self.assertEqual(hot_loops(x86(*FMAS[:7]), "x86-64"), [])
        self.assertEqual(hot_loops(listing(*FMAS, "ret"), "x86-64"), [])

    def test_scalar_fmas_do_not_count(self):
        self.assertEqual(hot_loops(x86(*[f.replace("231ps", "231ss") for f in FMAS]), "x86-64"), [])

    def test_only_the_innermost_loop_is_looked_at(self):
        spill = "vmovaps %zmm2,-0x40(%rsp)"
        inner = ["mark inner", *FMAS, "jb @inner"]
        self.assertEqual(only(listing("mark outer", spill, *inner, spill, "jne @outer")).spills, 0)
        self.assertEqual(
            only(listing("mark outer", "nop", "mark inner", spill, *inner[1:], "jne @outer")).spills, 1
        )

    def test_two_branches_to_one_place_are_one_loop(self):
        self.assertEqual(only(listing("mark loop", *FMAS[:4], "je @loop", *FMAS[4:], "jmp @loop")).fmas, 8)

    def test_spills(self):
        for spill in ("vmovaps %zmm2,-0x40(%rsp)", "vmovups 0x80(%rsp),%ymm3", "vmovaps %xmm2,-0x40(%rbp)"):
            self.assertEqual(only(x86(*FMAS, spill)).spills, 1, spill)
        self.assertEqual(only(x86(*FMAS, "vfmadd231ps 0x40(%rsp),%zmm0,%zmm1")).spills, 1)
        # %rbp is a register like others where it is no frame pointer
        self.assertEqual(only(listing("mark loop", *FMAS, "vmovaps (%rbp),%zmm0", "jne @loop")).spills, 0)

    def test_scalars_from_the_stack(self):
        loop = only(x86(*FMAS, "mov -0x20(%rsp),%rax"))
        self.assertEqual((loop.spills, loop.scalars), (0, 1))

    def test_reloads(self):
        twice = [f"vfmadd231ps (%rsi,%rcx,4){{1to16}},%zmm0,%zmm{i}" for i in (20, 21)]
        self.assertEqual(only(x86(*FMAS, *twice)).reloads, 1)
        self.assertEqual(only(x86(*FMAS, "vbroadcastss (%rsi,%rcx,4),%zmm9", twice[0])).reloads, 1)
        self.assertEqual(only(x86(*FMAS, twice[0], "add $4,%rcx", twice[1])).reloads, 0)
        self.assertEqual(only(x86(*FMAS, twice[0], "mov $4,%ecx", twice[1])).reloads, 0)
        self.assertEqual(only(x86(*FMAS, twice[0], "cmp $4,%rcx", twice[1])).reloads, 1)
        self.assertEqual(only(x86(*FMAS, twice[0], twice[1].replace("(", "0x4("))).reloads, 0)

    def test_folded(self):
        self.assertEqual(only(x86(*FMAS, "vfmadd231ps (%rsi),%zmm0,%zmm20")).folded, 1)
        self.assertEqual(only(x86(*FMAS, "vfmadd231ps (%rsi){1to16},%zmm0,%zmm20")).folded, 0)
        constants = ["vfmadd213ps 0x0(%rip),%zmm0,%zmm20        # 10 <kernel+0x10>"] * 2
        loop = only(x86(*FMAS, *constants))
        self.assertEqual((loop.fmas, loop.folded, loop.reloads), (10, 0, 0))

    def test_arm(self):
        for spill in ("ldr q0, [sp, #16]", "stp q8, q9, [sp]", "str d8, [x29, #-16]"):
            code = listing("mov x29, sp", "mark loop", *FMLAS, spill, "b.ne @loop")
            self.assertEqual(only(code, "aarch64").spills, 1, spill)
        code = listing("mark loop", *FMLAS, "ldr x3, [sp]", "ldr q0, [x1], #16", "cbnz x2, @loop")
        loop = only(code, "aarch64")
        self.assertEqual((loop.fmas, loop.spills, loop.scalars), (8, 0, 1))

    def test_the_verdict(self):
        def verdict(text, *kernels):
            return complaints(hot_loops(text, "x86-64"), [f.name for f in functions(text)], list(kernels))

        clean, spilled = x86(*FMAS), x86(*FMAS, "vmovaps %zmm2,-0x40(%rsp)")
        self.assertEqual(verdict(clean, Kernel("kernel<float>", fmas=8)), [])
        self.assertIn("got 8 FMAs", verdict(clean, Kernel("kernel<", fmas=9))[0])
        self.assertIn("no function matches", verdict(clean, Kernel("other", fmas=8))[0])
        self.assertIn("spills: got 1, expected 0", verdict(spilled)[0])
        self.assertEqual(verdict(spilled, Kernel("kernel<", fmas=8, spills=1)), [])
        pointer = x86(*FMAS, "mov -0x20(%rsp),%rax")
        self.assertEqual(verdict(pointer), [])
        self.assertIn("scalars: got 1", verdict(pointer, Kernel("kernel<", fmas=8, scalars=0))[0])


if __name__ == "__main__":
    unittest.main()
