"""A headless browser on the served dashboard, and components as text."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 60.0


def text(component: Any) -> str:
    """Components as JSON: what they say, to search in."""
    return json.dumps(component, default=lambda part: part.to_plotly_json(), ensure_ascii=False)


class Browser:
    """A headless browser on the served dashboard."""

    def __init__(self, driver: Any, base: str) -> None:
        self.driver, self.base = driver, base

    def open(self, path: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open a page and wait until it has settled."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        self.driver.get(self.base + path)
        self.find("#page > *")
        self.settle()

    def find(self, selector: str) -> Any:
        """The first element of a CSS selector, waited for."""
        return self.until(lambda: next(iter(self.all(selector)), None), selector)

    def all(self, selector: str) -> list[Any]:
        """All elements of a CSS selector, as they are now."""
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def until(self, ready: Callable[[], Any], what: str = "the page", patience_s: float = PATIENCE_S) -> Any:
        """What *ready* gives once it is true."""
        from selenium.common.exceptions import StaleElementReferenceException

        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            try:
                if found := ready():
                    return found
            except StaleElementReferenceException:
                pass  # the page was drawn anew meanwhile
            time.sleep(0.05)
        raise AssertionError(f"waited {patience_s:.0f} s for {what}; the page says: {self.text()[:2000]}")

    def settle(self, quiet_s: float = 0.5) -> None:
        """Wait until nothing is loading and nothing changes."""
        state = "return document.body.innerText + document.querySelectorAll('svg').length + location.href"
        loading = "return document.querySelectorAll('[data-dash-is-loading=true], ._dash-loading').length"
        last, since, end = None, time.monotonic(), time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            now = self.driver.execute_script(state)
            if now != last or self.driver.execute_script(loading):
                last, since = now, time.monotonic()
            if time.monotonic() - since > quiet_s:
                return
            time.sleep(0.05)

    def text(self) -> str:
        """What the page says."""
        return str(self.driver.execute_script("return document.body.innerText"))

    def wide(self) -> int:
        """Pixels by which the page is wider than the window."""
        return int(self.driver.execute_script("return document.documentElement.scrollWidth - window.innerWidth"))

    def errors(self) -> list[str]:
        """Errors of the console since the last time they were asked for."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
