# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The conformance table of the docs: every feature on every backend in every dtype, forward and backward.

    python tests/python/conformance_table.py            prints it, with the largest error over tolerance
    python tests/python/conformance_table.py --write    runs everything and writes docs/conformance.md

Every cell is run here: it holds a check mark if all numbers were within their tolerance of the oracle, or
the reason that the core gave for refusing. A wrong number is an error, not a cell.
"""

import argparse
import itertools
import re
import sys
from pathlib import Path

import torch
from conformance_features import FEATURES

import nearfield as nf

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
DTYPES = {"f32": torch.float32, "f64": torch.float64, "bf16": torch.bfloat16, "f16": torch.float16}
COLUMNS = list(itertools.product(DTYPES, ("forward", "backward")))
PASSED = "✓"
_THROUGHOUT = "Every cell: "
_TITLE = """# Conformance

Every feature on every backend in every dtype, forward and backward. Each cell was run: ✓ says that every
number (output, lse; all gradients) was within its tolerance of an independent oracle in float64, a number
in brackets stands for the reason that the library itself gives for refusing. For forward-mode derivatives
`backward` is reverse over forward; the second derivative of the backward pass is refused everywhere.

This page is written by `python tests/python/conformance_table.py --write`, and the tests run all of it
again: they fail where it is no longer true.
"""


def backends():
    """All that the library knows, those that run on this machine first."""
    return sorted(nf.info()["backends"], key=lambda name: name.startswith("cuda"))


def reason(error, backend):
    """What follows `BACKEND: ` in the core's message, or all behind `[op] got`.

    Of a backend for another device that is said; whether this build has its kernels is not: builds differ.
    """
    text = str(error)
    found = re.search(rf"; {re.escape(backend)}: (.*)", text, re.DOTALL)
    if found and found[1].startswith("it runs on "):
        return found[1].partition(";")[0]
    return found[1] if found else re.sub(r"^\[\w+\] ", "", text)


def outcome(feature, backend, dtype, direction):
    """(PASSED or a reason, the largest error over tolerance)."""
    worst = 0.0
    for check in FEATURES[feature]:
        try:
            worst = max(worst, check(backend, DTYPES[dtype], direction == "backward"))
        except (ValueError, NotImplementedError) as error:
            return reason(error, backend), worst
    return PASSED, worst


def render(cells):
    """The page, from {(backend, feature, dtype, direction): PASSED or a reason}."""
    reasons = list(dict.fromkeys(cell for cell in cells.values() if cell != PASSED))
    text = _TITLE
    for backend in dict.fromkeys(key[0] for key in cells):
        text += f"\n## {backend}\n\n"
        own = {cell for key, cell in cells.items() if key[0] == backend}
        if len(own) == 1 and PASSED not in own:
            text += f"{_THROUGHOUT}[{reasons.index(own.pop()) + 1}]\n"
            continue
        text += "| | " + " | ".join(f"{d} {w}" for d, w in COLUMNS) + " |\n"
        text += "|---" * (len(COLUMNS) + 1) + "|\n"
        for feature in FEATURES:
            row = [cells[(backend, feature, *column)] for column in COLUMNS]
            row = [cell if cell == PASSED else f"[{reasons.index(cell) + 1}]" for cell in row]
            text += f"| {feature} | " + " | ".join(row) + " |\n"
    if reasons:
        text += "\n## Reasons\n\n" + "".join(f"- [{i}] {cell}\n" for i, cell in enumerate(reasons, 1))
    return text


def parse(text):
    """The cells of a page: the inverse of render."""
    reasons = dict(re.findall(r"^- (\[\d+\]) (.*)$", text, re.MULTILINE))
    cells = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        backend, *lines = section.splitlines()
        throughout = [line.removeprefix(_THROUGHOUT) for line in lines if line.startswith(_THROUGHOUT)]
        for feature, column in itertools.product(FEATURES if throughout else (), COLUMNS):
            cells[(backend, feature, *column)] = reasons[throughout[0]]
        rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")][2:]
        for feature, *row in rows:
            for column, cell in zip(COLUMNS, row, strict=True):
                cells[(backend, feature, *column)] = reasons.get(cell, cell)
    return cells


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write docs/conformance.md")
    write = parser.parse_args().write
    cells = {}
    for backend, feature in itertools.product(backends(), FEATURES):
        for column in COLUMNS:
            cells[(backend, feature, *column)], worst = outcome(feature, backend, *column)
            if not write and cells[(backend, feature, *column)] == PASSED:
                print(f"{worst:8.3f}  {backend} {feature} {' '.join(column)}")
    if write:
        PAGE.write_text(render(cells), encoding="utf-8")
        print(f"wrote {PAGE}: {len(cells)} cells")
    else:
        print(render(cells))


if __name__ == "__main__":
    sys.exit(main())
