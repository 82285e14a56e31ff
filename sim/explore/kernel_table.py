"""Tables of kernels: read, predict, score, write."""

from __future__ import annotations

import csv
import gc
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from ..accelerate import expect_many
from ..devices.device import Device
from ..errors import DataError, UnsupportedError
from ..graph.table import from_row
from ..intervals.kernel import DeviceIntervals
from ..readings.launch import single_launch_s
from ..spec.confine import is_file

if TYPE_CHECKING:
    from rich.console import Console

ADDED = (
    "predicted_s",
    "predicted_low_s",
    "predicted_high_s",
    "evidence",
    "bound",
    "roofline_s",
    "energy_j",
    "energy_low_j",
    "energy_high_j",
)
MAX_FIELD_BYTES = 1 << 20
MANY_ROWS = 2000
"""Rows from which compiled code pays in any case."""


@dataclass(frozen=True, slots=True)
class Score:
    """Errors of one kind: (predicted − measured) / measured. ``worst_row`` counts data rows from 0.

    ``coverage`` is the share of measurements inside the predicted interval and ``width`` the median of
    (high − low) / predicted, where intervals were asked for.
    """

    n: int
    median: float
    mape: float
    p90: float
    bias: float
    worst_row: int
    coverage: float | None = None
    width: float | None = None

    @classmethod
    def of(cls, errors: Sequence[tuple[int, float]]) -> Score:
        """Score (row, signed error) pairs; ``bias`` is the mean signed error.

        >>> Score.of([(0, 0.1), (1, -0.3)]).mape
        0.2
        """
        sizes = sorted(abs(e) for _, e in errors)
        rank = min(len(sizes) - 1, math.ceil(0.9 * len(sizes)) - 1)
        worst = max(errors, key=lambda pair: abs(pair[1]))[0]
        return cls(len(errors), median(sizes), mean(sizes), sizes[rank], mean(e for _, e in errors), worst)


@dataclass(frozen=True, slots=True)
class PredictedTable:
    """A table with predictions; all columns of the input are kept in their order."""

    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    scores: Mapping[str, Score] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """The JSON of ``effsim kernels --json``."""
        kinds = {
            kind: {
                "n": s.n,
                "median": s.median,
                "mape": s.mape,
                "p90": s.p90,
                "bias": s.bias,
                "worst_row": s.worst_row,
                "coverage": s.coverage,
                "width": s.width,
            }
            for kind, s in self.scores.items()
        }
        return {"rows": len(self.rows), "kinds": kinds}

    def write(self, path: Path) -> None:
        """Write CSV or Parquet by the file's ending; never half-written.

        Raises:
            DataError: the folder is missing, or Parquet support is not installed.
        """
        if not path.parent.is_dir():
            raise DataError(f"{path}: the folder {path.parent} does not exist")
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        try:
            if path.suffix == ".parquet":
                _write_parquet(self, Path(temporary))
            else:
                _write_csv(self, Path(temporary))
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def print(self, console: Console) -> None:
        """Scores where there were measurements, else the predictions' spread by kind."""
        from rich.table import Table

        if self.scores:
            head = ("kind", "n", "median", "MAPE", "p90", "bias", "worst row", "inside", "width")
            table = Table(*head, title="error against measured_s")
            for kind, s in self.scores.items():
                cells = (f"{100 * v:.1f} %" for v in (s.median, s.mape, s.p90))
                held = ("–" if v is None else f"{100 * v:.0f} %" for v in (s.coverage, s.width))
                table.add_row(kind, str(s.n), *cells, f"{100 * s.bias:+.1f} %", str(s.worst_row), *held)
        else:
            table = Table("kind", "rows", "fastest", "median", "slowest", "interval", "evidence", title="predicted")
            by_kind: dict[str, list[Mapping[str, Any]]] = {}
            for row in self.rows:
                by_kind.setdefault(str(row["kind"]), []).append(row)
            for kind, rows in by_kind.items():
                times = [float(row["predicted_s"]) for row in rows]
                cells = (f"{1e6 * t:.2f} us" for t in (min(times), median(times), max(times)))
                factors = (
                    f"{median(float(row[name]) / float(row['predicted_s']) for row in rows if row['predicted_s']):.2f}"
                    for name in ("predicted_low_s", "predicted_high_s")
                )
                evidence = ", ".join(sorted({str(row["evidence"]) for row in rows}))
                table.add_row(kind, str(len(times)), *cells, " to ".join(factors) + " ×", evidence)
        console.print(table)


