"""Writing compared measurements for :func:`effsim.validation.record.load_rows`."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effsim.errors import DataError
from effsim.report.files import import_pyarrow

from .record.rows import COLUMNS, NUMBERS, READERS, Row


def check_target(path: Path) -> None:
    """Before minutes of comparing: can rows be written there?

    Raises:
        DataError: neither .csv nor .parquet, pyarrow is missing for Parquet, no such folder.
    """
    if path.suffix.lower() not in READERS:
        raise DataError(f"{path}: rows are written as .csv or .parquet")
    if path.suffix.lower() == ".parquet":
        import_pyarrow()
    if path.is_dir() or not path.parent.is_dir():
        raise DataError(f"{path}: {'is a folder' if path.is_dir() else f'the folder {path.parent} does not exist'}")


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write *rows* as CSV or Parquet, in one step.

    Raises:
        DataError: as :func:`check_target`, or it cannot be written.
    """
    check_target(path)
    content = _parquet(rows) if path.suffix.lower() == ".parquet" else _csv(rows)
    try:
        _replace(Path(os.path.realpath(path)), content)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from None


def _replace(path: Path, content: bytes) -> None:
    """Write *content* under a temporary name and rename it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)  # a temporary file is private; a result is not
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _csv(rows: Sequence[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow(_cell(value) for value in row.cells())
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    """Numbers with all their digits, truth values as in JSON, nothing for what is not known."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value) if isinstance(value, str) else repr(float(value))


def _parquet(rows: Sequence[Row]) -> bytes:
    arrow, parquet = import_pyarrow()
    kinds = {name: arrow.float64() for name in NUMBERS} | {"fitted": arrow.bool_()}
    schema = arrow.schema([(name, kinds.get(name, arrow.string())) for name in COLUMNS])
    columns = {name: [getattr(row, name) for row in rows] for name in COLUMNS}
    buffer = io.BytesIO()
    parquet.write_table(arrow.table(columns, schema=schema), buffer)
    return buffer.getvalue()
