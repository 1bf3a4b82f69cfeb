# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What changed between two runs of the bench: `python bench/compare.py BEFORE.jsonl AFTER.jsonl`.

Compares shares of the FMA peak, so that a slower host is no change. Inside the spread there is no verdict:
a change counts if it is larger than the uncertainties of both figures together (of each, the distance of
its quartiles or to its second best process) and larger than 2 %. Exits with 1 if anything became slower.
"""

from __future__ import annotations

import argparse
import math
import sys

from report import NATIVE, OURS, Results
from rich.console import Console
from rich.table import Table

LEAST = 0.02


def verdict(before, after) -> tuple[float, float, str]:
    """Relative change of speed, what it must exceed, and `faster`, `slower` or nothing."""
    change = after.share / before.share - 1
    least = max(LEAST, math.hypot(before.uncertainty, after.uncertainty))
    if before.noisy or after.noisy:
        return change, math.inf, ""
    return change, least, ("faster" if change > 0 else "slower") if abs(change) > least else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--peers", action="store_true", help="compare the peers too")
    args = parser.parse_args()
    before, after = Results(args.before), Results(args.after)
    table = Table(title=f"before: {before.title()}\nafter:  {after.title()}", title_justify="left")
    for name in ("", "", "by", "before peak%", "after peak%", "change %", "spread %", "verdict", "problem"):
        table.add_column(name, justify="right" if "%" in name else "left", no_wrap=True)
    slower = 0
    for key, figures in before.figures.items():
        for by, old in figures.items():
            new = after.figures.get(key, {}).get(by)
            if new is None or (by not in (OURS, NATIVE) and not args.peers):
                continue
            change, least, word = verdict(old, new)
            slower += word == "slower" and by in (OURS, NATIVE)
            numbers = (f"{100 * x:.1f}" for x in (old.share, new.share, change, least))
            table.add_row(*key, by, *numbers, word, new.row["problem"])
    Console(width=160).print(table)
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
