"""Fit named parameters of a hardware file to a table of measured kernels.

Residuals are ``ln(predicted / measured)`` under a loss that forgives outliers, over a part of the rows; the others only
judge. Each parameter moves in the logarithm of its value between physical limits (shares stay at most 1). A parameter
to which the rows do not answer is refused by name, not moved by accident.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...accelerate import expect_many
from ...devices.device import Device
from ...devices.registry import Machine, load_machine, rebuild, timed_briefly
from ...errors import DataError, EffsimError, SpecError, UnsupportedError, nearest
from ...graph.operator import Operator
from ...graph.table import from_row
from ...readings.launch import single_launch_s
from ...spec.fields import IntQuantity, SpecModel
from ..kernel_table import Score, measured_of, read_table
from ..sensitivity import STRUCTURAL, with_value

MOST_ROWS = 1000
"""Rows that are used of a larger table, drawn by the hash that also splits it."""

FACTOR = 4.0
"""How far a parameter may move either way."""

PROBE = 1.05
"""Step of a parameter when its influence is measured: wide enough to see past steps of tile and wave counts."""

LEAST_SHARE = 0.01
"""Share of the rows that must answer to a parameter, and (root mean square) how strongly, for it to be identified."""

LEAST_ELASTICITY = 0.01

STARTS = 3
"""Starting points: the file's values, and random ones around them."""

MOST_STEPS = 25
"""Evaluations with derivatives from one starting point."""

LOSS_SCALE = 0.1
"""Relative error from which on a row counts less than its square."""


@dataclass(frozen=True, slots=True)
class Moved:
    """One parameter before and after. ``elasticity``: root mean square over the training rows at the start."""

    path: str
    old: float
    new: float
    elasticity: float


@dataclass(frozen=True, slots=True)
class Errors:
    """Scores of both halves."""

    train: Score
    test: Score


@dataclass(frozen=True, slots=True)
class Fit:
    """What a fit did. ``refused``: (path, why) of parameters that were not moved."""

    hardware: str
    table: str
    rows: int
    used: int
    train_rows: int
    seed: int
    moved: tuple[Moved, ...]
    refused: tuple[tuple[str, str], ...]
    before: Errors
    after: Errors

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        out = asdict(self)
        out["refused"] = [{"path": path, "why": why} for path, why in self.refused]
        return out

    @property
    def source(self) -> str:
        """What the fitted numbers cite."""
        return (
            f"effsim calibrate --fit {Path(self.table).name}: least squares on {self.train_rows} of {self.rows} rows, "
            f"seed {self.seed}; median error on {self.after.test.n} other rows {100 * self.after.test.median:.1f} % "
            f"({100 * self.before.test.median:.1f} % before)"
        )


@dataclass(frozen=True, slots=True)
class _Row:
    op: Operator
    measured_s: float
    index: int
    kind: str


Evaluate = Callable[[Sequence[float]], list[float]]


