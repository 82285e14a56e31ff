"""The kernel: what a device really runs, in a form that every reading can price.

A kernel is a number of tiles (thread blocks, array folds, bank rows) in a few classes of identical ones. Tiles run on
``units`` processors that hold ``slots`` tiles each. A processor works on one of its tiles at a time; the others wait
with their first operands loaded, which is how a GPU hides latency. All processors share the L2 and the memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TileClass:
    """Identical tiles.

    Attributes:
        count: number of tiles.
        busy_s: time one tile occupies its processor when data is always there.
        serial_s: latency before (and after) the work that only other resident tiles can cover.
        l2_bytes: bytes one tile moves between L2 and its processor.
        memory_bytes: share of one tile in the traffic between memory and L2.
        flow_bytes_per_s: most bytes a second one tile can keep moving: bytes in flight / latency.
    """

    count: int
    busy_s: float
    serial_s: float
    l2_bytes: float
    memory_bytes: float
    flow_bytes_per_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Kernel:
    """One launch.

    Attributes:
        name: what it is, with the chosen tile (for explanations).
        classes: tiles; empty for a pure transfer.
        units: processors.
        slots: tiles resident on one processor.
        l2_bytes_per_s: bandwidth of the shared cache.
        memory_bytes_per_s: bandwidth of memory that a long stream reaches.
        terms: (resource, seconds) lower bounds at datasheet peaks with compulsory traffic; their maximum is the
            roofline of this kernel.
        binding: label of what ``busy_s`` is made of (matrix, vector, special, l1).
        fixed_s: time that is there whatever the tiles do (steps of a collective, a host copy).
        fixed_label: which resource ``fixed_s`` belongs to.
        setup_s: start of the kernel before its first tile loads anything: instruction fetch, descriptors, barriers.
        detail: (name, value) pairs for explanations.
        queued: ``fixed_s`` as messages that queue at shared links take it, for the event reading; None: nothing is
            shared.
    """

    name: str
    classes: tuple[TileClass, ...]
    units: int
    slots: int
    l2_bytes_per_s: float
    memory_bytes_per_s: float
    terms: tuple[tuple[str, float], ...]
    binding: str = "matrix"
    fixed_s: float = 0.0
    fixed_label: str = "network"
    setup_s: float = 0.0
    detail: tuple[tuple[str, float | str], ...] = ()
    queued: Callable[[], float] | None = None

    @property
    def roofline_s(self) -> float:
        """Largest lower bound."""
        return self.roofline[1]

    @property
    def roofline_bound(self) -> str:
        """Resource of the largest lower bound."""
        return self.roofline[0]

    @property
    def roofline(self) -> tuple[str, float]:
        """Resource and seconds of the largest lower bound, the first of equals; ("none", 0) without any."""
        found, most = "none", -1.0
        for name, seconds in self.terms:
            if seconds > most:
                found, most = name, seconds
        return found, max(0.0, most)

    @property
    def tiles(self) -> int:
        """Tiles of all classes."""
        if len(self.classes) == 1:  # nearly always, and asked for often
            return self.classes[0].count
        return sum(c.count for c in self.classes)

    @property
    def memory_bytes(self) -> float:
        """Bytes between memory and L2, re-reads included."""
        if len(self.classes) == 1:  # nearly always, and asked for often
            c = self.classes[0]
            return c.count * c.memory_bytes
        return sum(c.count * c.memory_bytes for c in self.classes)

    @property
    def l2_bytes(self) -> float:
        """Bytes between L2 and the processors."""
        if len(self.classes) == 1:  # nearly always, and asked for often
            c = self.classes[0]
            return c.count * c.l2_bytes
        return sum(c.count * c.l2_bytes for c in self.classes)


@dataclass(frozen=True, slots=True)
class KernelTime:
    """Closed-form time of one kernel without its launch, and which part is what.

    ``work_s`` belongs to ``bound``; ``latency_s`` is exposed latency and idle tails.
    """

    total_s: float
    work_s: float
    latency_s: float
    bound: str


def kernel_time(kernel: Kernel) -> KernelTime:
    """Closed-form time of a kernel.

    For one class of ``N`` tiles on ``U`` processors: ``full = ⌊N/U⌋`` rounds in which all processors work and a last
    round of ``rest`` tiles. A round of ``a`` active processors takes

        ``b(a) = max(busy, memory·a / BW_memory, l2·a / BW_L2, bytes / (resident · flow))``.

    With one slot every round starts with its latency. With ``r`` slots the latency is covered as long as the other
    ``r − 1`` tiles have work; otherwise batches of ``r`` follow each other a latency apart:
    ``T = max(serial + W, (B − 1)·(serial + b) + serial + (n − (B − 1)·r)·b)`` with ``n`` rounds, ``B = ⌈n/r⌉`` batches
    and ``W = full·b(U) + b(rest)``.
    Several classes run one after another through the same processors, longest first: totals of each resource, plus
    half of the smallest tile for the ragged end.

    Valid for tiles that do not synchronise with each other. Seconds throughout.

    >>> k = Kernel("k", (TileClass(4, 1.0, 0.5, 0.0, 0.0),), 2, 1, 1.0, 1.0, ())
    >>> kernel_time(k).total_s  # two rounds of 0.5 + 1
    3.0
    """
    if not kernel.classes:
        return KernelTime(kernel.fixed_s, kernel.fixed_s, 0.0, kernel.fixed_label)
    timed = _one_class(kernel, kernel.classes[0]) if len(kernel.classes) == 1 else _many_classes(kernel)
    if kernel.fixed_s > timed.total_s:
        return KernelTime(kernel.fixed_s, kernel.fixed_s, 0.0, kernel.fixed_label)
    if kernel.setup_s:
        latency = timed.latency_s + kernel.setup_s
        bound = "latency" if latency > timed.work_s else timed.bound
        return KernelTime(timed.total_s + kernel.setup_s, timed.work_s, latency, bound)
    return timed


def _round(kernel: Kernel, c: TileClass, active: int, resident: int) -> tuple[float, str]:
    """Time of a round in which *active* processors each do one tile, and what binds it."""
    time, bound = c.busy_s, kernel.binding
    memory = c.memory_bytes * active / kernel.memory_bytes_per_s
    if memory > time:
        time, bound = memory, "memory"
    l2 = c.l2_bytes * active / kernel.l2_bytes_per_s
    if l2 > time:
        time, bound = l2, "l2"
    moved = c.l2_bytes if c.l2_bytes > c.memory_bytes else c.memory_bytes
    flow = moved / (c.flow_bytes_per_s * resident)
    return (flow, "latency") if flow > time else (time, bound)


def _one_class(kernel: Kernel, c: TileClass) -> KernelTime:
    units, slots = kernel.units, kernel.slots
    full, rest = divmod(c.count, units)
    rounds = full + (1 if rest else 0)
    resident = min(slots, rounds)
    whole, bound = _round(kernel, c, units, resident) if full else (0.0, "")
    last, last_bound = _round(kernel, c, rest, 1 if full else resident) if rest else (0.0, "")
    work = full * whole + last
    if slots == 1:
        total = rounds * c.serial_s + work
    else:
        batches, step = -(-rounds // slots), max(whole, last)
        ends = (batches - 1) * (c.serial_s + step) + c.serial_s + (rounds - (batches - 1) * slots) * step
        # With one batch the rounds of different length make `ends` an overestimate; the work itself is exact.
        total = c.serial_s + work if batches == 1 else max(c.serial_s + work, ends)
    label = bound if full * whole >= last else last_bound
    if label == "latency" or total - work > work:
        return KernelTime(total, 0.0, total, "latency")
    return KernelTime(total, work, total - work, label)


def _many_classes(kernel: Kernel) -> KernelTime:
    units, tiles = kernel.units, kernel.tiles
    resident = max(1, min(kernel.slots, -(-tiles // units)))
    active = min(units, tiles)
    busy = sum(c.count * c.busy_s for c in kernel.classes) / active
    flow = sum(c.count * max(c.l2_bytes, c.memory_bytes) / c.flow_bytes_per_s for c in kernel.classes)
    work, bound = max(
        (busy, kernel.binding),
        (kernel.memory_bytes / kernel.memory_bytes_per_s, "memory"),
        (kernel.l2_bytes / kernel.l2_bytes_per_s, "l2"),
        (flow / (active * resident), "latency"),
    )
    serial = max(c.serial_s for c in kernel.classes)
    singles = [_round(kernel, c, active, resident)[0] for c in kernel.classes]
    longest, shortest = max(singles), min(singles)
    rounds = -(-tiles // units)
    total = max(serial + longest, serial + work + (0.5 * shortest if rounds > 1 else 0.0))
    if kernel.slots == 1:
        total += (rounds - 1) * serial
    work = min(work, total)
    return KernelTime(total, work, total - work, bound)
