"""Every page, opened in a browser: no errors in its console, nothing wider than the window."""

from __future__ import annotations

import pytest
from dashboard_browser import Browser

from effsim.dashboard.app import pages

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("path", [page.path for page in pages()])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_every_page_opens(browser: Browser, path: str, width: int, dark: bool) -> None:
    browser.open(path, width=width, height=844 if width < 600 else 800, dark=dark)
    assert browser.find("h1").text
    assert browser.wide() <= 0
