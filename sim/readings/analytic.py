"""The analytic reading: closed-form kernel times plus launches; and the roofline reading, their lower bound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..devices.device import Device, Lowered
from ..graph.graph import Graph, Node
from ..graph.operator import Operator
from ..program.program import Execution, Phase, Program
from .interleave import factors, group_of
from .launch import ahead_s, between_steps_s, node_launch_s
from .pipeline import stage_counts, staged
from .result import OperatorTime, PhaseTime, Reading


def roofline(program: Program, device: Device) -> Reading:
    """Every kernel at its lower bound, nothing else: no schedule on this hardware is faster."""
    return Reading("roofline", tuple(_phase(program, phase, device, bound_only=True) for phase in program.phases))


def analytic(program: Program, device: Device) -> Reading:
    """Closed-form times, launches by mode, host time of the engine."""
    return Reading("analytic", tuple(_phase(program, phase, device, bound_only=False) for phase in program.phases))


class _Row:
    """One operator's sums while they grow."""

    __slots__ = ("bytes_moved", "count", "flops", "kind", "op", "roofline_s", "shares")

    def __init__(self, kind: str, op: Operator | None) -> None:
        self.kind, self.op = kind, op
        self.count = 0
        self.flops = self.bytes_moved = self.roofline_s = 0.0
        self.shares: dict[str, float] = {}


class Rows:
    """Adds up operators of a phase by name, over the executions that stand for its steps.

    *counts*: how often an operator runs in a step where a pipeline's stages run it a part of the times each.
    """

    def __init__(self, counts: Mapping[str, int] | None = None) -> None:
        self._rows: dict[str, _Row] = {}
        self._counts = counts or {}

    def add(
        self,
        name: str,
        node: Node,
        count: int,
        run: Execution,
        lowered: Lowered,
        shares: Iterable[tuple[str, float]],
        roofline_s: float,
    ) -> None:
        """Add *shares* (resource, seconds of the whole execution set) to a row."""
        label = name if run.useful else run.label
        row = self._rows.get(label)
        if row is None:
            row = _Row(node.op.kind, node.op) if run.useful else _Row("idle", None)
            self._rows[label] = row
        row.count = max(row.count, self._counts.get(name, count))
        for key, seconds in shares:
            row.shares[key] = row.shares.get(key, 0.0) + seconds
        if run.useful:
            work = (run.times if run.work is None else run.work) * count * run.copies
            row.flops += lowered.flops * work
            row.bytes_moved += lowered.bytes_moved * work
            row.roofline_s += roofline_s

    def add_host(self, name: str, label: str, seconds: float) -> None:
        """A row that is no operator: host work, exposed dispatch."""
        if seconds > 0.0:
            while name in self._rows:  # an operator has that name
                name += "_"
            row = self._rows[name] = _Row("host", None)
            row.count, row.shares = 1, {label: seconds}

    def rows(self) -> tuple[OperatorTime, ...]:
        """All rows in order of first appearance."""
        return tuple(
            OperatorTime(
                name=name,
                kind=row.kind,
                op=row.op,
                count=row.count,
                flops=row.flops,
                bytes_moved=row.bytes_moved,
                time_s=sum(row.shares.values()),
                roofline_s=row.roofline_s,
                bound=max(row.shares, key=row.shares.__getitem__) if row.shares else "none",
                shares=tuple(row.shares.items()),
            )
            for name, row in self._rows.items()
        )


class Overlap:
    """Collectives that run beside computing, and how much of them shows.

    ``n`` exchanges that become ready evenly over ``C`` seconds of computing take ``S`` seconds together, the last one
    ``l``: they end ``max(l, S − (n − 1)/n·C)`` after the computing does (and, mirrored, weights gathered ahead of a
    block delay the first one). While they run, they take a ``share`` σ of the processors: the computing grows to
    ``C + σ·min(S, C/(1 − σ))``, and what it grows by is counted as theirs.
    """

    def __init__(self, share: float = 0.0) -> None:
        self._share = share
        self._computing: dict[str, float] = {}
        self._entries: list[tuple[str, Node, int, Execution, Lowered, dict[str, float], float]] = []

    def main(self, phase: str, seconds: float) -> None:
        """Computing of *phase* (forward, backward)."""
        self._computing[phase] = self._computing.get(phase, 0.0) + seconds

    def add(
        self,
        name: str,
        node: Node,
        count: int,
        run: Execution,
        lowered: Lowered,
        shares: dict[str, float],
        bound: float,
    ) -> None:
        """An overlapping collective with its full time."""
        self._entries.append((name, node, count, run, lowered, shares, bound))

    def settle(self, rows: Rows) -> None:
        """Add the exposed share of every collective to *rows*."""
        for phase in dict.fromkeys(entry[1].phase for entry in self._entries):
            entries = [entry for entry in self._entries if entry[1].phase == phase]
            n = sum(count * run.times for _, _, count, run, _, _, _ in entries)
            whole = sum(sum(shares.values()) for _, _, _, _, _, shares, _ in entries)
            _, _, count, run, _, shares, _ = entries[-1]
            last = sum(shares.values()) / (count * run.times)
            computing = self._computing.get(phase, 0.0)
            taken = self._share * min(whole, computing / (1.0 - self._share))
            exposed = taken + max(last, whole - (n - 1.0) / n * (computing + taken))
            for name, node, count, run, lowered, shares, bound in entries:
                part = {label: seconds * exposed / whole for label, seconds in shares.items()} if whole else {}
                rows.add(name, node, count, run, lowered, part.items(), bound)


def overlap_bounds(program: Program, phase: Phase, device: Device) -> dict[str, float]:
    """Lower bounds of overlapping collectives by name: what a perfect overlap with computing could not hide."""
    if not any(node.overlap for _, _, node, _ in phase.nodes()):
        return {}
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


