"""What a visitor may choose from: the bundled files, and what was uploaded.

A choice is a bundled name or the token of an upload. Uploads are checked like files before they are kept, in one
temporary folder that goes away with the process, under names made here; nothing from a request becomes a path.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import DataError, UnknownNameError, nearest
from ..spec.catalogue import find, names
from ..spec.yaml_loader import MAX_BYTES

MAX_FILES: Final = 64
"""Uploads that are kept; the oldest makes room."""
MAX_TABLE_BYTES: Final = 24 * 2**20
"""Size of a file of points or rows."""
SECTIONS: Final = ("hardware", "workloads", "studies", "plans", "models", "tables")
"""What can be uploaded; models are what uploaded workloads run, tables are Parquet or CSV files."""
_TOKEN: Final = re.compile(r"upload-[0-9a-f]{32}")
_HELD: Final = re.compile(rf"({_TOKEN.pattern})(?:\.(?:yaml|json|parquet))?")
_GONE: Final = "an upload that is no longer here"
_SHOWN: Final = 80
_PARQUET: Final = b"PAR1"


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that was uploaded: *token* stands for it in requests, *label* is its name for people.

    ``needs`` are tokens of uploads that its content names: they are kept as long as it is.
    """

    token: str
    section: str
    label: str
    path: Path
    size: int
    needs: tuple[str, ...] = ()


class Shelf:
    """Choices of one server. Safe to use from several threads."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="effsim-dashboard-"))
        self._uploads: OrderedDict[str, Upload] = OrderedDict()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Remove what was uploaded."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def names(self, section: str) -> list[str]:
        """Bundled names of a section; no tables are bundled."""
        return [] if section == "tables" else names(section)

    def upload(self, token: str) -> Upload | None:
        """The upload of a token, or None; looking at it makes it, and what it needs, the newest."""
        with self._lock:
            found = self._uploads.get(token)
            if found is not None:
                self._touch(found)
            return found

    def argument(self, section: str, choice: str) -> str:
        """What the public functions are given for a choice: a bundled name, or the path of an upload.

        Raises:
            UnknownNameError: neither.
        """
        if not isinstance(choice, str):
            raise UnknownNameError(f"no {section} chosen", expected="a name from the list, or an upload")
        if _TOKEN.fullmatch(choice):
            found = self.upload(choice)
            if found is None or found.section != section:
                raise UnknownNameError("this upload is no longer here", expected="the file, uploaded again")
            return str(found.path)
        bundled = self.names(section)
        if choice in bundled:
            return choice
        shown = choice[:_SHOWN]
        raise UnknownNameError(
            f"no bundled {section} named {shown!r}",
            expected="a name from the list, or an upload",
            suggestion=nearest(shown, bundled),
        )

    def label(self, choice: str) -> str:
        """A choice for people."""
        found = self._uploads.get(choice)
        return found.label if found else choice

    def size_of(self, text: str) -> int:
        """Bytes of the uploads that a text names."""
        with self._lock:
            named = {match[0] for match in _TOKEN.finditer(text)}
            return sum(self._uploads[token].size for token in named if token in self._uploads)

    def text(self, section: str, choice: str) -> str:
        """The YAML of a choice, as it was written.

        Raises:
            UnknownNameError: no such choice.
        """
        argument = self.argument(section, choice)
        path = Path(argument) if _TOKEN.fullmatch(choice) else find(section, argument)
        return path.read_text(encoding="utf-8-sig")

    def readable(self, message: str) -> str:
        """A message that names uploads as their senders do, and no folder of this machine."""

        def shown(match: re.Match[str]) -> str:
            found = self._uploads.get(match[1])
            return found.label if found else _GONE

        # Errors from within a confinement leave the folder out themselves; this is for all others.
        return _HELD.sub(shown, message.replace(f"{self.folder}{os.sep}", "").replace(str(self.folder), "uploads"))

    def add(self, section: str, label: str, content: bytes) -> Upload:
        """Keep a file of a section that was checked before (see also :meth:`candidate`).

        Raises:
            DataError: too large.
        """
        with self.candidate(section, label, content) as (made, _):
            return made

    @contextmanager
    def candidate(
        self, section: str, label: str, content: bytes, needs: tuple[str, ...] = ()
    ) -> Iterator[tuple[Upload, Path]]:
        """A file to be checked: kept, to be chosen from then on, once the block has ended without an error.

        Within the block it is at the second path, under a name of its own.

        Raises:
            DataError: too large.
        """
        limit = MAX_TABLE_BYTES if section == "tables" or content.startswith(_PARQUET) else MAX_BYTES
        if len(content) > limit:
            raise DataError(f"{clean_label(label)}: {len(content) / 2**20:.1f} MiB; at most {limit / 2**20:.0f} MiB")
        ending, shown = _ending(label, content), clean_label(label)
        # The same bytes under another name are another upload: nobody's label changes under them.
        digest = hashlib.sha256(b"\0".join((section.encode(), shown.encode("utf-8", "replace"), content))).hexdigest()
        token = f"upload-{digest[:32]}"
        handle, name = tempfile.mkstemp(suffix=ending, prefix="checking-", dir=self.folder)
        checking = Path(name)
        made = Upload(token, section, shown, self.folder / f"{token}{ending}", len(content), needs)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            yield made, checking
            with self._lock:
                os.replace(checking, made.path)
                self._uploads[token] = made
                self._touch(made)
                self._make_room()
        finally:
            checking.unlink(missing_ok=True)

    def discard(self, token: str) -> None:
        """Forget an upload, and those that need it."""
        with self._lock:
            self._drop(token)

    # --- with the lock held

    def _touch(self, upload: Upload) -> None:
        """What is needed outlives what needs it."""
        for token in (upload.token, *upload.needs):
            if token in self._uploads:
                self._uploads.move_to_end(token)

    def _make_room(self) -> None:
        while len(self._uploads) > MAX_FILES:
            self._drop(next(iter(self._uploads)))

    def _drop(self, token: str) -> None:
        gone = [token, *(other.token for other in self._uploads.values() if token in other.needs)]
        for found in (self._uploads.pop(name, None) for name in gone):
            if found is not None:
                found.path.unlink(missing_ok=True)


def _ending(label: str, content: bytes) -> str:
    """What tells readers of files what they read."""
    if content.startswith(_PARQUET):
        return ".parquet"
    return next((ending for ending in (".json", ".csv") if label.lower().endswith(ending)), ".yaml")


def clean_label(name: str) -> str:
    """The last part of a file's name, printable and short: a label, never a path.

    >>> clean_label("../../etc/passwd")
    'passwd'
    """
    last = re.split(r"[/\\]", name)[-1]
    kept = "".join(c for c in last if c.isprintable())[:_SHOWN].strip()
    return kept or "upload"
