# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The documentation is true: every Python block runs and prints what it says, links lead somewhere, and
the pictures and the page about speed are those that the scripts of docs/ make now.

The blocks of a page run in order, in one namespace. A block's comments `# -> text`, continued by comments
that begin with four spaces, are what it prints (white space does not count). A block that cannot run here
has a reason right above it: `<!-- not run: REASON -->`.
"""

import contextlib
import importlib
import inspect
import io
import re
import sys
import textwrap
import tokenize
from pathlib import Path

import pytest
import torch

import nearfield
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


def test_signatures_are_those_of_the_functions():
    """Dots stand for arguments that are left out."""
    text = (ROOT / "docs" / "operations.md").read_text()
    found = re.findall(r"^    (\w+)(\((?:query|outputs), (?:.|\n {5,})*?\))$", text, re.MULTILINE)
    assert len(found) == 6
    for name, arguments in found:
        scope = {}
        exec(f"def said{arguments.replace('..., ', '')}: pass", scope)
        said = inspect.signature(scope["said"]).parameters
        real = inspect.signature(getattr(nearfield, name)).parameters
        assert [p for n, p in real.items() if n in said] == list(said.values()), name
        assert len(said) == len(real) or "..." in arguments, name


def test_the_index_links_every_page():
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index, page.name


def script(name):
    """A module of docs/, which import each other."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "docs"))


@pytest.mark.parametrize(
    "name", ["make_pictures", "axis_pictures", "make_performance", "show_pictures", "stage_pictures"]
)
def test_pictures_are_up_to_date(name):
    images = ROOT / "docs" / "images"
    for picture, draw in script(name).PICTURES.items():
        if picture == "cpu-time.svg" and _core.info()["cpu_target"] != "avx512":
            continue  # drawn from the counts of that target
        assert (images / picture).read_text() == draw(), f"{picture}: run python docs/{name}.py"


def test_pages_say_which_command_drew_their_pictures():
    pages = [page.read_text() for page in (ROOT / "docs").glob("*.md")]
    for picture, command in script("show_pictures").COMMANDS.items():
        with_it = [page for page in pages if f"(images/{picture})" in page]
        assert with_it, f"{picture} is on no page"
        for page in with_it:
            assert f"nearfield show {command}" in page[: page.index(f"(images/{picture})")], picture


def test_the_page_about_speed_is_what_the_bench_measured():
    make = script("make_performance")
    assert make.PAGE.read_text() == make.page(), "run python docs/make_performance.py"
    rows = [row for path in make.sources("speed") for row in make.speed(path)]
    assert rows
    for row in rows:  # every row is a problem of the library
        assert _core.problem(row.problem)["problem"] == row.problem
        assert 0 < row.peak < 100 and row.ms > 0
        assert row.lead is None or row.lead[0] == min(row.ratios.values())


def test_the_site_has_every_page():
    """mkdocs.yml names the pages; those that are not written yet may be named, none may be missing."""
    named = set(re.findall(r"^ +- .*: ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert {p.name for p in (ROOT / "docs").glob("*.md")} <= named


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
