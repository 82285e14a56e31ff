"""The accuracy on record, for whoever shows it: nothing here imports more than the standard library.

:func:`load_record` reads ``accuracy.json`` (bundled: a copy of ``docs/accuracy.json``): errors by GPU and kind,
no measurement. :func:`load_rows` reads what ``effsim validate --rows FILE`` wrote: every compared measurement.
Both take files of unknown origin: whatever they hold, the answer is the content or one :class:`DataError`.
Texts are handed out as they stand in the file, printable but not escaped.
"""

from .figures import LEVELS, SCHEMA, Figure, load_record, parse_record
from .rows import COLUMNS, MOST_ROWS, UNITS, Row, load_rows

__all__ = [
    "COLUMNS",
    "LEVELS",
    "MOST_ROWS",
    "SCHEMA",
    "UNITS",
    "Figure",
    "Row",
    "load_record",
    "load_rows",
    "parse_record",
]
