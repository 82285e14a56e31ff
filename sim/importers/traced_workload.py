"""Trace → workload: patterns recognised, calls costed, repeated blocks folded, everything inexact told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from ..errors import DataError
from ..spec.workload import WorkloadSpec
from .costs import emit
from .costs_attention import understand_masks
from .folding import fold
from .ledger import Ledger
from .pattern_blocks import recognise_blocks
from .patterns import recognise
from .traced import Trace

MAX_OPERATORS: Final = 20_000
"""Most operators that a graph may have before folding."""

_WIDTH: Final = 120


class ApproximationWarning(UserWarning):
    """Something in an imported graph has no operator of its own; the text names it and how it is costed."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A workload and what in it is not exact, a sentence each."""

    workload: WorkloadSpec
    warnings: tuple[str, ...]


def to_workload(trace: Trace, name: str, origin: str) -> Imported:
    """The workload of a linked trace; *origin* says where it comes from.

    Raises:
        DataError: nothing in the graph costs anything, or it has more than 20,000 operators.
    """
    recognise(trace)
    recognise_blocks(trace)
    understand_masks(trace)
    ledger = Ledger(trace)
    for call in trace.calls:
        emit(ledger, call)
    count = len(ledger.entries)
    if not 0 < count <= MAX_OPERATORS:
        raise DataError(f"{origin}: {count} operators that cost anything; expected 1 to {MAX_OPERATORS}")
    told = _warnings(ledger, trace)
    spec = WorkloadSpec.model_validate(
        {
            "kind": "workload",
            "name": name[:_WIDTH],
            "description": " ".join((f"Imported from {origin}.", *told)),
            "task": "operators",
            "precision": {"activations": ledger.dtypes.most_common(1)[0][0] if ledger.dtypes else "fp32"},
            "operators": _grouped(fold(ledger.entries)),
        }
    )
    return Imported(spec, told)


def _warnings(ledger: Ledger, trace: Trace) -> tuple[str, ...]:
    out = []
    if ledger.unknown:
        named = "; ".join(op + where for op, where in sorted(ledger.unknown.items()))
        out.append(f"Unknown operators, costed as one element-wise pass each: {named}.")
    out += [f"{text}{f' ({times} times)' if times > 1 else ''}." for text, times in ledger.notes.items()]
    return (*out, *trace.notes)


def _grouped(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs of :func:`fold` as entries with names that differ inside each list."""
    entries = []
    for run in runs:
        if "layers" not in run:
            entry = dict(run)
            times = entry.pop("times", 1)
            if times > 1:
                entry["repeat"] = times * entry.get("repeat", 1)
            entries.append(entry)
            continue
        inside = _grouped(run["layers"])
        prefix = _common([entry["name"] for entry in inside])
        for entry in inside:
            entry["name"] = entry["name"].removeprefix(f"{prefix}.") or entry["name"]
        entries.append({"name": prefix or "blocks", "repeat": run["repeat"], "operators": _distinct(inside)})
    return _distinct(entries)


def _common(names: list[str]) -> str:
    """The longest dotted path that all *names* go through."""
    parts = [name.split(".")[:-1] for name in names]
    shared: list[str] = []
    for column in zip(*parts, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return ".".join(shared)


def _distinct(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    taken: set[str] = set()
    for entry in entries:
        base, found, number = entry["name"], entry["name"], 2
        while found in taken:
            found, number = f"{base}_{number}", number + 1
        taken.add(found)
        entry["name"] = found
    return entries


def to_yaml(workload: WorkloadSpec) -> str:
    """A workload as the YAML that a user could have written."""
    given = workload.model_dump(mode="json", exclude_unset=True)
    fields = {key: given[key] for key in sorted(given, key=_place)}
    return yaml.safe_dump(_plain(fields), sort_keys=False, default_flow_style=None, allow_unicode=True, width=_WIDTH)


def _place(key: str) -> tuple[bool, int]:
    """Order of a file: as the specification has it, the long list last."""
    return key == "operators", list(WorkloadSpec.model_fields).index(key)


def _plain(value: Any) -> Any:
    """A copy without what is absent; every entry of a list is a mapping of its own (no anchors)."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item not in (None, "")}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def short_name(path: str | Path) -> str:
    """A file's name without its endings."""
    return Path(path).name.split(".")[0] or "imported"
