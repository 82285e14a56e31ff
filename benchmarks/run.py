"""How fast effsim is: ``python benchmarks/run.py [--write] [--quick]``.

CPU seconds, not wall-clock, because machines are shared; the least and the median of several repetitions. Machines
differ, and a shared one changes its speed from second to second, so every repetition is also divided by a reference
loop of plain Python that is timed directly before it; the median of those ratios is what to compare between machines.
``--write`` puts the table into ``benchmarks/results.md``.
"""

from __future__ import annotations

import argparse
import csv
import gc
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from statistics import median

from effsim import load_machine, load_workload
from effsim._api import plan_on
from effsim.devices.gpu import tile_search
from effsim.devices.gpu.device import GpuDevice
from effsim.devices.registry import Machine
from effsim.graph.operators.linear import Linear
from effsim.program.program import Execution, Phase, Program
from effsim.program.source import load_model, model_graph, truncated
from effsim.program.workload_file import load_engine
from effsim.readings import tiles
from effsim.readings.analytic import analytic
from effsim.readings.events import events
from effsim.spec.architecture import ArchitectureSpec
from effsim.spec.workload import WorkloadSpec
from effsim.transforms.fusion import fuse_residual_norm
from effsim.transforms.shard import shard

RESULTS = Path(__file__).with_name("results.md")
HARDWARE, WORKLOAD = "gpu_a100", "llama70b_decode"
KV_LEN, TENSOR = 4032, 2
REFERENCE_STEPS = 20_000
TABLE_ROWS = 10_000
SHORT_S = 20e-3
"""Repetitions shorter than this are timed many at once, which evens out what a shared machine does meanwhile."""


Times = tuple[tuple[float, float], ...]
"""CPU seconds of a repetition and of the reference loop beside it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measured thing: (CPU seconds, those of the reference loop) of every repetition, the most it should take."""

    name: str
    times: Times
    target_s: float | None = None

    @property
    def least(self) -> float:
        """Fastest repetition: what the machine does when nobody disturbs it."""
        return min(seconds for seconds, _ in self.times)

    @property
    def middle(self) -> float:
        """Median repetition."""
        return median(seconds for seconds, _ in self.times)

    @property
    def ratio(self) -> float:
        """Median multiple of the reference loop."""
        return median(seconds / unit for seconds, unit in self.times)


@dataclass(frozen=True, slots=True)
class Bench:
    """What all measurements share."""

    repeats: int
    machine: Machine
    workload: WorkloadSpec
    program: Program
    model: ArchitectureSpec

    def step(self, kv_len: int, batch: int = 1, layers: int | None = None) -> Program:
        """One decode step of the model, from specification to graph, on the devices of the bundled run."""
        model = truncated(self.model, layers)
        graph = model_graph(model, self.workload, "generation", batch, 1, kv_len)
        part = shard(fuse_residual_norm(graph), TENSOR, 1, 1)
        phase = Phase("decode", (Execution(part, 1.0, TENSOR),), float(batch), 1.0, batch)
        return replace(self.program, phases=(phase,))


def cpu(function: Callable[[], object], repeats: int) -> Times:
    """Each of *repeats* calls, after one that is not counted."""
    start = time.process_time()
    function()
    inner = max(1, round(SHORT_S / max(time.process_time() - start, 1e-7)))
    out = []
    gc.collect()
    for _ in range(repeats):
        unit = loop_s()
        start = time.process_time()
        for _ in range(inner):
            function()
        out.append(((time.process_time() - start) / inner, unit))
    return tuple(out)


def process_cpu(arguments: Sequence[str], repeats: int) -> Times:
    """Whole processes, after one that fills the caches."""
    out = []
    for _ in range(repeats + 1):
        unit = loop_s()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        out.append((after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, unit))
    return tuple(out[1:])


def loop_s() -> float:
    """CPU seconds of the reference loop now."""
    start = time.process_time()
    reference()
    return time.process_time() - start


def reference() -> float:
    """A loop of multiply-adds in plain Python."""
    total = 0.0
    for step in range(REFERENCE_STEPS):
        total = total * 0.5 + step
    return total


def prepare(repeats: int) -> Bench:
    """Load everything once."""
    machine = load_machine(HARDWARE)
    spec, base = load_workload(WORKLOAD)
    assert spec.model is not None
    program = plan_on(machine, spec, base)
    if program.degrees.tensor != TENSOR or not load_engine(spec.engine, base).fused_residual_norm:
        raise SystemExit(f"{WORKLOAD} no longer runs on {TENSOR} devices with fused norms: change this script")
    return Bench(repeats, machine, spec, program, load_model(spec.model, base))


