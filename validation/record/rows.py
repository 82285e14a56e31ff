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
SHOWN_ERROR: Final = 200
"""Characters of what pyarrow says of a broken file."""
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
            _check_types(pq.ParquetFile(stream).schema_arrow, path, pa)
            # Kept as dictionaries, a text that repeats a million times takes the memory of one.
            held = pq.ParquetFile(stream, read_dictionary=list(TEXTS))
            if held.metadata.num_rows > MOST_ROWS:
                raise DataError(f"{path}: {held.metadata.num_rows} rows; at most {MOST_ROWS} are read")
            groups = (held.metadata.row_group(index) for index in range(held.metadata.num_row_groups))
            if sum(group.total_byte_size for group in groups) > MOST_BYTES:
                raise DataError(f"{path}: larger than {MOST_BYTES >> 20} MiB when unpacked")
            for batch in held.iter_batches(BATCH, columns=list(COLUMNS)):
                columns = {name: _column(batch.column(name), f"{path}: a {name}") for name in COLUMNS}
                for values in zip(*columns.values(), strict=True):
                    yield dict(zip(columns, values, strict=True))
    except (pa.ArrowException, OSError, LookupError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {str(error)[:SHOWN_ERROR]}") from None


def _check_types(schema: Any, path: Path, pa: Any) -> None:
    """Refuse columns of other types than are written, so that nothing nested is unfolded."""
    _missing(path, schema.names)
    for name in COLUMNS:
        kind = schema.field(name).type
        if name in TEXTS:
            plain = kind.value_type if pa.types.is_dictionary(kind) else kind
            fits, expected = pa.types.is_string(plain) or pa.types.is_large_string(plain), "texts"
        elif name == "fitted":
            fits, expected = pa.types.is_boolean(kind) or pa.types.is_null(kind), "truth values"
        else:
            fits, expected = pa.types.is_floating(kind) or pa.types.is_null(kind), "numbers"
        if not fits:
            raise DataError(f"{path}: column {name!r} is of type {str(kind)[:60]}; expected {expected}")


def _column(column: Any, where: str) -> list[Any]:
    """Values of one column; texts of a dictionary are looked at once each."""
    if not hasattr(column, "dictionary"):
        values: list[Any] = column.to_pylist()
        return values
    words = [text(word, where, empty=True) for word in column.dictionary.to_pylist()]
    return [None if at is None else words[at] for at in column.indices.to_pylist()]


READERS: Final[Mapping[str, Callable[[Path], Iterator[dict[str, Any]]]]] = {
    ".csv": _from_csv,
    ".parquet": _from_parquet,
}
