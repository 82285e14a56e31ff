"""Residuals of whole runs: published times of models and engines, for the intervals of ``effsim run``."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effsim.devices.registry import Machine, load_machine
from effsim.errors import DoesNotFitError
from effsim.intervals.classes import run_class
from effsim.intervals.residuals import ALL, Residuals

from .endtoend import cases, predicted_s
from .published import Case
from .residuals import SPLIT_SEED, Residual, describe

PHASES = {"training": "step", "train": "step"}
"""Phase of a task where the two are not called the same."""


@dataclass(frozen=True, slots=True)
class RunResiduals:
    """What is left of published runs: ``training`` to fit on, ``held_out`` to judge by, ``devices`` as described."""

    training: tuple[Residual, ...]
    held_out: tuple[Residual, ...]
    devices: dict[str, dict[str, Any]]


def run_residuals(data: Path) -> RunResiduals:
    """Residuals of the published runs of *data*; empty where the file is missing.

    A row's half follows from its model, task, batch and lengths, so that rows of one workload stay together.
    """
    path = data / "published.csv"
    machines: dict[str, Machine] = {}
    halves: tuple[list[Residual], list[Residual]] = ([], [])
    for _, case in cases(path) if path.is_file() else ():
        machine = machines.setdefault(case.machine, load_machine(case.machine))
        try:
            predicted = predicted_s(case, machine)
        except DoesNotFitError:
            continue
        work, point = case.workload, point_of(case)
        name = run_class(PHASES.get(str(work.task), str(work.task)), str(work.engine))
        value = math.log(case.measured_s / predicted)
        halves[point & 1].append(Residual(machine.device.name, name, ALL, value, point))
    devices = {machine.device.name: describe(machine.device) for machine in machines.values()}
    return RunResiduals(tuple(halves[0]), tuple(halves[1]), devices)


def point_of(case: Case) -> int:
    """A number for what a row ran: its model, task, batch and lengths. Residuals are fitted on the even ones."""
    work = case.workload
    text = f"{SPLIT_SEED}:{case.machine}:{work.model}:{work.task}:{work.batch}:{work.prompt}:{work.generate}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def run_coverage(found: Sequence[Residual], residuals: Residuals) -> dict[str, Any]:
    """Rows and share inside the bounds of whole runs, by device and class, of the rows that were held out."""
    out: dict[str, Any] = {}
    for key in sorted({(row.device, row.name) for row in found}):
        rows = [row for row in found if (row.device, row.name) == key]
        band = residuals.run_band(key[1], key[0], "")
        if band is not None:
            inside = sum(band.low <= row.value <= band.high for row in rows) / len(rows)
            width = math.exp(band.high) - math.exp(band.low)
            entry = {"rows": len(rows), "inside": round(inside, 3), "width": round(width, 3)}
            out[f"{key[0]}, {key[1].split('|')[1]}, {key[1].split('|')[2]}"] = entry
    return out
