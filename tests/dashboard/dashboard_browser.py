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

    def click(self, selector: str) -> None:
        """Click an element, brought to the middle of the window first: a header stays over the top."""
        from selenium.common.exceptions import ElementClickInterceptedException, ElementNotInteractableException

        def clicked() -> bool:
            element = self.find(selector)
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
            try:
                element.click()
            except (ElementClickInterceptedException, ElementNotInteractableException):
                return False
            return True

        self.until(clicked, f"a click on {selector}")

    def use(self, name: str, value: str = "") -> None:
        """Operate the control of an id as its kind is operated, and wait until the page has settled.

        A file is sent, a text entered, a button clicked, a slider moved by a key; of a list, of buttons to choose
        from or of boxes the option that says *value* is taken, or the first that is not chosen.
        """
        from selenium.webdriver.common.keys import Keys

        element = self.find(f"[id='{name}']")
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)

        def inside(selector: str) -> list[Any]:
            return list(element.find_elements("css selector", selector))

        if name.endswith("-upload"):
            inside("input[type=file]")[0].send_keys(value)
        elif sliders := inside("[role=slider]"):
            sliders[0].send_keys(Keys.ARROW_RIGHT)
        elif boxes := inside("input[type=radio], input[type=checkbox]"):
            free = [box for box in boxes if not box.is_selected()] or boxes
            self.driver.execute_script("arguments[0].click()", free[0])
        elif element.tag_name == "input":
            element.send_keys(Keys.CONTROL, "a")
            element.send_keys(value, Keys.ENTER)
        elif element.get_attribute("aria-haspopup"):
            element.click()
            option = self.until(lambda: self._option(value), f"an option {value!r} of {name}")
            self.driver.execute_script("arguments[0].click()", option)  # the list's own search may lie over it
            self.driver.switch_to.active_element.send_keys(Keys.ESCAPE)  # a list of several stays open
        else:
            self.click(f"[id='{name}']")
        self.settle(0.3)

    def _option(self, value: str) -> Any:
        """The option of the open list that says *value*; the first that is not chosen."""
        for option in self.all(".dash-dropdown-option"):
            if option.text == value or (not value and option.get_attribute("aria-selected") != "true"):
                return option
        return None

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
