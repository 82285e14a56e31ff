"""The arithmetic of the page ``how_a_time_is_computed``: every number from the YAML files up, one line a step.

Each line is a formula of named numbers. :class:`Sheet` evaluates it, writes it down with the numbers put in, and keeps
the result under its own name for the lines below. :func:`by_code` has the same quantities as effsim computes them.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from effsim import load_machine, load_workload
from effsim._api import plan_on
from effsim.devices.device import Lowered
from effsim.graph.operator import Role
from effsim.memory.achieved import of_memory
from effsim.program.program import Program
from effsim.readings.analytic import analytic
from effsim.readings.events import events, kernel_seconds
from effsim.readings.result import OperatorTime, PhaseTime
from effsim.spec.architecture import Attention, Mlp
from effsim.spec.hardware import GpuSpec

HARDWARE, WORKLOAD, OPERATOR = "gpu_a100", "llama70b_decode", "layers.down_proj"
DIGITS = 6
"""Significant digits on the page: enough to repeat each line from the numbers it shows."""

_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_CALLS: dict[str, Callable[..., float]] = {"max": max, "min": min, "ceil": math.ceil, "floor": math.floor}


def calculate(formula: str, names: Mapping[str, float]) -> float:
    """Value of a formula of numbers, names, + − * /, and max, min, ceil, floor.

    >>> calculate("max(a, 2) * 3", {"a": 5.0})
    15.0
    """
    return _value(ast.parse(formula, mode="eval").body, names)


def _value(node: ast.expr, names: Mapping[str, float]) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.Name):
        return names[node.id]
    if isinstance(node, ast.BinOp):
        return _BINARY[type(node.op)](_value(node.left, names), _value(node.right, names))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _CALLS[node.func.id](*(_value(argument, names) for argument in node.args))
    raise ValueError(f"no arithmetic: {ast.dump(node)}")


def shown(value: float) -> str:
    """A number as the page writes it: whole numbers in full, others to six digits."""
    if float(value).is_integer() and abs(value) < 1e12:
        return str(int(value))
    return f"{value:.{DIGITS}g}"


def in_words(value: float, unit: str) -> str:
    """A result for people: seconds in µs or ms, others as they are."""
    if unit != "s":
        return ""
    for size, name in ((1e-6, "ns"), (1e-3, "µs"), (1.0, "ms")):
        if value < size:
            return f"{value / size * 1e3:.4g} {name}"
    return f"{value:.4g} s"


def difference(one: float, other: float) -> str:
    """How far two times are apart, in words that do not depend on rounding errors."""
    percent = abs(one / other - 1.0) * 100.0
    return "below 0.001 %" if percent < 1e-3 else f"{percent:.2g} %"


@dataclass(slots=True)
class Sheet:
    """Named numbers, and the lines in which they were computed."""

    names: dict[str, float] = field(default_factory=dict)
    tables: dict[str, list[str]] = field(default_factory=dict)

    def given(self, table: str, name: str, value: float, unit: str, where: str) -> None:
        """A number that is read, not computed."""
        self.names[name] = float(value)
        file, _, path = where.partition(": ")
        self._line(table, name, f"{file}: `{path}`" if path else where, shown(self.names[name]), unit)

    def line(self, table: str, name: str, formula: str, unit: str) -> None:
        """A number that follows from others."""
        value = self.names[name] = float(calculate(formula, self.names))
        numbers = _Numbers(self.names).visit(ast.parse(formula, mode="eval"))
        text = ast.unparse(numbers).replace("'", "")
        words = in_words(value, unit)
        self._line(table, name, f"`{formula}` = `{text}`", shown(value), f"{unit} ({words})" if words else unit)

    def _line(self, table: str, name: str, how: str, value: str, unit: str) -> None:
        rows = self.tables.setdefault(table, ["| name | from | value | unit |", "|---|---|---|---|"])
        rows.append(f"| {name} | {how} | {value} | {unit} |")


class _Numbers(ast.NodeTransformer):
    """Puts the shown numbers in the places of names."""

    def __init__(self, names: Mapping[str, float]) -> None:
        self._names = names

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(shown(self._names[node.id])) if node.id in self._names else node


@dataclass(frozen=True, slots=True)
class Example:
    """What the example runs on: one decode step, its operator and how the device lowers it."""

    spec: GpuSpec
    program: Program
    lowered: Lowered
    step: PhaseTime
    step_events_s: float
    kv_len: int
    hidden: int
    intermediate: int
    attention: Attention

    @property
    def rows(self) -> tuple[OperatorTime, ...]:
        """Operators of the step."""
        return self.step.operators


def load() -> Example:
    """The middle step of the bundled workload, alone."""
    from effsim.program.source import load_model

    machine = load_machine(HARDWARE)
    whole, _ = load_workload(WORKLOAD)
    kv_len = int(whole.prompt) + int(whole.generate) // 2
    spec, base = load_workload(WORKLOAD, ["workload.generate=1", f"workload.prompt={kv_len - 1}"])
    program = plan_on(machine, spec, base)
    found = {name: node for _, name, node, _ in program.phases[0].nodes()}
    assert isinstance(machine.spec, GpuSpec)
    assert spec.model is not None
    model = load_model(spec.model, base)
    layer = model.layers[0]
    assert isinstance(layer.ffn, Mlp)
    assert isinstance(layer.mixer, Attention)
    return Example(
        spec=machine.spec,
        program=program,
        lowered=machine.device.lower(found[OPERATOR].op),
        step=analytic(program, machine.device).phases[0],
        step_events_s=events(program, machine.device).time_s,
        kv_len=kv_len,
        hidden=model.hidden,
        intermediate=layer.ffn.intermediate,
        attention=layer.mixer,
    )


def sheet(x: Example) -> Sheet:
    """All lines of the page.

    Raises:
        ValueError: the files have changed so much that the page's words are no longer true.
    """
    _check_story(x)
    s = Sheet()
    _work(s, x)
    _bounds(s, x)
    _tile(s, x)
    _time(s, x)
    _all_reduce(s, x)
    return s


def _check_story(x: Example) -> None:
    """The words of the page hold for one round of tiles, bound by memory, and a one-shot all-reduce."""
    (kernel,), (time,) = x.lowered.kernels, x.lowered.times
    detail = dict(kernel.detail)
    if time.bound != "memory" or kernel.tiles > kernel.units or detail["split_k"] != 1:
        raise ValueError(f"rewrite the page: {kernel.name} has {kernel.tiles} tiles and is bound by {time.bound}")
    if x.program.degrees.devices != x.program.degrees.tensor or x.program.launch != "graph":
        raise ValueError("rewrite the page: it tells of tensor parallelism and graph launches")


def _work(s: Sheet, x: Example) -> None:
    t = "work"
    s.given(t, "m", float(x.program.phases[0].sequences), "rows", "workload: batch")
    s.given(t, "n", float(x.hidden), "columns", "architecture: hidden")
    s.given(t, "inner", float(x.intermediate), "", "architecture: layers[].ffn.intermediate")
    s.given(t, "devices", float(x.program.devices), "", "the smallest number that fits")
    s.line(t, "k", "inner / devices", "")
    s.given(t, "word", 2.0, "B", "fp16")
    s.line(t, "flops", "2 * m * n * k", "FLOP")
    s.line(t, "weights", "n * k * word", "B")
    s.line(t, "inputs", "m * k * word", "B")
    s.line(t, "outputs", "m * n * word", "B")


def _bounds(s: Sheet, x: Example) -> None:
    t, spec = "bounds", x.spec
    s.given(t, "sms", float(spec.sm.count), "", "hardware: sm.count")
    s.given(t, "boost", float(spec.clock.boost), "Hz", "hardware: clock.boost")
    s.given(t, "rate", float(spec.matrix["fp16"]), "FLOP/cycle", "hardware: matrix.fp16")
    s.given(t, "bandwidth", float(spec.memory.bandwidth), "B/s", "hardware: memory.bandwidth")
    s.given(t, "l2_bandwidth", float(spec.l2.bandwidth), "B/s", "hardware: l2.bandwidth")
    s.line(t, "matrix_bound", "flops / (rate * sms * boost)", "s")
    s.line(t, "memory_bound", "weights / bandwidth", "s")
    s.line(t, "l2_bound", "(weights + inputs + outputs) / l2_bandwidth", "s")
    s.line(t, "roofline", "max(matrix_bound, memory_bound, l2_bound)", "s")


def _tile(s: Sheet, x: Example) -> None:
    t, spec = "tile", x.spec
    kernel = x.lowered.kernels[0]
    name = dict(kernel.detail)["tile"]
    tile = next(c for c in spec.kernels.gemm.tiles if f"{c.m}x{c.n}x{c.k}" == name)
    for short, value in (("bm", tile.m), ("bn", tile.n), ("bk", tile.k), ("stages", tile.stages)):
        s.given(t, short, float(value), "", "hardware: kernels.gemm.tiles")
    s.given(t, "warps_m", float(tile.warps_m), "", "hardware: kernels.gemm.tiles")
    s.given(t, "warps_n", float(tile.warps_n), "", "hardware: kernels.gemm.tiles")
    s.given(t, "clock", float(spec.clock.sustained or spec.clock.boost), "Hz", "hardware: clock.sustained")
    s.given(t, "l1", float(spec.sm.l1.bandwidth), "B/cycle", "hardware: sm.l1.bandwidth")
    by_vector = s.names["m"] == 1 and spec.kernels.gemm.vector_kernel
    reason = "none: hardware: kernels.gemm.vector_kernel, one row; else " if by_vector else ""
    issue, sync = float(spec.kernels.gemm.issue_latency), float(spec.kernels.gemm.step_sync or 0.0)
    s.given(t, "issue", issue, "cycle", "hardware: kernels.gemm.issue_latency")
    s.given(t, "step_issue", 0.0 if by_vector else issue, "cycle", f"{reason}issue")
    s.given(t, "sync", 0.0 if by_vector else sync, "cycle", f"{reason}hardware: kernels.gemm.step_sync")
    s.given(t, "shared", float(spec.sm.shared_memory), "B", "hardware: sm.shared_memory")
    s.given(t, "mem_latency", float(spec.memory.latency), "s", "hardware: memory.latency")
    s.line(t, "tiles", "ceil(m / bm) * ceil(n / bn)", "")
    s.line(t, "rounds", "ceil(tiles / sms)", "")
    s.line(t, "steps", "ceil(k / bk)", "")
    s.line(t, "stage_bytes", "bk * (bm + bn) * word", "B")
    s.line(t, "resident_by_memory", "floor(shared / (stages * stage_bytes))", "tiles")
    s.line(t, "tile_matrix", "2 * bm * bn * steps * bk / (rate * clock)", "s")
    s.line(
        t,
        "tile_shared",
        "(steps * bk * (bm * warps_n + bn * warps_m) * word + steps * stage_bytes) / (l1 * clock)",
        "s",
    )
    s.line(t, "tile_issue", "steps * step_issue / clock", "s")
    s.line(t, "tile_bytes", "k * (min(m, bm) + bn) * word + min(m, bm) * bn * word", "B")
    s.line(t, "flow", "(stages - 1) * bk * (min(m, bm) + bn) * word / mem_latency", "B/s")


def _time(s: Sheet, x: Example) -> None:
    t, spec = "time", x.spec
    fetch = float(spec.kernels.gemm.fetch or 0.0)
    run = max((s.names["stages"] - 1.0) * s.names["bk"] * s.names["word"], fetch)
    share = of_memory(spec.memory.dram, spec.memory.stream_fraction).run(run)
    s.given(
        t,
        "segment",
        run,
        "B",
        "bytes of a row on their way: (stages - 1) * bk * word, at least hardware: kernels.gemm.fetch",
    )
    s.given(t, "fraction", share, "", "the DRAM model for hardware: memory.dram, reading pieces of that size")
    s.given(t, "l2_latency", float(spec.l2.latency), "s", "hardware: l2.latency")
    s.given(t, "fills", float(spec.kernels.gemm.l2_fills or 0.0), "", "hardware: kernels.gemm.l2_fills")
    s.given(t, "start", float(spec.kernels.gemm.start or 0.0), "cycle", "hardware: kernels.gemm.start")
    s.given(t, "write", of_memory(spec.memory.dram, spec.memory.stream_fraction).write, "", "the DRAM model, writing")
    s.given(t, "cadence", float(spec.launch.graph), "s", "hardware: launch.graph")
    s.line(
        t, "l2_reached", "l2_bandwidth * tiles * tile_bytes / (tiles * tile_bytes + fills * (weights + outputs))", "B/s"
    )
    s.line(t, "tile_outputs", "min(m, bm) * bn * word", "B")
    s.line(
        t,
        "store",
        "max(tile_outputs / (l1 * clock), tiles * tile_outputs / l2_bandwidth, outputs / (bandwidth * write))",
        "s",
    )
    s.line(t, "by_processor", "max(max(tile_matrix, tile_shared) + steps * sync / clock, tile_issue) + store", "s")
    s.line(t, "by_memory", "weights / (bandwidth * fraction) + outputs / (bandwidth * write)", "s")
    s.line(t, "by_l2", "tiles * tile_bytes / l2_reached", "s")
    s.line(t, "by_flow", "tile_bytes / flow", "s")
    s.line(t, "work", "rounds * max(by_processor, by_memory, by_l2, by_flow)", "s")
    s.line(t, "ends", "mem_latency + issue / clock + l2_latency", "s")
    s.line(t, "kernel", "work + ends + start / clock", "s")
    s.line(t, "launch", "cadence - mem_latency", "s")
    s.line(t, "once", "kernel + launch", "s")
    s.line(t, "of_roofline", "roofline / once", "")


def _all_reduce(s: Sheet, x: Example) -> None:
    t, spec = "all_reduce", x.spec
    link, habits = max(spec.links.values(), key=lambda link: float(link.bandwidth)), spec.kernels.collective
    s.given(t, "hop", float(link.latency), "s", f"hardware: links.{link.kind}.latency")
    protocols = habits.protocols
    assert protocols is not None
    where = "hardware: kernels.collective.protocols"
    s.given(t, "start", float(protocols.direct_setup), "s", f"{where}.direct_setup")
    s.given(t, "link", float(link.bandwidth), "B/s", f"hardware: links.{link.kind}.bandwidth")
    s.given(t, "efficiency", float(protocols.direct_efficiency), "", f"{where}.direct_efficiency")
    s.line(t, "alpha", "1 * hop", "s")
    s.line(t, "beta", "(devices - 1) * outputs / (link * efficiency)", "s")
    s.line(t, "exchange", "start + alpha + beta", "s")
    s.line(t, "exchange_once", "exchange + launch", "s")


def by_code(x: Example) -> dict[str, float]:
    """The quantities of the sheet that effsim computes itself, under the same names."""
    kernel, time = x.lowered.kernels[0], x.lowered.times[0]
    tile, detail, terms = kernel.classes[0], dict(kernel.detail), dict(kernel.terms)
    rows = {row.name: row for row in x.rows}
    op = rows[OPERATOR].op
    exchange = rows[f"{OPERATOR}_all_reduce"]
    assert op is not None
    numbers: dict[str, Any] = {
        "flops": op.flops,
        "weights": op.bytes_by_role()[Role.WEIGHT],
        "matrix_bound": terms["matrix"],
        "memory_bound": terms["memory"],
        "l2_bound": terms["l2"],
        "roofline": kernel.roofline_s,
        "tiles": kernel.tiles,
        "steps": detail["k_steps"],
        "tile_matrix": detail["tile_matrix_s"],
        "tile_shared": detail["tile_shared_memory_s"],
        "tile_bytes": tile.l2_bytes,
        "flow": tile.flow_bytes_per_s,
        "by_processor": tile.busy_s,
        "by_memory": kernel.memory_bytes / kernel.memory_bytes_per_s,
        "by_l2": kernel.l2_bytes / kernel.l2_bytes_per_s,
        "work": time.work_s,
        "ends": tile.serial_s,
        "kernel": time.total_s,
        "once": rows[OPERATOR].time_s / rows[OPERATOR].count,
        "exchange_once": exchange.time_s / exchange.count,
    }
    return {name: float(value) for name, value in numbers.items()}


def step_table(x: Example) -> str:
    """All operators of the step, and the sum."""
    lines = ["| operator | runs | one run, µs | all runs, ms | bound by |", "|---|---|---|---|---|"]
    for row in sorted(x.rows, key=lambda row: -row.time_s):
        once = row.time_s / row.count * 1e6
        lines.append(f"| `{row.name}` | {row.count} | {once:.4g} | {row.time_s * 1e3:.4f} | {row.bound} |")
    lines.append(f"| **step** | | | **{x.step.time_s * 1e3:.4f}** | |")
    return "\n".join(lines)


def values(x: Example) -> dict[str, str]:
    """Everything the template of the page asks for."""
    s = sheet(x)
    kernel_s = kernel_seconds(x.lowered.kernels[0])
    n = s.names
    out = {f"table {name}": "\n".join(rows) for name, rows in s.tables.items()}
    out |= {name: shown(value) for name, value in n.items()}
    out |= {f"{name} words": in_words(value, "s") for name, value in n.items()}
    out |= {
        "tile name": str(dict(x.lowered.kernels[0].detail)["tile"]),
        "resident": str(x.lowered.kernels[0].slots),
        "kv_len": str(x.kv_len),
        "prompt": str(x.kv_len - 1),
        "table step": step_table(x),
        "step words": in_words(x.step.time_s, "s"),
        "events words": in_words(x.step_events_s, "s"),
        "events kernel words": in_words(kernel_s, "s"),
        "events kernel difference": difference(kernel_s, n["kernel"]),
        "events difference": difference(x.step_events_s, x.step.time_s),
        "of roofline words": f"{n['of_roofline'] * 100:.3g} %",
        "segment words": f"{n['segment']:.0f} bytes",
        "fraction words": f"{n['fraction'] * 100:.3g} %",
    }
    return out
