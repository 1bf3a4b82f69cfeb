# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""How the tools print: tables, numbers with their units, progress bars."""

from __future__ import annotations

import contextlib
import csv
import json
import sys
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from nearfield.tools import CommandError

LEAST_WIDTH = 120  # of what is no terminal
WORD, LONG = 24, 40  # characters: a column with more than WORD may be folded, and is given LONG if it can
EDGE = 2  # characters between columns


def seconds(x: float | None) -> str:
    """`12.3 us`, `4.56 ms`, `7.89 s`."""
    if x is None:
        return "-"
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if x * factor >= 1:
            return f"{x * factor:.3g} {unit}"
    return f"{x * 1e6:.3g} us"


def size(count: float | None) -> str:
    """`512 B`, `1.5 KiB`, `3 MiB`."""
    if count is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{count:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1024
    return ""


def tile(shape) -> str:
    return "x".join(map(str, shape)) if shape else "-"


def ratio(x: float | None, digits: int = 2) -> str:
    return "-" if x is None else f"{x:.{digits}f}"


@dataclass(frozen=True)
class Rows:
    """A table. columns: names; those that begin with `>` are numbers, aligned to the right. The first `keys`
    columns say what a row is about: where the terminal is too narrow for all, parts of the table stand below
    each other, and each part has these."""

    title: str | None
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    keys: int = 1

    def parts(self, width: int) -> list[Table]:
        """Of whole columns, each `width` characters wide at most; a column that alone is wider is folded."""
        needs = [
            min(LONG, max(len(name.lstrip(">")), *(len(row[i]) for row in self.rows), 0)) + EDGE
            for i, name in enumerate(self.columns)
        ]
        found = [list(range(self.keys))]
        for column in range(self.keys, len(self.columns)):
            own = found[-1]
            if len(own) > self.keys and EDGE + sum(needs[i] for i in own) + needs[column] > width:
                own = list(range(self.keys))
                found.append(own)
            own.append(column)
        return [self._table(own, self.title if own is found[0] else None) for own in found]

    def _table(self, own: list[int], title: str | None) -> Table:
        result = Table(
            title=title,
            title_justify="left",
            title_style="bold",
            box=SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for i in own:
            name = self.columns[i]
            cells = [name.lstrip(">"), *(row[i] for row in self.rows)]
            result.add_column(
                cells[0],
                justify="right" if name.startswith(">") else "left",
                overflow="fold",
                no_wrap=max(map(len, cells)) <= WORD,  # words and numbers stay whole; problems are folded
            )
        for row in self.rows:
            result.add_row(*(row[i] for i in own))
        return result


def table(title: str | None, columns, rows, keys: int = 1) -> Rows:
    return Rows(title, tuple(columns), [tuple(row) for row in rows], keys)


def show(*parts) -> None:
    """Prints tables and lines; brackets in lines are text."""
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, LEAST_WIDTH)
    for part in parts:
        if isinstance(part, str):
            console.print(part, markup=False, highlight=False, soft_wrap=True)
        else:
            for one in part.parts(console.width):
                console.print(one)


@contextlib.contextmanager
def progress(what: str, total: int | None):
    """Gives advance(n=1, what=None): a bar on stderr while it runs, where that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(file=sys.stderr)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda n=1, text=None: bar.update(task, advance=n, **({"description": text} if text else {}))


def write_rows(rows: list[dict], json_file: str | None, csv_file: str | None) -> None:
    """One object per row, as lines of JSON and as CSV; `-` is the standard output."""
    for path, write in ((json_file, _json), (csv_file, _csv)):
        if path == "-":
            write(rows, sys.stdout)
        elif path:
            try:
                with open(path, "w", newline="", encoding="utf-8") as file:
                    write(rows, file)
            except OSError as error:
                raise CommandError(f"cannot write {path}: {error.strerror}") from error


def _json(rows, file) -> None:
    for row in rows:
        print(json.dumps(row), file=file)


def _csv(rows, file) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: json.dumps(v) if isinstance(v, (list, dict)) else v for k, v in row.items()})
