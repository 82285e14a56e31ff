"""The frame of the pages in a browser: links that restore, menu, theme, uploads, keyboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from dashboard_browser import Browser
from test_shelf import CONFIG, MINE

pytestmark = pytest.mark.slow

LINK = "/?hardware=gpu_h100&workload=llama3_8b_decode&engine=analytic&set=workload.batch%3D4"
HEADLINE = "#run-report .cards"


def query(browser: Browser) -> dict[str, list[str]]:
    return parse_qs(urlsplit(browser.driver.current_url).query)


def value(browser: Browser, name: str) -> str:
    """What a list shows."""
    return str(browser.find(f"#{name}").text).strip().split("\n")[0]


def upload(browser: Browser, name: str, file: Path) -> None:
    browser.find(f"#{name}-upload input[type=file]").send_keys(str(file))


def focused(browser: Browser) -> Any:
    return browser.driver.switch_to.active_element


def press(browser: Browser, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser.driver).send_keys(*keys).perform()


def test_a_link_restores_the_form_and_goes_along(browser: Browser) -> None:
    browser.open(LINK)
    browser.find(HEADLINE)
    assert value(browser, "run-hardware") == "gpu_h100"
    assert value(browser, "run-workload") == "llama3_8b_decode"
    assert browser.find("#run-changes").get_attribute("value") == "workload.batch=4"
    browser.until(lambda: query(browser) == parse_qs(urlsplit(LINK).query), "the address of the view")

    browser.find("#menu-compare").click()
    browser.until(lambda: browser.find("h1").text == "Compare")
    assert urlsplit(browser.driver.current_url).path == "/compare"
    asked = query(browser)
    assert {key: asked.get(key) for key in ("hardware", "workload", "set")} == {
        key: parse_qs(urlsplit(LINK).query)[key] for key in ("hardware", "workload", "set")
    }
    browser.settle()

    browser.driver.back()
    browser.until(lambda: browser.find("h1").text == "Run")
    browser.find(HEADLINE)
    assert value(browser, "run-hardware") == "gpu_h100"
    assert browser.find("#run-changes").get_attribute("value") == "workload.batch=4"
    assert browser.find('#menu-run[aria-current="page"]')


def test_an_address_without_a_page_says_so(browser: Browser) -> None:
    browser.open("/nowhere/../no%3Cb%3E")
    assert "There is no page at this address" in browser.text()


def test_the_link_is_copied(browser: Browser) -> None:
    grant = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"], "origin": browser.base}
    browser.driver.execute_cdp_cmd("Browser.grantPermissions", grant)
    browser.open(LINK)
    browser.find(HEADLINE)
    browser.settle()
    for _ in range(2):  # also a second time
        browser.find("#share").click()
        browser.until(lambda: browser.find("#share").text == "Copied")
        browser.until(lambda: browser.find("#share").text == "Copy link")
    read = "navigator.clipboard.readText().then(arguments[0], e => arguments[0]('' + e))"
    assert browser.driver.execute_async_script(read) == browser.driver.current_url


def test_the_theme_goes_round_and_stays(browser: Browser) -> None:
    browser.open("/sweep")

    def now() -> tuple[str, str]:
        root = browser.driver.execute_script("return document.documentElement.dataset.theme || 'auto'")
        return root, browser.find("#theme").text

    browser.until(lambda: now() == ("auto", "Theme: auto"))
    for name in ("light", "dark"):
        browser.find("#theme").click()
        browser.until(lambda name=name: now() == (name, f"Theme: {name}"))
    browser.open("/plan")
    browser.until(lambda: now() == ("dark", "Theme: dark"))
    browser.find("#theme").click()
    browser.until(lambda: now() == ("auto", "Theme: auto"))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "mine.yaml").write_bytes(MINE)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "wrong.yaml").write_bytes(MINE + b"memory:\n  bandwith: 4 TB/s\n")
    (tmp_path / "<img src=x onerror=alert(1)>.yaml").write_bytes(b"kind: gpu\nname: <script>alert(1)</script>\n")
    (tmp_path / "large.yaml").write_bytes(b"# " + b"x" * (10 * 2**20))
    return tmp_path


def test_uploads_are_chosen_and_known_to_every_page(browser: Browser, files: Path) -> None:
    browser.open("/")
    browser.find(HEADLINE)
    upload(browser, "run-hardware", files / "mine.yaml")
    browser.until(lambda: "mine.yaml" in value(browser, "run-hardware"), "the upload")
    browser.until(lambda: "mine" in browser.find("#run-report h2").text, "the upload's run")
    upload(browser, "run-workload", files / "config.json")
    browser.until(lambda: "config decode" in value(browser, "run-workload"), "the model's workload")
    browser.until(lambda: "config decode" in browser.find("#run-report h2").text, "the model's run")
    browser.settle()
    link = browser.driver.current_url

    said = lambda: browser.find("#run-hardware-said").text  # noqa: E731
    upload(browser, "run-hardware", files / "wrong.yaml")
    browser.until(lambda: "wrong.yaml:5:3:" in said(), "the position of the mistake")
    upload(browser, "run-hardware", files / "large.yaml")
    browser.until(lambda: "10.0 MiB; at most 1 MiB" in said(), "the size")
    upload(browser, "run-hardware", files / "<img src=x onerror=alert(1)>.yaml")
    browser.until(lambda: "<img src=x onerror=alert(1)>.yaml:1:1:" in said(), "the name as text")
    assert not browser.all("#run-hardware-said img")
    upload(browser, "run-hardware", files / "mine.yaml")  # the same again
    browser.until(lambda: "mine.yaml is in the list" in said())

    browser.open("/what-if")
    browser.open("/" + "?" + urlsplit(link).query)
    browser.until(lambda: "mine.yaml" in value(browser, "run-hardware"))
    browser.until(lambda: "config decode" in browser.find("#run-report h2").text)
    assert "upload-" not in browser.text()


def test_everything_is_reached_by_the_keyboard(browser: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open("/")
    browser.find(HEADLINE)
    browser.settle()
    browser.driver.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    press(browser, Keys.TAB)
    assert focused(browser).text == "Skip to the page"
    press(browser, Keys.ENTER)
    browser.until(lambda: focused(browser).get_attribute("id") == "page", "the skip link's target")

    browser.open("/")
    browser.find(HEADLINE)
    browser.settle()
    reached, mark = set(), "return (document.activeElement.closest('[id]') || {}).id || ''"
    for _ in range(60):
        press(browser, Keys.TAB)
        reached.add(browser.driver.execute_script(mark))
    wanted = {"share", "theme", "menu-compare", "run-hardware", "run-workload", "run-changes", "run-save-json"}
    assert {"run-hardware-upload", "run-workload-upload", *wanted} <= reached

    menu = browser.find("#menu-sweep")
    browser.driver.execute_script("arguments[0].focus()", menu)
    press(browser, Keys.ENTER)
    browser.until(lambda: browser.find("h1").text == "Sweep")
    browser.driver.execute_script("arguments[0].focus()", browser.find("#theme"))
    press(browser, Keys.ENTER)
    browser.until(lambda: browser.find("#theme").text == "Theme: light")
    for name in ("dark", "auto"):
        press(browser, Keys.SPACE)
        browser.until(lambda name=name: browser.find("#theme").text == f"Theme: {name}")
