"""Predictions against PyTorch on this machine: operators of shapes that calibration has not seen, whole models.

Operators are timed in a loop, so that their weights stay in whatever cache holds them (``weights_cached``); models
stream theirs. Both are measured as calibration measures (:mod:`effsim.explore.calibrate.timing`). Some benchmarks of
the calibration run again: if they have moved, so has the machine, and no verdict on the model is given.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from effsim.devices.cpu.device import CpuDevice
from effsim.devices.device import Device
from effsim.devices.registry import load_machine
from effsim.errors import DataError
from effsim.explore.calibrate import cpu_benchmarks
from effsim.explore.calibrate.allocator import keep_memory
from effsim.explore.calibrate.command import calibrate
from effsim.explore.calibrate.cpu import QUICK_DTYPES, CpuTimes, cpu_document, load_torch
from effsim.explore.calibrate.machine import MachineFacts, discover
from effsim.explore.calibrate.timing import (
    CAREFUL,
    QUICK,
    Benchmark,
    HostTimer,
    NoisyMachineError,
    Samples,
    Sampling,
    measure,
)
from effsim.explore.calibrate.write import write_checked, yaml_text
from effsim.explore.kernel_table import Score
from effsim.graph.table import from_row
from effsim.program.program import Degrees, Execution, HostWork, Memory, Phase, Program
from effsim.readings.analytic import analytic
from effsim.readings.launch import single_launch_s

from .timing_models import TimedModel, models
from .timing_operators import TimedOperator, operators

if TYPE_CHECKING:
    from rich.console import Console

Devices = tuple[CpuDevice, CpuDevice]
"""As a model finds the machine, and with weights still in cache."""

WARM = "hardware.kernels.weights_cached=true"

OPERATOR_MEDIAN = 0.15
"""Largest median error of the operators."""

MODEL_WORST = 0.20
"""Largest error of any whole model."""

RESTLESS_SHARE = 0.1
"""Share of the times that may fail to repeat; those of operators and models are then left out of the table."""

UNREST = 0.12
"""How far the typical median may lie above the undisturbed time."""

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
    """All rows; ``drift`` is (now / calibration − 1) of the benchmarks that ran again; ``left_out`` rows did
    not repeat; ``noise`` says why nothing can be told.
    """

    hardware: str
    threads: int
    clock: str
    rows: tuple[TimingRow, ...]
    drift: Mapping[str, float]
    left_out: tuple[str, ...] = ()
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
        return out + [
            f"{row.name}: error {100 * row.error:+.1f} %, more than {100 * MODEL_WORST:.0f} %"
            for row in self.rows
            if row.group == "models" and abs(row.error) > MODEL_WORST
        ]

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
            "left_out": list(self.left_out),
            "noisy": self.noisy,
            "failures": self.failures(),
        }

    def markdown(self) -> str:
        """The table of :meth:`print` for a page."""
        lines = [f"{self.hardware}, {self.clock}.", "", "| | n | median | p90 | bias |", "|---|--:|--:|--:|--:|"]
        kinds = dict.fromkeys(r.kind for r in self.rows if r.group == "operators")
        parts = [*((k, "operators", k) for k in kinds), ("**all operators**", "operators", "")]
        for label, group, kind in [*parts, ("**all models**", "models", "")]:
            s = self.score(group, kind)
            if s is not None:
                cells = (f"{100 * s.median:.1f} %", f"{100 * s.p90:.1f} %", f"{100 * s.bias:+.1f} %")
                lines.append(f"| {label} | {s.n} | " + " | ".join(cells) + " |")
        lines += [f"| {r.name} | 1 | | | {100 * r.error:+.1f} % |" for r in self.rows if r.group == "models"]
        return "\n".join([*lines, *(["", f"Too noisy to judge: {self.noisy}"] if self.noisy else [])])

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
        if self.left_out:
            console.print(f"left out, times do not repeat: {', '.join(self.left_out)}")
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
    keep_memory()
    sampling = QUICK if quick else CAREFUL
    given = _devices(Path(hardware)) if hardware is not None else None
    used = threads or (given[0].parameters.units if given is not None else 1)
    before = torch.get_num_threads()
    torch.manual_seed(0)
    try:
        with torch.inference_mode():
            ops, whole = list(operators(torch)), list(models(torch, quick))
            session = _Session(torch, facts, sampling, used, quick, progress)
            calls = [Benchmark(op.name, op.call) for op in ops] + [Benchmark(m.name, m.call) for m in whole]
            found, devices, noise = session.run(calls, given)
            again = _sentinels(torch, facts, devices) if given is not None else []
            moved = measure([b for b, _ in again], session.timer, sampling) if again else {}
    except NoisyMachineError as error:
        return TimingReport("this machine", used, HostTimer.of_threads(used).name, (), {}, noise=str(error))
    finally:
        torch.set_num_threads(before)
    drift = {b.name: moved[b.name].steady / expected - 1.0 for b, expected in again}
    restless = tuple(name for name, s in found.items() if s.floor_spread > sampling.floor_spread)
    rows = _rows(
        [o for o in ops if o.name not in restless], [m for m in whole if m.name not in restless], found, devices
    )
    return TimingReport(devices[0].name, used, session.timer.name, rows, drift, restless, noise)


@dataclass(frozen=True, slots=True)
class _Session:
    """One measurement with everything it needs to know."""

    torch: Any
    facts: MachineFacts
    sampling: Sampling
    threads: int
    quick: bool
    progress: Progress

    @property
    def timer(self) -> HostTimer:
        return HostTimer.of_threads(self.threads)

    def run(self, benchmarks: list[Benchmark], given: Devices | None) -> tuple[Mapping[str, Samples], Devices, str]:
        """Samples of *benchmarks*, the devices (those given, or calibrated meanwhile), and what speaks against both.

        On one core the benchmarks of the calibration take turns with the others, so that both see the same machine
        even where its clock and its neighbours change from minute to minute.
        """
        if given is None and self.threads > 1:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "cpu_this_machine.yaml"
                calibrate(path, threads=self.threads, quick=self.quick, progress=self.progress)
                given = _devices(path)
        self.torch.set_num_threads(self.threads)
        own = [] if given is not None else cpu_benchmarks.one_core(self.torch, self.facts, QUICK_DTYPES)
        every, names = [*own, *benchmarks], frozenset(b.name for b in benchmarks)
        # Restless times are not refused here but counted: a table without a verdict says more than no table.
        both = measure(every, self.timer, self.sampling, self.progress, optional=[b.name for b in every])
        found = {name: samples for name, samples in both.items() if name in names}
        unrest = _unrest(both.values(), self.sampling)
        if given is not None:
            return found, given, unrest
        times = CpuTimes({b.name: both[b.name].steady for b in own}, {}, 1, QUICK_DTYPES)
        document = cpu_document(self.facts, times, date.today().isoformat())
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "cpu_this_machine.yaml"
            write_checked(path, yaml_text(document))
            return found, _devices(path), unrest


def _unrest(found: Iterable[Samples], sampling: Sampling) -> str:
    """Why these samples cannot judge a model; empty where they can."""
    every = list(found)
    moving = [s.name for s in every if s.floor_spread > sampling.floor_spread]
    if len(moving) > RESTLESS_SHARE * len(every):
        return f"{len(moving)} of {len(every)} times do not repeat ({', '.join(map(repr, moving[:3]))}, …)"
    typical = median(s.median / s.steady - 1.0 for s in every)
    if typical > UNREST:
        return f"the typical median lies {100 * typical:.0f} % above the undisturbed time; other work is in the way"
    return ""


def _devices(path: Path) -> Devices:
    """(as a model finds it, with weights still in cache) of a hardware file."""
    cold, warm = (load_machine(str(path), change).device for change in ([], [WARM]))
    if not isinstance(cold, CpuDevice) or not isinstance(warm, CpuDevice):
        raise DataError(f"{path}: timing compares with PyTorch on a CPU; expected a file of kind cpu")
    return cold, warm


def _rows(
    ops: Sequence[TimedOperator], whole: Sequence[TimedModel], found: Mapping[str, Samples], devices: Devices
) -> tuple[TimingRow, ...]:
    cold, warm = devices
    items = [("operators", op.kind, op.name, operator_s(op, warm)) for op in ops]
    items += [("models", m.name, m.name, model_s(m, cold)) for m in whole]
    return tuple(TimingRow(*item, found[item[2]].steady, found[item[2]].median) for item in items)


def operator_s(item: TimedOperator, device: Device) -> float:
    """Predicted time of one eager operator."""
    lowered = device.lower(from_row(item.kind, item.cells))
    return lowered.analytic_s + single_launch_s(device.launch, "eager", lowered)


def model_s(model: TimedModel, device: CpuDevice) -> float:
    """Predicted time of a whole model, launched eagerly, with its views."""
    phase = Phase("step", (Execution(model.graph, 1.0),), 1.0, 1.0, 1)
    memory = Memory(device.memory_capacity_bytes, device.memory_reserved_bytes, 0.0)
    host = HostWork(per_step_s=model.views * device.view_s)
    program = Program(model.name, (phase,), Degrees(), memory, "eager", model.fused, host)
    return analytic(program, device).time_s


def _sentinels(torch: Any, facts: MachineFacts, devices: Devices) -> list[tuple[Benchmark, float]]:
    """Benchmarks of the calibration with the times that the file implies: clock, arithmetic, one core's memory."""
    device = devices[1]
    p = device.parameters
    clock = next(b for b in cpu_benchmarks.loops(facts) if b.name == "clock")
    out = [(clock, cpu_benchmarks.CLOCK_STEPS * cpu_benchmarks.CLOCK_OPERATIONS / p.peak_hz)]
    (n, k), m = cpu_benchmarks.GEMM_SHAPES[0], cpu_benchmarks.GEMM_ROWS[-1]
    x, w, b = torch.randn(m, k), torch.randn(n, k), torch.randn(n)
    product = TimedOperator("linear", "", {"m": m, "n": n, "k": k, "dtype": "fp32"}, lambda: None)
    call = lambda: torch.nn.functional.linear(x, w, b)  # noqa: E731
    out.append((Benchmark("a product of the calibration", call), operator_s(product, device)))
    size = cpu_benchmarks.copy_sizes(facts)[-1]
    if p.units == 1:
        source, target = torch.ones(size // 8), torch.empty(size // 8)
        out.append((Benchmark("copy beyond every cache", lambda: target.copy_(source)), size / p.stream_bytes_per_s))
    return out