def steps(b: Bench) -> Iterator[Row]:
    """A decode step: graph and reading, remembered and not."""
    lengths = count(KV_LEN + 1)

    def anew(read: Callable[..., object]) -> Callable[[], object]:
        return lambda: read(b.step(next(lengths)), b.machine.device)

    def cold() -> object:
        return analytic(b.step(KV_LEN), GpuDevice(b.machine.spec))  # type: ignore[arg-type]

    built = b.step(KV_LEN)
    yield Row("70B decode step, graph alone", cpu(lambda: b.step(KV_LEN), b.repeats))
    yield Row("70B decode step, analytic alone, remembered", cpu(lambda: analytic(built, b.machine.device), b.repeats))
    yield Row("70B decode step, graph + analytic, remembered", cpu(_same(b, analytic), b.repeats), 1e-3)
    yield Row("70B decode step, graph + analytic, new length", cpu(anew(analytic), b.repeats), 1e-3)
    yield Row("70B decode step, graph + analytic, new device", cpu(cold, b.repeats))
    yield Row("70B decode step, graph + events, remembered", cpu(_same(b, events), b.repeats), 50e-3)
    yield Row("70B decode step, graph + events, new length", cpu(anew(events), b.repeats), 50e-3)


def _same(b: Bench, read: Callable[..., object], **step: int) -> Callable[[], object]:
    return lambda: read(b.step(**{"kv_len": KV_LEN, **step}), b.machine.device)


def scaling(b: Bench) -> Iterator[Row]:
    """The same step with more layers, sequences, tokens in the cache: all should be flat."""
    for layers in (8, 80, 800):
        yield Row(f"analytic, {layers} layers", cpu(_same(b, analytic, layers=layers), b.repeats))
    for layers in (8, 80, 800):
        yield Row(f"events, {layers} layers", cpu(_same(b, events, layers=layers), b.repeats))
    for batch in (1, 16, 256):
        yield Row(f"analytic, batch {batch}", cpu(_same(b, analytic, batch=batch), b.repeats))
    for kv_len in (1024, 16_384, 131_072):
        yield Row(f"analytic, {kv_len} tokens of context", cpu(_same(b, analytic, kv_len=kv_len), b.repeats))


def _shapes(seed: int) -> Iterator[Linear]:
    """GEMMs that differ from each other."""
    draw = random.Random(seed)
    while True:
        m, n, k = draw.randint(1, 4096), 8 * draw.randint(64, 4096), 8 * draw.randint(64, 4096)
        yield Linear(m=m, n=n, k=k, dtype="fp16")


def kernels(b: Bench) -> Iterator[Row]:
    """Inside: lowering one GEMM, and the two hot functions in their two forms."""
    search, simulate = tile_search.search, tiles.simulate
    shapes, device = _shapes(1), b.machine.device
    problem, spec, table, splits = _search_arguments(b)
    out = [0.0] * tile_search.RESULT_SIZE
    kernel = device.kernels_of(Linear(m=2048, n=8192, k=8192, dtype="fp16"), True)[0]
    c = kernel.classes[0]
    costs = [[c.busy_s, c.serial_s, c.l2_bytes, c.memory_bytes, c.flow_bytes_per_s]]
    tiled = ([c.count], costs, kernel.units, kernel.slots, kernel.l2_bytes_per_s, kernel.memory_bytes_per_s, [0.0])
    yield Row("tile search of a GEMM, Python", cpu(lambda: search.python(problem, spec, table, splits, out), b.repeats))
    yield Row("simulating a GEMM, Python", cpu(lambda: simulate.python(*tiled), b.repeats))
    search.compiled(problem, spec, table, splits, out)
    yield Row(
        "tile search of a GEMM, numba", cpu(lambda: search.compiled(problem, spec, table, splits, out), b.repeats)
    )
    yield Row("simulating a GEMM, numba", cpu(lambda: simulate.compiled(*tiled), b.repeats))
    yield Row("lowering a GEMM, numba loaded", cpu(lambda: device.kernels_of(next(shapes), True), b.repeats))


def _search_arguments(b: Bench) -> tuple[list[float], list[float], list[list[float]], list[float]]:
    """What the device hands to the search for one GEMM: caught on the way."""
    caught: list[tuple[list[float], list[float], list[list[float]], list[float]]] = []
    kept = tile_search.search

    def spy(*arguments: object) -> object:
        caught.append(arguments[:4])  # type: ignore[arg-type]
        return kept(*arguments)

    tile_search.search = spy  # type: ignore[assignment]
    try:
        device = GpuDevice(b.machine.spec)  # type: ignore[arg-type]  # a device takes the search when it is made
        device.kernels_of(Linear(m=2048, n=8192, k=8192, dtype="fp16"), True)
    finally:
        tile_search.search = kept
    return caught[0]


