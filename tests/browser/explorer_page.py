# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The explorer as the tests drive it, and problems to show there."""

import random

from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from nearfield import _core


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
        if self.hash() != f"#{state}":
            self.driver.execute_async_script(
                "const done = arguments[1];"
                "addEventListener('hashchange', () => setTimeout(done, 0), {once: true});"
                "location.hash = arguments[0];",
                state,
            )

    def hash(self) -> str:
        """What the address bar says after the #, once written: the page waits, but not when it is left."""
        return self.driver.execute_script("dispatchEvent(new Event('blur')); return location.hash")

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


def whole(browser, css: str) -> bytes:
    """A part of the page, without the header that floats over it."""
    part = browser.find_element(By.CSS_SELECTOR, css)
    browser.execute_script(
        "document.querySelector('.md-header').style.visibility = 'hidden'; arguments[0].scrollIntoView()",
        part,
    )
    return part.screenshot_as_png


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
