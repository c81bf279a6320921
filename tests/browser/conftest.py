"""A headless Chromium; without one the tests here are skipped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from playwright.sync_api import Page as Tab

    from langnorm.viz.html.page import Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}


def chromium_path() -> str | None:
    """Returns the browser that `LANGNORM_CHROMIUM` names, or the first that is installed."""
    named = os.environ.get("LANGNORM_CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser, ended with the module: while it runs, its event loop would be in the way of asynchronous tests."""
    path = chromium_path()
    if path is None:
        pytest.skip(f"no Chromium is installed here ({', '.join(NAMES)}); `LANGNORM_CHROMIUM` may name one")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Tab]]:
    """Returns a function that shows a page; what it asks the network for, or complains of, fails the test."""
    problems: list[str] = []
    tabs: list[Tab] = []

    def show(page: Page, size: str = "desktop", scheme: Any = "light") -> Tab:
        path = tmp_path / f"{len(tabs)}.html"
        page.save(path)
        tab = browser.new_page(viewport=SIZES[size], color_scheme=scheme)  # type: ignore[arg-type]
        tab.on("console", lambda message: problems.append(message.text))
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("dialog", lambda dialog: problems.append(dialog.message))
        tab.on("request", lambda request: request.url == path.as_uri() or problems.append(request.url))
        tab.goto(path.as_uri())
        tabs.append(tab)
        return tab

    yield show
    for tab in tabs:
        tab.close()
    assert not problems
