"""Processing in memory against its references: GEMV clocks of a public simulator, and a published comparison."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import effsim
from effsim.devices.registry import load_machine
from effsim.errors import DataError
from effsim.explore.kernel_table import Score
from effsim.graph.operators.linear import Linear

REFERENCE = "dram_reference.csv"
KIND = "pim_gemv"
GEMV_DEVICE = "pim_hbm_pim"
GPT_DEVICE = "pim_gpt"
GPT_WORKLOAD = "pim_gpt_decode"
GPU = "gpu_t4"
CPU = "cpu_haswell"
MODELS = (
    "gpt2",
    "gpt2_medium",
    "gpt2_large",
    "gpt2_xl",
    "pim_gpt_gpt3_small",
    "pim_gpt_gpt3_medium",
    "pim_gpt_gpt3_large",
    "gpt3_1_3b",
)
"""GPT-2 and GPT-3 models up to 1.5 B parameters."""

PUBLISHED_GPU = (41.0, 137.0)
"""arXiv 2310.09385 (v2): speed-up over a GPU (an NVIDIA T4), smallest and largest of the eight models."""

PUBLISHED_CPU = (631.0, 1074.0)
"""arXiv 2310.09385 (v2): speed-up over a CPU."""

SLOW_DISPATCH = "25 us"
"""Host time of one eager operator at the upper end of published walk-throughs (5 to 25 us)."""

_SHAPE = re.compile(r"GEMV out=(\d+) in=(\d+) batch=(\d+)")


@dataclass(frozen=True, slots=True)
class GemvRow:
    """One GEMV of the reference with the clocks of both simulators."""

    outputs: int
    inputs: int
    batch: int
    measured_clocks: float
    predicted_clocks: float

    @property
    def error(self) -> float:
        """Signed relative error."""
        return self.predicted_clocks / self.measured_clocks - 1.0


@dataclass(frozen=True, slots=True)
class GemvReport:
    """All rows and their score."""

    rows: tuple[GemvRow, ...]
    score: Score

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"score": asdict(self.score), "rows": [asdict(row) | {"error": row.error} for row in self.rows]}

    def markdown(self) -> str:
        """A table a row, and the score."""
        lines = ["| outputs × inputs | vectors | reference | predicted | error |", "|---|---|---|---|---|"]
        for r in self.rows:
            numbers = f"{r.measured_clocks:,.0f} | {r.predicted_clocks:,.0f} | {100 * r.error:+.1f} %"
            lines.append(f"| {r.outputs} × {r.inputs} | {r.batch} | {numbers} |")
        s = self.score
        spread = f"median {100 * s.median:.2f} %, p90 {100 * s.p90:.2f} %, bias {100 * s.bias:+.2f} %"
        worst = max(self.rows, key=lambda r: abs(r.error))
        return "\n".join([*lines, "", f"n {s.n}, {spread}, worst {100 * worst.error:+.2f} %"])


def gemv(folder: Path, device: str = GEMV_DEVICE) -> GemvReport:
    """Clocks of every ``pim_gemv`` row of *folder*.

    Raises:
        DataError: no such table, no such rows, or one without a shape.
    """
    path = folder / REFERENCE
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    machine = load_machine(device)
    rows = []
    with path.open(newline="", encoding="utf-8") as file:
        for line, record in enumerate(csv.DictReader(file), start=2):
            if record.get("trace_kind") != KIND:
                continue
            found = _SHAPE.search(record["note"] or "")
            if found is None:
                raise DataError(f"{path}:{line}:1: no shape in the note of a {KIND} row")
            outputs, inputs, batch = (int(group) for group in found.groups())
            lowered = machine.device.lower(Linear(batch, outputs, inputs, "fp16"))
            clocks = machine.device.cycles(lowered)
            assert clocks is not None
            rows.append(GemvRow(outputs, inputs, batch, float(record["cycles"]), clocks))
    if not rows:
        raise DataError(f"{path}: no rows of kind {KIND}")
    return GemvReport(tuple(rows), Score.of([(i, row.error) for i, row in enumerate(rows)]))


@dataclass(frozen=True, slots=True)
class Speedups:
    """One model: time a token in the memory, and how much longer others take."""

    model: str
    pim_s: float
    gpu_roofline: float
    gpu_graph: float
    gpu_eager: float
    gpu_slow: float
    cpu_roofline: float | None
    cpu_eager: float | None


def _token_s(hardware: str, model: str, engine: str, profile: str, *more: str) -> float:
    chosen = [f"workload.model={model}", f"workload.engine={profile}", *more]
    result = effsim.run(hardware, GPT_WORKLOAD, engine=engine, set=chosen, sensitivity=False)
    return result.phases["decode"]["time_per_token_s"]


def pim_gpt(models: Sequence[str] = MODELS, gpu: str = GPU, cpu: str | None = CPU) -> list[Speedups]:
    """PIM-GPT's comparison: 1024 tokens on the memory (events), on a GPU and on a CPU by their roofline and eagerly.

    ``cpu`` None leaves the CPU out.
    """
    out = []
    for model in models:
        own = _token_s(GPT_DEVICE, model, "events", "cuda-graph")
        on_cpu = [_token_s(cpu, model, *how) / own for how in _READINGS] if cpu is not None else [None, None]
        out.append(
            Speedups(
                model=model,
                pim_s=own,
                gpu_roofline=_token_s(gpu, model, *_READINGS[0]) / own,
                gpu_graph=_token_s(gpu, model, "events", "cuda-graph") / own,
                gpu_eager=_token_s(gpu, model, *_READINGS[1]) / own,
                gpu_slow=_token_s(gpu, model, *_READINGS[1], *_SLOW) / own,
                cpu_roofline=on_cpu[0],
                cpu_eager=on_cpu[1],
            )
        )
    return out


_READINGS = (("roofline", "cuda-graph"), ("events", "eager-pytorch"))
"""Reading and engine profile of both baselines."""

_SLOW = (
    "workload.precision.activations=fp32",
    "workload.attention=unfused",
    f"hardware.launch.dispatch={SLOW_DISPATCH}",
)
"""What a script of default settings does: fp32, unfused attention, a slow host."""


def speedups_markdown(rows: Sequence[Speedups]) -> str:
    """The comparison as a table, with the published range below."""
    columns: tuple[str, ...] = ("model", "PIM-GPT a token", "GPU roofline", "GPU, captured graph", "GPU, eager")
    columns += ("GPU, eager fp32, slow host", "GPU a token implied by the claim", "CPU roofline", "CPU, eager")
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for r in rows:
        gpu = " | ".join(f"{x:.1f} ×" for x in (r.gpu_roofline, r.gpu_graph, r.gpu_eager, r.gpu_slow))
        implied = "–".join(f"{1e3 * r.pim_s * x:.3g}" for x in PUBLISHED_GPU)
        cpu = " | ".join("–" if x is None else f"{x:.0f} ×" for x in (r.cpu_roofline, r.cpu_eager))
        lines.append(f"| {r.model} | {1e3 * r.pim_s:.3f} ms | {gpu} | {implied} ms | {cpu} |")
    published = f"Published: {PUBLISHED_GPU[0]:g}–{PUBLISHED_GPU[1]:g} × over the GPU, "
    return "\n".join([*lines, "", published + f"{PUBLISHED_CPU[0]:g}–{PUBLISHED_CPU[1]:g} × over the CPU."])
