# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Everything that docs/context-parallelism.md says in numbers, in one file: measured here, and modelled.

    python bench/context_parallel.py --out bench/results/DATE-MACHINE-distributed.md     some five minutes
    python bench/context_parallel.py --quick                      tiny problems: does it work?

docs/make_context_parallelism.py copies the tables into the page. The machine should have nothing else to do.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import distributed
import scaling
import sequences
import sharded


def modelled(quick: bool) -> list[sharded.Section]:
    found = list(scaling.rows(scaling.GPU[2:] if quick else scaling.GPU + scaling.LARGE))
    note = "Nothing here was measured: `bench/scaling.py` says what goes in."
    return [sharded.Section("GPUs, by the model", f"{scaling.table(found)}\n\n{note}")]


def page(sections) -> str:
    head = (
        "# Context parallelism\n\n"
        f"{sharded.machine_text()}, 4 heads of 64. Made by `python bench/context_parallel.py`; "
        "bench/distributed.py and bench/sequences.py say what the columns mean."
    )
    return "\n\n".join([head, *(f"## {x.title}\n\n{x.body}" for x in sections)]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--out", type=Path, help="write the results there, too")
    parser.add_argument("--quick", action="store_true", help="tiny problems, few calls; numbers mean nothing")
    args = parser.parse_args()
    text = page(
        [x for part in (distributed.sections, sequences.sections, modelled) for x in part(args.quick)]
    )
    print(text, end="")
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
