"""Kernel predictions against measured tables: collect, sample, predict, score, next to two naive rooflines."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from effsim.devices.device import Device
from effsim.devices.registry import Machine, load_machine, timed_briefly
from effsim.errors import DataError, UnknownNameError, UnsupportedError
from effsim.explore.kernel_table import Score
from effsim.graph.operator import Operator
from effsim.graph.operators.communication import Collective
from effsim.graph.table import from_row
from effsim.readings.launch import single_launch_s
from effsim.spec.catalogue import names

from .coverage import Coverage, Judged, coverage, judged
from .engines import convert, table_of
from .profiles import llmcompass, vidur_all_reduce, vidur_layers
from .runs import run_residuals
from .tables import Measured, read_parquet

SEED = 20240607
ROWS_A_GROUP = 800
"""Rows of one GPU, label and file that are predicted; bigger tables are sampled."""
NAIVE_FRACTION, NAIVE_LAUNCH_S = 0.8, 3e-6
"""A common rule of thumb: 80 % of the roofline and 3 us a kernel."""
EDGES_S = (8e-6, 32e-6, 128e-6, 512e-6, 2048e-6)
BUCKETS = ("< 8 us", "8–32 us", "32–128 us", "128–512 us", "0.5–2 ms", "> 2 ms")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row with what was predicted and what two rooflines say."""

    row: Measured
    predicted_s: float
    roofline_s: float
    op: Operator | None = None
    judged: Judged | None = None

    @property
    def error(self) -> float:
        """Signed relative error of the prediction."""
        return self.predicted_s / self.row.measured_s - 1.0

    @property
    def roofline_error(self) -> float:
        """Signed relative error of max(FLOPs / peak, bytes / bandwidth)."""
        return self.roofline_s / self.row.measured_s - 1.0

    @property
    def naive_error(self) -> float:
        """Signed relative error of the rule of thumb."""
        return (self.roofline_s / NAIVE_FRACTION + NAIVE_LAUNCH_S) / self.row.measured_s - 1.0


@dataclass(frozen=True, slots=True)
class GroupScore:
    """Errors of one GPU, label and duration; ``bucket`` is "all" for their sum.

    ``coverage``: how often the interval held on rows that it was not fitted on; None where none are left.
    """

    hardware: str
    label: str
    bucket: str
    score: Score
    roofline: Score
    naive: Score
    worst: Mapping[str, Any]
    composite: bool
    ratios: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 1.0, 1.0)
    """predicted / measured at the 5, 25, 50, 75 and 95 % of the rows."""
    coverage: Coverage | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"worst": dict(self.worst)}


@dataclass(frozen=True, slots=True)
class KernelReport:
    """Scores, why rows were left out (reason → rows), and the rows that were predicted."""

    groups: tuple[GroupScore, ...]
    left_out: Mapping[str, int]
    rows: int
    residuals: Mapping[str, Any] = field(default_factory=dict)
    outcomes: tuple[Outcome, ...] = ()


def hardware_of(folder: str) -> str:
    """Bundled name for a folder of measurements: ``a100_sxm`` is ``gpu_a100``.

    Raises:
        UnknownNameError: the catalogue has no such GPU.
    """
    known = names("hardware")
    stem = folder.removeprefix("gpu_")
    for guess in (f"gpu_{stem}", f"gpu_{stem.removesuffix('_sxm')}"):
        if guess in known:
            return guess
    raise UnknownNameError(f"no bundled hardware for measurements of {folder!r}")


def machine_of(hardware: str, collective: bool) -> Machine:
    """The GPU, or for collectives the node of eight that it is sold in, where the catalogue has one."""
    node = hardware.replace("gpu_", "system_dgx_", 1)
    return timed_briefly(load_machine(node if collective and node in names("hardware") else hardware))


def collect(data: Path, gpu: str = "") -> Iterator[list[Measured]]:
    """Rows of every table of a folder, table by table; *gpu* keeps one GPU (a bundled or a folder name).

    Raises:
        DataError: a table that cannot be read.
    """
    wanted = hardware_of(gpu) if gpu else ""
    for folder in sorted(p for p in (data / "kernels").glob("*") if p.is_dir()):
        try:
            hardware = hardware_of(folder.name)
        except UnknownNameError:
            continue
        if wanted not in ("", hardware):
            continue
        for file in sorted(folder.glob("*.parquet")):
            yield list(convert(read_parquet(file), table_of(file), hardware, file.name))
    yield [row for row in _profiles(data) if wanted in ("", row.hardware)]


def _profiles(data: Path) -> Iterator[Measured]:
    for file in sorted((data / "vidur").glob("*.csv")):
        hardware = hardware_of(file.name.partition("-")[0])
        yield from (vidur_all_reduce if "all-reduce" in file.name else vidur_layers)(file, hardware)
    yield from llmcompass(data / "llmcompass")


