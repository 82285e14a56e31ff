"""The what-if page in a browser: every control used once, with the keyboard too."""

from __future__ import annotations

from typing import Any

import pytest
from dashboard_browser import Browser

pytestmark = pytest.mark.slow
PATH = "/what-if?hardware=gpu_a100&workload=llama7b_decode"
BANDWIDTH = "hardware.memory.bandwidth"


def control(browser: Browser, kind: str, path: str = BANDWIDTH, inner: str = "") -> Any:
    return browser.find(f"""[id='{{"path":"{path}","type":"{kind}"}}'] {inner}""".strip())


def said(browser: Browser, name: str) -> str:
    return str(browser.find(f"#{name}").text)


def choose(browser: Browser, target: Any, option: str) -> None:
    """Pick an option of a list."""
    browser.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", target)
    target.click()
    browser.until(lambda: [e for e in browser.all("[role=option]") if e.text == option], option)[0].click()


def test_every_control_is_used_once(browser: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(PATH)
    # the slider, with the keyboard; it has a name, and keeps the focus
    handle = control(browser, "what-slider", inner="[role=slider]")
    browser.until(lambda: handle.get_attribute("aria-label") == "bandwidth, slider", "the slider's name")
    handle.send_keys(Keys.ARROW_RIGHT)
    browser.until(lambda: "2.13 TB/s" in said(browser, "what-changed"), "the slider's change")
    browser.until(lambda: "faster" in said(browser, "what-report"), "the answer")
    assert browser.driver.execute_script("return document.activeElement.getAttribute('role')") == "slider"
    # the text
    line = control(browser, "what-text")
    assert line.get_attribute("value") == "2.13 TB/s"
    line.send_keys(Keys.CONTROL, "a")
    line.send_keys("4 TB/s", Keys.ENTER)
    browser.until(lambda: "4 TB/s" in said(browser, "what-changed"), "the typed change")
    # pinned: no difference; unpinned again
    browser.find("#what-pin-now").click()
    browser.until(lambda: "4 TB/s" in said(browser, "what-baseline"), "the baseline")
    browser.until(lambda: "pin=" in browser.driver.current_url, "the link")
    browser.until(lambda: "Nothing differs" in said(browser, "what-cause"), "no difference")
    browser.find("#what-unpin").click()
    browser.until(lambda: "as they are" in said(browser, "what-baseline"), "the files as baseline")
    # an error leaves the last answer in grey
    line.send_keys(Keys.CONTROL, "a")
    line.send_keys("4 Tb", Keys.ENTER)
    browser.until(lambda: browser.all("#what-report.what-stale"), "the grey answer")
    assert "amount of data" in said(browser, "what-said")
    control(browser, "what-undo").click()
    browser.until(lambda: browser.all("#what-report.what-shown"), "the answer again")
    assert line.get_attribute("value") == "2.039 TB/s"
    # a choice of another group
    choose(browser, browser.find("#what-group"), "workload.precision (4)")
    browser.until(lambda: browser.all(".what-origin"), "the group")
    browser.settle()
    browser.find("#what-controls > details > summary").click()
    choose(browser, control(browser, "what-choice", "workload.precision.kv_cache"), "fp8")
    browser.until(lambda: "kv_cache" in said(browser, "what-changed"), "the choice")
    # search, reset, another reading and machine
    browser.find("#what-search").send_keys("bandw")
    browser.until(lambda: "hardware.l2.bandwidth" in said(browser, "what-controls"), "what was searched")
    browser.find("#what-reset").click()
    browser.until(lambda: "Nothing yet" in said(browser, "what-changed"), "nothing changed")
    choose(browser, browser.find("#what-engine"), "roofline")
    browser.until(lambda: "engine roofline" in said(browser, "what-setup"), "the reading")
    choose(browser, browser.find("#what-hardware"), "gpu_a10")
    browser.until(lambda: "A10 " in said(browser, "what-report"), "the machine")
    browser.find("#what-save-json").click()
    browser.find("#what-full").click()
    browser.until(lambda: browser.find("h1").text == "Run", "the full run")


def test_a_link_brings_the_view_back_on_a_phone(browser: Browser) -> None:
    browser.open(f"{PATH}&set={BANDWIDTH}%3D4+TB%2Fs&group=workload&find=", width=390, height=844, dark=True)
    browser.until(lambda: "4 TB/s" in said(browser, "what-changed"), "the change")
    assert control(browser, "what-text", "workload.batch").get_attribute("value") == "8"
    assert browser.wide() <= 0
