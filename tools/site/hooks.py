# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What mkdocs does besides (mkdocs.yml): pages of docs/ are written to be read in the repository, too.

- Navigation names all pages; those that are not written yet are left out.
- A link out of docs/ is followed in the repository. In the site the files of EXTRA are pages of their own; of
  others the name is left.
- The geometry compiled to WebAssembly (tools/docs.sh) goes beside the explorer's scripts.
"""

from __future__ import annotations

import base64
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
# Pages of the site that lie elsewhere in the repository: path -> path in the site.
EXTRA = {"CHANGELOG.md": "changelog.md", "HACKING.md": "hacking.md", "bench/README.md": "bench.md"}
RESULTS = "bench/results"  # every Markdown file there becomes a page, with its pictures
WASM = ROOT / "build" / "wasm" / "geometry.wasm"
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:|#)([^)\s]+)\)")
FENCE = re.compile(r"^( *)```.*?^\1```$", re.DOTALL | re.MULTILINE)


def pages() -> dict[str, str]:
    """Path in the repository -> path in the site, of everything outside docs/ that the site has."""
    results = {p.relative_to(ROOT).as_posix() for p in (ROOT / RESULTS).iterdir()}
    return EXTRA | {path: path.removeprefix("bench/") for path in sorted(results)}


def written(entries: list, folder: Path) -> list:
    """The navigation without pages that are not in the folder."""
    kept = []
    for entry in entries:
        ((title, target),) = entry.items()
        if isinstance(target, list):
            target = written(target, folder)
            if not target:
                continue
        elif not (folder / target).is_file():
            continue
        kept.append({title: target})
    return kept


def result_title(stem: str) -> str:
    """2026-11-21-amd-epyc-2-cores-speed -> speed, amd epyc 2 cores, 2026-11-21"""
    match = re.fullmatch(r"(\d+-\d+-\d+)-(.*)-(\w+)", stem)
    return f"{match[3]}, {match[2].replace('-', ' ')}, {match[1]}" if match else stem


def on_config(config):
    config.nav = written(config.nav, Path(config.docs_dir))
    config.nav[-1]["How it works"] += [
        {"A tour of the tree": EXTRA["HACKING.md"]},
        {"Changelog": EXTRA["CHANGELOG.md"]},
    ]
    at_work = next(entry["At work"] for entry in config.nav if "At work" in entry)
    measured = [
        {result_title(Path(path).stem): target}
        for path, target in pages().items()
        if path.startswith(RESULTS) and path.endswith(".md")
    ]
    at_work.insert(3, {"The bench": [{"How it measures": EXTRA["bench/README.md"]}, *measured]})
    return config


def on_files(files, config):
    for path, target in pages().items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / path)))
    code = base64.b64encode(WASM.read_bytes()).decode()
    # In a script, not a file of its own: pages that were opened from a disk may not fetch.
    script = f'globalThis.nearfieldGeometry = "{code}";\n'
    files.append(File.generated(config, "explorer/geometry.js", content=script))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links out of docs/: to the pages of the site, or no link at all."""
    source = Path(page.file.abs_src_path).resolve()
    inside = pages()

    def follow(match):
        image, words, target = match.groups()
        path, mark, heading = target.partition("#")
        linked = (source.parent / path).resolve()
        if not linked.is_relative_to(ROOT):
            return match[0]
        path = linked.relative_to(ROOT).as_posix()
        if path == "README.md":  # the front door of the repository is the first page's
            path = "docs/README.md"
        goal = inside.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if goal is None or files.get_file_from_path(goal) is None:
            return words if not image else match[0]
        here = posixpath.dirname(page.file.src_uri)
        return f"{image}[{words}]({posixpath.relpath(goal, here or '.')}{mark}{heading})"

    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [LINK.sub(follow, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join(parts) + LINK.sub(follow, markdown[end:])
