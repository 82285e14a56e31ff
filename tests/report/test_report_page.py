"""The HTML report: self-contained, escaped, complete, and it draws in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_runs import DISTINCT, HOSTILE

from effsim._api import FullRun
from effsim.report.page import fragment, page, write_page
from effsim.report.result import Assumption, RunResult

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Outline(HTMLParser):
    """Checks that tags are balanced; keeps the visible text, headings, and tags with what they load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.headings: list[str] = []
        self.loads: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)


def outline(text: str) -> Outline:
    parsed = Outline()
    parsed.feed(text)
    parsed.close()
    assert not parsed.open
    return parsed


def hostile(result: RunResult) -> RunResult:
    """A result in which every text that a user can write is an attack."""
    bad = Assumption(HOSTILE, 1.0, "assumed", HOSTILE, 0.5)
    return replace(
        result,
        workload=HOSTILE,
        hardware=HOSTILE,
        notes=(HOSTILE,),
        operators=tuple(replace(row, name=HOSTILE) for row in result.operators),
        assumptions=(bad,),
        sensitivity=({"path": HOSTILE, "value": 1.0, "elasticity": 0.5},),
    )


@pytest.mark.parametrize("kind", DISTINCT)
def test_pages_of_every_task_are_whole(full: Callable[..., FullRun], tmp_path: Path, kind: str) -> None:
    file = tmp_path / "report.html"
    write_page(full(kind).result, file, command="effsim run x y --html report.html")
    parsed = outline(file.read_text(encoding="utf-8"))
    assert parsed.loads == []
    for heading in ("What limits it", "Time by operator", "Operators", "Numbers it leans on", "How to repeat this"):
        assert heading in parsed.headings
    assert "effsim run x y --html report.html" in "".join(parsed.text)


def test_plotly_is_there_once_and_notes_come_before_numbers(bundled: FullRun) -> None:
    text = page(bundled.result)
    assert text.count("Plotly.newPlot(") == 6
    assert len(re.findall(r"plotly\.js v\d", text)) == 1
    seen = "".join(outline(text).text)
    assert seen.index("sharded over 2 devices") < seen.index("Time per token")


def test_the_page_allows_no_network(bundled: FullRun) -> None:
    assert "default-src 'none'" in page(bundled.result)[:400]


def test_hostile_names_stay_text(bundled: FullRun) -> None:
    clean, bad = outline(page(bundled.result)), outline(page(hostile(bundled.result)))
    assert bad.scripts == clean.scripts
    assert HOSTILE in "".join(bad.text)
    small = fragment(hostile(bundled.result))
    assert "<script" not in small
    assert outline(small).scripts == 0
    both = outline(page([hostile(bundled.result), bundled.result]))
    assert HOSTILE in "".join(both.text)


def test_fragment_is_what_a_notebook_shows(bundled: FullRun) -> None:
    text = bundled.result._repr_html_()
    assert text == fragment(bundled.result)
    seen = "".join(outline(text).text)
    assert "sharded over 2 devices" in seen
    assert "layers.gate_up_proj" in seen
    assert len(text) < 5000


def test_several_machines_say_why_they_differ(full: Callable[..., FullRun]) -> None:
    runs = [full("decode").result, full("decode", "roofline").result]
    parsed = outline(page(runs))
    assert "Why they differ" in parsed.headings
    assert "as fast" in "".join(parsed.text)


def _browse(*arguments: str) -> str:
    assert BROWSER is not None
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=1500")
    done = subprocess.run([BROWSER, *flags, *arguments], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"the browser does not start here: {done.stderr[-200:]}")
    return done.stdout


@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
def test_a_browser_draws_every_figure_and_runs_nothing_else(full: Callable[..., FullRun], tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    write_page(hostile(full("generate").result), file)
    drawn = _browse("--dump-dom", file.as_uri())
    assert drawn.count('class="main-svg"') >= 5
    assert "alert(1)</b>" not in drawn
    assert len(re.findall(r'class="[^"]*\btrace bars\b', drawn)) > 0
