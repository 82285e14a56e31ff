"""What the rows of a study follow from, as one hash: a folder of points belongs to one such hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import EffsimError
from ...spec.catalogue import load_document
from ...spec.confine import is_file, readable
from ...spec.study import StudySpec
from ...version import VERSION

SECTIONS = {
    "hardware": "hardware",
    "workload": "workloads",
    "engine": "engines",
    "workload.model": "architectures",
    "workload.engine": "engines",
}
"""Parameters and assignments that name a file, with the section it is of."""

Named = tuple[str, str, Path]
"""Section, name, folder that the name is relative to."""


def digest(study: StudySpec, seed: int, folder: Path) -> str:
    """Hash of the study, of every file that it and those files name, of the seed and of the version of effsim."""
    parts: list[Any] = [VERSION, seed, study.model_dump(mode="json")]
    left, seen = list(_named_by_study(study, folder)), set[Named]()
    while left:
        named = left.pop()
        if named not in seen:
            seen.add(named)
            part, more = _content(named)
            parts.append([named[0], named[1], part])
            left += more
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _named_by_study(study: StudySpec, folder: Path) -> Iterator[Named]:
    given = {"hardware": study.hardware, "workload": study.workload, "engine": study.engine}
    assigned = [text.partition("=")[::2] for text in study.set]
    swept = [(p.path, str(value)) for p in study.parameters for value in p.values or []]
    for path, name in [*given.items(), *assigned, *swept]:
        if name and path in SECTIONS:
            # What a workload names is relative to that workload's file.
            yield SECTIONS[path], name, _file(study.workload, folder).parent if "." in path else folder


def _file(name: str, folder: Path) -> Path:
    nearby = folder / name
    return nearby if is_file(nearby) else Path(name)


def _content(named: Named) -> tuple[Any, list[Named]]:
    """What a file says, and the files that it names."""
    section, name, folder = named
    try:
        file = _file(name, folder)
        if file.suffix in (".json", ".cfg"):  # a configuration of another tool
            return hashlib.sha256(readable(file).read_bytes()).hexdigest(), []
        found = load_document(section, str(file))
    except (EffsimError, OSError) as error:
        return str(error), []  # a point that names it says so
    return found.data, list(_named_in(section, found.data, Path(found.file).parent))


def _named_in(section: str, data: Any, folder: Path) -> Iterator[Named]:
    """Files that a document names."""
    if section == "workloads":
        for key, below in (("model", "architectures"), ("engine", "engines")):
            if isinstance(data.get(key), str):
                yield below, data[key], folder
    elif section == "hardware":
        for group in data.get("devices") or []:
            if isinstance(group, dict) and isinstance(group.get("hardware"), str):
                yield "hardware", group["hardware"], folder
        memory = data.get("memory")
        part = memory.get("dram") if isinstance(memory, dict) else None
        if isinstance(part, dict) and isinstance(part.get("preset"), str):
            yield "dram", part["preset"], Path()
