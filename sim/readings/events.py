"""The event reading: a host, two device streams and the links as SimPy processes; tiles inside kernels simulated.

Time is integer picoseconds. A repeated block runs twice: the first copy shows how it starts, the second how it goes
on; further copies repeat the second. Slices of the timeline come from the copies that ran.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import simpy

from ..devices.device import Device, Lowered
from ..devices.kernel import Kernel
from ..graph.graph import Graph, Item, Node, Repeat
from ..program.program import Execution, Phase, Program
from .analytic import Rows, exposed_s, overlap_bounds
from .interleave import factors, group_of, simulate_interleaved
from .launch import ahead_s, collective_start_s, device_gap_s, node_launch_s
from .pipeline import simulate_pipeline, stage_counts, staged
from .result import PhaseTime, Reading, Slice, Timeline
from .tiles import simulated_time

PS = 1e12
ROUNDING = 1e-9
"""Share of the time below which a remainder is what rounding to whole picoseconds leaves, not waiting."""

QUEUE_DEPTH = 1024
"""Kernels a host may be ahead of the device before it blocks (depth of a CUDA stream's launch queue)."""

_KEPT: dict[Kernel, float] = {}
"""Simulated kernel times by content. Kernels are immutable values and the simulation is deterministic."""

_KEPT_LIMIT = 100_000


def kernel_seconds(kernel: Kernel) -> float:
    """Simulated time of a kernel, remembered by content."""
    found = _KEPT.get(kernel)
    if found is None:
        if len(_KEPT) >= _KEPT_LIMIT:
            _KEPT.clear()
        found = _KEPT[kernel] = simulated_time(kernel)
    return found


def events(program: Program, device: Device) -> Reading:
    """Simulate every execution of every phase."""
    phases, slices, notes = [], [], list[str]()
    offset = 0
    for phase in program.phases:
        timed, timeline = _phase(program, phase, device)
        phases.append(timed)
        slices += [Slice(s.track, s.name, s.start_ps + offset, s.duration_ps, s.detail) for s in timeline.slices]
        notes += timeline.notes
        offset += max((s.start_ps + s.duration_ps for s in timeline.slices), default=0)
    return Reading("events", tuple(phases), Timeline(tuple(slices), notes=tuple(dict.fromkeys(notes))))


@dataclass(slots=True)
class _Sum:
    """What one node cost: occupied time of its stream, launches, times it ran."""

    node: Node
    count: int
    lowered: Lowered
    busy_ps: float = 0.0
    launch_ps: float = 0.0


@dataclass(slots=True)
class _Launch:
    """One kernel on its way from the host to a stream."""

    name: str
    kernel: Kernel
    weight: float
    total: _Sum
    last: bool
    ready: Any = None


@dataclass(slots=True)
class _Run:
    """State of one simulated execution; ``host_s`` is what the host needs to start all its kernels."""

    program: Program
    device: Device
    mode: str
    host_s: float
    env: simpy.Environment = field(default_factory=simpy.Environment)
    sums: dict[str, _Sum] = field(default_factory=dict)
    slices: list[Slice] = field(default_factory=list)
    extra_ps: float = 0.0
    side_free_ps: float = 0.0
    side_extra_ps: float = 0.0
    side_phase: str = ""
    side_sum_ps: float = 0.0
    side_last_ps: float = 0.0
    computing_ps: float = 0.0
    exposed_ps: float = 0.0


def _phase(program: Program, phase: Phase, device: Device) -> tuple[PhaseTime, Timeline]:
    mode, counts = program.launch_of(phase), stage_counts(phase)
    phase = staged(phase, lambda graph: _stage_s(program, device, graph, mode), simulate_pipeline)
    rows, total_s, bound_s, ahead = Rows(counts), 0.0, 0.0, 0.0
    timeline, notes = Timeline(), list[str]()
    bounds = overlap_bounds(program, phase, device)
    for index, run in enumerate(phase.executions):
        if run.interleave > 1:
            device.prepare(run.graph)
            seconds, bound, shown = _interleaved(program, run, device, rows, mode)
            total_s, bound_s = total_s + seconds, bound_s + bound
            notes += [f"{phase.name}: {text}" for text in shown] if index == 0 else []
            continue
        if run.times == 0.0:
            for name, node, count in run.graph.walk():
                rows.add(name, node, count, run, device.lower(node.op, program.fused_pointwise), (), 0.0)
            continue
        device.prepare(run.graph)
        host_s = host_ahead_s(program, run, device, mode)
        state = _Run(program, device, mode, host_s)
        wall_ps = _execute(state, run)
        seconds = wall_ps / PS * run.times
        accounted = 0.0
        for name, total in state.sums.items():
            shares = _shares(total, run.times)
            accounted += sum(shares.values())
            roofline_s = bounds.get(name, total.lowered.roofline_s * total.count * run.times)
            rows.add(name, total.node, total.count, run, total.lowered, shares.items(), roofline_s)
            bound_s += roofline_s if run.useful else 0.0
        waited = seconds - accounted
        if waited > ROUNDING * seconds:
            rows.add_host(f"dispatch{'' if index == 0 else f'_{index}'}", "launch", waited)
        total_s, ahead = total_s + seconds, ahead + host_s * run.times
        if run is phase.shown:
            timeline = Timeline(tuple(state.slices))
            notes += [f"{phase.name}: repeated blocks show their first two copies"] if _folds(run.graph.items) else []
    host = exposed_s(program, phase, device, ahead, total_s)
    rows.add_host("host", "host", host)
    timed = PhaseTime(phase.name, total_s + host, bound_s, phase.tokens, phase.steps, rows.rows())
    return timed, Timeline(timeline.slices, notes=tuple(notes))


def _stage_s(program: Program, device: Device, graph: Graph, mode: str) -> float:
    """Simulated seconds of one pipeline stage on one microbatch."""
    run = Execution(graph, 1.0)
    device.prepare(graph)
    return _execute(_Run(program, device, mode, host_ahead_s(program, run, device, mode)), run) / PS


def kernels_of(program: Program, run: Execution, device: Device) -> float:
    """Kernels of one execution, repeated blocks counted."""
    nodes = run.graph.walk()
    return float(sum(len(device.lower(node.op, program.fused_pointwise).kernels) * count for _, node, count in nodes))


def host_ahead_s(program: Program, run: Execution, device: Device, mode: str) -> float:
    """What the host needs to start the kernels of one execution, running ahead."""
    if mode not in ("stream", "eager"):
        return 0.0
    return ahead_s(device.launch, mode, program.host, kernels_of(program, run, device))


def _interleaved(
    program: Program, run: Execution, device: Device, rows: Rows, mode: str
) -> tuple[float, float, list[str]]:
    """Sub-batches contending for device groups: (seconds, lower bound, who waits for whom)."""
    stream = list(_stream_order(run.graph.items, "", 1.0, 1))
    nodes = {entry[0]: (entry[1], entry[3]) for entry in stream if not isinstance(entry, _Mark)}
    lowered = {name: device.lower(node.op, program.fused_pointwise) for name, (node, _) in nodes.items()}
    durations, launches = {}, {}
    for name, low in lowered.items():
        own = tuple(kernel_seconds(kernel) for kernel in low.kernels)
        launches[name] = node_launch_s(device.launch, mode, program.host, nodes[name][0].op, own)
        durations[name] = round((sum(own) + launches[name]) * PS)
    wall_ps, busy = simulate_interleaved(stream, durations, _Mark, run.interleave)
    seconds = wall_ps / PS * run.times
    turns = factors(program, run, device, mode, bound_only=False)
    bound_turns = factors(program, run, device, mode, bound_only=True)
    closed = sum(durations[name] * count * turns[group_of(node)] for name, (node, count) in nodes.items())
    bound_s = 0.0
    for name, (node, count) in nodes.items():
        share = durations[name] * count * turns[group_of(node)] / closed
        parts = dict(lowered[name].shares)
        parts["launch"] = parts.get("launch", 0.0) + launches[name]
        whole = sum(parts.values())
        split = {label: seconds * share * part / whole for label, part in parts.items() if part} if whole else {}
        roof = lowered[name].roofline_s * count * run.times * bound_turns[group_of(node)]
        rows.add(name, node, count, run, lowered[name], split.items(), roof)
        bound_s += roof
    shown = [
        f"{group or 'first group'} busy {100 * part:.0f} % of the time, waits {100 * (1 - part):.0f} %"
        for group, part in ((group, time / wall_ps) for group, time in busy.items())
    ]
    return seconds, bound_s, [f"{run.interleave} sub-batches take turns", *shown]


def _folds(items: tuple[Item, ...]) -> bool:
    return any(isinstance(item, Repeat) and item.count > 2 for item in items)


def _shares(total: _Sum, times: float) -> dict[str, float]:
    """Seconds by resource: the simulated time in the proportions of the closed form, launches apart."""
    parts = dict(total.lowered.shares)
    whole = sum(parts.values())
    busy = total.busy_ps / PS * times
    out = {label: busy * seconds / whole for label, seconds in parts.items()} if whole else {}
    if total.launch_ps:
        out["launch"] = total.launch_ps / PS * times
    return out


def _execute(state: _Run, run: Execution) -> float:
    """Wall-clock picoseconds of one execution."""
    queue = simpy.Store(state.env, capacity=QUEUE_DEPTH)
    state.env.process(_host(state, run, queue))
    done = state.env.process(_main_stream(state, queue))
    state.env.run(until=done)
    late = _join_side_stream(state, 1.0)
    _expose(state, state.exposed_ps)
    return float(state.env.now) + late + state.extra_ps


def _join_side_stream(state: _Run, weight: float) -> int:
    """Picoseconds that the side stream adds to the main stream; they count *weight* times.

    What is left of its work when the main stream is through, and what the processors that its collectives held while
    they ran would have done meanwhile (see :class:`effsim.readings.analytic.Overlap`).
    """
    late = max(0.0, state.side_free_ps + state.side_extra_ps - float(state.env.now))
    share = state.device.collective_share
    taken = share * min(state.side_sum_ps, state.computing_ps / (1.0 - share)) / weight
    added = round(taken + max(min(late, state.side_last_ps), late - taken))
    state.exposed_ps += added * weight
    state.side_free_ps, state.side_extra_ps, state.side_phase = 0.0, 0.0, ""
    state.side_sum_ps, state.computing_ps = 0.0, 0.0
    return added


def _expose(state: _Run, exposed_ps: float) -> None:
    """Give the time for which the main stream had to wait to the collectives that caused it."""
    side = [total for total in state.sums.values() if total.node.overlap]
    whole = sum(total.busy_ps for total in side)
    for total in side:
        total.busy_ps = exposed_ps * total.busy_ps / whole if whole else 0.0


@dataclass(frozen=True, slots=True)
class _Mark:
    """Begin (``copy`` 0, 1) and end (``copy`` 2) of the copies of a repeated block, as the stream passes them."""

    name: str
    copy: int
    count: int


def _stream_order(items: tuple[Item, ...], prefix: str, weight: float, count: int) -> Iterator[Any]:
    """Nodes in execution order as (name, node, weight of this copy, count in all), with marks around copies."""
    for item in items:
        if isinstance(item, Node):
            yield f"{prefix}{item.name}", item, weight, count
            continue
        inner = f"{prefix}{item.name}."
        if item.count == 1:
            yield from _stream_order(item.body, inner, weight, count)
            continue
        yield _Mark(inner, 0, item.count)
        yield from _stream_order(item.body, inner, weight, count * item.count)
        yield _Mark(inner, 1, item.count)
        yield from _stream_order(item.body, inner, weight * (item.count - 1), count * item.count)
        yield _Mark(inner, 2, item.count)


def _host(state: _Run, run: Execution, queue: simpy.Store) -> Generator[simpy.Event, Any, None]:
    """Dispatches kernels in order; the host's time of the step is spread over them (isolated: waits for each)."""
    launch, mode = state.device.launch, state.mode
    each = round(state.host_s / max(1.0, kernels_of(state.program, run, state.device)) * PS)
    for entry in _stream_order(run.graph.items, "", 1.0, 1):
        if isinstance(entry, _Mark):
            yield queue.put(entry)
            continue
        name, node, weight, count = entry
        total = state.sums.get(name)
        if total is None:
            lowered = state.device.lower(node.op, state.program.fused_pointwise)
            total = state.sums[name] = _Sum(node, count, lowered)
        finished = None
        for index, kernel in enumerate(total.lowered.kernels):
            last = index == len(total.lowered.kernels) - 1
            item = _Launch(name, kernel, weight, total, last)
            if mode == "isolated":
                cost = launch.alone_s(total.lowered.launched) if index == 0 else launch.dispatch_s
                yield state.env.timeout(round(cost * PS))
                finished = item.ready = state.env.event()
            elif each:
                yield state.env.timeout(each)
            yield queue.put(item)
        if finished is not None:
            yield finished
    yield queue.put(None)


def _main_stream(state: _Run, queue: simpy.Store) -> Generator[simpy.Event, Any, None]:
    """Runs kernels one after another; overlapping collectives go to the side stream, which owns the links meanwhile."""
    env, mode = state.env, state.mode
    gap = round(device_gap_s(state.device.launch, mode) * PS) if mode != "isolated" else 0
    begun: dict[str, list[tuple[float, float]]] = {}
    while True:
        before = env.now
        item: _Launch | _Mark | None = yield queue.get()
        if item is None:
            return
        if isinstance(item, _Mark):
            _pass_mark(state, item, begun)
            continue
        if item.total.node.overlap:
            _to_side_stream(state, item)
            continue
        if state.side_phase not in ("", item.total.node.phase):
            # What follows a phase (the update behind the backward pass) needs the results of its collectives.
            yield env.timeout(_join_side_stream(state, item.weight))
            before = env.now
        waited = env.now - before
        start_s = collective_start_s(state.device.launch, mode, state.program.host, item.total.node.op)
        ready = gap + round(start_s * PS)
        yield env.timeout(ready)
        item.total.launch_ps += (waited + ready) * item.weight
        start = int(env.now)
        length = round(kernel_seconds(item.kernel) * PS)
        yield env.timeout(length)
        item.total.busy_ps += length * item.weight
        state.computing_ps += (length + waited + gap) * item.weight
        _record(state, "compute" if item.kernel.classes else "links", item, start, length)
        if item.ready is not None and item.last:
            item.ready.succeed()


def _pass_mark(state: _Run, mark: _Mark, begun: dict[str, list[tuple[float, float]]]) -> None:
    """At the end of the second copy, account for the copies that were not run.

    Each takes as long as the second one did; a side stream that fell behind in it falls behind in each, or catches up.
    """
    now = float(state.env.now)
    behind = max(0.0, state.side_free_ps - now) + state.side_extra_ps
    times = begun.setdefault(mark.name, [])
    times.append((now + state.extra_ps, behind))
    if mark.copy == 2:
        (then, lag_then), (end, lag_end) = times[-2:]
        state.extra_ps += (mark.count - 2) * (end - then)
        drift = lag_end - lag_then  # below zero where it catches up with what lay before the block
        state.side_extra_ps += max((mark.count - 2) * drift, -lag_end)
        times.clear()


def _to_side_stream(state: _Run, item: _Launch) -> None:
    """Collectives that overlap with computing start when the link is free, first come first served."""
    start = max(float(state.env.now), state.side_free_ps)
    length = round(kernel_seconds(item.kernel) * PS)
    state.side_free_ps, state.side_phase = start + length, item.total.node.phase
    item.total.busy_ps += length * item.weight
    state.side_sum_ps += length * item.weight
    state.side_last_ps = length
    _record(state, "links", item, int(start), length)


def _record(state: _Run, track: str, item: _Launch, start: int, length: int) -> None:
    detail = (("kernel", item.kernel.name), ("bound", item.kernel.roofline_bound))
    state.slices.append(Slice(track, item.name, start, length, detail))
