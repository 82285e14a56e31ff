"""What a page shows, as the query of its address: every view is a link that brings it back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, urlencode

from ..errors import DataError

MAX_QUERY: Final = 16_384
"""Characters of a query that are looked at; more is no view of ours."""
MAX_FIELDS: Final = 200


@dataclass(frozen=True, slots=True)
class View:
    """Fields of a view by name; a name may have several values.

    >>> View.parse("?hardware=gpu_a100&set=workload.batch%3D8&set=workload.prompt%3D64").many("set")
    ('workload.batch=8', 'workload.prompt=64')
    """

    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def parse(cls, query: object) -> View:
        """The view of a query; one that is too long or malformed is the empty view."""
        if not isinstance(query, str) or not query or len(query) > MAX_QUERY:
            return cls()
        try:
            pairs = parse_qsl(query.removeprefix("?"), max_num_fields=MAX_FIELDS, errors="replace")
        except ValueError:
            return cls()
        out: dict[str, tuple[str, ...]] = {}
        for key, value in pairs:
            out[key] = (*out.get(key, ()), value)
        return cls(out)

    @classmethod
    def of(cls, **fields: str | Iterable[str] | None) -> View:
        """A view of these fields; what is empty is left out."""
        return cls().with_fields(**fields)

    def one(self, name: str, default: str = "") -> str:
        """The (last) value of a field."""
        return self.fields.get(name, (default,))[-1]

    def many(self, name: str) -> tuple[str, ...]:
        """All values of a field."""
        return self.fields.get(name, ())

    def number(self, name: str, default: float) -> float:
        """The value of a field as a finite number; *default* where it is none."""
        try:
            found = float(self.one(name))
        except ValueError:
            return default
        return found if math.isfinite(found) else default

    def with_fields(self, **fields: str | Iterable[str] | None) -> View:
        """This view with other values; None and empty values remove a field."""
        out = dict(self.fields)
        for name, value in fields.items():
            values = (value,) if isinstance(value, str) else tuple(value or ())
            out.pop(name, None)
            if any(values):
                out[name] = tuple(v for v in values if v)
        return View(out)

    @property
    def query(self) -> str:
        """The query of the address, with its question mark; empty without fields."""
        pairs = [(key, value) for key, values in self.fields.items() for value in values]
        return f"?{urlencode(pairs)}" if pairs else ""


def assignments(text: object) -> tuple[str, ...]:
    """The ``path=value`` parts of a line; a part in brackets or quotes may hold spaces.

    >>> assignments("workload.batch=8  hardware.memory.bandwidth='4 TB/s'")
    ('workload.batch=8', 'hardware.memory.bandwidth=4 TB/s')

    Raises:
        DataError: no text, or longer than an address can be.
    """
    import shlex

    if text is None:
        return ()
    if not isinstance(text, str):
        raise DataError("the changes are a line of path=value")
    if len(text) > MAX_QUERY:
        raise DataError(f"the changes have {len(text):,} characters; at most {MAX_QUERY:,}")
    try:
        return tuple(shlex.split(text))
    except ValueError:  # an open quote: the parts as they stand, for the error to name one
        return tuple(text.split())


def assignment_line(changes: Iterable[str]) -> str:
    """The line that :func:`assignments` reads these from."""
    import shlex

    return " ".join(shlex.quote(change) for change in changes)
