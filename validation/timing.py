"""Predictions against PyTorch on this machine: operators of shapes that calibration has not seen, and whole models.

Operators are timed in a loop, so that their weights stay in whatever cache holds them (``weights_cached``); whole models
stream theirs. Both are measured as calibration measures (:mod:`effsim.explore.calibrate.timing`). Some benchmarks of the
calibration run again among them: if they have moved, so has the machine, and no verdict on the model is given.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effsim.devices.device import Device
from effsim.devices.registry import load_machine
from effsim.explore.calibrate import cpu_benchmarks
from effsim.explore.calibrate.command import calibrate
from effsim.explore.calibrate.cpu import load_torch
from effsim.explore.calibrate.machine import MachineFacts, discover
from effsim.explore.calibrate.timing import CAREFUL, QUICK, Benchmark, HostTimer, NoisyMachineError, Sampling, measure
from effsim.explore.kernel_table import Score
from effsim.graph.table import from_row
from effsim.program.program import Degrees, Execution, Memory, Phase, Program
from effsim.readings.analytic import analytic
from effsim.readings.launch import single_launch_s

from .timing_models import TimedModel, models
from .timing_operators import TimedOperator, operators

if TYPE_CHECKING:
    from rich.console import Console

OPERATOR_MEDIAN = 0.15
"""Largest median error of the operators."""

MODEL_WORST = 0.20
"""Largest error of any whole model."""

DRIFT = 0.20
"""How far benchmarks of the calibration may move before the machine, and not the model, is blamed."""


@dataclass(frozen=True, slots=True)
class TimingRow:
    """One comparison; seconds. ``median_s`` of the samples says how restless the machine was beside ``measured_s``."""

    group: str
    kind: str
    name: str
    predicted_s: float
    measured_s: float
    median_s: float

    @property
    def error(self) -> float:
        """(predicted − measured) / measured."""
        return self.predicted_s / self.measured_s - 1.0


@dataclass(frozen=True, slots=True)
class TimingReport:
    """All rows; ``drift`` is (now / calibration − 1) of the benchmarks that ran again; ``noise`` says what failed."""

    hardware: str
    threads: int
    clock: str
    rows: tuple[TimingRow, ...]
    drift: Mapping[str, float]
    noise: str = ""

    def score(self, group: str, kind: str = "") -> Score | None:
        """Score of ``operators`` or ``models``, or of one kind of it; None without rows."""
        rows = [r for r in self.rows if r.group == group and kind in ("", r.kind)]
        return Score.of([(i, r.error) for i, r in enumerate(rows)]) if rows else None

    @property
    def noisy(self) -> str:
        """Why the machine cannot be judged by; empty where it can."""
        if self.noise:
            return self.noise
        moved = {name: d for name, d in self.drift.items() if abs(d) > DRIFT}
        if not moved:
            return ""
        shown = ", ".join(f"{name!r} {100 * d:+.0f} %" for name, d in moved.items())
        return f"the machine is not the one that was calibrated, or is shared: {shown} since then"

    def failures(self) -> list[str]:
        """Bounds that are broken; empty on a machine too noisy to tell (see :attr:`noisy`)."""
        if self.noisy:
            return []
        out = []
        found = self.score("operators")
        if found is not None and found.median > OPERATOR_MEDIAN:
            out.append(f"operators: median error {100 * found.median:.1f} % > {100 * OPERATOR_MEDIAN:.0f} %")
        for row in self.rows:
            if row.group == "models" and abs(row.error) > MODEL_WORST:
                out.append(f"{row.name}: error {100 * row.error:+.1f} %, more than {100 * MODEL_WORST:.0f} %")
        return out

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        groups = {group: self.score(group) for group in ("operators", "models")}
        return {
            "hardware": self.hardware,
            "threads": self.threads,
            "clock": self.clock,
            "groups": {name: asdict(score) for name, score in groups.items() if score is not None},
            "rows": [{**asdict(row), "error": row.error} for row in self.rows],
            "drift": dict(self.drift),
            "noisy": self.noisy,
            "failures": self.failures(),
        }

    def print(self, console: Console) -> None:
        """One line a kind of operator and one a model, then what the machine did meanwhile."""
        from rich.table import Table

        table = Table("", "n", "median", "p90", "bias", "worst", title=f"PyTorch on {self.hardware}, {self.clock}")
        kinds = dict.fromkeys(r.kind for r in self.rows if r.group == "operators")
        for label, group, kind in [*((k, "operators", k) for k in kinds), ("all operators", "operators", "")]:
            self._line(table, label, group, kind)
        for row in self.rows:
            if row.group == "models":
                table.add_row(row.name, "1", f"{100 * abs(row.error):.1f} %", "", f"{100 * row.error:+.1f} %", "")
        self._line(table, "all models", "models", "")
        console.print(table)
        if self.noisy:
            console.print(f"too noisy to judge: {self.noisy}")

    def _line(self, table: Any, label: str, group: str, kind: str) -> None:
        s = self.score(group, kind)
        if s is None:
            return
        rows = [r for r in self.rows if r.group == group and kind in ("", r.kind)]
        worst = rows[s.worst_row]
        cells = (f"{100 * s.median:.1f} %", f"{100 * s.p90:.1f} %", f"{100 * s.bias:+.1f} %")
        table.add_row(label, str(s.n), *cells, f"{worst.name} {100 * worst.error:+.0f} %")


Progress = Callable[[Sequence[int]], Iterable[int]]


def validate_timing(
    hardware: str | Path | None = None, *, quick: bool = False, threads: int = 0, progress: Progress = iter
) -> TimingReport:
    """Measure and predict.

    Args:
        hardware: a file that ``effsim calibrate`` wrote on this machine; without one it is calibrated first.
        quick: fewer samples and layers.
        threads: threads of PyTorch; 0 takes those of the file, or one.
        progress: wraps the rounds of the measurement.

    Raises:
        DataError: PyTorch is missing, or this is no Linux machine.
        SpecError: the hardware file is wrong.
    """
    torch, facts = load_torch(), discover()
    sampling = QUICK if quick else CAREFUL
    with tempfile.TemporaryDirectory() as folder:
        if hardware is None:
            path = Path(folder) / "cpu_this_machine.yaml"
            try:
                calibrate(path, threads=threads or 1, quick=quick, progress=progress)
            except NoisyMachineError as error:
                return TimingReport("this machine", threads or 1, "", (), {}, str(error))
        else:
            path = Path(hardware)
        warm = load_machine(str(path), ["hardware.kernels.weights_cached=true"]).device
        cold = load_machine(str(path)).device
    used = threads or int(getattr(cold, "parameters").units)  # noqa: B009
    timer = HostTimer.of_threads(used)
    before = torch.get_num_threads()
    torch.set_num_threads(used)
    torch.manual_seed(0)
    try:
        with torch.inference_mode():
            return _compare(torch, facts, warm, cold, timer, sampling, used, quick, progress)
    finally:
        torch.set_num_threads(before)


def _compare(
    torch: Any,
    facts: MachineFacts,
    warm: Device,
    cold: Device,
    timer: HostTimer,
    sampling: Sampling,
    threads: int,
    quick: bool,
    progress: Progress,
) -> TimingReport:
    ops, whole = list(operators(torch)), list(models(torch, quick))
    again = _sentinels(torch, facts, cold)
    benchmarks = [Benchmark(item.name, item.call) for item in (*ops, *whole)]
    benchmarks += [benchmark for benchmark, _ in again]
    try:
        found = measure(benchmarks, timer, sampling, progress)
    except NoisyMachineError as error:
        return TimingReport(cold.name, threads, timer.name, (), {}, str(error))
    rows = [
        TimingRow("operators", op.kind, op.name, operator_s(op, warm), found[op.name].steady, found[op.name].median)
        for op in ops
    ]
    rows += [
        TimingRow("models", m.name, m.name, model_s(m, cold), found[m.name].steady, found[m.name].median) for m in whole
    ]
    drift = {b.name: found[b.name].steady / expected - 1.0 for b, expected in again}
    return TimingReport(cold.name, threads, timer.name, tuple(rows), drift)


def operator_s(item: TimedOperator, device: Device) -> float:
    """Predicted time of one eager operator."""
    lowered = device.lower(from_row(item.kind, item.cells))
    return lowered.analytic_s + single_launch_s(device.launch, "eager", lowered)


def model_s(model: TimedModel, device: Device) -> float:
    """Predicted time of a whole model, launched eagerly, with its views."""
    view = float(getattr(device, "view_s", 0.0))
    phase = Phase("step", (Execution(model.graph, 1.0),), 1.0, 1.0, 1)
    memory = Memory(device.memory_capacity_bytes, device.memory_reserved_bytes, 0.0)
    program = Program(model.name, (phase,), Degrees(), memory, "eager", model.fused, model.views * view, 0.0)
    return analytic(program, device).time_s


def _sentinels(torch: Any, facts: MachineFacts, device: Device) -> list[tuple[Benchmark, float]]:
    """Benchmarks of the calibration with the times that the file implies: the clock, and one core's memory."""
    p = getattr(device, "parameters")  # noqa: B009
    clock = next(b for b in cpu_benchmarks.loops(facts) if b.name == "clock")
    out = [(clock, cpu_benchmarks.CLOCK_STEPS * cpu_benchmarks.CLOCK_OPERATIONS / p.peak_hz)]
    size = cpu_benchmarks.copy_sizes(facts)[-1]
    if p.units == 1:
        source, target = torch.ones(size // 8), torch.empty(size // 8)
        out.append((Benchmark("copy beyond every cache", lambda: target.copy_(source)), size / p.stream_bytes_per_s))
    return out
