"""What a visitor may choose from: the bundled files, and what was uploaded.

A choice is a bundled name or the token of an upload. Uploads are checked like files before they are kept, in one
temporary folder that goes away with the process, under names made here; nothing from a request becomes a path.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
import threading
from collections import OrderedDict
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
_SHOWN: Final = 80
_PARQUET: Final = b"PAR1"


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that was uploaded: *token* stands for it in requests, *label* is its name for people."""

    token: str
    section: str
    label: str
    path: Path
    size: int


class Library:
    """Choices of one server. Safe to use from several threads."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="effsim-dashboard-"))
        self._uploads: OrderedDict[str, Upload] = OrderedDict()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Remove what was uploaded."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def names(self, section: str) -> list[str]:
        """Bundled names of a section."""
        return names(section)

    def upload(self, token: str) -> Upload | None:
        """The upload of a token, or None; looking at it makes it the newest."""
        with self._lock:
            found = self._uploads.get(token)
            if found is not None:
                self._uploads.move_to_end(token)
            return found

    def argument(self, section: str, choice: str) -> str:
        """What the public functions are given for a choice: a bundled name, or the path of an upload.

        Raises:
            UnknownNameError: neither.
        """
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
        found = self.upload(choice)
        return found.label if found else choice

    def text(self, section: str, choice: str) -> str:
        """The YAML of a choice, as it was written.

        Raises:
            UnknownNameError: no such choice.
        """
        argument = self.argument(section, choice)
        path = Path(argument) if _TOKEN.fullmatch(choice) else find(section, argument)
        return path.read_text(encoding="utf-8-sig")

    def readable(self, message: str) -> str:
        """A message that names uploads as their senders do."""
        with self._lock:
            known = list(self._uploads.values())
        for upload in known:
            message = message.replace(str(upload.path), upload.label).replace(upload.path.name, upload.label)
        return message.replace(str(self.folder), "uploads")

    def add(self, section: str, label: str, content: bytes) -> Upload:
        """Keep a file of a section that was checked before it is called (see :mod:`effsim.dashboard.uploads`).

        Raises:
            DataError: too large.
        """
        limit = MAX_TABLE_BYTES if section == "tables" or content.startswith(_PARQUET) else MAX_BYTES
        if len(content) > limit:
            raise DataError(f"{clean_label(label)}: {len(content) / 2**20:.1f} MiB; at most {limit / 2**20:.0f} MiB")
        digest = hashlib.sha256(section.encode() + b"\0" + content).hexdigest()[:32]
        token = f"upload-{digest}"
        path = self.folder / f"{token}{_ending(label, content)}"
        made = Upload(token, section, clean_label(label), path, len(content))
        with self._lock:
            if token not in self._uploads:
                path.write_bytes(content)
            self._uploads[token] = made
            self._uploads.move_to_end(token)
            while len(self._uploads) > MAX_FILES:
                _, old = self._uploads.popitem(last=False)
                old.path.unlink(missing_ok=True)
        return made

    def discard(self, token: str) -> None:
        """Forget an upload."""
        with self._lock:
            old = self._uploads.pop(token, None)
        if old is not None:
            old.path.unlink(missing_ok=True)


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
