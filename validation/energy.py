"""Predicted energy of kernels against measured watts times measured seconds.

What the watts of the kernel tables are, where it had to be settled from how they were taken and from the data
(ai-dynamo/aiconfigurator, ``collector/helper.py``):

- A thread reads NVML once as the run starts, then every 100 ms while it lasts; a row's watts are the mean of the
  readings. How many there were shows in the digits: a reading is a whole number of milliwatts, so the mean of three has
  three decimals or repeats in thirds (:func:`readings`).
- On everything after GA100 a reading is itself the mean of the second before it (NVML, ``nvmlDeviceGetPowerUsage``).
- The run lasts 0.3 s (1 s for slow kernels) *of eager calls*; replayed from a graph the same number of calls is over
  sooner. Half of the GEMM rows and four fifths of the attention rows were read **once, before they ran**: their watts
  are those of whatever ran before. Two launches of the same 12 us attention kernel apart by one power of two read
  158 and 689 W. Only rows with :data:`ENOUGH` readings or more say something about their own kernel.
- Weights of the products were not initialised. Long reads of memory take either 290 to 320 W or 590 to 640 W at the
  same 4.1 TB/s, and the largest products run at 820 TFLOP/s with 510 W while smaller ones are held to 690 TFLOP/s at
  691 W: zeros and noise. Which row had which is not recorded. The energies are those of the mixture, so rows of either
  kind miss by up to a factor of two; that is the tail of the table.
- ``fp8_block`` products were launched eagerly (never under 50 us): most of their time is the host's.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from effsim.devices.registry import load_machine, timed_briefly
from effsim.errors import DataError, UnknownNameError, UnsupportedError
from effsim.explore.kernel_table import Score, energy_with_idle
from effsim.graph.table import from_row
from effsim.intervals.kernel import DeviceIntervals
from effsim.readings.launch import single_launch_s

from .engines import convert, table_of
from .kernels import hardware_of
from .tables import Measured, read_parquet

SEED = 20240607
ROWS_A_GROUP = 800
"""Rows of one GPU and label that are predicted."""

ENOUGH = 3
"""Readings from which the mean is mostly the kernel's own."""

CLASSES = ("once", "twice", f"{ENOUGH} times or more")
MOST_READINGS = 100


@dataclass(frozen=True, slots=True)
class EnergyOutcome:
    """One row: watts and how often they were read, with what is predicted and the interval of its energy."""

    row: Measured
    watts: float
    readings: int
    predicted_s: float
    predicted_j: float
    interval_j: tuple[float, float] | None = None

    @property
    def error(self) -> float:
        """Signed relative error of the energy."""
        return self.predicted_j / (self.watts * self.row.measured_s) - 1.0

    @property
    def power_error(self) -> float:
        """Signed relative error of the mean power, which an error of the time does not touch."""
        return self.predicted_j / self.predicted_s / self.watts - 1.0


@dataclass(frozen=True, slots=True)
class EnergyScore:
    """Errors of one GPU, label and class of readings ("all": the sum of them)."""

    hardware: str
    label: str
    readings: str
    energy: Score
    power: Score
    worst: dict[str, Any]
    composite: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def readings(watts: float) -> int:
    """How many readings of whole milliwatts a mean was taken of; 0 where no small number fits.

    >>> readings(136.831), readings(691.8169), readings(583.0 + 1 / 12e3)
    (1, 10, 12)
    """
    for count in range(1, MOST_READINGS + 1):
        total = 1e3 * watts * count
        if abs(total - round(total)) < 2e-3 * count**0.5:
            return count
    return 0


def class_of(count: int) -> str:
    """Class of a number of readings.

    >>> class_of(1), class_of(11)
    ('once', '3 times or more')
    """
    return CLASSES[2] if count >= ENOUGH or count == 0 else CLASSES[count - 1]


def collect(data: Path, gpu: str = "") -> Iterator[list[tuple[Measured, float]]]:
    """Rows with watts, table by table; *gpu* keeps one GPU.

    Raises:
        DataError: a table that cannot be read.
    """
    for file in sorted((data / "kernels").glob("*/*.parquet")):
        try:
            hardware = hardware_of(file.parent.name)
        except UnknownNameError:
            continue
        rows = read_parquet(file) if gpu in ("", hardware, file.parent.name) else []
        if rows and "power" in rows[0]:
            found = ((list(convert([row], table_of(file), hardware, file.name)), row["power"]) for row in rows)
            yield [(measured[0], float(watts)) for measured, watts in found if measured and watts]