class _Queue:
    """Kernels of one execution and the device's time for them, in the order in which the host starts them.

    Blocks count as one: their copies are alike, so host and device keep their distance within them.
    """

    def __init__(self) -> None:
        self._blocks: dict[str, tuple[float, float]] = {}

    def add(self, name: str, kernels: int, device_s: float) -> None:
        """An operator with all its runs in the execution."""
        block = name.partition(".")[0]
        before = self._blocks.get(block, (0.0, 0.0))
        self._blocks[block] = (before[0] + kernels, before[1] + device_s)

    @property
    def kernels(self) -> float:
        """Kernels in all."""
        return sum(kernels for kernels, _ in self._blocks.values())

    def end_s(self, host_s: float) -> float:
        """When the last kernel ends if the host needs *host_s* to start them all, running ahead.

        No block ends before the host has started all before it, and it and what follows have run: the largest
        ``host(before) + device(from there)``, and at least the host's own time.
        """
        each = host_s / max(1.0, self.kernels)
        started, left = 0.0, sum(seconds for _, seconds in self._blocks.values())
        latest = max(left, host_s)
        for kernels, seconds in self._blocks.values():
            latest = max(latest, started * each + left)
            started, left = started + kernels, left - seconds
        return latest

    @property
    def device_s(self) -> float:
        """The device's own time."""
        return sum(seconds for _, seconds in self._blocks.values())


def exposed_s(program: Program, phase: Phase, device: Device, ahead: float, running: float) -> float:
    """Host time between steps that shows: all of it, or what exceeds the *running* seconds of an asynchronous engine.

    *ahead*: seconds in which the same host was starting kernels.
    """
    between = between_steps_s(program, phase, device.launch)
    return max(0.0, ahead + between - running) if program.host.asynchronous else between


def _stage_s(program: Program, phase: Phase, device: Device, graph: Graph, *, bound_only: bool) -> float:
    """Seconds of one pipeline stage on one microbatch, with the launches that show."""
    costs, mode, queue, total = device.launch, program.launch_of(phase), _Queue(), 0.0
    device.prepare(graph)
    for name, node, count in graph.walk():
        lowered = device.lower(node.op, program.fused_pointwise)
        if bound_only:
            total += lowered.roofline_s * count
            continue
        seconds = lowered.analytic_s + node_launch_s(costs, mode, program.host, node.op, lowered.seconds)
        queue.add(name, len(lowered.seconds) * count, seconds * count)
    return total if bound_only else queue.end_s(ahead_s(costs, mode, program.host, queue.kernels))


def _phase(program: Program, phase: Phase, device: Device, *, bound_only: bool) -> PhaseTime:
    counts = stage_counts(phase)
    phase = staged(phase, lambda graph: _stage_s(program, phase, device, graph, bound_only=bound_only))
    rows, hidden, bounds = Rows(counts), Overlap(device.collective_share), overlap_bounds(program, phase, device)
    costs, mode = device.launch, program.launch_of(phase)
    queues: dict[int, _Queue] = {id(run): _Queue() for run in phase.executions}
    turns = {id(run): factors(program, run, device, mode, bound_only=bound_only) for run in phase.executions}
    bound_turns = {id(run): factors(program, run, device, mode, bound_only=True) for run in phase.executions}
    prepared: Graph | None = None
    for run, name, node, count in phase.nodes():
        if bound_only and not run.useful:
            continue  # a perfect schedule has no idle rounds
        if prepared is not run.graph:
            prepared = run.graph
            device.prepare(prepared)
        lowered = device.lower(node.op, program.fused_pointwise)
        group = group_of(node) if run.interleave > 1 else ""
        times = run.times * count * turns[id(run)].get(group, 1.0)
        bound_times = run.times * count * bound_turns[id(run)].get(group, 1.0)
        if times == 0.0:
            rows.add(name, node, count, run, lowered, (), 0.0)  # beside another pipeline stage: work, but no time
            continue
        shares = {label: seconds * times for label, seconds in (lowered.bounds if bound_only else lowered.shares)}
        if not bound_only:
            launch = node_launch_s(costs, mode, program.host, node.op, lowered.seconds) * times
            if launch:
                shares["launch"] = launch
        if node.overlap and bound_only:
            rows.add(name, node, count, run, lowered, (("network", bounds[name]),), bounds[name])
        elif node.overlap:
            hidden.add(name, node, count, run, lowered, shares, bounds[name])
            queues[id(run)].add(name, len(lowered.seconds) * count, 0.0)
        else:
            rows.add(name, node, count, run, lowered, shares.items(), lowered.roofline_s * bound_times)
            seconds = sum(shares.values())
            hidden.main(node.phase, seconds)
            queues[id(run)].add(name, len(lowered.seconds) * count, seconds / run.times)
    hidden.settle(rows)
    if not bound_only:
        late_s, ahead, running = 0.0, 0.0, 0.0
        for run in phase.executions:
            queue = queues[id(run)]
            host_s = ahead_s(costs, mode, program.host, queue.kernels)
            end_s = queue.end_s(host_s)
            late_s += (end_s - queue.device_s) * run.times
            ahead, running = ahead + host_s * run.times, running + end_s * run.times
        rows.add_host("dispatch", "launch", late_s)
        shown = exposed_s(program, phase, device, ahead, running)
        rows.add_host("host", "host", shown)
    operators = rows.rows()
    return PhaseTime(
        name=phase.name,
        time_s=sum(row.time_s for row in operators),
        roofline_s=sum(row.roofline_s for row in operators),
        tokens=phase.tokens,
        steps=phase.steps,
        operators=operators,
    )
