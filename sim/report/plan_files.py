"""Tables of a plan as Parquet: fleets, configurations, upgrades, curve, what-ifs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from ..errors import DataError
from ..explore.plan.plan import PlanResult
from ..explore.plan.record import plan_record

TABLES: Final = ("fleets", "configurations", "upgrades", "curve", "whatif")


def write_plan_tables(result: PlanResult, directory: str | Path) -> None:
    """Write ``<table>.parquet`` of :data:`TABLES` into *directory*; each file is replaced whole.

    Raises:
        DataError: pyarrow is missing, or the folder cannot be written.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError('Parquet needs pyarrow: pip install "effsim[parquet]"') from None
    folder = Path(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in plan_tables(result).items():
            target = folder / f"{name}.parquet"
            scratch = folder / f".{name}.{os.getpid()}.tmp"
            pq.write_table(
                pa.Table.from_pylist(rows) if rows else pa.table({"fleet": pa.array([], pa.string())}), scratch
            )
            os.replace(scratch, target)
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error.strerror or error}") from error


def plan_tables(result: PlanResult) -> dict[str, list[dict[str, Any]]]:
    """The rows of every table; times in seconds, mappings as JSON text."""
    record = plan_record(result)
    kinds = [("winner", [record["winner"]] if record["winner"] else [])]
    kinds += [(kind, record[kind]) for kind in ("runners_up", "unpriced", "missed")]
    explained = record["explanation"] or record["nearest_miss"] or {"upgrades": [], "curve": []}
    return {
        "fleets": [_fleet(kind, row) for kind, rows in kinds for row in rows],
        "configurations": record["screened"],
        "upgrades": explained["upgrades"],
        "curve": [
            {"load": point["load"], "within_slo": point["within_slo"], **_named(point["promises"])}
            for point in explained["curve"]
        ],
        "whatif": [
            {"name": w["name"], "solved": w["solved"], **({} if not w["winner"] else _fleet("winner", w["winner"]))}
            for w in _rectangular(record["whatif"])
        ],
    }


def _rectangular(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What-ifs with a winner first, so that columns are those of fleets whatever the first what-if came to."""
    return sorted(rows, key=lambda row: row["winner"] is None)


def _named(promises: dict[str, float | None]) -> dict[str, float | None]:
    return {f"{name.replace(' ', '_')}_s": value for name, value in promises.items()}


def _fleet(kind: str, row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {"kind": kind}
    measured = row["measured"] or {}
    for name, value in row.items():
        if name in ("measured", "at_headroom"):
            continue
        flat[name] = json.dumps(value) if isinstance(value, dict) else value
    for promise in measured.get("promises", ()):
        flat[f"{promise['latency']}_{promise['percentile']}_s"] = promise["value_s"]
    for name in ("requests", "refused", "duration_s", "input_tokens", "output_tokens", "utilisation", "energy_j"):
        flat[name] = measured.get(name)
    return flat
