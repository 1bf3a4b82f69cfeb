# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The explorer in use: a pointer, keys, fingers, fields, links and what is copied."""

import pytest
from explorer_page import visible
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By

from nearfield import _core


def test_a_pointer_and_keys_move_the_query(page):
    page.go("x=10x10&k=5x5&q=0x0")
    size = page.find("layout").size["width"] / 10
    for y, x in ((4, 7), (9, 0), (2, 2)):
        page.move("layout", (x + 0.5) * size, (y + 0.5) * size)
        assert page.ask("state()")["query"] == [y, x]
        windows = [visible(page.text("problem"), axis) for axis in (0, 1)]
        assert page.seen() == [sorted(windows[0][y]), sorted(windows[1][x])]
        assert f"q={y}x{x}" in page.hash()
    page.find("layout").send_keys(Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP)
    assert page.ask("state()")["query"] == [2, 4]
    side = page.find("matrix").size["height"]
    page.move("matrix", side / 2, side * (37 + 0.5) / 100)  # row 37 of 100
    assert page.ask("state()")["query"] == [3, 7]


def test_a_click_pins_the_query(page):
    page.open("x=10x10&k=5x5&q=0x0")
    size = page.ask("cell()")[0]

    def move(y, x, click=False):
        page.move("layout", (x + 0.5) * size, (y + 0.5) * size)
        if click:
            ActionChains(page.driver, duration=0).click().perform()
        return page.ask("state()")["query"]

    assert move(4, 7) == [4, 7] and "Pinned" not in page.text("pin")
    assert move(3, 6, click=True) == [3, 6] and page.text("pin").startswith("Pinned: query 3, 6.")
    side = page.find("matrix").size["height"]
    page.move("matrix", side / 2, side * 0.775)  # on the way to the button
    assert move(8, 8) == [3, 6]
    page.find("layout").send_keys(Keys.ARROW_DOWN)
    assert page.ask("state()")["query"] == [4, 6] and "Pinned: query 4, 6" in page.text("pin")
    assert move(8, 8, click=True) == [8, 8] and "Pinned: query 8, 8" in page.text("pin")
    assert move(1, 1) == [8, 8]
    assert move(8, 8, click=True) == [8, 8] and "Pinned" not in page.text("pin")
    assert move(1, 1) == [1, 1]
    move(2, 2, click=True)
    example = page.driver.find_element(By.CSS_SELECTOR, "[data-state]")
    page.driver.execute_script("arguments[0].click()", example)  # its query is one that nobody pinned
    assert "Pinned" not in page.text("pin")


def test_the_address_waits_until_the_moves_end(page):
    page.open("x=10x10&k=5x5&q=0x0")
    page.hash()
    page.driver.execute_script(
        "window.writes = 0; const write = history.replaceState.bind(history);"
        "history.replaceState = (...what) => { ++window.writes; write(...what); };"
    )
    page.find("layout").send_keys(*[Keys.ARROW_RIGHT, Keys.ARROW_LEFT] * 30, Keys.ARROW_DOWN)
    said = page.text("link")
    page.driver.execute_async_script("setTimeout(arguments[0], 400)")
    assert page.driver.execute_script("return writes") < 5
    assert page.driver.current_url == said and said.endswith("q=1x0")


def test_the_matrix_is_made_once_for_a_problem(page):
    page.go("x=32x32&k=7x7&view=tiles&q=3x3")
    made = page.driver.execute_script(
        "const make = OffscreenCanvas; let made = 0;"
        "window.OffscreenCanvas = function (...size) { ++made; return new make(...size); };"
        "const press = (key) => arguments[0].dispatchEvent(new KeyboardEvent('keydown', {key}));"
        "for (let i = 0; i < 20; ++i) press(i % 2 ? 'ArrowLeft' : 'ArrowDown');"
        "window.OffscreenCanvas = make; return made",
        page.find("layout"),
    )
    assert made == 0


def test_a_heading_in_the_address_changes_nothing(page):
    page.open("x=20x20&k=7x7&q=3x4")
    before = page.ask("state()")
    page.go("explorer")  # "skip to content" and the mark behind the heading lead there
    assert page.ask("state()") == before


def test_the_rank_that_is_chosen_changes_nothing(page):
    page.go("x=20x20&k=7x7&q=3x4")
    before = page.ask("state()")
    page.driver.find_element(By.CSS_SELECTOR, '[data-rank="2"]').click()
    assert page.ask("state()") == before
    page.driver.find_element(By.CSS_SELECTOR, '[data-rank="1"]').click()
    assert page.ask("state()")["rank"] == 1


@pytest.mark.parametrize("what", ["problem", "call", "link"])
def test_what_is_copied(page, what):
    page.open("x=20x20&k=7x7&q=3x4")
    clipboard = "Object.defineProperty(navigator, 'clipboard', {configurable: true, value: %s});"
    button = page.driver.find_element(By.CSS_SELECTOR, f'[data-copy="{what}"]')
    page.driver.execute_script(clipboard % "{writeText: async (text) => { window.copied = text; }}")
    button.click()
    assert page.driver.execute_script("return copied") == page.text(what)
    if what == "link":
        assert page.text(what) == page.driver.current_url == f"{page.address}#x=20x20&k=7x7&q=3x4"
    for none in ("undefined", "{writeText: async () => { throw new Error('denied'); }}"):
        page.driver.execute_script("getSelection().removeAllRanges();" + clipboard % none)
        button.click()
        assert button.text == "press Ctrl-C"
        assert page.driver.execute_script("return String(getSelection())") == page.text(what)


def test_words_follow_what_is_shown(page):
    page.go("x=12x12&k=5x5")
    assert page.text("alike") == "queries with the same window"
    page.go("x=12x12&k=5x5&show=queries")
    assert page.text("alike") == "keys seen by the same queries" and "see it" in page.text("sight")


@pytest.mark.parametrize("rank, most", [(1, 256), (2, 64), (3, 32)])
def test_the_limits_that_are_said_hold(page, rank, most):
    page.go("x=" + "x".join(["999"] * rank))
    assert page.ask("state()")["extent"] == [most] * rank
    assert " × ".join([str(most)] * rank) + " tokens" in page.text("limits")
    assert f"axis 0: extent 999 is {most} here" in page.text("note")


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
    box = page.driver.find_element(By.CSS_SELECTOR, 'input[data-name="queryTile"][data-axis="0"]')
    box.send_keys(Keys.CONTROL + "a")
    box.send_keys("13", Keys.TAB)
    assert page.text("note") == "axis 0: query tile 13 is 12 here"
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
        ("x=64x3", ""),  # what it leaves out gives way without a word
        ("x=64x3&tq=4x4", "axis 1: query tile 4 is 3 here"),
        ("x=8x8&k=3x3&c=01&view=tiles&show=queries", ""),
        ("", ""),
        ("explorer", ""),
    ],
)
def test_a_link_that_cannot_be_read_is_said(page, state, note):
    page.open(state)
    assert note in page.text("note") if note else page.text("note") == ""


def test_a_link_keeps_the_state(page):
    state = "x=9x11&k=3x5&s=1x2&d=2x1&c=01&q=4x5&tq=2x3&tk=3x5&view=tiles&show=queries"
    page.open(state)
    before = page.ask("state()")
    assert page.hash() == f"#{state}"
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
