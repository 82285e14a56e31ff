"""Which files a request of somebody else may make this process read.

Inside ``with confined(folder):`` every file that a specification or an argument names has to be a bundled one or lie
inside the folder, links followed. Any other is treated exactly like one that does not exist, so nothing can be learnt
about it, and messages name files without the folders in front of them. Outside of it nothing is refused.

Whoever looks at or opens such a file asks here: :func:`is_file` and :func:`exists` before, :func:`readable` to open.
The state belongs to the current thread or task (:mod:`contextvars`); :func:`layers` and :func:`carried` take it to
worker processes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final, TypeAlias

from ..errors import concealing

Layers: TypeAlias = tuple[tuple[Path, ...], ...]
"""Folders of each confinement, the outermost first; a file has to lie inside one of every layer."""

_ROOT: Final = __name__.split(".")[0]
PACKAGES: Final = (f"{_ROOT}.hw_configs", f"{_ROOT}.workloads")
"""Packages whose files are bundled."""

_layers: ContextVar[Layers | None] = ContextVar("effsim_confinement", default=None)
_entered = ExitStack()


@contextmanager
def confined(*roots: Path) -> Iterator[None]:
    """Let only bundled files and files inside *roots* be read; inside another confinement, only what both allow.

    Errors raised inside tell files by their path below a root, also when they are shown outside.
    """
    with carried((*(layers() or ()), tuple(form for root in roots for form in sorted(_forms(root))))):
        yield


@contextmanager
def carried(found: Layers | None) -> Iterator[None]:
    """The confinement that :func:`layers` gave, perhaps in another process; None: as it is here."""
    if found is None:
        yield
        return
    token = _layers.set(found)
    prefixes = {str(folder).rstrip(os.sep) + os.sep for layer in found for folder in layer}
    prefixes |= {str(folder.parent) + os.sep for folder in _bundled()}
    try:
        with concealing(tuple(sorted(prefixes - {os.sep}, key=len, reverse=True))):
            yield
    finally:
        _layers.reset(token)


def enter(found: Layers | None) -> None:
    """As :func:`carried`, for the rest of this process: how a worker process starts."""
    _entered.enter_context(carried(found))


def layers() -> Layers | None:
    """The confinement of this thread or task, to be carried and to be part of the keys of caches; None without one."""
    return _layers.get()


def is_file(path: Path) -> bool:
    """Whether there is a file that may be read; False also for what cannot be a path."""
    try:
        return _allowed(path) and path.is_file()
    except (OSError, ValueError):  # too long, or a NUL character
        return False


def exists(path: Path) -> bool:
    """Whether there is a file or a folder that may be looked at; False also for what cannot be a path."""
    try:
        return _allowed(path) and path.exists()
    except (OSError, ValueError):
        return False


def readable(path: Path) -> Path:
    """Return *path* if it may be read.

    Raises:
        FileNotFoundError: it may not; the error of a file that is missing.
    """
    if not _allowed(path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return path


def _allowed(path: Path) -> bool:
    found = _layers.get()
    if found is None:
        return True
    # By its letters first: about a path that leads elsewhere not even the file system is asked.
    if not _inside(Path(os.path.abspath(path)), found):
        return False
    try:
        return _inside(path.resolve(), found)
    except (OSError, ValueError, RuntimeError):  # too long, a NUL character, links in a circle
        return False


def _inside(path: Path, found: Layers) -> bool:
    if any(path.is_relative_to(folder) for folder in _bundled()):
        return True
    return all(any(path.is_relative_to(folder) for folder in layer) for layer in found)


def _forms(folder: Path) -> set[Path]:
    """A folder as it is written and as it is."""
    return {Path(os.path.abspath(folder)), Path(folder).resolve()}


@cache
def _bundled() -> tuple[Path, ...]:
    """Folders of the bundled files."""
    return tuple(form for name in PACKAGES for form in sorted(_forms(Path(str(files(name))))))
