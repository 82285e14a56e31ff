"""Rows of the measured tables for ``effsim calibrate --fit``: which file holds what is known here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from effsim.errors import DataError

from .energy import readings
from .engines import convert, table_of
from .tables import Measured, read_parquet


def read(path: Path, device: str, least_readings: int = 0) -> Iterator[Measured]:
    """Rows of one Parquet table as kernels of *device*.

    With *least_readings* only rows with watts that are the mean of as many readings (:func:`.energy.readings`).

    Raises:
        DataError: unreadable, or a table of an unknown kind.
    """
    if path.suffix != ".parquet":
        raise DataError(f"{path}: expected a table of measured kernels in Parquet")
    for row in read_parquet(path):
        if least_readings:
            watts = row.get("power")
            # No small number of readings fits: so many that the digits do not show them.
            if not watts or 0 < readings(float(watts)) < least_readings:
                continue
        yield from convert([row], table_of(path), device, path.name)
