# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The site in headless Chromium: build/site is served on this machine, one browser for all tests.

Debian's chromium and chromedriver, driven by selenium; without either the tests are skipped, with a reason.
Pictures go to build/browser; with NEARFIELD_WRITE_SCREENSHOTS=1 those of the explorer also to docs/images,
where pages show them.
"""

import functools
import http.server
import os
import shutil
import threading
from pathlib import Path

import pytest
from explorer_page import Page

ROOT = Path(__file__).parents[2]
SITE = ROOT / "build" / "site"
PICTURES = ROOT / "build" / "browser"
WIDTH, HEIGHT = 1300, 1000


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def site():
    """The address of the site."""
    if not (SITE / "explorer.html").is_file():
        pytest.skip("no build/site: make docs")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="session")
def browser():
    selenium = pytest.importorskip("selenium.webdriver", reason="no selenium")
    paths = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if None in paths.values():
        pytest.skip("no chromium or no chromedriver (Debian: chromium chromium-driver)")
    options = selenium.ChromeOptions()
    options.binary_location = paths["chromium"]
    for argument in (
        "--headless=new",
        "--no-sandbox",  # root in a container has none
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--hide-scrollbars",
        "--force-device-scale-factor=1",
        f"--window-size={WIDTH},{HEIGHT}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(paths["chromedriver"]))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def page(browser, site):
    return Page(browser, site)


@pytest.fixture
def telephone(browser):
    """390 pixels wide, as many telephones are, and touched; chromium's own windows are not that narrow."""
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    yield browser
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.fixture(autouse=True)
def no_complaints(browser):
    """Whatever a test does, the page logs no error."""
    browser.get_log("browser")
    yield
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []


@pytest.fixture(scope="session")
def picture():
    """picture(name, png): keeps a screenshot."""
    shown = ROOT / "docs" / "images"

    def keep(name: str, png: bytes):
        write = os.environ.get("NEARFIELD_WRITE_SCREENSHOTS") == "1" and name.startswith("explorer")
        for folder in [PICTURES, shown] if write else [PICTURES]:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(png)

    return keep
