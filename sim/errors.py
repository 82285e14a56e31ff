"""Every error effsim raises on purpose, and how it reads.

::

    EffsimError                 exit code 2 unless it says otherwise
    ├── SpecError               something the user wrote is wrong; carries file:line:column
    │   ├── YamlError           not YAML 1.2, or YAML we refuse (duplicate keys, alias bombs, tags)
    │   ├── UnitError           a quantity that does not parse or has the wrong dimension
    │   └── UnknownNameError    a catalogue name, option or path that does not exist
    ├── UnsupportedError        the device or the model cannot express what was asked
    ├── DataError               a table, trace or model configuration that cannot be read
    └── DoesNotFitError         the answer is "no": memory or budget exceeded (exit code 1)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

_concealed: ContextVar[tuple[str, ...]] = ContextVar("effsim_concealed", default=())


@dataclass(frozen=True, slots=True)
class Location:
    """A position in a file that a person can open: 1-based line and column."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class EffsimError(Exception):
    """Base of everything effsim raises on purpose. ``exit_code`` is what the command line returns."""

    exit_code = 2

    def __init__(self, *parts: object) -> None:
        """Keep the message, without folders that are concealed now."""
        super().__init__(*(_conceal(part) if isinstance(part, str) else part for part in parts))


class SpecError(EffsimError):
    """What the user wrote is wrong.

    The message reads ``file:line:column: path: what is wrong; expected …; did you mean …``;
    parts that are not known are left out.
    """

    def __init__(
        self,
        what: str,
        *,
        location: Location | None = None,
        path: str = "",
        expected: str = "",
        suggestion: str = "",
    ) -> None:
        if location is not None and _concealed.get():
            location = replace(location, file=_conceal(location.file))
        self.what, self.location, self.path = _conceal(what), location, path
        self.expected, self.suggestion = expected, suggestion
        super().__init__(self._message())

    def _message(self) -> str:
        head = "".join(f"{part}: " for part in (self.location, self.path) if part)
        tail = f"; expected {self.expected}" if self.expected else ""
        tail += f"; did you mean {self.suggestion!r}?" if self.suggestion else ""
        return f"{head}{self.what}{tail}"


class YamlError(SpecError):
    """The text is not the YAML 1.2 that effsim reads."""


class UnitError(SpecError):
    """A quantity does not parse, or its unit has the wrong dimension."""


class UnknownNameError(SpecError):
    """A name that is not in the catalogue, a path that is not in a specification."""


class UnsupportedError(EffsimError):
    """The device or the model cannot express what was asked (a dtype it lacks, an operator it cannot run)."""


class DataError(EffsimError):
    """A table, trace, model configuration or operator list cannot be read.

    ``path`` leads to the place inside the document that was being read, where there is one.
    """

    def __init__(self, message: str, *, path: tuple[str | int, ...] = ()) -> None:
        self.path = path
        super().__init__(message)


class DoesNotFitError(EffsimError):
    """The workload does not fit; the message says by how much and what would make it fit."""

    exit_code = 1


@contextmanager
def concealing(prefixes: tuple[str, ...]) -> Iterator[None]:
    """Leave *prefixes* out of the text of errors: folders of this machine, in front of names of files."""
    token = _concealed.set(prefixes)
    try:
        yield
    finally:
        _concealed.reset(token)


def _conceal(text: str) -> str:
    for prefix in _concealed.get():
        text = text.replace(prefix, "")
    return text


def located(error: EffsimError, location: Location) -> EffsimError:
    """*error* with a position, if it has none yet: what went wrong later is still found in the file that caused it.

    >>> str(located(UnsupportedError("no fp4"), Location("w.yaml", 7, 3)))
    'w.yaml:7:3: no fp4'
    """
    if isinstance(error, DoesNotFitError) or getattr(error, "location", location) not in (None, location):
        return error
    if isinstance(error, SpecError):
        kind = type(error)
        return kind(
            error.what, location=location, path=error.path, expected=error.expected, suggestion=error.suggestion
        )
    return type(error)(f"{location}: {error}")


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return the choice spelt most like *word*, or ``""`` if none is close.

    >>> nearest("bandwith", ["bandwidth", "latency"])
    'bandwidth'
    >>> nearest("xyzzy", ["bandwidth"])
    ''
    """
    pool = list(choices)
    by_lower = {choice.lower(): choice for choice in reversed(pool)}
    match = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    return by_lower[match[0]] if match else ""
