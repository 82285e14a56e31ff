"""Element types: their names and how many bits one element takes in memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from ..errors import UnsupportedError, nearest


@dataclass(frozen=True, slots=True)
class DType:
    """An element type. ``bits`` is the storage size; tf32 is stored as fp32 and only its arithmetic is narrower."""

    name: str
    bits: int
    is_float: bool

    @property
    def bytes(self) -> float:
        """Bytes of one element; a fraction for packed types.

        >>> dtype("int4").bytes
        0.5
        """
        return self.bits / 8


_TABLE = {
    d.name: d
    for d in (
        DType("fp64", 64, True),
        DType("fp32", 32, True),
        DType("tf32", 32, True),
        DType("fp16", 16, True),
        DType("bf16", 16, True),
        DType("fp8", 8, True),
        DType("fp6", 6, True),
        DType("fp4", 4, True),
        DType("int32", 32, False),
        DType("int16", 16, False),
        DType("int8", 8, False),
        DType("int4", 4, False),
        DType("int2", 2, False),
        DType("int1", 1, False),
    )
}

_ALIASES = {
    "float64": "fp64",
    "float32": "fp32",
    "float": "fp32",
    "float16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
    "float8": "fp8",
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
    "float8_e4m3fn": "fp8",
    "float8_e5m2": "fp8",
    "mxfp8": "fp8",
    "e4m3": "fp8",
    "nvfp4": "fp4",
    "mxfp4": "fp4",
}

DTYPE_NAMES: tuple[str, ...] = tuple(_TABLE)


@cache
def dtype(name: str) -> DType:
    """Look an element type up by name or common alias.

    >>> dtype("bfloat16").name, dtype("fp8").bytes
    ('bf16', 1.0)

    Raises:
        UnsupportedError: no such type; the message lists the known ones.
    """
    key = name.strip().lower()
    found = _TABLE.get(_ALIASES.get(key, key))
    if found is None:
        guess = nearest(key, [*_TABLE, *_ALIASES])
        hint = f"; did you mean {guess!r}?" if guess else ""
        raise UnsupportedError(f"unknown dtype {name!r}; expected one of {', '.join(_TABLE)}{hint}")
    return found


_SIZES: dict[str, float] = {}
"""Sizes by the spellings asked for: the question is asked many times an operator."""


def size_of(name: str) -> float:
    """Bytes of one element of the named type."""
    found = _SIZES.get(name)
    if found is None:
        found = _SIZES[name] = dtype(name).bytes
    return found
