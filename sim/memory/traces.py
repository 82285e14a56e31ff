"""Request streams: addresses in order, and which of them write.

With G the bytes of a request and i counting from 0: ``seq_read``, ``seq_write`` i·G; ``mixed_2r1w`` the same, every
third writes; ``triad`` three arrays 256 MiB apart in turn, the third written; ``stride`` steps of S within 256 MiB,
then the neighbours; ``random_read``, ``random_mixed``, ``chase`` uniform in 1 GiB by SplitMix64 (Steele et al.,
OOPSLA 2014).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..errors import SpecError, UnknownNameError, nearest
from .layout import Ints

MIB: Final = 1 << 20
ARRAY_BYTES: Final = 256 * MIB
RANDOM_BYTES: Final = 1024 * MIB
KINDS: Final = ("seq_read", "seq_write", "mixed_2r1w", "triad", "stride", "random_read", "random_mixed", "chase")
STEADY: Final = frozenset({"seq_read", "seq_write", "mixed_2r1w", "triad", "stride", "random_read", "random_mixed"})
"""Kinds whose rate settles, so that a long trace can be extrapolated."""
WRITE_EVERY: Final = 3

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX2: Final = np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order. ``outstanding`` limits how many wait for data at a time; 0 is no limit."""

    address: NDArray[np.int64]
    write: Ints
    outstanding: int = 0


def check_kind(kind: str) -> str:
    """The trace kind, or an error that names the nearest.

    Raises:
        UnknownNameError: no such kind.
    """
    if kind not in KINDS:
        raise UnknownNameError(
            f"no trace kind {kind[:40]!r}", expected=", ".join(KINDS), suggestion=nearest(kind[:40], KINDS)
        )
    return kind


def make_trace(kind: str, requests: int, request_bytes: int, *, stride: int = 0, first: int = 0) -> Trace:
    """The first *requests* of a kind, from request number *first* on.

    Raises:
        UnknownNameError: no such kind.
        SpecError: a stride that does not suit.
    """
    check_kind(kind)
    i = np.arange(first, first + requests, dtype=np.int64)
    write = np.zeros(requests, dtype=np.int64)
    if kind in ("mixed_2r1w", "triad", "random_mixed"):
        write[i % WRITE_EVERY == WRITE_EVERY - 1] = 1
    elif kind == "seq_write":
        write[:] = 1
    if kind == "triad":
        address = (i % WRITE_EVERY) * ARRAY_BYTES + (i // WRITE_EVERY) * request_bytes
    elif kind == "stride":
        address = _strided(i, request_bytes, stride)
    elif kind in ("random_read", "random_mixed", "chase"):
        address = (splitmix64(i) % np.uint64(RANDOM_BYTES // request_bytes)).astype(np.int64) * request_bytes
    else:
        address = i * request_bytes
    return Trace(address, write, 1 if kind == "chase" else 0)


def _strided(i: NDArray[np.int64], request_bytes: int, stride: int) -> NDArray[np.int64]:
    if stride < 1 or stride > ARRAY_BYTES:
        raise SpecError(f"a stride of {stride} bytes", expected=f"--stride between 1 and {ARRAY_BYTES} bytes")
    per = ARRAY_BYTES // stride
    return (i % per) * stride + (i // per) * request_bytes


def splitmix64(i: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The SplitMix64 hash of each number."""
    with np.errstate(over="ignore"):
        x = i.astype(np.uint64) + _GOLDEN
        x = (x ^ (x >> np.uint64(30))) * _MIX1
        x = (x ^ (x >> np.uint64(27))) * _MIX2
    result: NDArray[np.uint64] = x ^ (x >> np.uint64(31))
    return result
