# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks who imports whom: `python tools/check_layers.py [ROOT]`.

C++, by the #include lines:

    L0 interval.h geometry.h tensor.h status.h executor.h stream.h src/runtime
    <-  L1 problem.h request.h src/problem  <-  L2 plan.h src/plan
    <-  L3 src/reference src/cpu src/cuda (never each other)
    <-  L4 attention.h c.h src/dispatch (only table.cc names backends)  <-  L5 torch.h torch/ bindings

    torch only in bindings/torch, torch.h and torch/, Highway only in src/cpu, CUDA only in src/cuda, asm
    only in src/cuda/ptx (src/cpu may pin a register with an empty one), getenv only in
    src/runtime/environment.cc.

Python, by the import statements:

    _core  <-  _ops  <-  helpers  <-  functional  <-  distributed  <-  modules tools
    <-  compat integrations profiler

    helpers are all modules not named here; tools and distributed do not see _ops; ctypes only in _core,
    torch.ops only in _ops.

Prints one line per violation, `FILE:LINE: what`, and exits with 1 if there is any.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

# --- C++ -----------------------------------------------------------------------------------------

# Room -> layer. A room is a folder or one file; the longest match counts.
CPP_ROOMS = {
    "include/nearfield/interval.h": 0,
    "include/nearfield/geometry.h": 0,
    "include/nearfield/tensor.h": 0,
    "include/nearfield/status.h": 0,
    "include/nearfield/executor.h": 0,
    "include/nearfield/stream.h": 0,
    "src/runtime": 0,
    "include/nearfield/problem.h": 1,
    "include/nearfield/request.h": 1,
    "src/problem": 1,
    "include/nearfield/plan.h": 2,
    "src/plan": 2,
    "src/reference": 3,
    "src/cpu": 3,
    "src/cuda": 3,
    "src/cuda/ptx": 3,
    "src/cuda/sm80": 3,
    "src/cuda/sm90": 3,
    "include/nearfield/attention.h": 4,
    "include/nearfield/c.h": 4,
    "src/dispatch": 4,
    "include/nearfield/torch.h": 5,
    "include/nearfield/torch": 5,
    "bindings": 5,
}
BACKEND_LAYER = 3
TABLE = "src/dispatch/table.cc"

