"""The analytic reading: closed-form kernel times plus launches; and the roofline reading, their lower bound."""

from __future__ import annotations

from ..devices.device import Device, Lowered
from ..graph.graph import Node
from ..program.program import Execution, Phase, Program
from .launch import host_s, operator_launch_s
from .result import OperatorTime, PhaseTime, Reading


def roofline(program: Program, device: Device) -> Reading:
    """Every kernel at its lower bound, nothing else: no schedule on this hardware is faster."""
    return Reading("roofline", tuple(_phase(program, phase, device, bound_only=True) for phase in program.phases))


def analytic(program: Program, device: Device) -> Reading:
    """Closed-form times, launches by mode, host time of the engine."""
    return Reading("analytic", tuple(_phase(program, phase, device, bound_only=False) for phase in program.phases))


def host_seconds(program: Program, phase: Phase) -> float:
    """Host and scheduler time of a phase that the engine profile adds."""
    sequences = -(-phase.sequences // program.degrees.data)
    return phase.steps * (program.host_per_step_s + sequences * program.host_per_sequence_s)


class Rows:
    """Adds up operators of a phase by name, over the executions that stand for its steps."""

    def __init__(self) -> None:
        self._rows: dict[str, OperatorTime] = {}

    def add(
        self, name: str, node: Node, count: int, run: Execution, shares: dict[str, float], roofline_s: float
    ) -> None:
        """Add *shares* (seconds by resource, of the whole execution set) to a row."""
        work = (run.times if run.work is None else run.work) * count * run.copies if run.useful else 0.0
        time_s = sum(shares.values())
        label = name if run.useful else run.label
        old = self._rows.get(label)
        merged = dict(old.shares) if old else {}
        for key, seconds in shares.items():
            merged[key] = merged.get(key, 0.0) + seconds
        self._rows[label] = OperatorTime(
            name=label,
            kind=node.op.kind if run.useful else "idle",
            op=node.op if run.useful else None,
            count=max(count, old.count) if old else count,
            flops=(old.flops if old else 0.0) + node.op.flops * work,
            bytes_moved=(old.bytes_moved if old else 0.0) + node.op.bytes_moved * work,
            time_s=(old.time_s if old else 0.0) + time_s,
            roofline_s=(old.roofline_s if old else 0.0) + (roofline_s if run.useful else 0.0),
            bound=max(merged, key=lambda key: merged[key]) if merged else "none",
            shares=tuple(merged.items()),
        )

    def add_host(self, name: str, label: str, seconds: float) -> None:
        """A row that is no operator: host work, exposed dispatch."""
        if seconds > 0.0:
            row = OperatorTime(name, "host", None, 1, 0.0, 0.0, seconds, 0.0, label, ((label, seconds),))
            self._rows[name] = row

    def rows(self) -> tuple[OperatorTime, ...]:
        """All rows in order of first appearance."""
        return tuple(self._rows.values())


class Overlap:
    """Collectives that run beside computing, and how much of them shows.

    ``n`` exchanges that become ready evenly over ``C`` seconds of computing take ``S`` seconds together, the last one
    ``l``: they end ``max(l, S − (n − 1)/n·C)`` after the computing does (and, mirrored, weights gathered ahead of a
    block delay the first one).
    """

    def __init__(self) -> None:
        self._computing: dict[str, float] = {}
        self._entries: list[tuple[str, Node, int, Execution, dict[str, float], float]] = []

    def main(self, phase: str, seconds: float) -> None:
        """Computing of *phase* (forward, backward)."""
        self._computing[phase] = self._computing.get(phase, 0.0) + seconds

    def add(self, name: str, node: Node, count: int, run: Execution, shares: dict[str, float], bound: float) -> None:
        """An overlapping collective with its full time."""
        self._entries.append((name, node, count, run, shares, bound))

    def settle(self, rows: Rows) -> None:
        """Add the exposed share of every collective to *rows*."""
        for phase in dict.fromkeys(entry[1].phase for entry in self._entries):
            entries = [entry for entry in self._entries if entry[1].phase == phase]
            n = sum(count * run.times for _, _, count, run, _, _ in entries)
            whole = sum(sum(shares.values()) for _, _, _, _, shares, _ in entries)
            _, _, count, run, shares, _ = entries[-1]
            last = sum(shares.values()) / (count * run.times)
            exposed = max(last, whole - (n - 1.0) / n * self._computing.get(phase, 0.0))
            for name, node, count, run, shares, bound in entries:
                part = {label: seconds * exposed / whole for label, seconds in shares.items()} if whole else {}
                rows.add(name, node, count, run, part, bound)


def overlap_bounds(program: Program, phase: Phase, device: Device) -> dict[str, float]:
    """Lower bounds of overlapping collectives by name: what a perfect overlap with computing could not hide."""
    computing: dict[str, float] = {}
    sending: dict[str, dict[str, float]] = {}
    for run, name, node, count in phase.nodes():
        seconds = device.lower(node.op, program.fused_pointwise).roofline_s * run.times * count
        if node.overlap:
            named = sending.setdefault(node.phase, {})
            named[name] = named.get(name, 0.0) + seconds
        else:
            computing[node.phase] = computing.get(node.phase, 0.0) + seconds
    out: dict[str, float] = {}
    for part, named in sending.items():
        whole = sum(named.values())
        left = max(0.0, whole - computing.get(part, 0.0))
        out |= {name: seconds / whole * left if whole else 0.0 for name, seconds in named.items()}
    return out


def kernel_shares(lowered: Lowered) -> dict[str, float]:
    """Seconds by resource of one run of an operator: work under what binds it, the rest as latency."""
    out: dict[str, float] = {}
    for time in lowered.times:
        out[time.bound] = out.get(time.bound, 0.0) + time.work_s
        if time.latency_s:
            out["latency"] = out.get("latency", 0.0) + time.latency_s
    return out


def _phase(program: Program, phase: Phase, device: Device, *, bound_only: bool) -> PhaseTime:
    rows, hidden, bounds = Rows(), Overlap(), overlap_bounds(program, phase, device)
    host, gpu = 0.0, 0.0
    for run, name, node, count in phase.nodes():
        if bound_only and not run.useful:
            continue  # a perfect schedule has no idle rounds
        lowered = device.lower(node.op, program.fused_pointwise)
        times = run.times * count
        if bound_only:
            shares: dict[str, float] = {}
            for kernel in lowered.kernels:
                shares[kernel.roofline_bound] = shares.get(kernel.roofline_bound, 0.0) + kernel.roofline_s * times
        else:
            shares = {label: seconds * times for label, seconds in kernel_shares(lowered).items()}
            own = tuple(t.total_s for t in lowered.times)
            launch = operator_launch_s(device.launch, program.launch, len(own), own) * times
            if launch:
                shares["launch"] = launch
            host += host_s(device.launch, program.launch, len(own)) * times
        if run.times == 0.0:
            rows.add(name, node, count, run, {}, 0.0)  # beside another stage of the pipeline: work, but no time
            continue
        if node.overlap:
            if bound_only:
                shares = {"network": bounds[name]}
                rows.add(name, node, count, run, shares, bounds[name])
            else:
                hidden.add(name, node, count, run, shares, bounds[name])
            continue
        rows.add(name, node, count, run, shares, lowered.roofline_s * times)
        hidden.main(node.phase, sum(shares.values()))
        gpu += sum(shares.values())
    hidden.settle(rows)
    if not bound_only:
        rows.add_host("dispatch", "launch", host - gpu)
        rows.add_host("host", "host", host_seconds(program, phase))
    operators = rows.rows()
    return PhaseTime(
        name=phase.name,
        time_s=sum(row.time_s for row in operators),
        roofline_s=sum(row.roofline_s for row in operators),
        tokens=phase.tokens,
        steps=phase.steps,
        operators=operators,
    )