def fit(
    hardware: str,
    table: Path,
    parameters: Sequence[str] = (),
    *,
    split: float = 0.5,
    seed: int = 0,
    most_rows: int = MOST_ROWS,
    launch: str = "graph",
    progress: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> Fit:
    """Fit *parameters* of a hardware file to a table with ``measured_s``.

    Args:
        hardware: path or bundled name of a device file (no system).
        table: CSV or Parquet as for ``effsim kernels``.
        parameters: dotted paths into the file, with or without ``hardware.``; none: all of kind ``fitted`` or
            ``assumed`` that the rows answer to.
        split: share of the rows to fit to.
        seed: of the split, of the sample of a large table, and of the starting points.
        most_rows: rows used of a larger table.
        launch: how the kernels were timed: ``graph`` or ``eager``.
        progress: wraps the starting points.

    Raises:
        DataError: the table cannot be read, or has too few measured rows.
        SpecError: a path that the file does not have, or that is no continuous number.
        UnsupportedError: the rows identify none of the parameters.
    """
    if not 0.0 < split < 1.0:
        raise DataError(f"--split is {split:g}; expected a share between 0 and 1")
    machine = timed_briefly(load_machine(hardware))
    if machine.system is not None:
        raise SpecError(f"{hardware}: a system is no device; fit the file of its device")
    everything = _rows(table)
    rows = _sample(everything, most_rows, seed)
    train, test = _halves(rows, split, seed)
    named = _named(machine, parameters)
    probes = _probe(machine, named, train, launch)
    chosen, refused = _identified(probes, bool(parameters))
    if not chosen:
        raise UnsupportedError(f"{table}: the rows identify none of the parameters: " + _reasons(refused))
    values = _solve(machine, chosen, train, seed, launch, progress)
    fitted = _with(machine, {path: value for (path, _, _), value in zip(chosen, values, strict=True)})
    moved = tuple(
        Moved(path, old, new, elasticity) for (path, old, elasticity), new in zip(chosen, values, strict=True)
    )
    before = Errors(_score(machine.device, train, launch), _score(machine.device, test, launch))
    after = Errors(_score(fitted.device, train, launch), _score(fitted.device, test, launch))
    return Fit(hardware, str(table), len(everything), len(rows), len(train), seed, moved, tuple(refused), before, after)


# --- rows -------------------------------------------------------------------------------------------------------------


def _rows(table: Path) -> list[_Row]:
    _, cells = read_table(table)
    out = []
    for index, row in enumerate(cells):
        seconds = measured_of(row, table, index)
        if seconds is None:
            continue
        kind = str(row["kind"]).strip()
        try:
            out.append(_Row(from_row(kind, row), seconds, index, kind))
        except (DataError, UnsupportedError) as error:
            raise DataError(f"{table}:{index + 2}:1: {error}") from None
    if len(out) < 4:
        raise DataError(f"{table}: {len(out)} rows with measured_s; a fit and a judgement of it need 4 or more")
    return out


def place_of(op: Operator, seed: int) -> float:
    """A number in [0, 1) that depends on what the row computes and on the seed, not on its position in the table.

    Rows of equal work fall on the same side of a split.
    """
    digest = hashlib.sha256(f"{seed}:{op!r}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64


def _sample(rows: list[_Row], most: int, seed: int) -> list[_Row]:
    if len(rows) <= most:
        return rows
    ranked = sorted(rows, key=lambda row: (place_of(row.op, seed + 1), row.index))
    return sorted(ranked[:most], key=lambda row: row.index)


def _halves(rows: list[_Row], split: float, seed: int) -> tuple[list[_Row], list[_Row]]:
    """(to fit to, to judge by), each with at least one row."""
    train = [row for row in rows if place_of(row.op, seed) < split]
    test = [row for row in rows if place_of(row.op, seed) >= split]
    if not train or not test:
        raise DataError("the split leaves no row on one side; use another --split or --seed")
    return train, test


# --- parameters -------------------------------------------------------------------------------------------------------


def _named(machine: Machine, wanted: Sequence[str]) -> list[tuple[str, float]]:
    """(path, value) of what may be moved."""
    leaves = {path: leaf for path, leaf in machine.spec.leaves() if not isinstance(leaf, IntQuantity)}
    whole = {path for path, leaf in machine.spec.leaves() if isinstance(leaf, IntQuantity)}
    if not wanted:
        return [
            (path, float(leaf))
            for path, leaf in leaves.items()
            if leaf.kind in ("fitted", "assumed")
            and float(leaf) > 0.0
            and not STRUCTURAL.search(path)
            and not re.search(r"\.\d", path)
        ]
    out = []
    for name in dict.fromkeys(path.removeprefix("hardware.") for path in wanted):
        if name in whole:
            raise SpecError(f"--parameter {name}: a count; only continuous numbers can be fitted")
        if any(part.isdigit() for part in name.split(".")):
            raise SpecError(
                f"--parameter {name}: is in a list, which a file that extends another can only replace whole"
            )
        if name not in leaves:
            raise SpecError(f"--parameter {name}: the file has no such number", suggestion=nearest(name, leaves))
        if float(leaves[name]) <= 0.0:
            raise SpecError(f"--parameter {name}: is {float(leaves[name]):g}; only positive numbers can be fitted")
        out.append((name, float(leaves[name])))
    return out


def limits(spec: SpecModel, path: str, value: float) -> tuple[float, float]:
    """Smallest and largest value that a fit may choose.

    A factor of four either way; shares end at 1, and no clock passes ``clock.boost``.
    """
    low, high = value / FACTOR, value * FACTOR
    if path.endswith(("efficiency", "stream_fraction")):
        high = min(1.0, high)
    leaves = dict(spec.leaves())
    boost = leaves.get("clock.boost")
    if path in ("clock.sustained", "clock.vector", "clock.matrix") and boost is not None:
        high = min(high, float(boost))
    return low, max(high, value)


def _with(machine: Machine, values: Mapping[str, float]) -> Machine:
    spec = machine.spec
    for path, value in values.items():
        spec = with_value(spec, path, value)
    return rebuild(machine, spec, None)


def _probe(
    machine: Machine, named: Sequence[tuple[str, float]], rows: Sequence[_Row], launch: str
) -> list[tuple[str, float, list[float]]]:
    """(path, value, elasticity of every row) by one step of each parameter."""
    base = _times(machine.device, rows, launch)
    out = []
    for path, value in named:
        _, high = limits(machine.spec, path, value)
        step = PROBE if value * PROBE <= high else 1.0 / PROBE
        try:
            times = _times(_with(machine, {path: value * step}).device, rows, launch)
        except EffsimError:
            times = base
        out.append((path, value, [math.log(t / b) / math.log(step) for t, b in zip(times, base, strict=True)]))
    return out


def _identified(
    probes: Sequence[tuple[str, float, list[float]]], asked: bool
) -> tuple[list[tuple[str, float, float]], list[tuple[str, str]]]:
    """(path, value, rms elasticity) of parameters that the rows tell apart, and why others are left."""
    import numpy as np

    chosen: list[tuple[str, float, float]] = []
    kept: list[Any] = []
    refused: list[tuple[str, str]] = []
    for path, value, slopes in sorted(probes, key=lambda p: -sum(s * s for s in p[2])):
        vector = np.array(slopes)
        strength = float(np.sqrt(np.mean(vector**2)))
        answering = float(np.mean(np.abs(vector) > LEAST_ELASTICITY))
        if strength < LEAST_ELASTICITY or answering < LEAST_SHARE:
            if asked:
                refused.append((path, f"the rows do not answer to it (rms elasticity {strength:.2g})"))
            continue
        rest = vector
        if kept:
            basis = np.array(kept).T
            rest = vector - basis @ np.linalg.lstsq(basis, vector, rcond=None)[0]
        if float(np.linalg.norm(rest)) < 0.05 * float(np.linalg.norm(vector)):
            refused.append((path, "its effect cannot be told from that of the others"))
            continue
        kept.append(vector)
        chosen.append((path, value, strength))
    return chosen, refused


def _reasons(refused: Sequence[tuple[str, str]]) -> str:
    return (
        "; ".join(f"{path}: {why}" for path, why in refused)
        or "no fitted or assumed number of the file matters to them; name others with --parameter"
    )


# --- solving ----------------------------------------------------------------------------------------------------------


def _times(device: Device, rows: Sequence[_Row], launch: str) -> list[float]:
    out = []
    for row in rows:
        lowered = device.lower(row.op)
        out.append(lowered.analytic_s + single_launch_s(device.launch, launch, lowered))
    return out


def _score(device: Device, rows: Sequence[_Row], launch: str) -> Score:
    times = _times(device, rows, launch)
    return Score.of([(row.index, t / row.measured_s - 1.0) for row, t in zip(rows, times, strict=True)])


def _jacobian(residuals: Callable[[Any], Any], bounds: Any) -> Callable[[Any], Any]:
    """Differences over a step that is wide enough to see past tile and wave counts, inside the limits."""
    import numpy as np

    step = math.log(PROBE)

    def jacobian(x: Any) -> Any:
        base, columns = residuals(x), []
        for i in range(len(x)):
            width = step if x[i] + step <= bounds[1][i] else -step
            moved = x.copy()
            moved[i] += width
            columns.append((residuals(moved) - base) / width)
        return np.array(columns).T

    return jacobian


def _solve(
    machine: Machine,
    chosen: Sequence[tuple[str, float, float]],
    rows: Sequence[_Row],
    seed: int,
    launch: str,
    progress: Callable[[Sequence[Any]], Iterable[Any]],
) -> list[float]:
    """Values of the best of a few starts."""
    import numpy as np
    from scipy.optimize import least_squares

    paths, start = [path for path, _, _ in chosen], np.log([value for _, value, _ in chosen])
    bounds = np.log([limits(machine.spec, path, value) for path, value, _ in chosen]).T
    bounds[1] = np.maximum(bounds[1], bounds[0] + 1e-9)
    measured = np.log([row.measured_s for row in rows])

    def residuals(x: Any) -> Any:
        device = _with(machine, dict(zip(paths, np.exp(x).tolist(), strict=True))).device
        return np.log(_times(device, rows, launch)) - measured

    generator = np.random.default_rng(seed)
    expect_many()
    best, cost = start, math.inf
    for turn in progress(range(STARTS)):
        first = start if turn == 0 else start + generator.normal(0.0, 0.3, len(start))
        inside = np.clip(first, bounds[0] + 1e-6, bounds[1] - 1e-6)
        found = least_squares(
            residuals,
            inside,
            bounds=bounds,
            loss="soft_l1",
            f_scale=LOSS_SCALE,
            jac=_jacobian(residuals, bounds),
            max_nfev=MOST_STEPS,
        )
        if found.cost < cost:
            best, cost = found.x, float(found.cost)
    return [float(v) for v in np.exp(best)]