def sample(
    rows: Iterable[tuple[Measured, float]], limit: int = ROWS_A_GROUP, seed: int = SEED
) -> list[tuple[Measured, float]]:
    """At most *limit* rows of each label, drawn with a fixed seed."""
    groups: dict[str, list[tuple[Measured, float]]] = {}
    for row, watts in rows:
        groups.setdefault(row.label, []).append((row, watts))
    out: list[tuple[Measured, float]] = []
    for label, members in sorted(groups.items()):
        out += random.Random(f"{seed}:{label}").sample(members, min(limit, len(members)))
    return out


def outcomes_of(rows: Iterable[tuple[Measured, float]]) -> list[EnergyOutcome]:
    """Predict rows as ``effsim kernels`` does; those whose energy is unknown or that cannot run are left out."""
    out, known = [], dict[str, DeviceIntervals]()
    for row, watts in rows:
        if row.hardware not in known:
            known[row.hardware] = DeviceIntervals(timed_briefly(load_machine(row.hardware)).device)
        device = known[row.hardware].device
        try:
            op = from_row(row.kind, row.cells)
            lowered = device.lower(op)
        except (DataError, UnsupportedError):
            continue
        launch_s = single_launch_s(device.launch, row.launch, lowered)
        seconds = lowered.analytic_s + launch_s
        joules = energy_with_idle(device, device.energy_j(op, lowered), seconds)
        if joules is not None:
            ends = known[row.hardware].energy(op, lowered, launch_s, row.launch).interval(joules)
            out.append(EnergyOutcome(row, watts, readings(watts), seconds, joules, ends))
    return out


def score(outcomes: Sequence[EnergyOutcome]) -> list[EnergyScore]:
    """Scores by GPU, label and class of readings, "all" first."""
    groups: dict[tuple[str, str, str], list[EnergyOutcome]] = {}
    for outcome in outcomes:
        for span in ("all", class_of(outcome.readings)):
            groups.setdefault((outcome.row.hardware, outcome.row.label, span), []).append(outcome)
    spans = ("all", *CLASSES)
    return [_score(key, groups[key]) for key in sorted(groups, key=lambda k: (k[0], k[1], spans.index(k[2])))]


def _score(key: tuple[str, str, str], members: Sequence[EnergyOutcome]) -> EnergyScore:
    energy = Score.of([(i, o.error) for i, o in enumerate(members)])
    power = Score.of([(i, o.power_error) for i, o in enumerate(members)])
    far = members[energy.worst_row]
    measured = {"measured_s": far.row.measured_s, "watts": far.watts}
    predicted = {"predicted_s": far.predicted_s, "predicted_j": far.predicted_j}
    return EnergyScore(*key, energy, power, {**far.row.cells, **measured, **predicted}, far.row.composite)


def validate_energy(data: Path, gpu: str = "", limit: int = ROWS_A_GROUP) -> tuple[EnergyScore, ...]:
    """Predict and score the rows with watts.

    Raises:
        DataError: no rows with watts (of this *gpu*).
    """
    return tuple(score(predicted(data, gpu, limit)))


def predicted(data: Path, gpu: str = "", limit: int = ROWS_A_GROUP) -> list[EnergyOutcome]:
    """The rows with watts, predicted.

    Raises:
        DataError: no rows with watts (of this *gpu*).
    """
    outcomes = [outcome for table in collect(data, gpu) for outcome in outcomes_of(sample(table, limit))]
    if not outcomes:
        raise DataError(f"{data}: no measured watts{f' of {gpu}' if gpu else ''} that effsim can predict")
    return outcomes


def section(scores: Sequence[EnergyScore]) -> list[str]:
    """The accuracy page's part on energy, as paragraphs and tables of Markdown."""
    from .page import percent, table

    head = ("kernel", "power read", "n", "energy: median", "p90", "bias", "power: median", "bias")
    rows = []
    for s in scores:
        name = f"**{s.hardware} {s.label}**{' (times more than the kernel)' if s.composite else ''}"
        e, p = s.energy, s.power
        errors = (percent(e.median), percent(e.p90), percent(e.bias, True), percent(p.median), percent(p.bias, True))
        rows.append((name if s.readings == "all" else "", s.readings, str(e.n), *errors))
    return ["## Energy", EXPLANATION, table(head, rows)]


EXPLANATION = (
    "Predicted joules against measured watts times measured seconds. Most rows were read once, as the run started, and "
    "a reading is the mean of the second before: only rows read three times or more say something about their own "
    "kernel. Whether weights were zeros or noise is not recorded and makes a factor of up to two."
)
