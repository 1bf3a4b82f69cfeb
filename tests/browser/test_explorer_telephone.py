# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The explorer on a telephone: everything is seen, fingers scroll and choose."""

import pytest
from explorer_page import whole


@pytest.mark.parametrize(
    "state",
    [
        "x=6x10x10&k=3x5x5&c=100&q=3x4x5&tq=2x4x4&tk=2x4x4&view=tiles",
        "x=256&k=7&q=100",
        "x=32x32&k=7x7",
        "x=16x32x32&k=3x7x7",
    ],
)
def test_nothing_is_cut(page, telephone, picture, state):
    page.open(state)
    wide = telephone.execute_script(
        "const root = document.getElementById('nf-explorer');"
        "const parts = ['counts', 'seen', 'pictures', 'axes'].map((n) => `[data-nf=${n}]`);"
        "return [...root.querySelectorAll([...parts, 'input', 'button', 'canvas'].join())].map((p) => ["
        "  p.outerHTML.slice(0, 50), p.getBoundingClientRect().right, p.scrollWidth - p.clientWidth])"
    )
    assert all(right <= 390 and (over <= 0 or "<input" in part) for part, right, over in wide), wide
    assert telephone.execute_script("return document.documentElement.scrollWidth") <= 390
    name = "page-explorer-telephone" + str(state.partition("&")[0].count("x"))
    picture(f"{name}.png", whole(telephone, "#nf-explorer"))


@pytest.fixture
def layout(page, telephone):
    """[left, top, width, height] of the layout on the screen."""
    page.open("x=12x12&k=5x5&q=0x0")
    return telephone.execute_script(
        "arguments[0].scrollIntoView({block: 'center'});"
        "const b = arguments[0].getBoundingClientRect(); return [b.left, b.top, b.width, b.height]",
        page.find("layout"),
    )


def touch(driver, points):
    """A finger goes from the first point to the last."""
    for i, point in enumerate(points):
        kind = "touchMove" if i else "touchStart"
        driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
    driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    driver.execute_async_script("setTimeout(arguments[0], 300)")


def test_a_tap_chooses(page, telephone, layout):
    left, top, width, height = layout
    at = {"x": left + width * 7.5 / 12, "y": top + height * 4.5 / 12}
    touch(telephone, [at])
    assert page.ask("state()")["query"] == [4, 7] and "Pinned" not in page.text("pin")


def test_a_finger_that_goes_sideways_leads_the_query(page, telephone, layout):
    left, top, width, height = layout
    at = {"x": left + width * 2.5 / 12, "y": top + height * 4.5 / 12}
    touch(telephone, [{**at, "x": at["x"] + width * i / 12} for i in range(6)])
    assert page.ask("state()")["query"] == [4, 7]


def test_a_finger_on_a_picture_scrolls_the_page(page, telephone, layout):
    left, top, width, height = layout
    before = telephone.execute_script("return scrollY")
    at = {"x": left + width / 2, "y": top + height / 2}
    touch(telephone, [{**at, "y": at["y"] - 20 * i} for i in range(11)])
    assert telephone.execute_script("return scrollY") > before + 100
    assert page.ask("state()")["query"] == [0, 0]
