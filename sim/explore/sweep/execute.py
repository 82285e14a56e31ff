"""Where points are evaluated: in this process, on processes of this machine, or on a Dask cluster.

Whoever evaluates a chunk returns its rows; the process that started the sweep alone writes them. Which worker does
which chunk changes nothing in the rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import DataError, SpecError
from ...spec.confine import Layers, carried
from ...spec.study import StudySpec
from ..processes import end_with_parent
from .evaluate import Evaluator, Row
from .sampling import Point

ATTEMPTS = 3
"""How often processes are started anew after one of them was killed."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker needs: the study as JSON, the folder of its file, and which files may be read."""

    study: str
    folder: str
    confinement: Layers | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Points *start* to *stop*."""

    start: int
    stop: int
    points: tuple[Point, ...]


_evaluators: dict[Job, Evaluator] = {}


def work(job: Job, chunk: Chunk) -> tuple[Chunk, list[Row]]:
    """Evaluate a chunk; the evaluator of a job is kept for the next one."""
    with carried(job.confinement):
        found = _evaluators.get(job)
        if found is None:
            _evaluators.clear()
            study = StudySpec.model_validate(json.loads(job.study))
            found = _evaluators[job] = Evaluator(study, job.folder)
        return Chunk(chunk.start, chunk.stop, ()), found.rows(chunk.points)


class Here:
    """In this process, one chunk after the other."""

    def run(self, job: Job, chunks: Iterable[Chunk]) -> Iterator[tuple[Chunk, list[Row]]]:
        """Rows of every chunk."""
        for chunk in chunks:
            yield work(job, chunk)

    def close(self) -> None:
        """Nothing to close."""
        _evaluators.clear()


class Processes:
    """*count* processes of this machine, started anew if one of them is killed."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool: Any = None

    def _start(self) -> Any:
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        if self._pool is None:
            # Started from nothing: a copy of this process would also copy its threads' locks.
            self._pool = ProcessPoolExecutor(self._count, get_context("spawn"), initializer=end_with_parent)
        return self._pool

    def run(self, job: Job, chunks: Iterable[Chunk]) -> Iterator[tuple[Chunk, list[Row]]]:
        """Rows of every chunk, as they come.

        Raises:
            DataError: processes die again and again.
        """
        from concurrent.futures import FIRST_COMPLETED, wait
        from concurrent.futures.process import BrokenProcessPool

        source, again, waiting, broken = iter(chunks), list[Chunk](), dict[Any, Chunk](), 0
        while True:
            while len(waiting) < 2 * self._count:  # a few ahead: a grid of millions of points stays an iterator
                chunk = again.pop() if again else next(source, None)
                if chunk is None:
                    break
                try:
                    waiting[self._start().submit(work, job, chunk)] = chunk
                except BrokenProcessPool:
                    again.append(chunk)
                    break
            if not waiting and not again:
                return
            died = bool(again) and not waiting
            for future in wait(waiting, return_when=FIRST_COMPLETED).done if waiting else ():
                chunk = waiting.pop(future)
                try:
                    yield future.result()
                except BrokenProcessPool:
                    again.append(chunk)
                    died = True
            if died:
                broken += 1
                if broken > ATTEMPTS:
                    raise DataError(f"worker processes were killed {broken} times; is there enough memory?")
                again += waiting.values()
                waiting.clear()
                self.close()

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


class Dask:
    """A Dask cluster at *address*, or a client that is connected already."""

    def __init__(self, address: str | Any) -> None:
        try:
            import distributed
        except ImportError:
            raise DataError("--scheduler needs Dask; install it with: pip install 'effsim[sweep]'") from None
        connect: Any = distributed.Client  # Dask gives its classes no types
        self._owned = isinstance(address, str)
        if not isinstance(address, str):
            self._client = address
            return
        if "://" not in address:
            raise SpecError(f"{address!r} is not the address of a scheduler", expected="such as tcp://host:8786")
        try:
            self._client = connect(address, timeout=10, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise DataError(f"no Dask scheduler at {address} ({error})") from None

    def run(self, job: Job, chunks: Iterable[Chunk]) -> Iterator[tuple[Chunk, list[Row]]]:
        """Rows of every chunk, as they come; a worker that dies is Dask's to replace."""
        import distributed

        as_completed: Any = distributed.as_completed
        source = iter(chunks)
        ahead = 4 * max(1, sum(self._client.nthreads().values()))
        first = [self._submit(job, chunk) for chunk, _ in zip(source, range(ahead), strict=False)]
        pending = as_completed(first)
        for future in pending:
            yield future.result()
            chunk = next(source, None)
            if chunk is not None:
                pending.add(self._submit(job, chunk))

    def _submit(self, job: Job, chunk: Chunk) -> Any:
        return self._client.submit(work, job, chunk, pure=False, retries=ATTEMPTS)

    def close(self) -> None:
        """Disconnect, if the connection is ours."""
        if self._owned:
            self._client.close()


Executor = Here | Processes | Dask


def executor(processes: int | None, scheduler: Any, chunks: int) -> Executor:
    """What the options ask for: a scheduler, else processes (None: as many as there are processors)."""
    if scheduler is not None:
        return Dask(scheduler)
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(available if processes is None else processes, max(1, chunks))
    return Here() if count <= 1 else Processes(count)


def cut(start: int, stop: int, size: int) -> Sequence[tuple[int, int]]:
    """Chunks of *size* points between two indices.

    >>> cut(0, 5, 2)
    [(0, 2), (2, 4), (4, 5)]
    """
    return [(a, min(a + size, stop)) for a in range(start, stop, size)]
