"""Checks of single values of an uploaded file."""

from __future__ import annotations

import math
from typing import Any, Final

from effsim.errors import DataError

MOST_TEXT: Final = 1000
"""Characters of one text."""
SHOWN: Final = 60
"""Characters of a wrong value that a message repeats."""


def shown(value: Any) -> str:
    """*value* for a message, cut to a readable length; containers are only named, because they may be deep.

    >>> shown("x" * 100)[-3:], shown([[]]), shown(10**5000)
    ('xx…', 'a list', 'a number of more digits than can be shown')
    """
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if isinstance(value, str):
        value = value[: SHOWN + 1]
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write out integers of thousands of digits
        return "a number of more digits than can be shown"
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def text(value: Any, where: str, empty: bool = False) -> str:
    """A printable text of bounded length.

    Raises:
        DataError: it is none; *where* begins the message.
    """
    if not isinstance(value, str):
        raise DataError(f"{where} is {shown(value)}; expected a text")
    if len(value) > MOST_TEXT:
        raise DataError(f"{where} has {len(value)} characters; at most {MOST_TEXT} are read")
    if not value.isprintable():
        raise DataError(f"{where} is {shown(value)}; expected printable characters")
    if not value and not empty:
        raise DataError(f"{where} is empty")
    return value


def number(value: Any, where: str, least: float = -math.inf, most: float = math.inf) -> float:
    """A finite number between *least* and *most*.

    Raises:
        DataError: it is none; *where* begins the message.
    """
    wanted = "a finite number" + (f" of {least:g} or more" if least > -math.inf else "")
    wanted += f" and at most {most:g}" if most < math.inf else ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{where} is {shown(value)}; expected {wanted}")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found) or not least <= found <= most:
        raise DataError(f"{where} is {shown(value)}; expected {wanted}")
    return found
