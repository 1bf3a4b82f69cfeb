# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Every C++ block of README and docs is a program that compiles, runs, and prints what it says.

Comments `// -> text`, continued by comments that begin with four spaces, are what it prints, as in
test_docs.py. Programs are linked with the libraries of the package under test; those that include
nearfield/torch.h with PyTorch's, too: PyTorch's headers take a minute to compile, so these run in the long
sweeps. A block that cannot run here has a reason right above it: `<!-- not run: REASON -->`.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from test_docs import FENCE, NOT_RUN, PAGES, ROOT

import nearfield as nf

COMPILER = shutil.which("c++")
PACKAGE = Path(nf.__file__).parent
SAYS = re.compile(r"// (->| {3,}) *(.*)$", re.MULTILINE)


def programs():
    """(page, number of the block's first line, code) of every C++ block that is to run."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in FENCE.finditer(text):
            if match[2] == "cpp" and not NOT_RUN.search(text[: match.start()]):
                found.append((page, text.count("\n", 0, match.start(3)) + 1, match[3]))
    return found


def expected(code):
    """What a program says it prints; None if it says nothing."""
    found = []
    for mark, words in SAYS.findall(code):
        if mark == "->" or found:
            found.append(words)
    return " ".join(found) if found else None


def link(library):
    # By its path: the compiler looks for names that end in .so, and the loader for the library's own name.
    return [str(PACKAGE / library), f"-Wl,-rpath,{PACKAGE}"]


def flags(code):
    if "nearfield/torch.h" not in code:
        return ["-Wall", "-Wextra", "-Werror", f"-I{ROOT}/include", *link("libnearfield.so")]
    home = Path(torch.__file__).parent
    headers = [f"-isystem{home}/include{tail}" for tail in ("", "/torch/csrc/api/include")]
    libraries = [f"-L{home}/lib", f"-Wl,-rpath,{home}/lib", "-ltorch", "-ltorch_cpu", "-lc10"]
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    here = ["-Wl,--no-as-needed", *link("libnearfield_torch.so"), *link("libnearfield.so")]
    return [abi, f"-I{ROOT}/include", *headers, *here, *libraries]


def case(page, line, code):
    marks = [pytest.mark.full] if "nearfield/torch.h" in code else []
    return pytest.param(page, line, code, id=f"{page.relative_to(ROOT)}:{line}", marks=marks)


@pytest.mark.skipif(COMPILER is None, reason="no c++")
@pytest.mark.parametrize(("page", "line", "code"), [case(*p) for p in programs()])
def test_cpp_blocks_compile_run_and_print_what_they_say(page, line, code, tmp_path):
    source, program = tmp_path / "block.cc", tmp_path / "block"
    source.write_text(f'#line {line} "{page}"\n{code}')
    command = [
        COMPILER,
        "-std=c++20",
        "-O0",
        "-x",
        "c++",
        str(source),
        "-x",
        "none",
        "-o",
        str(program),
        *flags(code),
    ]
    built = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert built.returncode == 0, built.stderr
    ran = subprocess.run([str(program)], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr
    says = expected(code)
    if says is not None:
        assert " ".join(ran.stdout.split()) == " ".join(says.split()), (
            f"{page.name}:{line} prints something else"
        )


def test_there_are_programs_and_their_output_is_read():
    assert {page.name for page, _, _ in programs()} >= {"README.md", "cpp.md"}
    code = "f();  // no\n//    not this\nprint(1);  // -> 1 2\n  //    3\ng();\nh();  // -> 4\n"
    assert expected(code).split() == ["1", "2", "3", "4"]
    assert expected("int main() {}  // nothing\n") is None
