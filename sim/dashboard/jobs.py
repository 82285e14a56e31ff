"""Long work in processes of its own: started once for what is asked, watched, cancelled, remembered.

A process can be ended at any moment, leaves the server quick, and takes nothing with it when it runs out of memory. The
same request is the same job, so a link to a page finds the work that another visit started.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Final

from ..errors import DataError

RUNNING_AT_ONCE: Final = 2
MOST_WAITING: Final = 8
MOST_KEPT: Final = 32
LIMIT_S: Final = 3600.0
"""Longest that one piece of work may take."""
_POLL_S: Final = 0.2
_PATIENCE_S: Final = 5.0
_ENDED: Final = ("done", "failed", "cancelled")


@dataclass(slots=True)
class Job:
    """One piece of work: waiting, running, done, failed or cancelled; ``done`` of ``total`` steps (0: unknown).

    ``result`` is what the work gave, ``message`` why it failed.
    """

    key: str
    kind: str
    arguments: Mapping[str, Any]
    state: str = "waiting"
    done: int = 0
    total: int = 0
    message: str = ""
    result: Any = None
    seconds: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def ended(self) -> bool:
        """Nothing more will come."""
        return self.state in _ENDED


def key_of(kind: str, arguments: Mapping[str, Any]) -> str:
    """The name of a piece of work: the same for the same request."""
    return hashlib.sha256(json.dumps([kind, arguments], sort_keys=True).encode()).hexdigest()[:24]


class Jobs:
    """The work of one server."""

    def __init__(self, running_at_once: int = RUNNING_AT_ONCE, limit_s: float = LIMIT_S) -> None:
        self._slots = threading.Semaphore(running_at_once)
        self._limit_s = limit_s
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.Lock()
        self._closed = False
        self._threads: set[threading.Thread] = set()
        self.readable: Callable[[str], str] = str
        """What messages are put into for people."""

    def start(self, kind: str, arguments: Mapping[str, Any]) -> Job:
        """Start a piece of work of :data:`effsim.dashboard.work.WORK`, or find it; what failed is started again.

        Raises:
            DataError: too much is waiting.
        """
        key = key_of(kind, arguments)
        with self._lock:
            if self._closed:
                raise DataError("the server is ending")
            known = self._jobs.get(key)
            if known is not None and known.state not in ("failed", "cancelled"):
                self._jobs.move_to_end(key)
                return known
            if sum(not job.ended for job in self._jobs.values()) >= MOST_WAITING:
                raise DataError(f"{MOST_WAITING} pieces of work are running or waiting; cancel one, or wait")
            job = self._jobs[key] = Job(key, kind, arguments)
            self._jobs.move_to_end(key)
            for old in [k for k, j in self._jobs.items() if j.ended][: max(0, len(self._jobs) - MOST_KEPT)]:
                del self._jobs[old]
            thread = threading.Thread(target=self._tend, args=(job,), daemon=True, name=f"job-{kind}")
            self._threads.add(thread)
            thread.start()
        return job

    def get(self, key: str) -> Job | None:
        """The job of a key, or None."""
        with self._lock:
            return self._jobs.get(key)

    def find(self, kind: str, arguments: Mapping[str, Any]) -> Job | None:
        """The job of a request, if it was started."""
        return self.get(key_of(kind, arguments))

    def cancel(self, key: str) -> None:
        """End a job, now."""
        job = self.get(key)
        if job is not None:
            job.stop.set()

    def close(self) -> None:
        """End all work: when this returns, its processes are gone."""
        with self._lock:
            self._closed = True
            for job in self._jobs.values():
                job.stop.set()
            threads = list(self._threads)
        for thread in threads:
            thread.join(_PATIENCE_S)

    # --- one job's thread

    def _tend(self, job: Job) -> None:
        try:
            while not self._slots.acquire(timeout=_POLL_S):
                if job.stop.is_set():
                    job.state = "cancelled"
                    return
            try:
                self._watch(job)
            finally:
                self._slots.release()
        except Exception as error:  # a job that cannot start has failed; the server goes on
            job.message, job.state = f"the work could not be done: {type(error).__name__}", "failed"
            sys.stderr.write(f"effsim dashboard: {job.kind}: {error!r}\n")
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _watch(self, job: Job) -> None:
        from .work import work

        if job.stop.is_set():
            job.state = "cancelled"
            return
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(theirs, job.kind, dict(job.arguments)), daemon=True)
        started = time.monotonic()
        try:
            process.start()
            theirs.close()
            job.state = "running"
            while not job.ended:
                job.seconds = time.monotonic() - started
                if job.stop.is_set():
                    job.state = "cancelled"
                elif job.seconds > self._limit_s:
                    job.message, job.state = f"stopped after {self._limit_s:.0f} s", "failed"
                else:
                    self._hear(job, mine, process)
        finally:
            theirs.close()
            mine.close()
            _end(process, gently=job.state == "done")

    def _hear(self, job: Job, mine: Connection, process: BaseProcess) -> None:
        """Take the next news of a process, or notice its end. The state is set last: who sees it sees the rest."""
        try:
            if not mine.poll(_POLL_S):
                if not process.is_alive() and not mine.poll(0):
                    raise EOFError
                return
            what, *news = mine.recv()
        except (EOFError, OSError):
            process.join(_PATIENCE_S)
            code = process.exitcode
            killed = code is not None and code < 0
            reason = "it was killed, perhaps for want of memory" if killed else f"it ended with code {code}"
            job.message, job.state = f"the work ended without a result: {reason}", "failed"
            return
        if what == "progress":
            job.done, job.total = news
        elif what == "done":
            job.result, job.state = news[0], "done"
        else:
            job.message, job.state = self.readable(str(news[0])), "failed"


def _end(process: BaseProcess, *, gently: bool) -> None:
    """No process is left behind; one that has given its result may end by itself."""
    if process.pid is None:  # never started
        return
    if gently:
        process.join(_PATIENCE_S)
    if process.is_alive():
        process.kill()
    process.join()
    process.close()