def processes(b: Bench) -> Iterator[Row]:
    """Whole commands."""
    python = [sys.executable]
    effsim = [*python, "-m", "effsim"]
    yield Row("python -c pass", process_cpu([*python, "-c", "pass"], b.repeats))
    yield Row("import effsim", process_cpu([*python, "-c", "import effsim"], b.repeats), 0.3)
    yield Row("effsim --help", process_cpu([*effsim, "--help"], b.repeats), 0.3)
    run = [*effsim, "run", HARDWARE, WORKLOAD]
    yield Row("effsim run (events, 70B, 128 tokens)", process_cpu(run, b.repeats), 1.5)
    yield Row("effsim run --engine analytic", process_cpu([*run, "--engine", "analytic"], b.repeats), 1.5)
    with tempfile.TemporaryDirectory() as folder:
        table, one = Path(folder) / "table.csv", Path(folder) / "one.csv"
        write_table(table, TABLE_ROWS)
        write_table(one, 1)
        few = max(1, b.repeats // 2)
        start = process_cpu([*effsim, "kernels", HARDWARE, str(one)], few)
        whole = process_cpu([*effsim, "kernels", HARDWARE, str(table)], few)
        alone = Row("effsim kernels, 1 row", start)
        beyond = tuple((seconds - alone.least, unit) for seconds, unit in whole)
        yield alone
        yield Row(f"effsim kernels, {TABLE_ROWS} different rows, beyond that", beyond, 2.0)


def write_table(path: Path, rows: int) -> None:
    """A kernel table without repetitions: GEMMs, attention, pointwise."""
    draw, gemms = random.Random(7), _shapes(7)
    columns = [
        "kind",
        "m",
        "n",
        "k",
        "phase",
        "batch",
        "kv_len",
        "heads",
        "kv_heads",
        "head_dim",
        "rows",
        "cols",
        "dtype",
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for index in range(rows):
            row: dict[str, object] = {"dtype": "fp16"}
            if index % 4 < 2:
                gemm = next(gemms)
                row |= {"kind": "linear", "m": gemm.m, "n": gemm.n, "k": gemm.k}
            elif index % 4 == 2:
                row |= {"kind": "attention", "phase": "generation", "batch": draw.randint(1, 64)}
                row |= {"kv_len": draw.randint(128, 65536), "heads": 64, "kv_heads": 8, "head_dim": 128}
            else:
                row |= {"kind": "rmsnorm", "rows": draw.randint(1, 65536), "cols": 64 * draw.randint(1, 256)}
            writer.writerow(row)


def shown(seconds: float) -> str:
    """Seconds for people."""
    for size, unit in ((1e-3, "µs"), (1.0, "ms")):
        if seconds < size:
            return f"{seconds / size * 1e3:.3g} {unit}"
    return f"{seconds:.3g} s"


def report(rows: Sequence[Row]) -> str:
    """All rows as a Markdown table."""
    units = [unit for row in rows for _, unit in row.times]
    lines = [
        f"Python {platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores; CPU time.",
        f"Reference loop: {REFERENCE_STEPS} multiply-adds in plain Python, {shown(min(units))} to {shown(max(units))}.",
        "",
        "| what | least | median | × reference loop | target | met |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        target = "" if row.target_s is None else f"< {shown(row.target_s)}"
        met = "" if row.target_s is None else ("yes" if row.least < row.target_s else "**no**")
        lines.append(f"| {row.name} | {shown(row.least)} | {shown(row.middle)} | {row.ratio:.3g} | {target} | {met} |")
    by_name = {row.name: row.ratio for row in rows}
    for what in ("tile search of a GEMM", "simulating a GEMM"):
        if f"{what}, numba" in by_name:
            times = by_name[f"{what}, Python"] / by_name[f"{what}, numba"]
            lines.append(f"| {what}: Python over numba | {times:.3g} × | | | | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    parser.add_argument("--quick", action="store_true", help="three repetitions instead of seven, no processes")
    options = parser.parse_args()
    b = prepare(3 if options.quick else 7)
    rows = [*steps(b), *scaling(b), *kernels(b), *(() if options.quick else processes(b))]
    text = report(rows)
    print(text, end="")
    if options.write:
        RESULTS.write_text(f"# Speed\n\nMade by `python benchmarks/run.py --write`.\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
