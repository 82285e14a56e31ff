"""Chrome trace events of a run, for Perfetto (https://ui.perfetto.dev) or chrome://tracing.

A process is a device, a thread a stream of it, its links, or one of its processors; counters show the bandwidths that
the kernels reach. Format: "Trace Event Format" of the Chromium project; ``ts`` and ``dur`` are microseconds.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from ..devices.device import Device
from ..devices.kernel import Kernel
from ..errors import DataError
from ..graph.graph import Item, Node
from ..program.program import Program
from ..readings.events import QUEUE_DEPTH, host_ahead_s, kernels_of
from ..readings.launch import device_gap_s
from ..readings.result import Slice
from . import words
from .files import atomic_write_text
from .result import RunResult
from .trace_tiles import PS_PER_US, processor_events

MAX_DEVICES: Final = 8
"""Devices of a symmetric group that are drawn; the others do the same at the same time."""

_PS: Final = 1e12
_HOST, _COMPUTE, _LINKS, _SIDE = 1, 2, 3, 4
_THREADS: Final = {
    _HOST: "host dispatch",
    _COMPUTE: "compute stream",
    _LINKS: "links (main stream waits)",
    _SIDE: "links (overlapped)",
}

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """One bar of the timeline with what it runs. ``first``: the first time that this kernel runs in its phase."""

    bar: Slice
    phase: str
    node: Node
    index: int
    kernel: Kernel
    first: bool

    @property
    def seconds(self) -> float:
        """Length of the bar."""
        return self.bar.duration_ps / _PS


def write_trace(result: RunResult, machine_device: Device, program: Program, path: str | Path) -> None:
    """Write the first step of every phase as Chrome trace events.

    Processors get tracks of their own, for the first copy of each repeated block. Without a timeline (engines
    ``roofline`` and ``analytic``) operators lie end to end with their average time of one step.

    Raises:
        DataError: the file cannot be written, or the timeline belongs to another program.
    """
    document = trace_document(result, machine_device, program)
    atomic_write_text(path, json.dumps(document, separators=(",", ":"), allow_nan=False))


def trace_document(result: RunResult, device: Device, program: Program) -> dict[str, Any]:
    """The trace as plain data."""
    scheduled = bool(result.timeline.slices)
    events: list[Event] = []
    shown = min(result.devices, MAX_DEVICES)
    runs = match(result, device, program) if scheduled else []
    for pid in range(shown):
        events += _names(pid, _process_name(result, pid, shown, scheduled))
        if scheduled:
            events += _streams(pid, runs, device, program)
            events += _counters(pid, runs)
        else:
            events += _end_to_end(pid, result, program)
    events += processor_events(0, runs)
    return {
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": {
            "tool": "effsim",
            "hardware": result.hardware,
            "workload": result.workload,
            "engine": result.engine,
            "time_s": result.time_s,
            "notes": [*result.notes, *result.timeline.notes],
        },
    }


def _process_name(result: RunResult, pid: int, shown: int, scheduled: bool) -> str:
    name = f"device {pid}: {words.plain(result.hardware)}, {words.plain(result.workload)}"
    if not scheduled:
        name += f" ({result.engine}: no schedule; operators end to end, average time of one step)"
    if pid == shown - 1 and result.devices > shown:
        name += f" (devices {shown} to {result.devices - 1} do the same)"
    return name


def _names(pid: int, name: str) -> Iterator[Event]:
    yield {"ph": "M", "pid": pid, "name": "process_name", "args": {"name": name}}
    yield {"ph": "M", "pid": pid, "name": "process_sort_index", "args": {"sort_index": pid}}
    for tid, thread in _THREADS.items():
        yield {"ph": "M", "pid": pid, "tid": tid, "name": "thread_name", "args": {"name": thread}}
        yield {"ph": "M", "pid": pid, "tid": tid, "name": "thread_sort_index", "args": {"sort_index": tid}}


def match(result: RunResult, device: Device, program: Program) -> list[Run]:
    """Every bar of the timeline with the kernel it is a run of, in the order in which the host dispatches them.

    The event reading runs the first execution of each phase and of each repeated block two copies, so that the graph
    says which kernels must be there; bars of one operator follow each other in the order of its kernels.

    Raises:
        DataError: the timeline does not belong to this program.
    """
    slices = list(result.timeline.slices)
    out: list[Run] = []
    for phase in program.phases:
        expected = [
            (name, node, index, kernel, first)
            for name, node, first in _order(phase.shown.graph.items, "", True)
            for index, kernel in enumerate(device.lower(node.op, program.fused_pointwise).kernels)
        ]
        bars: dict[str, deque[Slice]] = {}
        for bar in slices[len(out) : len(out) + len(expected)]:
            bars.setdefault(bar.name, deque()).append(bar)
        for name, node, index, kernel, first in expected:
            if not bars.get(name):
                raise DataError(f"the timeline lacks {name!r} of {phase.name}: it does not belong to this program")
            out.append(Run(bars[name].popleft(), phase.name, node, index, kernel, first))
    if len(out) != len(slices):
        raise DataError(
            f"the timeline has {len(slices)} kernels, the program runs {len(out)}: they do not belong together"
        )
    return out


def _order(items: tuple[Item, ...], prefix: str, first: bool) -> Iterator[tuple[str, Node, bool]]:
    """Nodes in the order in which they are simulated, and whether that is the first copy."""
    for item in items:
        if isinstance(item, Node):
            yield f"{prefix}{item.name}", item, first
            continue
        for copy in range(min(2, item.count)):
            yield from _order(item.body, f"{prefix}{item.name}.", first and copy == 0)


def _streams(pid: int, runs: list[Run], device: Device, program: Program) -> Iterator[Event]:
    """A bar for every kernel on its stream, and what the host did for it."""
    yield from _host(pid, runs, device, program)
    for run in runs:
        kernel, bar = run.kernel, run.bar
        args: dict[str, Any] = {
            "phase": run.phase,
            "kernel": words.plain(kernel.name),
            "bound": kernel.roofline_bound,
            "roofline_us": kernel.roofline_s * 1e6,
        }
        if kernel.classes:
            args |= {"tiles": kernel.tiles, "memory_bytes": kernel.memory_bytes, "l2_bytes": kernel.l2_bytes}
        tid = _SIDE if run.node.overlap else _COMPUTE if kernel.classes else _LINKS
        yield _bar(pid, tid, bar.name, run.node.op.kind, bar.start_ps, bar.duration_ps, args)


def _bar(pid: int, tid: int, name: str, category: str, start: float, length: float, args: dict[str, Any]) -> Event:
    return {
        "ph": "X",
        "pid": pid,
        "tid": tid,
        "name": words.plain(name),
        "cat": category,
        "ts": start / PS_PER_US,
        "dur": length / PS_PER_US,
        "args": args,
    }


def _host(pid: int, runs: list[Run], device: Device, program: Program) -> Iterator[Event]:
    """What gets kernels started, from the launch costs and the bars.

    A host that is modelled (``eager``, and ``stream`` with a dispatch time) starts one kernel after another, ahead of
    the device. ``isolated``: it dispatches when the operator before has ended. Else: the gap in front of each kernel.
    """
    costs, phases = device.launch, {phase.name: phase for phase in program.phases}
    for name, group in groupby(runs, key=lambda run: run.phase):
        phase, mode = list(group), program.launch_of(phases[name])
        shown = phases[name].shown
        each = host_ahead_s(program, shown, device, mode) / max(1.0, kernels_of(program, shown, device))
        dispatched = ended = float(_phase_start(runs, phase))
        for number, run in enumerate(phase):
            start = float(run.bar.start_ps)
            if each:
                blocked = phase[number - QUEUE_DEPTH].bar.start_ps if number >= QUEUE_DEPTH else 0.0
                begin, length = max(dispatched, blocked), each * _PS
            elif mode == "isolated":
                begin = ended if run.index == 0 else dispatched
                length = (costs.alone_s(run.node.op.launched) if run.index == 0 else costs.dispatch_s) * _PS
            elif run.node.overlap:
                continue
            else:
                length = device_gap_s(costs, mode) * _PS
                begin = start - length
            dispatched, ended = begin + length, max(ended, start + run.bar.duration_ps)
            if length > 0.0:
                yield _bar(pid, _HOST, f"launch {run.bar.name}", "launch", begin, length, {"mode": mode})


def _phase_start(runs: list[Run], phase: list[Run]) -> int:
    """When a phase begins: where the last bar of those before it ends."""
    before = (run for run in runs[: runs.index(phase[0])])
    return max((run.bar.start_ps + run.bar.duration_ps for run in before), default=0)


def _counters(pid: int, runs: list[Run]) -> Iterator[Event]:
    """Bytes a second of memory, L2 and links while a kernel runs, zero between."""
    for run in runs:
        if run.seconds <= 0.0:
            continue
        if run.kernel.classes:
            rates = {
                "memory (B/s)": run.kernel.memory_bytes / run.seconds,
                "L2 (B/s)": run.kernel.l2_bytes / run.seconds,
            }
        else:
            sent = getattr(run.node.op, "wire_bytes", getattr(run.node.op, "payload_bytes", 0.0))
            rates = {"links, overlapped (B/s)" if run.node.overlap else "links (B/s)": float(sent) / run.seconds}
        for name, value in rates.items():
            for moment, shown in ((run.bar.start_ps, value), (run.bar.start_ps + run.bar.duration_ps, 0.0)):
                yield _counter(pid, name, moment / PS_PER_US, shown)


def _counter(pid: int, name: str, moment_us: float, value: float) -> Event:
    return {"ph": "C", "pid": pid, "name": name, "ts": moment_us, "args": {"bytes_per_s": value}}


def _end_to_end(pid: int, result: RunResult, program: Program) -> Iterator[Event]:
    """Operators one after another, each as long as all its runs in an average step."""
    steps = {phase.name: phase.steps for phase in program.phases}
    at = 0.0
    devices = words.working_devices(result)
    for row in result.operators:
        length = row.time_s / max(1.0, steps.get(row.phase, 1.0)) * _PS
        tid = _HOST if row.kind == "host" else _LINKS if row.kind == "collective" else _COMPUTE
        args = {"phase": row.phase, "runs in a step": row.count, "bound": row.bound}
        yield _bar(pid, tid, row.name, row.kind, at, length, args)
        if tid == _COMPUTE and row.time_s > 0.0:
            reached = row.bytes_moved / row.time_s / devices
            yield _counter(pid, "memory (B/s)", at / PS_PER_US, reached)
            yield _counter(pid, "memory (B/s)", (at + length) / PS_PER_US, 0.0)
        at += length
