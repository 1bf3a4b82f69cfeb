# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Copies what was measured into docs/context-parallelism.md: `python docs/make_context_parallelism.py`.

The newest bench/results/*-distributed.md (bench/context_parallel.py writes it) has sections; the page has the
places for them, `<!-- results: TITLE -->` to `<!-- end of results -->`. The tests make the page again.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).parent / "context-parallelism.md"
_PLACE = re.compile(r"<!-- results: (.+?) -->\n.*?<!-- end of results -->", re.DOTALL)


def newest() -> Path:
    return max((ROOT / "bench" / "results").glob("*-distributed.md"))


def sections(results: Path) -> dict[str, str]:
    """{title: Markdown}; "machine" is what stands before the first one."""
    parts = re.split(r"^## (.+)\n", results.read_text(), flags=re.MULTILINE)
    machine = parts[0].partition("\n")[2].strip()
    found = {"machine": f"{machine} [All of it](../bench/results/{results.name})."}
    return found | {title: body.strip() for title, body in zip(parts[1::2], parts[2::2], strict=True)}


def page(text: str, results: Path) -> str:
    """The page with the sections in their places."""
    found = sections(results)
    places = _PLACE.findall(text)
    if set(places) != set(found):
        raise ValueError(f"{PAGE.name} has places for {places}, {results.name} has {list(found)}")
    return _PLACE.sub(lambda m: f"<!-- results: {m[1]} -->\n{found[m[1]]}\n<!-- end of results -->", text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(), newest()))
