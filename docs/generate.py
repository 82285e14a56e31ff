"""Makes the pages that hold numbers or output of the program: ``python docs/generate.py [--check]``.

A page comes from ``templates/<page>.md``:

* ``{{name}}`` is a number of the worked example, a table, or the options of a command;
* a fenced block that begins with ``# NAME`` becomes a file of that name beside the commands that follow;
* in a fenced ``console`` block every line that begins with ``$ `` is run and its output put below; ``console 1-12``
  keeps those lines of each output.

The pages of the formats come from the models (:mod:`effsim.report.schema_page`). The package's copy of the accuracy
on record (``accuracy.json``, written by ``effsim validate --out``) is made here, too.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import typer
import worked_example
from typer.models import OptionInfo

from effsim.cli import main as effsim_main
from effsim.cli.app import app
from effsim.report.schema_page import MODELS, markdown
from effsim.units import DIMENSIONS

DOCS = Path(__file__).resolve().parent
TEMPLATES = DOCS / "templates"
RECORD = DOCS.parent / "validation" / "record" / "accuracy.json"
FENCE = re.compile(r"^```(\w+)(?: (\d+)-(\d+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLACE = re.compile(r"\{\{(.+?)\}\}")
UNLIMITED = 10**9
FILES = ("yaml", "csv", "python")


def run(command: str) -> tuple[str, int]:
    """Output (both streams, as on a terminal) and exit code of an ``effsim`` command, run in this process."""
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
        if language in FILES and body.startswith("# "):
            name, text = body.removeprefix("# ").split("\n", 1)
            Path(name).write_text(text if language == "csv" else body, encoding="utf-8")
        if language == "console":
            body = console(body, int(first or 1), int(last or UNLIMITED))
        return f"```{language}\n{body}```"

    with scratch():
        return FENCE.sub(block, text)


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument or option of a command, as its function declares it."""

    name: str
    kind: Any
    info: Any
    default: Any

    @property
    def required(self) -> bool:
        """It has no default."""
        return self.default is inspect.Parameter.empty

    @property
    def is_option(self) -> bool:
        """It has a name on the command line."""
        return isinstance(self.info, OptionInfo)

    def shown(self) -> str:
        """Its spelling: ``HW``, ``--engine roofline, analytic, events``."""
        if not self.is_option:
            return str(self.info.metavar or self.name.strip("_").upper())
        # Inside Annotated, typer takes the first spelling for a default.
        declared = [d for d in (self.info.default, *(self.info.param_decls or ())) if isinstance(d, str)]
        spellings = [part for d in declared for part in d.split("/") if part.startswith("-")]
        names = ", ".join(spellings or [f"--{self.name.strip('_').replace('_', '-')}"])
        if self.kind is bool:
            return names
        choices = [member.value for member in self.kind] if isinstance(self.kind, type(Enum)) else []
        # No bar between choices: it would end the table's cell.
        return f"{names} {', '.join(choices) or self.info.metavar or self.kind.__name__.upper()}"

    def default_text(self) -> str:
        """What it is when it is left out."""
        if self.required:
            return "required" if self.is_option else ""
        value = self.default.value if isinstance(self.default, Enum) else self.default
        if self.kind is bool or value is None or value == "":
            return "" if self.is_option else "optional"
        return f"`{value}`"


def commands() -> dict[str, Callable[..., Any]]:
    """The function of every command by name."""
    return {str(info.name): info.callback for info in app.registered_commands if info.callback is not None}


def parameters(function: Callable[..., Any]) -> list[Parameter]:
    """Arguments and options of a command in the order of its function."""
    hints = get_type_hints(function, include_extras=True)
    found = []
    for name, declared in inspect.signature(function).parameters.items():
        if hints[name] is typer.Context:  # of the parser, not of the user
            continue
        kind, info = get_args(hints[name])[:2]
        kind = next((a for a in get_args(kind) if a is not NoneType), kind) if get_origin(kind) is not list else kind
        found.append(Parameter(name, kind, info, declared.default))
    return found


def command_text(name: str) -> str:
    """Heading, purpose, usage and options of a command."""
    function = commands()[name]
    listed = sorted(parameters(function), key=lambda p: p.is_option)
    usage = " ".join(
        ["effsim", name, *(p.shown() if p.required else f"[{p.shown()}]" for p in listed if not p.is_option)]
    )
    rows = [f"| `{p.shown()}` | {p.info.help or ''} | {p.default_text()} |" for p in listed]
    table = "\n".join(["| argument | meaning | default |", "|---|---|---|", *rows])
    return f"## effsim {name}\n\n{inspect.getdoc(function)}\n\n`{usage} [OPTIONS]`\n\n{table}"


def units_table() -> str:
    """What a quantity can be, how it is written, and what a bare number means, where one is accepted."""
    rows = ["| dimension | for example | a bare number is taken as |", "|---|---|---|"]
    for row in DIMENSIONS.values():
        least = f", {row.bare_min:g} or more" if row.bare_min else ""
        most = f", at most {row.bare_max:g}" if row.bare_max < float("inf") else ""
        unit = row.symbol or "the number"
        rows.append(f"| {row.label} | `{row.example.split(' or ')[0]}` | {unit}{least}{most} |")
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
    """Every generated page, and the package's copy of the record of accuracy, with its text."""
    for template in sorted(TEMPLATES.glob("*.md")):
        yield DOCS / template.name, page(template.name)
    for kind in MODELS:
        yield DOCS / "formats" / f"{kind}.md", markdown(kind)
    yield RECORD, (DOCS / RECORD.name).read_text(encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Write all pages, or with ``--check`` only say which are stale."""
    check, stale = "--check" in arguments, 0
    for path, text in pages():
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        sys.stdout.write(
            f"{'stale' if check else 'wrote'}: {path.relative_to(DOCS if path.is_relative_to(DOCS) else DOCS.parent)}\n"
        )
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
