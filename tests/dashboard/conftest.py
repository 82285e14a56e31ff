"""The dashboard, served; and a browser to look at it, where there is one."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("dash")

from dashboard_browser import Browser

from effsim.dashboard.app import build_app
from effsim.dashboard.service import Service

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",  # WebGL without a graphics card
    "--ignore-gpu-blocklist",
)


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.jobs.close()
    made.shelf.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Service]:
    """A service for all tests of a module, which then compute what they have in common once."""
    made = Service()
    yield made
    made.close()


@pytest.fixture(scope="session")
def triggered() -> set[str]:
    """What browsers told the server so far: ``id.property`` of the components that were used."""
    return set()


@pytest.fixture(scope="session")
def served(triggered: set[str]) -> Iterator[tuple[str, Service]]:
    """Address and service of a server that listens."""
    from flask import request
    from waitress import create_server

    made = Service()
    app = build_app(made)

    @app.server.before_request
    def note() -> None:
        if request.path == "/_dash-update-component":
            triggered.update((request.get_json(silent=True) or {}).get("changedPropIds", ()))

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = create_server(app.server, host="127.0.0.1", port=port, threads=8)
    threading.Thread(target=server.run, daemon=True).start()
    yield f"http://127.0.0.1:{port}", made
    server.close()
    made.jobs.close()
    made.shelf.close()


@pytest.fixture(scope="session")
def _driver() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no Chromium with its driver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def browser(_driver: Any, served: tuple[str, Service]) -> Iterator[Browser]:
    """The browser; a test that leaves an error in its console fails."""
    made = Browser(_driver, served[0])
    made.errors()
    yield made
    assert made.errors() == []
