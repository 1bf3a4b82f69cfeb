# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The explorer says what the library says: windows, counts, problem strings, for random problems; what is
drawn is what is said."""

import itertools
import math
import random

import pytest
import torch
from explorer_page import drawn_by_lot, link, problem, visible, whole

import nearfield as nf
from nearfield import _core

SEEN, PLAIN = (240, 166, 60), (236, 239, 243)  # explorer.css, light


def runs(extent: int, dilation: int, length: int) -> list[list[int]]:
    """Tiles of an axis, as tokens."""
    groups = (list(range(g, extent, dilation)) for g in range(dilation))
    return [g[i : i + length] for g in groups for i in range(0, len(g), length)]


def tile_facts(state: dict, text: str) -> dict:
    """Counts of tile pairs, and what is computed: token by token, from what the library says is visible."""
    kinds, computed, hulls = [], 1, 1
    for axis, extent in enumerate(state["x"]):
        sees = visible(text, axis)
        queries, keys = (runs(extent, state["d"][axis], state[n][axis]) for n in ("tq", "tk"))
        pairs = [  # of one dilation group: others have nothing in common
            (q, k, [j in sees[i] for i in q for j in k])
            for q, k in itertools.product(queries, keys)
            if (q[0] - k[0]) % state["d"][axis] == 0
        ]
        touched = [(q, k, all(see)) for q, k, see in pairs if any(see)]
        kinds.append((len(pairs), len(touched), sum(full for _, _, full in touched)))
        computed *= sum(len(q) * len(k) for q, k, _ in touched)
        hulls *= sum(len(q) * len(set().union(*(sees[i] for i in q))) for q in queries)
    every, touched, full = (math.prod(k[i] for k in kinds) for i in range(3))
    return {
        "skipped": every - touched,
        "partial": touched - full,
        "full": full,
        "computed": computed,
        "hulls": hulls,
    }


@pytest.mark.parametrize("rank, most, count", [(1, 60, 25), (2, 20, 25), (3, 9, 15)])
def test_random_problems_agree_with_the_package(page, rank, most, count):
    dice = random.Random(rank)
    for _ in range(count):
        state = drawn_by_lot(dice, rank, most)
        page.go(link(state))
        text = problem(state)
        assert page.text("problem") == text
        windows = [visible(text, axis) for axis in range(rank)]
        for axis, (of_keys, of_queries) in enumerate(
            zip(page.ask("intervals('keys')"), page.ask("intervals('queries')"), strict=True)
        ):
            d = state["d"][axis]
            assert [set(range(b, e, d)) for b, e in of_keys] == windows[axis], text
            seen_by = [{q for q, w in enumerate(windows[axis]) if k in w} for k in range(state["x"][axis])]
            assert [set(range(b, e, d)) for b, e in of_queries] == seen_by, text
        assert page.seen() == [sorted(w[q]) for w, q in zip(windows, state["q"], strict=True)]

        counts, facts = page.ask("counts()"), tile_facts(state, text)
        assert counts["pairs"] == _core.problem(text)["pairs"]
        assert {name: counts[name] for name in ("skipped", "partial", "full")} == {
            name: facts[name] for name in ("skipped", "partial", "full")
        }, text
        assert counts["tileWaste"] == pytest.approx(facts["computed"] / counts["pairs"])
        assert counts["hullWaste"] == pytest.approx(facts["hulls"] / counts["pairs"])


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_call_in_python_runs_and_sees_the_same(page, rank):
    dice = random.Random(10 + rank)
    for _ in range(4):
        state = drawn_by_lot(dice, rank, 5 if rank == 3 else 7)
        page.go(link(state))
        n = math.prod(state["x"])
        q = k = torch.zeros(1, *state["x"], 1, 1)
        v = torch.eye(n).reshape(1, *state["x"], 1, n)
        weights = eval(page.text("call"), {"nf": nf, "q": q, "k": k, "v": v})
        mine = weights[(0, *state["q"], 0)].reshape(state["x"]) > 0
        boxes = list(itertools.product(*page.seen()))
        assert mine.sum() == len(boxes) and all(mine[token] for token in boxes)


@pytest.mark.parametrize(
    "state",
    [
        "x=9x12&k=5x4&d=1x2&q=3x6",
        "x=3x6x7&k=2x3x5&c=100&q=1x2x3",
        "x=20&k=6&s=3&q=9",
        "x=256&k=33&d=2&q=200",  # narrow cells
        "x=5x32x32&k=3x7x7&s=1x3x3&q=2x9x30",  # small ones
    ],
)
def test_what_is_drawn_is_what_is_said(page, state):
    page.go(state)
    extent, query = (page.ask(f"state().{name}") for name in ("extent", "query"))
    tokens = [list(t) for t in itertools.product(*map(range, extent))]
    wide, high = page.ask("cell()")
    # Marks of the query and of its peers leave the corners free, but of small cells the query fills its own.
    inside = [n * 0.08 + 1 if n >= 12 else 0.5 for n in (wide, high)]
    corners = page.driver.execute_script("return arguments[0].map(nearfieldExplorer.corner)", tokens)
    colors = page.colors([[at + i for at, i in zip(corner, inside, strict=True)] for corner in corners])
    seen = [set(axis) for axis in page.seen()]
    for token, color in zip(tokens, colors, strict=True):
        if token == query and wide < 9:
            continue
        sees = all(t in s for t, s in zip(token, seen, strict=True))
        assert color == (SEEN if sees else PLAIN), token


@pytest.mark.parametrize(
    "state, drawn",
    [
        ("x=6x10x10&k=3x5x5", True),
        ("x=32x32&k=7x7&view=tiles", True),
        ("x=256&k=7", True),
        ("x=64x64&k=7x7", False),
        ("x=16x32x32&k=3x7x7", False),
        ("x=32x32x32&k=3x7x7", False),
    ],
)
def test_pictures_fit_and_large_layouts_go_without_a_matrix(page, state, drawn):
    page.go(state)
    assert page.find("matrix").is_displayed() == drawn and page.find("too-many").is_displayed() != drawn
    pictures = page.find("pictures").size["width"]
    one_column = not drawn or "x" not in state.partition("&")[0][2:]
    layout, matrix = page.find("layout").size, page.find("matrix").size
    assert layout["width"] <= (pictures if one_column else pictures / 2) and layout["height"] <= 700
    if drawn:
        assert matrix["width"] <= pictures / 2 and matrix["width"] == matrix["height"]
    wide, high = page.ask("cell()")
    assert wide >= 3 and high >= (20 if state.startswith("x=256") else 3)


def test_a_small_layout_has_cells_of_a_sensible_size(page):
    page.go("x=4x4&k=3x3")
    assert page.ask("cell()") == [28, 28]


# Pictures of the docs.


def test_screenshots(page, browser, site, picture):
    """Those that the docs show are in docs/images; all are in build/browser, to be looked at."""
    browser.set_window_size(1300, 1400)
    for name, state in (
        ("explorer.png", "x=16x16&k=7x7&q=6x9&tq=4x4&tk=4x4&view=tiles"),
        ("explorer-video.png", "x=6x10x10&k=3x5x5&c=100&q=3x4x5"),
    ):
        page.open(state)
        png = whole(browser, "#nf-explorer")
        assert len(png) > 20_000
        picture(name, png)
    browser.set_window_size(1300, 1000)
    for name in ("index", "semantics", "performance", "migrating"):
        browser.get(f"{site}{name}.html")
        picture(f"page-{name}.png", browser.get_screenshot_as_png())
