# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The explorer says what the library says: windows, counts, problem strings, for random problems; what is
drawn is what is said; the link keeps the state."""

import itertools
import math
import random

import pytest
import torch
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

import nearfield as nf
from nearfield import _core

SEEN, PLAIN = (240, 166, 60), (236, 239, 243)  # explorer.css, light


class Page:
    """The explorer, seen from outside."""

    def __init__(self, driver, site):
        self.driver, self.address = driver, site + "explorer.html"
        self.open("")

    def open(self, state: str):
        self.driver.get("about:blank")
        self.driver.get(f"{self.address}#{state}")
        ready = "return document.getElementById('nf-explorer').dataset.ready === '1'"
        WebDriverWait(self.driver, 30).until(lambda d: d.execute_script(ready))

    def go(self, state: str):
        """Follows a link to a state on the open page."""
        before = self.driver.execute_script("return location.hash")
        if before != f"#{state}":
            self.driver.execute_async_script(
                "const done = arguments[1];"
                "addEventListener('hashchange', () => setTimeout(done, 0), {once: true});"
                "location.hash = arguments[0];",
                state,
            )

    def find(self, name: str):
        return self.driver.find_element(By.CSS_SELECTOR, f'[data-nf="{name}"]')

    def text(self, name: str) -> str:
        return self.driver.execute_script("return arguments[0].textContent", self.find(name))

    def ask(self, expression: str):
        return self.driver.execute_script(f"return nearfieldExplorer.{expression}")

    def seen(self) -> list[list[int]]:
        """Per axis, the tokens in the table below the layout."""
        rows = self.driver.find_elements(By.CSS_SELECTOR, '[data-nf="seen"] tr[data-axis]')
        return [[int(n) for n in r.find_elements(By.TAG_NAME, "td")[2].text.split()] for r in rows]

    def colors(self, points) -> list[tuple]:
        """What is drawn on the layout, at points in CSS pixels."""
        return [
            tuple(c)
            for c in self.driver.execute_script(
                "const context = arguments[0].getContext('2d'), d = devicePixelRatio;"
                "const at = ([x, y]) => [...context.getImageData(x * d, y * d, 1, 1).data].slice(0, 3);"
                "return arguments[1].map(at);",
                self.find("layout"),
                points,
            )
        ]

    def move(self, name: str, x: float, y: float):
        canvas = self.find(name)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
        size = canvas.size
        offset = round(x - size["width"] / 2), round(y - size["height"] / 2)
        ActionChains(self.driver, duration=0).move_to_element_with_offset(canvas, *offset).perform()


@pytest.fixture(scope="module")
def page(browser, site):
    return Page(browser, site)


def drawn_by_lot(dice: random.Random, rank: int, most: int) -> dict:
    """A legal problem: one list per name, slowest axis first."""
    extent = [dice.randint(1, most) for _ in range(rank)]
    dilation = [dice.choice((1, 1, dice.randint(1, n))) for n in extent]
    window = [dice.randint(1, n // d) for n, d in zip(extent, dilation, strict=True)]
    return {
        "x": extent,
        "k": window,
        "s": [dice.choice((1, dice.randint(1, k))) for k in window],
        "d": dilation,
        "c": [dice.random() < 0.4 for _ in extent],
        "q": [dice.randrange(n) for n in extent],
        "tq": [dice.randint(1, n) for n in extent],
        "tk": [dice.randint(1, n) for n in extent],
    }


def link(state: dict) -> str:
    return "&".join(
        f"{name}={''.join(map(str, map(int, values))) if name == 'c' else 'x'.join(map(str, values))}"
        for name, values in state.items()
    )


def problem(state: dict) -> str:
    """The canonical string, from the library."""
    axes = {name: "x".join(map(str, state[name])) for name in "xksd"}
    causal = "".join(str(int(c)) for c in state["c"])
    text = f"na:fwd:f32:b1h4kv4d64:{axes['x']}:k{axes['k']}:s{axes['s']}:d{axes['d']}:c{causal}"
    return _core.problem(text)["problem"]


def visible(text: str, axis: int) -> list[set]:
    """The keys of every query of an axis."""
    a = _core.intervals(text, 0, axis)
    return [set(range(b, e, a["dilation"])) for b, e in zip(a["begin"], a["end"], strict=True)]


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


def test_what_is_drawn_is_what_is_said(page):
    for rank, state in (
        (2, "x=9x12&k=5x4&d=1x2&q=3x6"),
        (3, "x=3x6x7&k=2x3x5&c=100&q=1x2x3"),
        (1, "x=20&k=6&s=3&q=9"),
    ):
        page.go(state)
        extent = [int(n) for n in state.split("&")[0][2:].split("x")]
        places = page.driver.execute_script(
            "const s = nearfieldExplorer.state();"
            "const wide = document.querySelector('[data-nf=pictures]').clientWidth;"
            "const w = places(s, s.rank === 1 ? wide : wide > 760 ? (wide - 32) / 2 : wide);"
            "return {size: w.size, at: Array.from({length: w.slices}, (_, z) => w.at(z))}"
        )
        tokens = [[0] * (3 - rank) + list(t) for t in itertools.product(*map(range, extent))]
        corner = places["size"] * 0.08 + 1  # marks of the query and of its peers leave the corners free
        points = [
            (
                places["at"][z]["left"] + x * places["size"] + corner,
                places["at"][z]["top"] + y * places["size"] + corner,
            )
            for z, y, x in tokens
        ]
        seen = [set(axis) for axis in page.seen()]
        for token, color in zip(tokens, page.colors(points), strict=True):
            inside = all(t in s for t, s in zip(token[3 - rank :], seen, strict=True))
            assert color == (SEEN if inside else PLAIN), (state, token)


def test_pictures_fit_and_large_layouts_go_without_a_matrix(page):
    for state, drawn in (
        ("x=6x10x10&k=3x5x5", True),
        ("x=32x32&k=7x7&view=tiles", True),
        ("x=64x64&k=7x7", False),
    ):
        page.go(state)
        assert page.find("matrix").is_displayed() == drawn and page.find("too-many").is_displayed() != drawn
        wide = page.find("pictures").size["width"]
        for name in ("layout", "matrix") if drawn else ("layout",):
            size = page.find(name).size
            assert size["width"] <= wide / 2 and (name == "layout" or size["width"] == size["height"])


def test_a_pointer_and_keys_move_the_query(page):
    page.go("x=10x10&k=5x5&q=0x0")
    size = page.find("layout").size["width"] / 10
    for y, x in ((4, 7), (9, 0), (2, 2)):
        page.move("layout", (x + 0.5) * size, (y + 0.5) * size)
        assert page.ask("state()")["query"] == [y, x]
        windows = [visible(page.text("problem"), axis) for axis in (0, 1)]
        assert page.seen() == [sorted(windows[0][y]), sorted(windows[1][x])]
        assert f"q={y}x{x}" in page.driver.current_url
    page.find("layout").send_keys(Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP)
    assert page.ask("state()")["query"] == [2, 4]
    side = page.find("matrix").size["height"]
    page.move("matrix", side / 2, side * (37 + 0.5) / 100)  # row 37 of 100
    assert page.ask("state()")["query"] == [3, 7]


def test_controls_hold_to_the_rules_of_the_library(page):
    page.go("x=12x12&k=5x5&d=2x1")
    box = page.driver.find_element(By.CSS_SELECTOR, 'input[data-name="window"][data-axis="0"]')
    box.send_keys(Keys.CONTROL + "a")
    box.send_keys("99", Keys.TAB)
    assert page.ask("state()")["window"] == [6, 5]
    assert "window 99 is 6 here" in page.text("note") and box.get_attribute("value") == "6"
    assert page.driver.switch_to.active_element.get_attribute("data-name") == "stride"  # the focus goes on
    with pytest.raises(ValueError, match="the largest legal kernel_size there is 6"):
        _core.problem("na:fwd:f32:b1h4kv4d64:12x12:k99x5:d2x1")
    box = page.driver.find_element(By.CSS_SELECTOR, 'input[data-name="causal"][data-axis="1"]')
    box.click()
    assert page.text("problem").endswith(":d2x1:c01")


@pytest.mark.parametrize("typed", ["", "-", "e"])
def test_an_empty_field_keeps_the_number(page, typed):
    page.go("x=12x12&k=5x5")
    box = page.driver.find_element(By.CSS_SELECTOR, 'input[data-name="window"][data-axis="0"]')
    box.send_keys(Keys.CONTROL + "a")
    box.send_keys(Keys.DELETE, typed, Keys.TAB)
    assert page.ask("state()")["window"] == [5, 5] and box.get_attribute("value") == "5"
    assert page.text("note") == "axis 0: expected a number for the window, 5 stays"
    page.driver.find_element(By.CSS_SELECTOR, 'input[data-name="causal"][data-axis="1"]').click()
    assert page.text("note") == ""


@pytest.mark.parametrize(
    "state, note",
    [
        ("x=4xq", "no layout that can be read"),
        ("k=3x3", "no layout that can be read"),
        ("x=8x8&k=3", "k=3 is no window of 2 axes"),
        ("x=8x8&k=3xq", "k=3xq is no window of 2 axes"),
        ("x=8x8&c=2", "c=2 is no causal of 2 axes"),
        ("x=8&tq=a", "tq=a is no query tile of 1 axis"),
        ("x=8&view=upside", "view=upside is not raster or tiles"),
        ("x=8&w=3", "w means nothing here"),
        ("x=8x8&k=3x3&c=01&view=tiles&show=queries", ""),
        ("", ""),
        ("explorer", ""),
    ],
)
def test_a_link_that_cannot_be_read_is_said(page, state, note):
    page.open(state)
    assert note in page.text("note") if note else page.text("note") == ""


def test_on_a_telephone_nothing_is_cut(page, browser, picture):
    """390 pixels wide, as many telephones are; chromium's own windows are not that narrow."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True},
    )
    try:
        page.open("x=6x10x10&k=3x5x5&c=100&q=3x4x5&tq=2x4x4&tk=2x4x4&view=tiles")
        wide = browser.execute_script(
            "const root = document.getElementById('nf-explorer');"
            "return ['counts', 'seen', 'pictures'].map((n) => {"
            "  const part = root.querySelector(`[data-nf=${n}]`), box = part.getBoundingClientRect();"
            "  return [n, box.right, part.scrollWidth - part.clientWidth]; })"
        )
        assert all(right <= 390 and over <= 0 for _, right, over in wide), wide
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        picture("page-explorer-telephone.png", whole(browser, "#nf-explorer"))
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_link_keeps_the_state(page):
    state = "x=9x11&k=3x5&s=1x2&d=2x1&c=01&q=4x5&tq=2x3&tk=3x5&view=tiles&show=queries"
    page.open(state)
    before = page.ask("state()")
    assert page.driver.current_url.endswith(f"#{state}")
    assert before["view"] == "tiles" and before["show"] == "queries" and before["keyTile"] == [3, 5]
    page.driver.refresh()
    page.open(page.driver.current_url.partition("#")[2])
    assert page.ask("state()") == before
    for nonsense in ("x=0x4", "x=4xq", "k=3", "x=4x4&k=99x-1&s=7", "x=1x1x1x1"):
        page.open(nonsense)  # something legal is shown, and no error
        assert _core.problem(page.text("problem"))


@pytest.mark.parametrize("name", ["index", "explorer", "performance", "semantics"])
def test_pages_load_nothing_from_elsewhere(browser, site, name):
    browser.get(f"{site}{name}.html")
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((r) => r.name)")
    assert loaded and all(url.startswith((site, "data:", "blob:")) for url in loaded), loaded


# Pictures of the docs.


def whole(browser, css: str) -> bytes:
    """A part of the page, without the header that floats over it."""
    part = browser.find_element(By.CSS_SELECTOR, css)
    browser.execute_script(
        "document.querySelector('.md-header').style.visibility = 'hidden'; arguments[0].scrollIntoView()",
        part,
    )
    return part.screenshot_as_png


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