def read_table(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of a CSV or Parquet file.

    Raises:
        DataError: missing, unreadable, without a ``kind`` column, or with a ragged row (names the line).
    """
    if not is_file(path):
        raise DataError(f"{path}: no such file")
    columns, rows = _read_parquet(path) if path.suffix in (".parquet", ".pq") else _read_csv(path)
    if "kind" not in columns:
        raise DataError(f"{path}:1:1: no column 'kind'; found {', '.join(columns) or 'nothing'}")
    return columns, rows


def _read_csv(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    csv.field_size_limit(MAX_FIELD_BYTES)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            columns = [name.strip() for name in next(reader, [])]
            if len(set(columns)) != len(columns):
                raise DataError(f"{path}:1:1: a column name occurs twice")
            rows = []
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(columns):
                    raise DataError(
                        f"{path}:{reader.line_num}:1: {len(cells)} cells where the header has {len(columns)}"
                    )
                rows.append(dict(zip(columns, cells, strict=True)))
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise DataError(f"{path}: cannot be read as CSV: {error}") from None
    return columns, rows


def _read_parquet(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError(f'{path}: Parquet needs pyarrow; pip install "effsim[parquet]"') from None
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from None
    return list(table.column_names), table.to_pylist()


def predict(
    device: Device, path: Path, launch: str, progress: Callable[[Sequence[Any]], Iterable[Any]] = iter
) -> PredictedTable:
    """Predict every row of *path* on *device*; ``launch`` is ``graph`` or ``eager`` (isolated, synchronised).

    *progress* wraps the rows while they are worked through (a progress bar, for example).

    Raises:
        DataError: a row that cannot be an operator, or that the device cannot run; names file and line.
    """
    columns, rows = read_table(path)
    if len(rows) > MANY_ROWS:
        expect_many()
    with _uncollected():
        return _predict_rows(device, path, launch, columns, rows, progress)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the search for reference cycles: everything made here is kept, so each search would find nothing."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _predict_rows(
    device: Device,
    path: Path,
    launch: str,
    columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    progress: Callable[[Sequence[Any]], Iterable[Any]],
) -> PredictedTable:
    errors: dict[str, list[tuple[int, float]]] = {}
    held: dict[str, list[tuple[bool, float]]] = {}
    intervals = DeviceIntervals(device)
    out = []
    for index, row in enumerate(progress(rows)):
        kind = str(row["kind"]).strip()
        try:
            op = from_row(kind, row)
            lowered = device.lower(op)
        except (DataError, UnsupportedError) as error:
            raise DataError(f"{path}:{index + 2}:1: {error}") from None
        launch_s = single_launch_s(device.launch, launch, lowered)
        seconds = lowered.analytic_s + launch_s
        relative = intervals.relative(op, lowered, launch_s, launch)
        low, high = relative.interval(seconds)
        work_j = device.energy_j(op, lowered)
        energy_j = energy_with_idle(device, work_j, seconds)
        bounds_j: tuple[float | None, float | None] = (None, None)
        if energy_j is not None:
            bounds_j = intervals.energy(op, lowered, launch_s, launch).interval(energy_j)
        predicted = dict(row)
        predicted |= {
            "predicted_s": seconds,
            "predicted_low_s": low,
            "predicted_high_s": high,
            "evidence": relative.band.evidence,
            "bound": lowered.bound if lowered.kernels else "none",
            "roofline_s": lowered.roofline_s,
            "energy_j": energy_j,
            "energy_low_j": bounds_j[0],
            "energy_high_j": bounds_j[1],
        }
        cycles = device.cycles(lowered)
        if cycles is not None:
            predicted["cycles"] = cycles
        out.append(predicted)
        measured = measured_of(row, path, index)
        if measured:
            errors.setdefault(kind, []).append((index, seconds / measured - 1.0))
            held.setdefault(kind, []).append((low <= measured <= high, (high - low) / seconds))
    added = [name for name in ADDED if name not in columns]
    if out and "cycles" in out[0] and "cycles" not in columns:
        added.append("cycles")
    scores = {kind: _with_coverage(Score.of(pairs), held[kind]) for kind, pairs in errors.items()}
    return PredictedTable((*columns, *added), tuple(out), scores)


def _with_coverage(score: Score, held: Sequence[tuple[bool, float]]) -> Score:
    """*score* with the share of rows inside their interval and the median width."""
    return replace(score, coverage=mean(float(inside) for inside, _ in held), width=median(width for _, width in held))


def energy_with_idle(device: Device, work_j: float | None, seconds: float) -> float | None:
    """Energy of the work and of the idle board for as long; None where either is unknown."""
    idle = device.idle_power_w
    return None if work_j is None or idle is None else work_j + idle * seconds


def measured_of(row: Mapping[str, Any], path: Path, index: int) -> float | None:
    """``measured_s`` of a row; None where there is none.

    Raises:
        DataError: it is no positive number.
    """
    value = row.get("measured_s")
    if value is None or value == "":
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        raise DataError(f"{path}:{index + 2}:1: measured_s is {value!r}; expected seconds") from None
    if math.isnan(seconds):
        return None
    if not seconds > 0.0 or math.isinf(seconds):
        raise DataError(f"{path}:{index + 2}:1: measured_s is {value!r}; expected a positive number of seconds")
    return seconds


def _write_csv(table: PredictedTable, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, table.columns, lineterminator="\n")
        writer.writeheader()
        for row in table.rows:
            writer.writerow({name: "" if row[name] is None else row[name] for name in table.columns})


def _write_parquet(table: PredictedTable, path: Path) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError(f'{path}: Parquet needs pyarrow; pip install "effsim[parquet]"') from None
    data = {name: [row[name] for row in table.rows] for name in table.columns}
    pq.write_table(pa.table(data), path)
