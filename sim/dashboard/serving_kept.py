"""A served load as it is sent from its process and held by the server: columns instead of objects, and no more of them.

50,000 requests are 4 MB like this and 40 MB as objects; all that figures, tables and the JSON need comes back exactly.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..serving.fleet import Served
from ..serving.metrics import ServeResult
from ..serving.request import Request

MOST_REQUESTS: Final = 50_000
"""Requests of one run from the dashboard."""
MOST_BYTES: Final = 16 * 2**20
"""Size of a result; with as many as are kept, what a server can hold of them."""
LONGER: Final = "effsim serve on the command line has no such limit"
_WHOLE: Final = ("index", "prompt", "output", "cached", "priority", "replica", "preemptions", "retries")
_TIMES: Final = ("arrival_s", "admitted_s", "first_token_s", "moved_s", "finish_s")
Columns = Mapping[str, NDArray[Any]]
_History = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Kept:
    """A result without its course, which is in columns: of the requests that ended, and of each replica's history."""

    bare: ServeResult
    columns: Columns
    histories: tuple[_History, ...]

    @classmethod
    def of(cls, result: ServeResult) -> Kept:
        """The columns of a result.

        Raises:
            DataError: too much to be held.
        """
        requests = result.served.requests if result.served is not None else []
        columns: dict[str, NDArray[Any]] = {
            name: np.array([getattr(r, name) for r in requests], dtype=np.int64) for name in _WHOLE
        }
        for name in _TIMES:  # None becomes NaN
            columns[name] = np.array([getattr(r, name) for r in requests], dtype=np.float64)
        out = cls(replace(result, history=(), served=None), columns, tuple(_history(h) for h in result.history))
        if out.size > MOST_BYTES:
            raise DataError(f"the result has {out.size / 2**20:.0f} MiB; at most {MOST_BYTES / 2**20:.0f}; {LONGER}")
        return out

    @property
    def size(self) -> int:
        """Bytes of the columns."""
        held = sum(column.nbytes for column in self.columns.values())
        return held + sum(column.nbytes for history in self.histories for column in history)

    def full(self) -> ServeResult:
        """The result again. What happened inside replicas stays behind: ``served`` has the requests alone."""
        values = [self.columns[name].tolist() for name in _WHOLE]
        times = [[None if t != t else t for t in self.columns[name].tolist()] for name in _TIMES]
        names = (*_WHOLE, *_TIMES)
        requests = [Request(**dict(zip(names, row, strict=True))) for row in zip(*values, *times, strict=True)]
        history = [list(zip(*(column.tolist() for column in h), strict=True)) for h in self.histories]
        served = Served(requests, [], [], self.bare.duration_s, self.bare.evicted_blocks)
        return replace(self.bare, history=history, served=served)


def _history(entries: Sequence[tuple[float, int, int, float]]) -> _History:
    def column(at: int, kind: Any) -> NDArray[Any]:
        return np.array([entry[at] for entry in entries], dtype=kind)

    return column(0, np.float64), column(1, np.int64), column(2, np.int64), column(3, np.float64)


class Counted:
    """Arrivals whose number is known beforehand, for progress, and that end with an error when there are too many."""

    def __init__(self, items: Iterable[Any], expected: int) -> None:
        self._items, self._expected = iter(items), expected

    def __iter__(self) -> Iterator[Any]:
        for number, item in enumerate(self._items):
            if number >= MOST_REQUESTS:
                raise too_many(number + 1)
            yield item

    def __length_hint__(self) -> int:
        return self._expected or operator.length_hint(self._items, 0)


def too_many(count: float) -> DataError:
    """What to say to a load that is too long."""
    return DataError(
        f"{count:,.0f} requests; the dashboard serves at most {MOST_REQUESTS:,} at a time; ask for fewer "
        f"(workload.serving.arrivals.requests=…), or: {LONGER}"
    )
