"""How the numbers of a sweep read, in tables and on pages."""

from __future__ import annotations

from typing import Any

from ..explore.sweep.sweep import SweepResult
from ..spec.study import METRICS
from ..units import format_quantity


def counted(result: SweepResult) -> str:
    """How many points there are and what became of them."""
    words = {"does_not_fit": "do not fit", "unsupported": "unsupported", "invalid": "invalid"}
    total, ok = result.table.num_rows, result.statuses.get("ok", 0)
    parts = [f"{count:,} {words.get(name, name)}" for name, count in result.statuses.items() if name != "ok"]
    feasible = f"{result.feasible:,} of them within the constraints" if result.study.constraints else ""
    return ", ".join(filter(None, [f"{total:,} points", f"{ok:,} ran", feasible, *parts]))


def shown_columns(result: SweepResult) -> list[str]:
    """Columns of a table of points: parameters, objectives, what binds."""
    names = [p.path for p in result.study.parameters] + [o.name for o in result.study.objectives]
    return [*dict.fromkeys(names), "bound"]


def failures(result: SweepResult) -> list[tuple[tuple[str, str], int]]:
    """Status and message of points without numbers, with how many there are of each; the most frequent first."""
    said: dict[tuple[str, str], int] = {}
    for status, message in zip(result.table["status"].to_pylist(), result.table["message"].to_pylist(), strict=True):
        if status != "ok":
            said[status, str(message)] = said.get((status, str(message)), 0) + 1
    return sorted(said.items(), key=lambda item: (-item[1], item[0]))


def column_title(name: str) -> str:
    """A heading: parameters by what tells them apart."""
    for prefix in ("hardware.device.", "hardware.", "workload.", "engine."):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def cell(name: str, value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return "unknown"
    if isinstance(value, str | bool):
        return str(value).lower() if isinstance(value, bool) else value
    dimension = METRICS.get(name, "")
    if dimension in ("time", "bytes", "energy"):
        return format_quantity(float(value), dimension)
    return f"{value:,.4g}" if abs(value) < 1e6 else f"{value:.4g}"
