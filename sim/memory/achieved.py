"""What a device gets of its memory's bandwidth, by access pattern, out of the controller model.

An accelerator's requests do not come in address order: thousands of threads are on their way at a time. A *stream* is
therefore modelled as contiguous pieces of :data:`CHUNK_BYTES` (what one thread block asks for at a time) that start in
a shuffled order within :data:`WINDOW_BYTES` per channel (what all blocks together have in flight). A *run* is a piece
of some size at random: a tile's row segment, a page of a cache, an embedding row.

Simulating a part takes a second or two of CPU, so results are kept: see :mod:`~effsim.memory.shares_cache`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from ..spec.dram import DramSpec, Timing
from ..spec.memory import MemoryPart
from .preset import Preset, load_preset

CHUNK_BYTES: Final = 4096
"""Assumed: 256 threads of 16 bytes, the common block of a vectorised kernel."""
WINDOW_BYTES: Final = 65536
"""Per channel. Assumed: resident threads × 16 B a channel is 54 KiB on H100, 82 on V100, 88 on A100, 145 on L40."""
RUNS: Final = (32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Sizes of runs that are simulated, bytes."""
LONG_RUN: Final = 65536
"""Runs of this size are as good as a stream; shares of sizes between are interpolated over log2(size)."""
THIRD: Final = 1.0 / 3.0
CLOCKED: Final = frozenset({"burst", "ccd_s", "ccd_l", "ccd_l_write", "ccd_stack"})
"""Delays that the standards count in clocks of the bus; all others are times."""


@dataclass(frozen=True, slots=True)
class Achieved:
    """Shares of the peak bandwidth, 0 to 1. ``mixed`` is two reads to a write; ``runs`` belong to :data:`RUNS`.

    ``access_bytes`` is what memory moves at least; 0 where nothing is known of it.
    """

    read: float
    write: float
    mixed: float
    runs: tuple[float, ...]
    access_bytes: int = 0

    def run(self, size_bytes: float) -> float:
        """Share for reads of contiguous *size_bytes* at unrelated places.

        >>> Achieved(1.0, 1.0, 0.9, (0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.8, 0.9)).run(64)
        0.4
        """
        if size_bytes < self.access_bytes:  # an access moves more than was asked for
            return self.run(self.access_bytes) * size_bytes / self.access_bytes
        if size_bytes <= RUNS[0]:
            return self.runs[0]
        last = len(RUNS) - 1
        position = math.log2(size_bytes / RUNS[0])
        if position >= last:
            beyond = min(1.0, (position - last) / math.log2(LONG_RUN / RUNS[last]))
            return self.runs[last] + beyond * (self.read - self.runs[last])
        low = int(position)
        return self.runs[low] + (position - low) * (self.runs[low + 1] - self.runs[low])

    def of(self, write_share: float) -> float:
        """Share for streams of which *write_share* of the bytes are written.

        Time a byte is interpolated between reading, mixed (a third to a half written) and writing.
        """
        if write_share <= THIRD:
            x = write_share / THIRD
            return 1.0 / ((1.0 - x) / self.read + x / self.mixed)
        x = max(0.0, 2.0 * write_share - 1.0)
        return 1.0 / ((1.0 - x) / self.mixed + x / max(self.write, self.mixed))

    def sweep(self, write_share: float, run_bytes: float = math.inf) -> float:
        """Share for one pass over data: reading and writing mixed; what is read may lie in pieces of *run_bytes*."""
        streamed = self.of(write_share)
        if math.isinf(run_bytes):
            return streamed
        return 1.0 / ((1.0 - write_share) / min(self.run(run_bytes), streamed) + write_share / streamed)

    def anchored(self, read: float) -> Achieved:
        """The same pattern shares scaled so that a read stream gets *read*, a measured share."""
        f = read / self.read
        return Achieved(
            read,
            min(1.0, self.write * f),
            min(1.0, self.mixed * f),
            tuple(min(read, r * f) for r in self.runs),
            self.access_bytes,
        )


IDEAL: Final = Achieved(1.0, 1.0, 1.0, (1.0,) * len(RUNS))
"""A memory that loses nothing."""


def flat(share: float) -> Achieved:
    """The same share for every pattern: for files that give a measured stream and no DRAM part."""
    return Achieved(share, share, share, (share,) * len(RUNS))


def at_clock(spec: DramSpec, clock_s: float) -> DramSpec:
    """The part at another data rate: delays keep their time, rounded up to whole clocks of *clock_s*."""
    ratio = float(spec.clock) / clock_s
    changed: dict[str, int] = {}
    for name in Timing.model_fields:
        value = getattr(spec.timing, name)
        if value is not None and name not in CLOCKED:
            changed[name] = math.ceil(int(value) * ratio - 1e-6)
    timing = spec.timing.model_copy(update=changed)
    return spec.model_copy(update={"timing": timing, "clock": type(spec.clock)(clock_s)})


def with_clock(part: Preset, clock_s: float | None) -> Preset:
    """The part itself, or at another data rate."""
    if clock_s is None:
        return part
    found = part.clocked.get(clock_s)
    if found is None:
        found = part.clocked[clock_s] = Preset(at_clock(part.spec, clock_s))
    return found


def achieved(preset: str | Preset, refresh: str = "on", clock_s: float | None = None) -> Achieved:
    """What streams and runs reach on a DRAM part.

    Parameters
    ----------
    preset : bundled name or path, or a preset.
    refresh : ``on`` (the preset's), ``all_bank``, ``per_bank`` or ``off``.
    clock_s : command clock period; the preset's if None.

    Raises
    ------
    SpecError, UnknownNameError : the part or the refresh mode is wrong.
    """
    part = with_clock(load_preset(preset) if isinstance(preset, str) else preset, clock_s)
    from .shares_cache import kept

    return kept(part, refresh)


def of_memory(part: MemoryPart | None, measured_read: float | None) -> Achieved:
    """Shares for a device file's memory: its DRAM part's; a measured stream, if the file gives one, scales them.

    >>> of_memory(None, 0.5).read
    0.5
    """
    if part is None:
        return IDEAL if measured_read is None else flat(float(measured_read))
    found = achieved(part.preset, part.refresh, None if part.clock is None else float(part.clock))
    return found if measured_read is None else found.anchored(float(measured_read))


def simulate_shares(part: Preset, refresh: str) -> Achieved:
    """Run the patterns; shares of runs never fall with size (a longer run can only be easier to serve)."""
    from .stream import gather_share, stream_share

    read = stream_share(part, refresh, CHUNK_BYTES, WINDOW_BYTES)
    runs: list[float] = []
    for size in RUNS:
        share = gather_share(part, refresh, size)
        runs.append(min(read, max(share, runs[-1] if runs else 0.0)))
    return Achieved(
        read=read,
        write=stream_share(part, refresh, CHUNK_BYTES, WINDOW_BYTES, write_every=1),
        mixed=stream_share(part, refresh, CHUNK_BYTES, WINDOW_BYTES, write_every=3),
        runs=tuple(runs),
        access_bytes=part.access_bytes,
    )
