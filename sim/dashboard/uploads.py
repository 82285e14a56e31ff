"""From the bytes of a browser to a checked file of the shelf: YAML of any kind, or a Hugging Face ``config.json``."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import yaml

from ..devices.registry import load_machine
from ..errors import DataError, EffsimError
from ..importers.huggingface import load_architecture
from ..program.workload_file import open_workload
from ..spec.build import build
from ..spec.catalogue import load_document
from ..spec.confine import confined
from ..spec.fields import SpecModel
from ..spec.plan import PlanSpec
from ..spec.study import StudySpec
from ..spec.yaml_loader import MAX_BYTES, load_yaml_text
from .shelf import MAX_TABLE_BYTES, Shelf, Upload, clean_label

KINDS: Final = {"workload": "workloads", "study": "studies", "plan": "plans"}
"""Section of each ``kind:`` of file; every other kind that is chosen from is hardware."""
TITLES: Final = {"hardware": "a hardware file", "workloads": "a workload", "studies": "a study", "plans": "a plan"}
_ROOTS: Final = {"studies": "study", "plans": "plan"}
_SPECS: Final[Mapping[str, type[SpecModel]]] = {"studies": StudySpec, "plans": PlanSpec}
SHAPE: Final = {"task": "decode", "batch": 1, "prompt": 2048, "generate": 128}
"""What is asked of an uploaded model until the visitor changes it."""


def decode(contents: str) -> bytes:
    """The bytes of a data URL, as upload components send them.

    Raises:
        DataError: it is none, or far too large.
    """
    _, comma, body = contents.partition(",")
    if not comma or len(body) > MAX_TABLE_BYTES * 4 // 3 + 4:
        raise DataError(f"the upload is not a file of at most {MAX_TABLE_BYTES / 2**20:.0f} MiB")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise DataError("the upload is not a file") from None


def receive(shelf: Shelf, section: str, name: str, content: bytes) -> Upload:
    """Check a file and keep it.

    A model (a Hugging Face ``config.json``, or ``kind: architecture``) becomes a workload that runs it.

    Raises:
        DataError, SpecError: it is not a valid file of *section*, with the position of what is wrong in it.
    """
    label = clean_label(name)
    if section == "tables":
        from .sweep_tables import receive_table

        return receive_table(shelf, label, content)
    if len(content) > MAX_BYTES:
        raise DataError(f"{label}: {len(content) / 2**20:.1f} MiB; YAML and JSON have at most 1 MiB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{label}: not UTF-8 text; expected YAML or a Hugging Face config.json") from None
    json = label.lower().endswith(".json")
    kind = None if json else load_yaml_text(text, label).data.get("kind")
    if section == "workloads" and (json or kind == "architecture"):
        model = _checked(shelf, "models", label, content)
        name = f"{label.rsplit('.', 1)[0]} decode"
        shape = {"kind": "workload", "name": name, "model": model.path.name} | SHAPE
        return _checked(shelf, section, name, yaml.safe_dump(shape, sort_keys=False).encode(), (model.token,))
    if json:
        raise DataError(f"{label}: JSON is read for models only; expected {TITLES[section]} as YAML")
    return _checked(shelf, section, label, text.encode())


def _checked(shelf: Shelf, section: str, label: str, content: bytes, needs: tuple[str, ...] = ()) -> Upload:
    """Keep a file that passes the check that files on disk pass."""
    checking = Path()
    try:
        with shelf.candidate(section, label, content, needs) as (made, checking), confined(shelf.folder):
            _check(section, str(checking))
    except EffsimError as error:
        message = str(error).replace(checking.name, label) if checking.name else str(error)
        raise DataError(shelf.readable(message)) from error
    return made


def _check(section: str, file: str) -> None:
    """Read a file of a section as the public functions do.

    Raises:
        EffsimError: it is wrong, or of another section.
    """
    if section == "models":
        load_architecture(file)
        return
    document = load_document(section, file)
    kind = document.data.get("kind")
    found = KINDS.get(kind, "hardware") if isinstance(kind, str) else section
    if found != section:
        raise DataError(
            f"{Path(file).name}: this is {TITLES[found]} (kind: {str(kind)[:40]}); expected {TITLES[section]}"
        )
    if section in _SPECS:
        build(_SPECS[section], document, root=_ROOTS[section])
    elif section == "workloads":
        open_workload(file)
    else:
        load_machine(file)