# What comes from outside, by the start of its include path -> where it may be used.
EXTERNAL = {
    "torch": (
        r"(torch|ATen|c10|caffe2)/",
        ("bindings/torch/", "include/nearfield/torch.h", "include/nearfield/torch/"),
    ),
    "Highway": (r"hwy/", ("src/cpu/",)),
    "CUDA": (r"(cuda|cuda_\w+|cute|cutlass|mma)(\.h|/)", ("src/cuda/",)),
}

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', re.MULTILINE)
ASM = re.compile(r"\b(?:asm|__asm__|__asm)\b[\s\w]*(\(\s*\"\"\s*[:)])?")
GETENV = re.compile(r"\b(?:secure_)?getenv\b")
# A comment, or a literal: what a `//` or a quote means depends on which begins first.
LEXEME = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(?P<mark>[^()\s\\]{0,16})\(.*?\)(?P=mark)"|"(?:\\.|[^"\\\n])*"|'
    r"(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])*'",
    re.DOTALL,
)


def without_comments(text: str, keep_literals: bool) -> str:
    """The text with comments blanked, and literals too (to `"x"`; the empty one stays) unless kept."""

    def blank(match: re.Match) -> str:
        found = match.group()
        lines = "\n" * found.count("\n")
        if found.startswith("/"):
            return lines or " "
        return found if keep_literals or found == '""' else '"x"' + lines

    return LEXEME.sub(blank, text)


def line_of(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


def room_of(path: str) -> str | None:
    rooms = [r for r in CPP_ROOMS if path == r or path.startswith(r + "/")]
    return max(rooms, key=len, default=None)


def resolve(root: Path, path: str, included: str) -> str | None:
    """Path inside the repository of an included file; None if it comes from outside."""
    for folder in ((root / path).parent, root / "include", root / "src", root):
        candidate = folder / included
        if candidate.is_file():
            return candidate.resolve().relative_to(root).as_posix()
    return None


def backend_of(room: str) -> str:
    """The backend that a room belongs to; rooms shared by backends stand for themselves."""
    return room if room in ("src/cuda/sm80", "src/cuda/sm90") else "/".join(room.split("/")[:2])


def check_include(path: str, target: str) -> str | None:
    """Why `path` must not include `target` (both in rooms), or None."""
    room, other = room_of(path), room_of(target)
    layer, below = CPP_ROOMS[room], CPP_ROOMS[other]
    if path.startswith("include/") and not target.startswith("include/"):
        return f"a public header includes {target}, which is not installed"
    if below > layer:
        return f"layer {layer} ({room}) includes layer {below} ({target})"
    if layer == below == BACKEND_LAYER:
        mine, its = backend_of(room), backend_of(other)
        shared = mine.startswith("src/cuda") and other in ("src/cuda", "src/cuda/ptx")
        stub = room == "src/cuda" and its.startswith("src/cuda")
        if mine != its and not shared and not stub:
            return f"backends never include each other: {target}"
    if layer > BACKEND_LAYER and below == BACKEND_LAYER and path != TABLE:
        return f"only {TABLE} names backends: {target}"
    return None


def check_cpp(root: Path, path: str) -> list[tuple[int, str]]:
    """Violations (line, what) of one C++ file; path is relative to root."""
    text = (root / path).read_text(encoding="utf-8")
    found = []
    code = without_comments(text, keep_literals=True)
    product = path.startswith(("include/", "src/", "bindings/"))
    if product and room_of(path) is None:
        found.append((1, "this file is in no room: give it one in tools/check_layers.py"))
    for match in INCLUDE.finditer(code):
        line, included = line_of(code, match.start()), match[2]
        target = resolve(root, path, included)
        if target is None:
            if product and included.startswith("nearfield/"):
                found.append((line, f"no such header: {included}"))
            for name, (pattern, places) in EXTERNAL.items():
                if product and re.match(pattern, included) and not path.startswith(places):
                    found.append((line, f"{name} may be included only in {', '.join(places)}: {included}"))
        elif path.startswith("examples/") and target.startswith("src/"):
            found.append((line, f"examples use the public headers only: {target}"))
        elif product and room_of(path) and room_of(target):
            reason = check_include(path, target)
            if reason:
                found.append((line, reason))
    if product:
        code = without_comments(text, keep_literals=False)
        for match in ASM.finditer(code):
            pins = path.startswith("src/cpu/") and match[1]
            if not pins and not path.startswith("src/cuda/ptx/"):
                found.append((line_of(code, match.start()), "asm only in src/cuda/ptx"))
        for match in GETENV.finditer(code):
            if path != "src/runtime/environment.cc":
                found.append((line_of(code, match.start()), "getenv only in src/runtime/environment.cc"))
    return found


# --- Python --------------------------------------------------------------------------------------

PACKAGE = "nearfield"
PY_LAYERS = {"_core": 0, "_ops": 1, "functional": 3, "distributed": 4}
PY_LAYERS |= {"tools": 5, "modules": 5, "profiler": 6, "compat": 6, "integrations": 6}
HELPER_LAYER = 2  # any other module; helpers may import each other
RESTRICTED = ("distributed", "tools")  # these reach the operators through functional only


def module_parts(path: str) -> list[str]:
    """python/nearfield/tools/cli.py -> [nearfield, tools, cli]"""
    parts = list(Path(path).with_suffix("").parts[1:])
    return parts[:-1] if parts[-1] == "__init__" else parts


def imports_of(tree: ast.AST, path: str) -> list[tuple[int, str]]:
    """(line, dotted name) of everything that is imported, anywhere in the file."""
    names = []
    package = module_parts(path)
    if not path.endswith("__init__.py"):
        package = package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            names += [(node.lineno, ".".join([*base, alias.name])) for alias in node.names]
    return names


def check_python(root: Path, path: str) -> list[tuple[int, str]]:
    """Violations (line, what) of one file of the Python package."""
    tree = ast.parse((root / path).read_text(encoding="utf-8"), path)
    mine = (module_parts(path) + [""])[1]
    if mine == "__main__":  # `python -m nearfield` sees all, as __init__ does
        mine = ""
    layer = PY_LAYERS.get(mine, HELPER_LAYER)
    found = []
    for line, name in imports_of(tree, path):
        parts = name.split(".")
        if parts[0] == "ctypes" and mine != "_core":
            found.append((line, "ctypes only in _core.py"))
        if parts[:2] == ["torch", "ops"] and mine != "_ops":
            found.append((line, "torch.ops only in _ops.py"))
        if parts[0] != PACKAGE or mine == "":
            continue
        other = parts[1] if len(parts) > 1 else ""
        folder = root / "python" / PACKAGE
        if not ((folder / f"{other}.py").is_file() or (folder / other / "__init__.py").is_file()):
            other = "functional"  # a name of the package's front, which re-exports functional
        below = PY_LAYERS.get(other, HELPER_LAYER)
        peers = layer == below and layer != HELPER_LAYER
        if other != mine and (below > layer or peers):
            found.append((line, f"{mine} imports {other}, which is not below it"))
        elif mine in RESTRICTED and other == "_ops":
            found.append((line, f"{mine} uses functional and _core, not {other}"))
    for node in ast.walk(tree):
        used = isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.ops"
        if used and mine != "_ops":
            found.append((node.lineno, "torch.ops only in _ops.py"))
    return found


# --- All -----------------------------------------------------------------------------------------


def check(root: Path) -> tuple[int, list[str]]:
    """(number of files, one line per violation) of the tree under root."""
    root = root.resolve()
    files, lines = 0, []
    for folder in ("include", "src", "bindings", "examples", "tests", "bench", "python"):
        for file in sorted((root / folder).rglob("*")):
            path = file.relative_to(root).as_posix()
            if file.suffix in (".h", ".cc", ".cu", ".cuh", ".inc"):
                found = check_cpp(root, path)
            elif file.suffix == ".py" and path.startswith(f"python/{PACKAGE}/"):
                found = check_python(root, path)
            else:
                continue
            files += 1
            lines += [f"{path}:{line}: {what}" for line, what in sorted(found)]
    return files, lines


def main(arguments: list[str]) -> int:
    root = Path(arguments[0]) if arguments else Path(__file__).parent.parent
    files, lines = check(root)
    if lines:
        print("\n".join(lines))
        print(f"{len(lines)} violations of the layers in {files} files")
        return 1
    print(f"OK: {files} files keep to their layers")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
