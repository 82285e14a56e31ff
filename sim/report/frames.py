"""The operator table as a data frame."""

from __future__ import annotations

from typing import Any

from ..errors import DataError
from .files import tables
from .result import RunResult


def to_frame(result: RunResult) -> Any:
    """The operator table as a pandas DataFrame, or a pyarrow Table where only pyarrow is there.

    A row an operator; seconds by resource are columns ``term_<resource>_s``.

    Raises:
        DataError: neither is installed.
    """
    rows = tables(result)["operators"]
    try:
        import pandas
    except ImportError:
        return _arrow(rows)
    return pandas.DataFrame(rows)


def _arrow(rows: list[dict[str, Any]]) -> Any:
    try:
        import pyarrow
    except ImportError as error:
        message = 'a data frame needs pandas or pyarrow: pip install "effsim[parquet]"'
        raise DataError(message) from error
    return pyarrow.Table.from_pylist(rows)
