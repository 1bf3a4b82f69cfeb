# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The documentation is true: every Python block runs and prints what it says, links lead somewhere, and
the pictures are those that docs/make_pictures.py draws now.

The blocks of a page run in order, in one namespace. A block's comments `# -> text`, continued by comments
that begin with four spaces, are what it prints (white space does not count). A block that cannot run here
has a reason right above it: `<!-- not run: REASON -->`.
"""

import contextlib
import importlib.util
import io
import re
import sys
import textwrap
import tokenize
from pathlib import Path

import pytest
import torch

from nearfield import _core

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
NOT_RUN = re.compile(r"<!-- not run: [^>]*\w[^>]* -->\n\Z")
# Pages are names in the ids of tests.
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def blocks(text):
    """(line of the first line of code, code) of every Python block that is to run."""
    for match in FENCE.finditer(text):
        if match[2] == "python" and not NOT_RUN.search(text[: match.start()]):
            yield text.count("\n", 0, match.start(3)) + 1, textwrap.dedent(match[3])


def expected(code):
    """What a block says it prints; None if it says nothing."""
    found = []
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT:
            if token.string.startswith("# -> "):
                found.append(token.string[5:])
            elif found and token.string.startswith("#    "):
                found.append(token.string[1:])
    return " ".join(found) if found else None


@pytest.fixture
def as_before():
    """Pages may put drop-ins under the names of other packages and change torch's switches."""
    modules, threads, default = set(sys.modules), torch.get_num_threads(), torch.get_default_dtype()
    yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(default)
    compat = sys.modules.get("nearfield.compat")
    for peer in ("natten", "imaginaire", "nvsubquadratic"):
        if hasattr(compat, "uninstall"):
            compat.uninstall(peer)
    left = {n.partition(".")[0] for n in set(sys.modules) - modules}
    assert not left & {"natten", "cosmos_predict2", "cosmos_transfer2", "nvsubquadratic"}


@pages
def test_python_blocks_run_and_print_what_they_say(page, as_before, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": page.stem}
    for line, code in blocks(page.read_text()):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * (line - 1) + code, page, "exec"), namespace)
        says = expected(code)
        if says is not None:
            says, prints = (" ".join(t.split()) for t in (says, printed.getvalue()))
            assert prints == says, f"the block at {page.name}:{line} prints something else"


@pages
def test_links_lead_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)\s]*)\)", text):
        path, _, heading = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        if heading:
            titles = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}
            assert heading in anchors, f"{page.name} links to {target}; there are {sorted(anchors)}"


def test_the_index_links_every_page():
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index, page.name


def test_pictures_are_up_to_date():
    spec = importlib.util.spec_from_file_location("make_pictures", ROOT / "docs" / "make_pictures.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    for name, draw in make.PICTURES.items():
        if name == "cpu-time.svg" and _core.info()["cpu_target"] != "avx512":
            continue  # drawn from the counts of that target
        assert (make.IMAGES / name).read_text() == draw(), f"{name}: run python docs/make_pictures.py"


# ---- the tests above see what they should


def test_blocks_are_found_with_their_lines():
    text = (
        "a\n\n```python\nx = 1\n```\n```cpp\nint y;\n```\n<!-- not run: no GPU -->\n```python\n1 / 0\n```\n"
    )
    assert list(blocks(text)) == [(4, "x = 1\n")]
    assert list(blocks("1. a\n   ```python\n   x = 1\n   ```\n")) == [(3, "x = 1\n")]  # in a list
    assert list(blocks("<!-- not run: -->\n```python\ny\n```\n")) == [(3, "y\n")]  # a reason is due


def test_expected_output_is_read_from_comments():
    assert expected("print(1)  # one\n#    more\n") is None
    code = "print(1)  # -> 1\nprint('a b c')\n# -> a b\n#    c\nx = '# -> no'\n# other\n"
    assert expected(code).split() == ["1", "a", "b", "c"]
