"""Workload files and engine profiles as a run takes them: with ``--set`` applied, and where each value stands."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, EffsimError, located
from ..spec.build import build
from ..spec.catalogue import load_document
from ..spec.confine import is_file
from ..spec.engine import EngineSpec
from ..spec.overrides import apply
from ..spec.workload import WorkloadSpec
from ..spec.yaml_loader import Document, load_yaml_text


def load_workload(name_or_path: str | WorkloadSpec, assignments: Sequence[str] = ()) -> tuple[WorkloadSpec, Path]:
    """A workload by bundled name or path, with ``--set workload.…`` applied, and the folder it stands in."""
    file = open_workload(name_or_path, assignments)
    return file.spec, file.folder


@dataclass(frozen=True, slots=True)
class WorkloadFile:
    """A workload with the document it was read from, so that later errors can point into it."""

    spec: WorkloadSpec
    document: Document

    @property
    def folder(self) -> Path:
        """Folder that relative paths refer to."""
        return Path(self.document.file).parent

    @contextmanager
    def blame(self, *path: str | int) -> Iterator[None]:
        """Give errors without a position the position of *path* in this file."""
        try:
            yield
        except EffsimError as error:
            deeper = error.path if isinstance(error, DataError) and error.path else path
            raise located(error, self.document.location(deeper)) from None


def open_workload(name_or_path: str | WorkloadSpec, assignments: Sequence[str] = ()) -> WorkloadFile:
    """A workload by bundled name or path (or one that is loaded already) with its document."""
    document = apply(_workload_document(name_or_path), list(assignments), "workload")
    return WorkloadFile(build(WorkloadSpec, document, root="workload"), document)


def _workload_document(name_or_path: str | WorkloadSpec) -> Document:
    """A workload file, the topology of another simulator, or a workload in memory as the file it would be."""
    if isinstance(name_or_path, WorkloadSpec):
        given = name_or_path.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        return load_yaml_text(json.dumps(given), name_or_path.name)
    path = Path(name_or_path)
    if path.suffix == ".csv":
        from ..importers.scalesim import workload_document

        return workload_document(path)
    return load_document("workloads", name_or_path)


def load_engine(name_or_path: str, base: Path | None = None) -> EngineSpec:
    """An engine profile by bundled name or path (relative to *base* where it exists there)."""
    nearby = (base / name_or_path) if base is not None else None
    found = str(nearby) if nearby is not None and is_file(nearby) else name_or_path
    return build(EngineSpec, load_document("engines", found), root="engine")
