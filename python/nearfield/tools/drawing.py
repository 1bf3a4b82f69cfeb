# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Pictures of squares and words, as SVG, as PNG and as text.

A Panel is a table of marks, one character per cell; a Drawing is panels with titles under one heading, and
the legend says which colour a mark has.
"""

from __future__ import annotations

import html
import itertools
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from nearfield.tools import CommandError

INK, PAPER = "#222222", "#ffffff"
PLAIN, SEEN, QUERY, SHARED = "#eceff3", "#f0a63c", "#1f4e79", "#7fa8cc"  # of tokens
FULL, PARTIAL = "#8fbf7f", "#f0a63c"  # of tiles
LINE, GAP, MARGIN = 18, 24, 16  # pixels: a line of words, between panels, around
LETTER, WIDE, BOLD = 6.6, 7.4, 8.4  # a letter: its usual width, and the most in words and in the bold heading
LEAST = 600  # what words may take, however narrow the squares are; beyond it they are broken into lines
MOST_TEXT = 160  # columns of a panel as text
MOST_CELLS = 1 << 21


@dataclass
class Panel:
    """rows: strings, a character per cell, of the same length but for the last one."""

    rows: list[str]
    title: str = ""
    labels: list[str] = field(default_factory=list)  # one per row, at its left; or none

    @property
    def columns(self) -> int:
        return len(self.rows[0]) if self.rows else 0


@dataclass
class Drawing:
    heading: str
    panels: list[Panel]
    legend: dict[str, tuple[str, str]]  # mark -> (colour, what it is)
    notes: list[str] = field(default_factory=list)
    cell: float = 14.0  # pixels
    across: int = 0  # panels side by side; 0: about as many as down
    letters: set[str] = field(default_factory=set)  # marks that pictures show, in the middle of their cells

    def text(self) -> str:
        """As characters; refuses what no terminal is wide enough for."""
        widest = max((p.columns for p in self.panels), default=0)
        if widest > MOST_TEXT:
            raise CommandError(f"{widest} columns are too many for text: add --out FILE.svg or FILE.png")
        parts = [self.heading]
        for panel in self.panels:
            rows = panel.rows
            if panel.labels:
                most = max(map(len, panel.labels))
                rows = [f"{name:>{most}} {row}" for name, row in zip(panel.labels, rows, strict=True)]
            parts.append("\n".join(([panel.title] if panel.title else []) + rows))
        used = set("".join(row for p in self.panels for row in p.rows))
        parts.append(
            "\n".join([f"{m} {what}" for m, (_, what) in self.legend.items() if m in used] + self.notes)
        )
        return "\n\n".join(part for part in parts if part)

    def save(self, path: str) -> None:
        """As .svg, .png or .txt."""
        kinds = {".svg": self._svg, ".png": self._png, ".txt": self._txt}
        kind = Path(path).suffix.lower()
        if kind not in kinds:
            raise CommandError(f"got --out {path}, expected a name that ends with {', '.join(kinds)}")
        cells = sum(p.columns * len(p.rows) for p in self.panels)
        if cells > MOST_CELLS:
            raise CommandError(f"{cells} cells are too many for a picture; at most {MOST_CELLS}")
        try:
            kinds[kind](path)
        except OSError as error:
            raise CommandError(f"cannot write {path}: {error.strerror}") from error

    # ---- layout: (words, squares, width, height)

    def _placed(self):
        words: list[tuple[float, float, str, bool]] = []
        cells = (
            max((p.columns for p in self.panels), default=1),
            max((len(p.rows) for p in self.panels), default=1),
        )
        size = max(min(self.cell, 900 / max(cells)), 1.0)
        titles = LINE if any(p.title for p in self.panels) else 0
        widest_title = max((len(p.title) * LETTER for p in self.panels), default=0)
        labels = max((len(name) for p in self.panels for name in p.labels), default=-1) * WIDE + WIDE
        step_x = labels + max(cells[0] * size, widest_title) + GAP
        step_y = cells[1] * size + titles + GAP
        across = self.across or max(
            1, min(len(self.panels), round(math.sqrt(len(self.panels) * step_y / step_x)))
        )
        width = MARGIN + min(across, len(self.panels)) * step_x
        room = max(width, LEAST) - 2 * MARGIN
        heading = _broken(re.findall(r"[^:+@ ]*[:+@ ]*", self.heading), int(room / BOLD))
        words += [(MARGIN, MARGIN + 12 + i * LINE, line, True) for i, line in enumerate(heading)]
        width = max(width, max(map(len, heading)) * BOLD + 2 * MARGIN)
        top = MARGIN + len(heading) * LINE + 8
        squares: dict[str, list[tuple[float, float]]] = {}
        for i, panel in enumerate(self.panels):
            left, up = MARGIN + labels + i % across * step_x, top + i // across * step_y
            if panel.title:
                words.append((left, up + 12, panel.title, False))
            for y, name in enumerate(panel.labels):
                if size >= 10 or y % math.ceil(10 / size) == 0:  # as many as there is room for
                    at = left - len(name) * WIDE - 4
                    words.append((at, up + titles + (y + 0.5) * size + 4, name, False))
            own: dict[str, list[tuple[float, float]]] = {}  # corners by mark
            for y, row in enumerate(panel.rows):
                for x, mark in enumerate(row):
                    own.setdefault(mark, []).append((left + x * size, up + titles + y * size))
            for mark, corners in own.items():
                squares.setdefault(mark, []).extend(corners)
                if mark in self.letters:
                    words += _letter(mark, corners, size)
        y = top + math.ceil(len(self.panels) / across) * step_y
        keys, x = [], float(MARGIN)
        for mark, (color, what) in self.legend.items():
            if mark not in squares:
                continue
            what = f"{mark}: {what}" if mark in self.letters else what
            if x + 18 + len(what) * LETTER > width and x > MARGIN:
                x, y = float(MARGIN), y + LINE
            keys.append((x, y, color))
            words.append((x + 18, y + 11, what, False))
            x += 18 + len(what) * LETTER + 16
        for line in itertools.chain(
            *(_broken(re.findall(r"\S* *", n), int(room / WIDE)) for n in self.notes)
        ):
            y += LINE
            words.append((MARGIN, y + 11, line, False))
            width = max(width, len(line) * WIDE + 2 * MARGIN)
        return words, squares, keys, size, width, y + LINE + MARGIN

    def _svg(self, path: str) -> None:
        words, squares, keys, size, width, height = self._placed()
        inner = size - 1 if size >= 4 else size
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
            f'viewBox="0 0 {width:g} {height:g}" font-family="sans-serif" font-size="12" fill="{INK}">',
            f'<rect width="{width:g}" height="{height:g}" fill="{PAPER}"/>',
        ]
        for mark, corners in squares.items():
            color = self.legend[mark][0]
            data = "".join(f"M{x:g} {y:g}h{inner:g}v{inner:g}h-{inner:g}z" for x, y in corners)
            parts.append(f'<path fill="{color}" d="{data}"/>')
        parts += [f'<rect x="{x:g}" y="{y:g}" width="13" height="13" fill="{c}"/>' for x, y, c in keys]
        for x, y, what, bold in words:
            weight = ' font-weight="bold"' if bold else ""
            parts.append(f'<text x="{x:g}" y="{y:g}"{weight}>{html.escape(what)}</text>')
        Path(path).write_text("\n".join(parts) + "\n</svg>\n", encoding="utf-8")

    def _png(self, path: str) -> None:
        with needs_matplotlib():
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.collections import PolyCollection
            from matplotlib.figure import Figure
        words, squares, keys, size, width, height = self._placed()
        inner = size - 1 if size >= 4 else size
        figure = Figure(figsize=(width / 100, height / 100), dpi=150, facecolor=PAPER)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.axis("off")

        def draw(corners, side, color):
            boxes = [((x, y), (x + side, y), (x + side, y + side), (x, y + side)) for x, y in corners]
            axes.add_collection(
                PolyCollection(boxes, facecolors=color, edgecolors="none", antialiaseds=False)
            )

        for mark, corners in squares.items():
            draw(corners, inner, self.legend[mark][0])
        for x, y, color in keys:
            draw([(x, y)], 13, color)
        for x, y, what, bold in words:
            axes.text(
                x, y, what, fontsize=8.3, color=INK, weight="bold" if bold else "normal", parse_math=False
            )
        figure.savefig(path)

    def _txt(self, path: str) -> None:
        Path(path).write_text(self.text() + "\n", encoding="utf-8")


def _letter(mark: str, corners, size: float):
    """The mark in the middle of its cells, if there is room for it: of the longest rows that it has."""
    rows: dict[float, list[float]] = {}
    for x, y in corners:
        rows.setdefault(y, []).append(x)
    most = max(map(len, rows.values()))
    longest = sorted(y for y, own in rows.items() if len(own) == most)
    longest = [y for y in longest if rows[y][0] == rows[longest[0]][0]]  # not what a broken row goes on with
    if most * size < LETTER + 2 or len(longest) * size < 10:
        return []
    y, own = longest[(len(longest) - 1) // 2], rows[longest[0]]
    down = size if len(longest) % 2 == 0 else size / 2  # even: between two rows
    return [((min(own) + max(own) + size - LETTER) / 2, y + down + 4, mark, False)]


def _broken(parts: list[str], most: int) -> list[str]:
    """Joined to lines of at most `most` characters where that can be."""
    lines = [""]
    for part in parts:
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > most:
            lines.append("")
        lines[-1] += part
    return [line.rstrip() for line in lines]


class needs_matplotlib:
    """Around imports of matplotlib: without it, a CommandError that says how to get it."""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("matplotlib"):
            raise CommandError(
                "needs the package matplotlib for this; pip install 'nearfield[plot]', or in the source "
                "folder pip install '.[plot]'; SVG and text need nothing"
            ) from error
        return False