def sample(rows: Iterable[Measured], limit: int = ROWS_A_GROUP, seed: int = SEED) -> list[Measured]:
    """At most *limit* rows of each (hardware, label, file), drawn with a fixed seed, in their order."""
    groups: dict[tuple[str, str, str], list[Measured]] = {}
    for row in rows:
        groups.setdefault((row.hardware, row.label, row.source), []).append(row)
    out: list[Measured] = []
    for key, members in groups.items():
        if len(members) > limit:
            chosen = random.Random(f"{seed}:{':'.join(key)}").sample(range(len(members)), limit)
            members = [members[i] for i in sorted(chosen)]
        out += members
    return out


def predict(row: Measured, device: Device, machine: Machine) -> Outcome:
    """Predict one row.

    Raises:
        DataError, UnsupportedError: the row is no operator, or the device cannot run it.
    """
    op = from_row(row.kind, row.cells)
    lowered = device.lower(op)
    seconds = lowered.analytic_s + single_launch_s(device.launch, row.launch, lowered)
    return Outcome(row, seconds, naive_roofline_s(op, machine), op)


def naive_roofline_s(op: Operator, machine: Machine) -> float:
    """max(FLOPs / peak, compulsory bytes / bandwidth); for a collective, compulsory bytes on the wire / link rate."""
    device = machine.device
    if isinstance(op, Collective):
        return op.wire_bytes / machine.network.levels[0].bytes_per_s
    matrix = op.arithmetic().matrix
    dtype = str(getattr(op, "dtype", "fp16"))
    compute = matrix / device.peak_matrix_flops(dtype) if matrix else 0.0
    return max(compute, op.bytes_moved / device.memory_peak_bytes_per_s)


def bucket(seconds: float) -> str:
    """Which span of measured durations.

    >>> bucket(1e-5)
    '8–32 us'
    """
    return BUCKETS[sum(seconds >= edge for edge in EDGES_S)]


def score(outcomes: Sequence[Outcome]) -> list[GroupScore]:
    """Scores by GPU, label and duration; "all" first, then the buckets in order."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.row.hardware, outcome.row.label), []).append(outcome)
    out = []
    for (hardware, label), members in sorted(groups.items()):
        out.append(_group(hardware, label, "all", members))
        for name in BUCKETS:
            part = [o for o in members if bucket(o.row.measured_s) == name]
            if part:
                out.append(_group(hardware, label, name, part))
    return out


def _group(hardware: str, label: str, span: str, members: Sequence[Outcome]) -> GroupScore:
    ours = Score.of([(i, o.error) for i, o in enumerate(members)])
    pure = Score.of([(i, o.roofline_error) for i, o in enumerate(members)])
    naive = Score.of([(i, o.naive_error) for i, o in enumerate(members)])
    far = members[ours.worst_row]
    worst = {**far.row.cells, "measured_s": far.row.measured_s, "predicted_s": far.predicted_s}
    ratios = quantiles([1.0 + o.error for o in members])
    found = coverage([o.judged for o in members])
    return GroupScore(hardware, label, span, ours, pure, naive, worst, far.row.composite, ratios, found)


def quantiles(values: Sequence[float]) -> tuple[float, float, float, float, float]:
    """Values at 5, 25, 50, 75 and 95 % of *values* in order, the nearest one each.

    >>> quantiles([1.0, 2.0, 3.0, 4.0, 5.0])
    (1.0, 2.0, 3.0, 4.0, 5.0)
    """
    held = sorted(values)
    low, first, half, third, high = (held[round(share * (len(held) - 1))] for share in (0.05, 0.25, 0.5, 0.75, 0.95))
    return low, first, half, third, high


def validate_kernels(data: Path, gpu: str = "", limit: int = ROWS_A_GROUP, fit_residuals: bool = False) -> KernelReport:
    """Predict and score what a folder of measurements holds.

    *fit_residuals* fits the intervals anew (on the half of the rows that coverage is not judged on) and returns them;
    otherwise the bundled ones are judged.

    Raises:
        DataError: nothing to compare with (for this *gpu*).
        UnknownNameError: *gpu* is not in the catalogue.
    """
    machines: dict[tuple[str, bool], Machine] = {}
    outcomes: list[Outcome] = []
    left_out: dict[str, int] = {}
    for table in collect(data, gpu):
        for row in sample(table, limit):
            key = (row.hardware, row.kind == "collective")
            if key not in machines:
                machines[key] = machine_of(*key)
            try:
                outcomes.append(predict(row, machines[key].device, machines[key]))
            except (DataError, UnsupportedError) as error:
                reason = f"{row.hardware}, {row.label}: {error}"
                left_out[reason] = left_out.get(reason, 0) + 1
    if not outcomes:
        raise DataError(f"{data}: no measured kernels{f' of {gpu}' if gpu else ''} that effsim can predict")
    devices = {key: machine.device for key, machine in machines.items()}
    runs = run_residuals(data) if fit_residuals else None
    marks, fitted = judged([(o.row, o.op, o.predicted_s) for o in outcomes if o.op is not None], devices, runs)
    outcomes = [replace(outcome, judged=mark) for outcome, mark in zip(outcomes, marks, strict=True)]
    return KernelReport(tuple(score(outcomes)), left_out, len(outcomes), fitted, tuple(outcomes))
