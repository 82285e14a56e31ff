"""Tables of points that visitors open: the ``points.parquet`` of ``effsim sweep``, checked before it is made use of.

A Parquet file of a few bytes can say that it holds gigabytes, so what it announces is looked at first, and words are
read as dictionaries: one long word repeated does not grow.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from ..errors import DataError, EffsimError
from ..explore.sweep.metrics import COLUMNS
from ..explore.sweep.store import MARK, POINTS_FORMAT, arrow
from ..explore.sweep.sweep import SweepResult, findings
from ..spec.study import METRICS, PATHS, ObjectiveSpec, ParameterSpec, RangeSpec, StudySpec
from ..version import VERSION
from .shelf import MAX_TABLE_BYTES, Shelf, Upload

MOST_POINTS: Final = 200_000
"""Points of a sweep that the dashboard runs or opens."""
MOST_PARAMETERS: Final = 64
MOST_TEXT: Final = 2000
"""Characters of a word or a message."""
MAX_UNPACKED: Final = 512 * 2**20
_MAGIC: Final = b"PAR1"
_MANY: Final = 64
_GUESSES: Final = (
    ("tokens_per_s", "max"),
    ("time_per_token_s", "min"),
    ("time_s", "min"),
    ("usd_per_million_tokens", "min"),
    ("energy_j", "min"),
)
"""What a table that names no study is looked at for: the first two that are known."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A sweep to look at; ``known``: the study is the one that made the points. ``version`` of effsim that did."""

    result: SweepResult
    known: bool
    version: str = VERSION


def receive_table(shelf: Shelf, label: str, content: bytes) -> Upload:
    """Check a table of points and keep it.

    Raises:
        DataError: it is none, too large, or pyarrow is missing.
    """
    read_table(content, label)
    return shelf.add("tables", label, content)


def open_table(shelf: Shelf, token: str) -> Opened:
    """The findings of a table that was kept.

    Raises:
        EffsimError: it is no longer here.
    """
    path = shelf.argument("tables", token)
    held = shelf.upload(token)
    label = held.label if held else token
    with open(path, "rb") as file:
        table, study, seed, version = read_table(file.read(), label)
    known = study is not None
    if study is None:
        study = guessed(table, label)
    return Opened(findings(study, seed, shelf.folder, table), known, version)


def read_table(content: bytes, label: str) -> tuple[Any, StudySpec | None, int, str]:
    """The points as an Arrow table, with the study, the seed and the version that the file names.

    Raises:
        DataError: not a table of points, or too large; says why.
    """
    pa = arrow()
    import pyarrow.parquet as pq

    if len(content) > MAX_TABLE_BYTES:
        limit = MAX_TABLE_BYTES / 2**20
        raise DataError(f"{label}: {len(content) / 2**20:.1f} MiB; a table has at most {limit:.0f} MiB")
    if not content.startswith(_MAGIC):
        raise DataError(f"{label}: not a Parquet file; expected the points.parquet of effsim sweep")
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        _check_size(file.metadata, label)
        names = _check_columns(file.schema_arrow, label, pa)
        words = [name for name in names if _is_word(file.schema_arrow.field(name).type, pa)]
        table = pq.ParquetFile(io.BytesIO(content), read_dictionary=words).read(columns=names)
        mark = (file.schema_arrow.metadata or {}).get(MARK)
        table = _plain(table, label, pa)
    except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError) as error:
        raise DataError(f"{label}: cannot be read as Parquet ({str(error)[:200]})") from None
    study, seed, version = _study(mark, names)
    return table, study, seed, version


def _check_size(metadata: Any, label: str) -> None:
    """What the file announces, before it is unpacked."""
    if not 0 < metadata.num_rows <= MOST_POINTS:
        raise DataError(f"{label}: {metadata.num_rows:,} points; expected 1 to {MOST_POINTS:,}")
    if metadata.num_columns > len(COLUMNS) + MOST_PARAMETERS + 1:
        raise DataError(f"{label}: {metadata.num_columns} columns; not the points.parquet of effsim sweep")
    unpacked = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if unpacked > MAX_UNPACKED:
        raise DataError(f"{label}: {unpacked / 2**20:,.0f} MiB unpacked; at most {MAX_UNPACKED / 2**20:.0f} MiB")


