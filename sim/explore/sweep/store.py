"""What a sweep leaves on disk: a manifest and Parquet parts, each written whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ...errors import DataError, SpecError
from ...spec.study import METRICS, TEXTS, StudySpec
from ...version import VERSION
from .sampling import choice

MANIFEST: Final = "manifest.json"
RESULT: Final = "points.parquet"
PARTS: Final = "parts"
FORMAT: Final = "effsim/sweep-parts@1"
MARK: Final = b"effsim"
"""Key in the metadata of ``points.parquet`` under which it says which study it is of, as JSON."""
POINTS_FORMAT: Final = "effsim/sweep-points@1"
_PART: Final = re.compile(r"part-(\d{9})-(\d{9})\.parquet")


def arrow() -> Any:
    """pyarrow with its Parquet module.

    Raises:
        DataError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError("a sweep keeps its points as Parquet; install it with: pip install 'effsim[sweep]'") from None
    return pyarrow


def schema(study: StudySpec) -> Any:
    """Columns of the parts: ``index``, one a parameter (named by its path), then the metrics."""
    pa = arrow()
    fields = [("index", pa.int64())]
    fields += [(p.path, _type(pa, p)) for p in study.parameters]
    fields += [("status", pa.string()), ("message", pa.string()), ("feasible", pa.bool_())]
    for name, dimension in METRICS.items():
        fields.append((name, pa.bool_() if dimension == "bool" else pa.int64() if name == "devices" else pa.float64()))
    return pa.schema([*fields, *((name, pa.string()) for name in TEXTS)])


def _type(pa: Any, parameter: Any) -> Any:
    """Numbers where every choice is one, text otherwise."""
    if parameter.range is not None:
        return pa.float64()
    values = [choice(value).value for value in parameter.values]
    if all(isinstance(v, bool) for v in values):
        return pa.bool_()
    return pa.float64() if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values) else pa.string()


def finished(folder: Path) -> int:
    """Points in the parts that *folder* holds; 0 where there is no sweep."""
    try:
        found = [_PART.fullmatch(path.name) for path in (folder / PARTS).iterdir()]
    except OSError:
        return 0
    return sum(int(m[2]) - int(m[1]) for m in found if m is not None)


def marked(study: StudySpec, seed: int) -> dict[bytes, bytes]:
    """Metadata of a table of points: the study as it was read, its seed, the version that evaluated it."""
    mark = {"format": POINTS_FORMAT, "version": VERSION, "seed": seed, "study": study.model_dump(mode="json")}
    return {MARK: json.dumps(mark, sort_keys=True).encode()}


class Store:
    """The folder of one sweep.

    Args:
        folder: made if it is not there.
        study: what the columns are.
        digest: hash of everything that the rows follow from.
        fresh: forget what the folder holds.

    Raises:
        SpecError: the folder holds the parts of another study, or something that is no sweep.
        DataError: it cannot be written, or pyarrow is missing.
    """

    def __init__(self, folder: Path, study: StudySpec, digest: str, *, fresh: bool) -> None:
        arrow()
        self.folder, self._schema, self._study = folder, schema(study), study
        self._parts = folder / PARTS
        try:
            if fresh:
                self._forget()
            self._claim(digest, study.name)
            self._parts.mkdir(exist_ok=True)
            for left in self._parts.glob(".*.tmp"):  # of a writer that was killed
                left.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"{folder}: cannot be written ({error.strerror})") from None

    def _forget(self) -> None:
        """Remove what an earlier sweep wrote here, and nothing else."""
        if not (self.folder / MANIFEST).is_file():
            return
        shutil.rmtree(self._parts, ignore_errors=True)
        for name in (RESULT, MANIFEST):
            (self.folder / name).unlink(missing_ok=True)

    def _claim(self, digest: str, name: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / MANIFEST
        if path.is_file():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
                known = found["format"] == FORMAT and found["digest"]
            except (ValueError, KeyError, TypeError, UnicodeDecodeError):
                raise SpecError(f"{path}: not the manifest of a sweep", expected="another --out, or --fresh") from None
            if known != digest:
                raise SpecError(
                    f"{self.folder} holds points of another study, or of files or a version that have changed since",
                    expected="another --out, or --fresh to start over",
                )
            return
        if any(self.folder.iterdir()):
            raise SpecError(f"{self.folder} is not empty and holds no sweep", expected="another --out")
        write_atomic(path, json.dumps({"format": FORMAT, "study": name, "digest": digest}, indent=1).encode())

    def done(self) -> set[tuple[int, int]]:
        """(start, stop) of every part that is there."""
        found = (_PART.fullmatch(path.name) for path in self._parts.iterdir())
        return {(int(m[1]), int(m[2])) for m in found if m is not None}

    def write(self, start: int, stop: int, rows: Sequence[dict[str, Any]]) -> None:
        """Keep the rows of points *start* to *stop*."""
        pa = arrow()
        columns = {"index": list(range(start, stop))}
        for field in self._schema:
            if field.name != "index":
                columns[field.name] = [_fitting(row[field.name], field.type, pa) for row in rows]
        self._put(pa.table(columns, schema=self._schema), self._parts / f"part-{start:09d}-{stop:09d}.parquet")

    def rows(self, start: int, stop: int) -> list[dict[str, Any]]:
        """The rows of one part."""
        path = self._parts / f"part-{start:09d}-{stop:09d}.parquet"
        rows: list[dict[str, Any]] = self._read(path).to_pylist()
        return rows

    def table(self, seed: int) -> Any:
        """All parts in the order of their points, as an Arrow table; also written as one file that names its study."""
        pa = arrow()
        parts = [self._read(self._parts / f"part-{a:09d}-{b:09d}.parquet") for a, b in sorted(self.done())]
        table = pa.concat_tables(parts).combine_chunks()
        table = table.replace_schema_metadata(marked(self._study, seed))
        self._put(table, self.folder / RESULT)
        return table

    def _read(self, path: Path) -> Any:
        arrow()
        import pyarrow.parquet as pq

        try:
            return pq.read_table(path, schema=self._schema)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({error}); remove it, or start over with --fresh") from None

    def _put(self, table: Any, path: Path) -> None:
        import pyarrow.parquet as pq

        scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        pq.write_table(table, scratch)
        _flush(scratch)
        os.replace(scratch, path)


def _fitting(value: Any, kind: Any, pa: Any) -> Any:
    if value is None or pa.types.is_boolean(kind):
        return value
    if pa.types.is_string(kind):
        return value if isinstance(value, str) else json.dumps(value)
    return float(value) if pa.types.is_floating(kind) else int(value)


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    scratch.write_bytes(content)
    _flush(scratch)
    os.replace(scratch, path)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
