"""Figures of accuracy: what a record holds, and reading one of unknown origin."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from effsim.errors import DataError

from .checks import number, shown, text

SCHEMA: Final = "effsim/accuracy@1"
BUNDLED: Final = "accuracy.json"
LEVELS: Final = (0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95)
"""Shares of the measurements, in order of their signed errors, at which ``quantiles`` stand."""
MOST_BYTES, MOST_FIGURES, MOST_N = 16 << 20, 100_000, 10**12
"""Bounds of what is read: the record of a whole comparison has 40 kB and 160 figures."""


@dataclass(frozen=True, slots=True)
class Figure:
    """Errors of one comparison as fractions; ``where`` is a GPU, a machine or a source, ``what`` the kernel or task.

    ``median`` and ``p90`` are of the errors' size, ``bias`` is the mean of predicted / measured − 1, ``quantiles`` are
    the values of it at :data:`LEVELS` (nearest row), ``worst`` is the one of largest size. ``inside`` is the share of
    measurements in the predicted interval, of those that it was not fitted on. None is what is not known.
    """

    check: str
    where: str
    what: str
    n: int
    median: float
    p90: float
    bias: float
    quantiles: tuple[float, ...] | None = None
    inside: float | None = None
    worst: float | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What identifies the figure in a record."""
        return (self.check, self.where, self.what)


FIELDS: Final = tuple(field.name for field in fields(Figure))
REQUIRED: Final = FIELDS[:7]


def load_record(path: str | Path | None = None) -> tuple[Figure, ...]:
    """The figures of a record, in its order; without *path* those that came with the package.

    Raises:
        DataError: missing, too large, not JSON, or not such a record; says what is wrong and where.
    """
    if path is None:
        return parse_record((files(__package__) / BUNDLED).read_text(encoding="utf-8"), BUNDLED)
    try:
        with Path(path).open("rb") as file:
            held = file.read(MOST_BYTES + 1)
        if len(held) > MOST_BYTES:
            raise DataError(f"{path}: larger than {MOST_BYTES >> 20} MiB: not a record of accuracy")
        return parse_record(held.decode("utf-8-sig"), str(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a record of accuracy: {error}") from None


def parse_record(content: str, name: str = "record") -> tuple[Figure, ...]:
    """The figures of a record that was read already; *name* begins messages.

    Raises:
        DataError: as :func:`load_record`.
    """
    try:
        held: Any = json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: cannot be read as a record of accuracy: {error}") from None
    if not isinstance(held, Mapping) or held.get("schema") != SCHEMA:
        raise DataError(f"{name}: not a record of accuracy; expected schema {SCHEMA!r}")
    listed = held.get("figures")
    if not isinstance(listed, list):
        raise DataError(f"{name}: not a record of accuracy: figures is {shown(listed)}; expected a list")
    if len(listed) > MOST_FIGURES:
        raise DataError(f"{name}: {len(listed)} figures; a record of accuracy has at most {MOST_FIGURES}")
    if held.get("quantiles_at", list(LEVELS)) != list(LEVELS):
        raise DataError(f"{name}: quantiles_at of this record of accuracy are not {', '.join(map(str, LEVELS))}")
    found = tuple(_figure(row, f"{name}: figures[{index}]") for index, row in enumerate(listed))
    seen: set[tuple[str, str, str]] = set()
    for index, figure in enumerate(found):
        if figure.key in seen:
            raise DataError(f"{name}: figures[{index}]: a second figure of {', '.join(map(shown, figure.key))}")
        seen.add(figure.key)
    return found


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")


def _figure(row: Any, where: str) -> Figure:
    if not isinstance(row, Mapping):
        raise DataError(f"{where} is {shown(row)}; expected an object: not a record of accuracy")
    missing = [name for name in REQUIRED if name not in row]
    unknown = [name for name in row if name not in FIELDS]
    if missing or unknown:
        wrong = f"no {missing[0]!r}" if missing else f"unknown field {shown(unknown[0])}"
        raise DataError(f"{where}: {wrong}: not a record of accuracy")
    n = row["n"]
    if number(n, f"{where}.n", 1, MOST_N) != int(n):
        raise DataError(f"{where}.n is {shown(n)}; expected a whole number")
    inside, worst = row.get("inside"), row.get("worst")
    check, place, what = (text(row[name], f"{where}.{name}") for name in REQUIRED[:3])
    return Figure(
        check,
        place,
        what,
        n=int(n),
        median=number(row["median"], f"{where}.median", 0.0),
        p90=number(row["p90"], f"{where}.p90", 0.0),
        bias=number(row["bias"], f"{where}.bias", -1.0),
        quantiles=_quantiles(row.get("quantiles"), f"{where}.quantiles"),
        inside=None if inside is None else number(inside, f"{where}.inside", 0.0, 1.0),
        worst=None if worst is None else number(worst, f"{where}.worst", -1.0),
    )


def _quantiles(values: Any, where: str) -> tuple[float, ...] | None:
    if values is None:
        return None
    if not isinstance(values, list) or len(values) != len(LEVELS):
        raise DataError(f"{where} is {shown(values)}; expected a list of {len(LEVELS)} numbers")
    found = tuple(number(value, f"{where}[{index}]", -1.0) for index, value in enumerate(values))
    if list(found) != sorted(found):
        raise DataError(f"{where} fall; expected them in order")
    return found