def _check_columns(schema: Any, label: str, pa: Any) -> list[str]:
    """Names of the columns: those of every sweep, and the parameters."""
    names = list(schema.names)
    missing = [name for name in ("index", *COLUMNS) if name not in names]
    if missing:
        raise DataError(f"{label}: no column {missing[0]!r}; expected the points.parquet of effsim sweep")
    others = [name for name in names if name not in COLUMNS and name != "index"]
    strange = next((name for name in others if name.partition(".")[0] not in PATHS), None)
    if strange is not None or not others or len({*names}) < len(names):
        what = "no parameters" if strange is None else f"a column {strange[:60]!r} that no sweep has"
        raise DataError(f"{label}: {what}; expected the points.parquet of effsim sweep")
    for name in names:
        kind, word = schema.field(name).type, name in ("status", "message", "bound")
        number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        flag = pa.types.is_boolean(kind)
        text = _is_word(kind, pa)
        empty = pa.types.is_null(kind)
        right = text if word else flag if name in ("feasible", "memory_fits") else number if name in METRICS else True
        if not empty and not (right and (number or flag or text)):
            raise DataError(f"{label}: column {name[:60]!r} holds {str(kind)[:40]}; not that of a sweep")
    return names


def _is_word(kind: Any, pa: Any) -> bool:
    found = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(found) or pa.types.is_large_string(found))


def _plain(table: Any, label: str, pa: Any) -> Any:
    """The table with the types that a sweep writes.

    Raises:
        DataError: a word is too long, a status is missing.
    """
    columns = {}
    for name in table.column_names:
        column = table[name]
        if pa.types.is_dictionary(column.type):
            for chunk in column.chunks:
                longest = max((len(str(word)) for word in chunk.dictionary.to_pylist()), default=0)
                if longest > MOST_TEXT:
                    raise DataError(f"{label}: column {name[:60]!r} holds a text of {longest:,} characters")
            column = column.cast(pa.string())
        elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            column = column.cast(pa.int64() if name in ("index", "devices") else pa.float64())
        elif pa.types.is_null(column.type):
            column = column.cast(pa.float64() if name in METRICS else pa.string())
        columns[name] = column
    out = pa.table(columns).combine_chunks()
    for name in ("index", "status", "feasible"):
        if out[name].null_count:
            raise DataError(f"{label}: column {name!r} has empty cells")
    return out


def _study(mark: bytes | None, names: list[str]) -> tuple[StudySpec | None, int, str]:
    """The study that a file's metadata name, where it is of these columns."""
    try:
        found = json.loads(mark or b"null")
        if not isinstance(found, Mapping) or found.get("format") != POINTS_FORMAT:
            return None, 0, VERSION
        study = StudySpec.model_validate(found["study"])
        seed, version = int(found["seed"]), str(found["version"])[:40]
    except (ValueError, KeyError, TypeError, RecursionError, ValidationError, EffsimError):
        return None, 0, VERSION
    fits = {p.path for p in study.parameters} == {name for name in names if name not in ("index", *COLUMNS)}
    return (study, seed, version) if fits else (None, 0, VERSION)


def guessed(table: Any, label: str) -> StudySpec:
    """A study that describes a table which names none: its axes as they are seen, and common objectives."""
    parameters = []
    for path in [name for name in table.column_names if name not in ("index", *COLUMNS)]:
        distinct = [v for v in table[path].unique().to_pylist() if v is not None and v == v]
        if len(distinct) > _MANY and not isinstance(distinct[0], str):
            ends = RangeSpec(low=min(distinct), high=max(distinct), scale="linear", points=None, integer=False)
            parameters.append(ParameterSpec(path=path, values=None, range=ends))
        else:
            parameters.append(ParameterSpec(path=path, values=distinct[:100_000] or ["unknown"], range=None))
    wanted = [(n, goal) for n, goal in _GUESSES if table[n].null_count < table.num_rows][:2] or [("time_s", "min")]
    return StudySpec(
        kind="study",
        name=f"Points of {label}"[:120],
        hardware="unknown",
        workload="unknown",
        parameters=parameters,
        method="random",
        samples=table.num_rows,
        objectives=[ObjectiveSpec.model_validate({"name": n, "goal": goal}) for n, goal in wanted],
    )
