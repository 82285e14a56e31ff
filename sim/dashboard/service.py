"""The public functions, asked on behalf of a visitor: confined to bundled files and uploads, answers remembered."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from .. import _api
from ..errors import DataError, EffsimError
from ..report.result import RunResult
from ..spec.confine import confined
from .jobs import Jobs
from .shelf import Shelf
from .view import View, assignments

ENGINES: Final = ("events", "analytic", "roofline")
START: Final = {"hardware": "gpu_a100", "workload": "llama70b_decode"}
"""What is shown before anything is chosen."""
MAX_CHOICE: Final = 200
"""Characters of a name."""
MAX_CHANGES: Final = 64
"""Assignments of one request."""
_KEPT: Final = 256
"""Answers that are held, of about 0.1 MB each; those of large uploads count as several."""
_KEPT_FIGURES: Final = 384
"""Figures, of about 20 kB each; a page of a run has six."""
_UPLOADED: Final = 2**13
"""Bytes of an upload for which an answer counts as one more: it grows with what it is an answer to."""
_T = TypeVar("_T")


class Memo:
    """The newest answers by what was asked. Who asks for what somebody else is making waits for that.

    Held answers weigh at most *most* together; one is held in any case.
    """

    def __init__(self, most: int = _KEPT) -> None:
        self._most = most
        self._weight = 0
        self._held: OrderedDict[Any, tuple[Any, int]] = OrderedDict()
        self._gates: dict[Any, threading.RLock] = {}
        self._lock = threading.Lock()

    def get(self, key: Any, make: Callable[[], _T], weigh: Callable[[_T], int] = lambda _: 1) -> _T:
        """The answer of *key*, made if it is not held; *weigh* says what it counts as. Errors are not held."""
        with self._lock:
            if key in self._held:
                known: _T = self._found(key)
                return known
            gate = self._gates.setdefault(key, threading.RLock())
        with gate:
            with self._lock:
                if key in self._held:  # made while this waited
                    meanwhile: _T = self._found(key)
                    return meanwhile
            try:
                made = make()
                with self._lock:
                    self._hold(key, made, weigh(made))
            finally:
                with self._lock:
                    self._gates.pop(key, None)
        return made

    @property
    def weight(self) -> int:
        """What all that is held weighs."""
        with self._lock:
            return self._weight

    # --- with the lock held

    def _found(self, key: Any) -> Any:
        self._held.move_to_end(key)
        return self._held[key][0]

    def _hold(self, key: Any, made: Any, weight: int) -> None:
        _, before = self._held.pop(key, (None, 0))
        self._held[key] = made, weight
        self._weight += weight - before
        while self._weight > self._most and len(self._held) > 1:
            _, (_, less) = self._held.popitem(last=False)
            self._weight -= less


@dataclass(frozen=True, slots=True)
class Asked:
    """One run that a view asks for; choices are those of the shelf."""

    hardware: str
    workload: str
    engine: str = ENGINES[0]
    changes: tuple[str, ...] = ()

    @classmethod
    def of(cls, view: View) -> Asked:
        """What a view says, with the start where it says nothing."""
        return cls(
            view.one("hardware", START["hardware"]),
            view.one("workload", START["workload"]),
            view.one("engine", ENGINES[0]),
            view.many("set"),
        )

    @classmethod
    def given(cls, hardware: object, workload: object, engine: object, changes: object) -> Asked:
        """What a form says; whatever a request holds in its place is an error, not a surprise.

        Raises:
            DataError: no text where text is due, or too much of it.
        """
        for name, value in (("hardware", hardware), ("workload", workload), ("reading", engine)):
            if not isinstance(value, str) or len(value) > MAX_CHOICE:
                raise DataError(f"no {name} is chosen")
        return cls(str(hardware), str(workload), str(engine), assignments(changes))

    @property
    def view(self) -> View:
        """The fields of the address."""
        return View.of(hardware=self.hardware, workload=self.workload, engine=self.engine, set=self.changes)


@dataclass(frozen=True, slots=True)
class Service:
    """What pages ask: a shelf of choices, runs, and long work."""

    shelf: Shelf = field(default_factory=Shelf)
    jobs: Jobs = field(default_factory=Jobs)
    memo: Memo = field(default_factory=Memo)
    figures: Memo = field(default_factory=lambda: Memo(_KEPT_FIGURES))

    def __post_init__(self) -> None:
        """Messages of long work name uploads as their senders do."""
        self.jobs.readable = self.shelf.readable

    def close(self) -> None:
        """End all work, and forget what was uploaded."""
        self.jobs.close()
        self.shelf.close()

    def run(self, asked: Asked, *, sensitivity: bool = True) -> RunResult:
        """As :func:`effsim.run` with the same files.

        Raises:
            EffsimError: as there; messages name uploads as their senders do.
        """

        def ask() -> RunResult:
            hardware = self.shelf.argument("hardware", asked.hardware)
            workload = self.shelf.argument("workloads", asked.workload)
            result = _api.run(hardware, workload, engine=asked.engine, set=asked.changes, sensitivity=sensitivity)
            return self._named(result)

        # Of what a run is made of, only the result is held: machine and program are ten times as large.
        return self.ask(("run", asked, sensitivity), ask, asked.changes)

    def figure(self, asked: Asked, name: str) -> dict[str, Any]:
        """A figure of a run (:meth:`RunResult.figure`) as plain data, which nobody may change.

        Raises:
            EffsimError: as :meth:`run`; no such figure.
        """

        def draw() -> dict[str, Any]:
            made: dict[str, Any] = json.loads(self.run(asked).figure(name).to_json())
            return made

        with self.confined():
            return self.figures.get((asked, name), draw, lambda _: self._weight(asked))

    def explain(self, asked: Asked, operator: str) -> dict[str, Any]:
        """As :func:`effsim.explain`."""

        def ask() -> dict[str, Any]:
            hardware = self.shelf.argument("hardware", asked.hardware)
            workload = self.shelf.argument("workloads", asked.workload)
            return _api.explain(hardware, workload, operator, set=asked.changes)

        return self.ask(("explain", asked, operator), ask, asked.changes)

    def ask(self, key: Any, make: Callable[[], _T], changes: Sequence[str] = ()) -> _T:
        """An answer from memory, or made within the confines of the shelf.

        Raises:
            EffsimError: what *make* raises, with its message made readable; too many *changes*.
        """
        if len(changes) > MAX_CHANGES:
            raise DataError(f"{len(changes)} changes; at most {MAX_CHANGES} at a time")
        with self.confined():
            return self.memo.get(key, make, lambda _: self._weight(key))

    def _weight(self, key: Any) -> int:
        """How many answers the answer of *key* counts as."""
        return 1 + self.shelf.size_of(repr(key)) // _UPLOADED

    def _named(self, result: RunResult) -> RunResult:
        """A result whose sentences name uploads as their senders do."""
        said = self.shelf.readable
        assumptions = tuple(replace(a, source=said(a.source)) for a in result.assumptions)
        return replace(result, assumptions=assumptions, notes=tuple(said(note) for note in result.notes))

    @contextmanager
    def confined(self) -> Iterator[None]:
        """No file but bundled ones and uploads is read; errors name uploads as their senders do."""
        try:
            with confined(self.shelf.folder):
                yield
        except EffsimError as error:
            raise RefusedError(self.shelf.readable(str(error))) from error


class RefusedError(EffsimError):
    """An error of a public function, in words for the visitor."""
