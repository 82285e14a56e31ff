"""The book: links lead somewhere, shown code runs, shown arithmetic is right, generated pages are current."""

from __future__ import annotations

import re
from pathlib import Path

import generate
import pytest
import worked_example

from effsim import RunResult

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md") if "templates" not in path.parts)
LINK = re.compile(r"\[[^\]]+\]\(([^)#]+)?(#[^)]+)?\)")
OPTION = re.compile(r"(?<![\w-])--?[a-z][\w-]*")
OPTION_COLUMN = 25
"""Width in which ``--help`` spells the options of a command."""
CELL = re.compile(r"^\| (\w+) \| `(.+?)` = `(.+?)` \| (\S+) \|", re.MULTILINE)


@pytest.fixture(scope="module")
def example() -> worked_example.Example:
    return worked_example.load()


@pytest.fixture(scope="module")
def sheet(example: worked_example.Example) -> worked_example.Sheet:
    return worked_example.sheet(example)


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_pages_and_headings(name: str) -> None:
    page = DOCS / name
    for file, heading in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in file:
            continue
        target = page if not file else page.parent / file
        assert target.exists(), f"{name} links to {file}"
        if heading:
            titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}
            assert heading[1:] in anchors, f"{name} links to {file}{heading}"


def test_every_page_is_in_the_index() -> None:
    linked = {file for file, _ in LINK.findall((DOCS / "index.md").read_text(encoding="utf-8"))}
    assert set(PAGES) - {"index.md"} <= linked


def test_the_code_on_the_python_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / "python.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "python.md", "exec"), names)
    result = names["result"]
    assert isinstance(result, RunResult)
    assert len(names["table"]) == len(result.operators)  # type: ignore[arg-type]
    assert (tmp_path / "kernels.csv").is_file()


def test_all_names_are_on_the_python_page() -> None:
    import effsim

    text = (DOCS / "python.md").read_text(encoding="utf-8") + (DOCS / "units_and_errors.md").read_text(encoding="utf-8")
    missing = [name for name in effsim.__all__ if not name.startswith("__") and name not in text]
    assert not missing


def test_the_arithmetic_is_what_effsim_computes(example: worked_example.Example, sheet: worked_example.Sheet) -> None:
    code = worked_example.by_code(example)
    assert {name: sheet.names[name] for name in code} == pytest.approx(code, rel=1e-9)


def test_the_committed_arithmetic_holds_on_a_pocket_calculator(sheet: worked_example.Sheet) -> None:
    """From the page alone: the numbers that are shown give the result that is shown."""
    lines = CELL.findall((DOCS / "how_a_time_is_computed.md").read_text(encoding="utf-8"))
    computed = {name for rows in sheet.tables.values() for row in rows for name in CELL.findall(row + "\n")}
    assert len(lines) == len(computed)
    for name, _, numbers, result in lines:
        assert worked_example.calculate(numbers, {}) == pytest.approx(float(result), rel=2e-5), name
        assert float(result) == pytest.approx(sheet.names[name], rel=1e-5), "run: python docs/generate.py"


def test_the_operators_of_the_step_add_up() -> None:
    page = (DOCS / "how_a_time_is_computed.md").read_text(encoding="utf-8")
    parts = [float(ms) for ms in re.findall(r"^\| `[\w.]+` \| \d+ \| \S+ \| (\S+) \| \w+ \|$", page, re.MULTILINE)]
    (whole,) = re.findall(r"^\| \*\*step\*\* \| \| \| \*\*(\S+)\*\* \|", page, re.MULTILINE)
    assert len(parts) > 10
    assert sum(parts) == pytest.approx(float(whole), abs=5e-5 * (len(parts) + 1))


@pytest.mark.parametrize("name", ["how_a_time_is_computed.md", "units_and_errors.md"])
def test_the_committed_page_is_current(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == generate.page(name), "run: python docs/generate.py"


@pytest.mark.slow
def test_all_generated_pages_are_current() -> None:
    stale = [path.name for path, text in generate.pages() if path.read_text(encoding="utf-8") != text]
    assert not stale, "run: python docs/generate.py"


@pytest.mark.parametrize("command", sorted(generate.commands()))
def test_options_on_the_page_are_those_of_the_command(command: str) -> None:
    section = generate.command_text(command)
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert section in page, "run: python docs/generate.py"
    help_text, code = generate.run(f"effsim {command} --help")
    assert code == 0
    lines = [line.strip()[:OPTION_COLUMN] for line in help_text.splitlines() if line.strip().startswith("-")]
    spelt = {word for line in lines for word in re.findall(OPTION, line)}
    shown = set(re.findall(OPTION, " ".join(re.findall(r"^\| `(-.+?)` \|", section, re.MULTILINE))))
    assert shown == spelt - {"-h", "--help"}
