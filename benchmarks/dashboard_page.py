"""Seconds from asking for the first page of a fresh server until its headline is shown, and bytes that are sent.

``python benchmarks/dashboard_page.py [--rounds 5]`` starts ``effsim dashboard`` anew for every round, once asking as
soon as it answers ("cold": the answer of the first page is not made yet) and once after it had time to make it
("warm"). Needs Chromium with its driver, and selenium.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from typing import Any

READY = "#run-report .cards"
WARM_S = 6.0
FLAGS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--use-angle=swiftshader")


def driver() -> Any:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = next(p for n in ("chromium", "google-chrome") if (p := shutil.which(n)))
    for flag in FLAGS:
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))


def started() -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "effsim", "dashboard", "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
                return process, f"http://127.0.0.1:{port}/"
        except OSError:
            time.sleep(0.05)


def first_page(browser: Any, url: str) -> tuple[float, float, int]:
    """Seconds until the headline, until the figures too, and bytes."""
    browser.execute_cdp_cmd("Network.clearBrowserCache", {})
    start = time.perf_counter()
    browser.get(url)
    while not browser.find_elements("css selector", READY):
        time.sleep(0.01)
    shown = time.perf_counter() - start
    while not browser.find_elements("css selector", "#run-figure-roofline .main-svg"):
        time.sleep(0.01)
    drawn = time.perf_counter() - start
    sizes = "return performance.getEntries().reduce((sum, e) => sum + (e.transferSize || 0), 0)"
    return shown, drawn, int(browser.execute_script(sizes))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    for name, pause in (("cold", 0.0), ("warm", WARM_S)):
        found = []
        for _ in range(rounds):
            browser = driver()
            process, url = started()
            try:
                time.sleep(pause)
                found.append(first_page(browser, url))
            finally:
                process.terminate()
                process.wait()
                browser.quit()
        shown, drawn, sent = zip(*found, strict=True)
        print(
            f"{name}: headline {statistics.median(shown):.2f} s ({min(shown):.2f} to {max(shown):.2f}), "
            f"figures {statistics.median(drawn):.2f} s, {sent[0] / 1e6:.2f} MB, load {os.getloadavg()[0]:.1f}"
        )


if __name__ == "__main__":
    main()
