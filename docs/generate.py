"""Makes the pages that hold numbers or output of the program: ``python docs/generate.py [--check]``.

A page comes from ``templates/<page>.md``:

* ``{{name}}`` is a number of the worked example, a table, or the options of a command;
* a fenced ``yaml`` block that begins with ``# NAME.yaml`` becomes a file beside the commands that follow;
* in a fenced ``console`` block every line that begins with ``$ `` is run and its output put below; ``console 1-12``
  keeps those lines of each output.

The pages of the formats come from the models (:mod:`effsim.report.schema_page`).
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
import worked_example
from effsim.cli import main as effsim_main
from effsim.cli.app import app
from effsim.report.schema_page import MODELS, markdown
from effsim.units import DIMENSIONS, format_quantity

DOCS = Path(__file__).resolve().parent
TEMPLATES = DOCS / "templates"
FENCE = re.compile(r"^```(\w+)(?: (\d+)-(\d+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLACE = re.compile(r"\{\{(.+?)\}\}")
UNLIMITED = 10**9


def run(command: str) -> tuple[str, int]:
    """Output (both streams as a terminal would show them) and exit code of an ``effsim`` command, run in this process."""
    words = shlex.split(command, comments=True)
    if words[0] != "effsim":
        raise ValueError(f"only effsim commands are run, not {command!r}")
    text, code, kept = io.StringIO(), 0, sys.argv
    sys.argv = words
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            effsim_main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    finally:
        sys.argv = kept
    return text.getvalue(), code


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder as working directory."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def console(body: str, first: int, last: int) -> str:
    """The block's commands with their output; ``echo $?`` shows the exit code of the command before."""
    lines, code = [], 0
    for line in body.splitlines():
        lines.append(line)
        if not line.startswith("$ "):
            raise ValueError(f"a console block of a template holds commands only, not {line!r}")
        if line == "$ echo $?":
            lines.append(str(code))
            continue
        text, code = run(line.removeprefix("$ "))
        out = [row.rstrip() for row in text.rstrip("\n").splitlines()]
        shown = out[first - 1 : last]
        lines += [*(["…"] if first > 1 else []), *shown, *(["…"] if last < len(out) else [])]
    return "\n".join(lines) + "\n"


def render(template: str, values: Callable[[str], str]) -> str:
    """A page from its template."""
    text = PLACE.sub(lambda place: values(place[1].strip()), template)

    def block(match: re.Match[str]) -> str:
        language, first, last, body = match.groups()
        if language == "yaml" and body.startswith("# "):
            Path(body.splitlines()[0].removeprefix("# ")).write_text(body, encoding="utf-8")
        if language == "console":
            body = console(body, int(first or 1), int(last or UNLIMITED))
        return f"```{language}\n{body}```"

    with scratch():
        return FENCE.sub(block, text)


def commands() -> dict[str, Any]:
    """Every command of the application by name, as click objects."""
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def command_text(name: str) -> str:
    """Heading, purpose, usage and options of a command."""
    command = commands()[name]
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    usage = " ".join(["effsim", name, *(_argument(p) for p in arguments), *(["[OPTIONS]"] if options else [])])
    rows = [f"| `{_argument(p)}` | {p.help or ''} | {'' if p.required else 'optional'} |" for p in arguments]
    rows += [f"| `{_option(p)}` | {p.help or ''} | {_default(p)} |" for p in options]
    table = "\n".join(["| argument | meaning | default |", "|---|---|---|", *rows])
    return f"## effsim {name}\n\n{(command.help or '').strip()}\n\n`{usage}`\n\n{table}"


def _argument(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _option(parameter: Any) -> str:
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    if parameter.is_flag:
        return names
    choices = getattr(parameter.type, "choices", None)
    # A bar would end the table's cell.
    value = ", ".join(map(str, choices)) if choices else parameter.metavar or str(parameter.type.name).upper()
    return f"{names} {value}"


def _default(parameter: Any) -> str:
    value = getattr(parameter.default, "value", parameter.default)
    return "" if parameter.is_flag or value in (None, "") or callable(value) else f"`{value}`"


def units_table() -> str:
    """What a quantity can be, how it is written, and between which numbers the unit may be left out."""
    rows = ["| dimension | for example | without a unit |", "|---|---|---|"]
    for row in DIMENSIONS.values():
        low, high = (format_quantity(v, row.name) for v in (row.bare_min, row.bare_max))
        most = "any" if row.bare_min == 0 and row.bare_max == float("inf") else f"{low} or more"
        most = most if row.bare_max == float("inf") else f"{low} to {high}"
        rows.append(f"| {row.label} | `{row.example.split(' or ')[0]}` | {most} |")
    return "\n".join(rows)


class Values:
    """What placeholders stand for; the worked example is computed when one of its numbers is asked for."""

    def __init__(self) -> None:
        self._example: dict[str, str] | None = None

    def __call__(self, name: str) -> str:
        """The text of one placeholder."""
        if name == "units":
            return units_table()
        if name.startswith("command "):
            return command_text(name.removeprefix("command "))
        if name == "other commands":
            placed = set(re.findall(r"\{\{command (\S+)\}\}", (TEMPLATES / "cli.md").read_text(encoding="utf-8")))
            return "\n\n".join(command_text(other) for other in commands() if other not in placed)
        if self._example is None:
            self._example = worked_example.values(worked_example.load())
        return self._example[name]


def page(name: str) -> str:
    """The text of one page that has a template."""
    return render((TEMPLATES / name).read_text(encoding="utf-8"), Values()).rstrip("\n") + "\n"


def pages() -> Iterator[tuple[Path, str]]:
    """Every generated page with its text."""
    for template in sorted(TEMPLATES.glob("*.md")):
        yield DOCS / template.name, page(template.name)
    for kind in MODELS:
        yield DOCS / "formats" / f"{kind}.md", markdown(kind)


def main(arguments: list[str]) -> int:
    """Write all pages, or with ``--check`` only say which are stale."""
    check, stale = "--check" in arguments, 0
    for path, text in pages():
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        sys.stdout.write(f"{'stale' if check else 'wrote'}: {path.relative_to(DOCS)}\n")
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
