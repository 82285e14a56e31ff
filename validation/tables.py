"""Finding and reading the folder of public measurements.

Layout::

    kernels/<gpu>/<op>-<engine>-<version>-<table>.parquet   ai-dynamo/aiconfigurator (Apache-2.0), latency in ms
    vidur/*.csv                                             microsoft/vidur (MIT), time_stats.* in ms
    llmcompass/*.csv                                        PrincetonUniversity/LLMCompass (BSD-3), no header
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effsim.errors import DataError

ENVIRONMENT = "EFFSIM_MEASUREMENTS"
PARTS = ("kernels", "vidur", "llmcompass")


@dataclass(frozen=True, slots=True)
class Measured:
    """One measured kernel as a row of a kernel table.

    ``label`` groups rows in the report, ``hardware`` is a bundled name, ``cells`` are the columns of ``kind``,
    ``launch`` says how it was timed (``graph``: no launch shows beyond the cadence; ``eager``: synchronised, alone),
    ``composite`` that the time contains more than the operator; ``measured_j`` is its energy where watts were measured.
    """

    hardware: str
    source: str
    label: str
    kind: str
    cells: Mapping[str, Any]
    measured_s: float
    launch: str = "graph"
    composite: bool = False
    measured_j: float | None = None


def data_folder(given: Path | None = None, checkout: Path | None = None) -> Path:
    """The folder of measurements: *given*, else ``$EFFSIM_MEASUREMENTS``, else beside the checkout.

    Args:
        given: what the user asked for.
        checkout: root of the source tree; default: where this file stands.

    Raises:
        DataError: there is none, or it holds none of the expected parts.
    """
    wanted = given or (Path(os.environ[ENVIRONMENT]) if os.environ.get(ENVIRONMENT) else None)
    if wanted is None:
        root = checkout or Path(__file__).resolve().parent.parent
        wanted = root.parent / "shared" / "measurements"
        if not wanted.is_dir():
            raise DataError(
                "no measurements to compare with: give a folder with --data or in "
                f"{ENVIRONMENT}; expected one with {', '.join(PARTS)} (see docs/accuracy.md)"
            )
    if not wanted.is_dir():
        raise DataError(f"{wanted}: no such folder of measurements")
    if not any((wanted / part).is_dir() for part in PARTS):
        raise DataError(f"{wanted}: holds none of the expected folders {', '.join(PARTS)}")
    return wanted


def read_parquet(path: Path) -> list[dict[str, Any]]:
    """Rows of a Parquet file.

    Raises:
        DataError: unreadable, or Parquet support is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError(f'{path}: Parquet needs pyarrow; pip install "effsim[parquet]"') from None
    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from None
    return rows


def read_csv(path: Path, columns: tuple[str, ...] = ()) -> list[dict[str, str]]:
    """Rows of a CSV file; *columns* names them where the file has no header.

    Raises:
        DataError: missing or unreadable.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, fieldnames=columns or None, skipinitialspace=True)
            return [dict(row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV: {error}") from None


def number(row: Mapping[str, Any], name: str, path: Path | str) -> float:
    """A number of *row*.

    Raises:
        DataError: the column is missing or holds none.
    """
    try:
        return float(row[name])
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{path}: column {name!r} is {row.get(name)!r}; expected a number") from None
