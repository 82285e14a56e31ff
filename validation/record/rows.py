"""Compared measurements, one a row, and reading a file of them (CSV or Parquet) of unknown origin."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import Any, Final

from effsim.errors import DataError

from .checks import number, shown, text

MOST_ROWS, MOST_BYTES = 2_000_000, 1 << 30
"""Bounds of what is read: a whole comparison has 45,000 rows and 10 MB."""
BATCH: Final = 1 << 15
"""Rows of a Parquet file that are in memory as columns at a time."""
SAME: Final = 1e-6
"""How far the column ``error`` may be from predicted / measured − 1, as files may be rounded."""

TEXTS: Final = ("check", "where", "what", "source", "label", "unit")
NUMBERS: Final = ("measured", "predicted", "low", "high", "error")
COLUMNS: Final = (
    *TEXTS[:5],
    "measured",
    "predicted",
    "low",
    "high",
    "unit",
    "error",
    "fitted",
)
"""Columns of a file, in the order in which they are written."""
UNITS: Final = ("s", "J", "B", "tokens/s")
FITTED: Final[Mapping[str, bool | None]] = {"true": True, "false": False, "": None}


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement beside its prediction, both in ``unit`` (one of :data:`UNITS`).

    ``check``, ``where`` and ``what`` are those of the :class:`~.figures.Figure` that it counts for; ``source`` is the
    table or publication, ``label`` the operator or run. ``low`` and ``high`` are the predicted interval, ``fitted``
    whether that was fitted on this row (parameters of the hardware apart); None is what is not known.
    """

    check: str
    where: str
    what: str
    source: str
    label: str
    measured: float
    predicted: float
    unit: str
    low: float | None = None
    high: float | None = None
    fitted: bool | None = None

    @property
    def error(self) -> float:
        """predicted / measured − 1."""
        return self.predicted / self.measured - 1.0

    def cells(self) -> tuple[Any, ...]:
        """Values in the order of :data:`COLUMNS`."""
        return tuple(getattr(self, name) for name in COLUMNS)


def load_rows(path: str | Path) -> tuple[Row, ...]:
    """Rows of a file that ``effsim validate --rows`` wrote; columns beyond :data:`COLUMNS` are ignored.

    Raises:
        DataError: missing, too large, neither CSV nor Parquet, a column missing, a value that cannot be; pyarrow is
            missing for Parquet. Says in which row (counted from 1, without the header).
    """
    path = Path(path)
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise DataError(f"{path}: expected a file of compared measurements named .csv or .parquet")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path}: larger than {MOST_BYTES >> 20} MiB; at most {MOST_ROWS} rows are read")
        found: list[Row] = []
        for index, cells in enumerate(read(path), start=1):
            if index > MOST_ROWS:
                raise DataError(f"{path}: more than {MOST_ROWS} rows")
            found.append(_row(cells, f"{path}: row {index}: "))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    if not found:
        raise DataError(f"{path}: holds no compared measurements")
    return tuple(found)


def _row(cells: Mapping[str, Any], where: str) -> Row:
    words = {name: intern(text(cells[name], where + name)) for name in TEXTS}
    if words["unit"] not in UNITS:
        raise DataError(f"{where}unit is {shown(words['unit'])}; expected one of {', '.join(UNITS)}")
    measured, predicted = (number(cells[name], where + name, 0.0) for name in ("measured", "predicted"))
    if measured == 0.0:
        raise DataError(f"{where}measured is 0; expected more")
    low, high = (None if cells[name] is None else number(cells[name], where + name, 0.0) for name in ("low", "high"))
    if (low is None) != (high is None) or (low is not None and high is not None and low > high):
        raise DataError(f"{where}low is {low} and high is {high}; expected an interval, or neither")
    fitted = cells["fitted"]
    if fitted is not None and not isinstance(fitted, bool):
        raise DataError(f"{where}fitted is {shown(fitted)}; expected true, false or nothing")
    row = Row(**words, measured=measured, predicted=predicted, low=low, high=high, fitted=fitted)
    error = number(cells["error"], where + "error", -1.0)
    if abs(error - row.error) > SAME * max(1.0, abs(row.error)):
        raise DataError(f"{where}error is {error:g}, but predicted / measured − 1 is {row.error:g}")
    return row


def _missing(path: Path, columns: Iterable[str]) -> None:
    listed = list(columns)
    for name in COLUMNS:
        if listed.count(name) != 1:
            wrong = "no column" if name not in listed else "more than one column"
            raise DataError(f"{path}: {wrong} {name!r}; expected {', '.join(COLUMNS)}")


def _from_csv(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        head = next(reader, [])
        _missing(path, head)
        for index, words in enumerate(reader, start=1):
            if len(words) != len(head):
                raise DataError(f"{path}: row {index}: {len(words)} cells under {len(head)} columns")
            yield _typed(dict(zip(head, words, strict=True)))


def _typed(words: dict[str, str]) -> dict[str, Any]:
    """Numbers and truth values of a row of texts; what is none of them stays a text, which is then refused."""
    out: dict[str, Any] = dict(words)
    for name in NUMBERS:
        out[name] = _float(words[name]) if words[name] or name not in ("low", "high") else None
    out["fitted"] = FITTED.get(words["fitted"], words["fitted"])
    return out


def _float(word: str) -> float | str:
    try:
        return float(word)
    except ValueError:
        return word


def _from_parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError(f'{path}: Parquet needs pyarrow: pip install "effsim[parquet]"; or use .csv') from None
    try:
        with path.open("rb") as stream:
            # Kept as dictionaries, a text that repeats a million times takes the memory of one.
            held = pq.ParquetFile(stream, read_dictionary=list(TEXTS))
            if held.metadata.num_rows > MOST_ROWS:
                raise DataError(f"{path}: {held.metadata.num_rows} rows; at most {MOST_ROWS} are read")
            _missing(path, held.schema_arrow.names)
            groups = (held.metadata.row_group(index) for index in range(held.metadata.num_row_groups))
            if sum(group.total_byte_size for group in groups) > MOST_BYTES:
                raise DataError(f"{path}: larger than {MOST_BYTES >> 20} MiB when unpacked")
            for batch in held.iter_batches(BATCH, columns=list(COLUMNS)):
                columns = {name: _column(batch.column(name), name, path, pa) for name in COLUMNS}
                for values in zip(*columns.values(), strict=True):
                    yield dict(zip(columns, values, strict=True))
    except pa.ArrowException as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from None


def _column(column: Any, name: str, path: Path, pa: Any) -> list[Any]:
    """Values of one column; only of the type that it is written with, so that nothing nested is unfolded."""
    kind = column.type
    if name in TEXTS and pa.types.is_dictionary(kind) and pa.types.is_string(kind.value_type):
        words = [text(word, f"{path}: a {name}", empty=True) for word in column.dictionary.to_pylist()]
        return [None if at is None else words[at] for at in column.indices.to_pylist()]
    wanted = pa.types.is_boolean if name == "fitted" else pa.types.is_floating
    if name in TEXTS or not (wanted(kind) or pa.types.is_null(kind)):
        expected = "texts" if name in TEXTS else "truth values" if name == "fitted" else "numbers"
        raise DataError(f"{path}: column {name!r} is of type {str(kind)[:60]}; expected {expected}")
    values: list[Any] = column.to_pylist()
    return values


READERS: Final[Mapping[str, Callable[[Path], Iterator[dict[str, Any]]]]] = {
    ".csv": _from_csv,
    ".parquet": _from_parquet,
}
