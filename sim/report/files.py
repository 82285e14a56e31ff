"""Writing files that are never half there: into a neighbour first, then renamed over the target."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from ..errors import DataError
from .result import SCHEMA, RunResult

TABLES: Final = ("operators", "phases", "assumptions", "sensitivity", "run")
"""Tables of :func:`write_parquet`; ``run`` holds the scalars in one row."""

_MARK: Final = b"effsim_schema"
_PREFIX: Final = ".effsim-"
_FILE_MODE: Final = 0o666
_FOLDER_MODE: Final = 0o777


def atomic_write_text(path: str | Path, text: str) -> None:
    """Write *text* (UTF-8) to *path*, wholly or not at all.

    Raises:
        DataError: the folder is missing, is no folder, or cannot be written.
    """
    target = Path(os.path.realpath(path))  # a link stays a link; what it points to is replaced
    _check_folder(target)
    if target.is_dir():
        raise DataError(f"cannot write {path}: it is a directory")
    try:
        if target.exists() and not target.is_file():
            target.write_text(text, encoding="utf-8")  # a pipe or a terminal cannot be renamed over
        else:
            _replace(target, text)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error


def _replace(target: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=_PREFIX)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
        os.chmod(name, _FILE_MODE & ~_umask())  # mkstemp makes files that only their owner can read
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise


def _check_folder(target: Path) -> None:
    folder = target.parent
    if not folder.exists():
        raise DataError(f"cannot write {target}: there is no directory {folder}")
    if not folder.is_dir():
        raise DataError(f"cannot write {target}: {folder} is not a directory")


def _umask() -> int:
    """The process's file mode mask; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_parquet(result: RunResult, directory: str | Path) -> None:
    """Write a run as Parquet tables (:data:`TABLES`) into *directory*, which appears complete or not at all.

    A directory that effsim wrote before is replaced; any other one that is not empty is left alone.

    Raises:
        DataError: pyarrow is missing; the directory holds something else; it cannot be written.
    """
    arrow, _ = import_pyarrow()
    write_tables({name: _table(arrow, name, rows) for name, rows in tables(result).items()}, directory, SCHEMA)


def write_tables(arrow_tables: Mapping[str, Any], directory: str | Path, schema: str) -> None:
    """Write Arrow tables, of which one is ``run``, as files of these names; see :func:`write_parquet`.

    Raises:
        DataError: pyarrow is missing; the directory holds something else; it cannot be written.
    """
    _, parquet = import_pyarrow()
    target = Path(directory)
    _check_folder(target)
    _check_replaceable(target, parquet, arrow_tables)
    scratch = ""
    try:
        scratch = tempfile.mkdtemp(dir=target.parent, prefix=_PREFIX)
        for name, table in arrow_tables.items():
            marked = table.replace_schema_metadata({_MARK: schema.encode()})
            parquet.write_table(marked, os.path.join(scratch, f"{name}.parquet"))
        os.chmod(scratch, _FOLDER_MODE & ~_umask())
        _swap(Path(scratch), target)
    except OSError as error:
        raise DataError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)


def import_pyarrow() -> tuple[Any, Any]:
    """Modules ``pyarrow`` and ``pyarrow.parquet``.

    Raises:
        DataError: they are not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError('Parquet needs pyarrow: pip install "effsim[parquet]"') from error
    return pyarrow, parquet


def _check_replaceable(target: Path, parquet: Any, names: Iterable[str]) -> None:
    """Refuse to replace what effsim did not write, file by file."""
    if not target.exists() and not target.is_symlink():
        return
    if not target.is_dir() or target.is_symlink():
        raise DataError(f"cannot write {target}: it exists and is not a directory")
    expected = {f"{name}.parquet" for name in names}
    found = {entry.name for entry in target.iterdir()}
    if not found:
        return
    foreign = sorted(found - expected)
    if foreign or not _marked(target / "run.parquet", parquet):
        what = f"holds {foreign[0]!r}" if foreign else "holds tables"
        raise DataError(f"cannot replace {target}: it {what}, which effsim did not write; choose another directory")


def _marked(file: Path, parquet: Any) -> bool:
    """Whether a Parquet file carries effsim's mark. ArrowInvalid is a ValueError."""
    try:
        return _MARK in (parquet.read_schema(file).metadata or {})
    except (OSError, ValueError):
        return False


def _swap(scratch: Path, target: Path) -> None:
    """Put *scratch* where *target* is; the old directory is put back if that fails."""
    if not target.exists():
        os.rename(scratch, target)
        return
    old = Path(tempfile.mkdtemp(dir=target.parent, prefix=_PREFIX))
    os.rename(target, old / target.name)
    try:
        os.rename(scratch, target)
    except OSError:
        os.rename(old / target.name, target)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def tables(result: RunResult) -> dict[str, list[dict[str, Any]]]:
    """The rows of every table of a run; mappings inside a row become columns (``term_memory_s``) or JSON text."""
    data = result.to_dict()
    resources = sorted({name for row in result.operators for name in row.terms})
    causes = sorted({name for row in result.operators for name in row.cycles})
    operators = []
    for row in data["operators"]:
        terms, cycles = row.pop("terms"), row.pop("cycles", {})
        by_cause = {f"cycles_{name}": float(cycles.get(name, 0.0)) for name in causes}
        by_resource = {f"term_{name}_s": float(terms.get(name, 0.0)) for name in resources}
        operators.append({**row, **by_resource, **by_cause})
    phases = [{"phase": name, **values} for name, values in data["phases"].items()]
    scalars = {key: data[key] for key in _SCALARS}
    scalars |= {f"memory_{key}": value for key, value in data["memory"].items()}
    scalars |= {f"bound_{key}": value for key, value in data["bound"].items()}
    scalars |= {"parallelism": json.dumps(data["parallelism"]), "notes": json.dumps(data["notes"])}
    return {
        "operators": operators,
        "phases": _rectangular(phases),
        "assumptions": data["assumptions"],
        "sensitivity": data["sensitivity"],
        "run": [scalars],
    }


_SCALARS: Final = (
    "schema",
    "hardware",
    "workload",
    "engine",
    "devices",
    "time_s",
    "time_low_s",
    "time_high_s",
    "roofline_s",
    "flops",
    "bytes",
    "energy_j",
    "energy_low_j",
    "energy_high_j",
    "energy_limit_j",
    "idle_energy_j",
    "cost_usd",
)

_EMPTY: Final = {
    "assumptions": ("path", "value", "kind", "source", "elasticity"),
    "sensitivity": ("path", "value", "elasticity"),
}
_TEXT: Final = ("path", "kind", "source")
_OPTIONAL: Final = (
    "time_low_s",
    "time_high_s",
    "energy_j",
    "energy_low_j",
    "energy_high_j",
    "energy_limit_j",
    "idle_energy_j",
    "cost_usd",
    "elasticity",
)


def _rectangular(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with all columns of any of them; what a row lacks is null."""
    columns = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key) for key in columns} for row in rows]


def _table(arrow: Any, name: str, rows: list[dict[str, Any]]) -> Any:
    """An Arrow table whose column types do not depend on the values (all-null columns are numbers)."""
    columns = list(rows[0]) if rows else list(_EMPTY.get(name, ()))
    fields = {}
    for key in columns:
        values = [row[key] for row in rows]
        if key in _OPTIONAL or (not rows and key not in _TEXT):
            fields[key] = arrow.array(values, arrow.float64())
        else:
            fields[key] = arrow.array(values, arrow.string()) if not rows else arrow.array(values)
    return arrow.table(fields)
