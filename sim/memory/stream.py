"""What share of its peak a memory gives to streams, strides and gathers.

Devices take their achievable bandwidth from here. Channels are alike and addresses are hashed over them, so a few stand
for all: the share, not the bandwidth, is what is asked for.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import SpecError
from . import layout as at
from .engine import simulate_requests
from .mapping import check_mapping, locate
from .preset import Preset, load_preset
from .simulate import simulate_dram, variant
from .traces import RANDOM_BYTES, splitmix64

Pattern = Literal["read", "write", "copy", "triad", "stride", "gather"]
PATTERNS: Final = ("read", "write", "copy", "triad", "stride", "gather")
MODEL_CHANNELS: Final = 4
INTERVALS: Final = 5
"""Refresh intervals that are simulated."""
_TRACES: Final = {"read": "seq_read", "write": "seq_write", "copy": "mixed_2r1w", "triad": "triad", "stride": "stride"}
DEVICE_QUEUE: Final = 128
"""Reads, and writes, that wait per channel of an accelerator's memory controller. Assumed: with the 32 of the
simulators' default controllers the rows of a stream do not open in time on HBM2E and later."""
DEVICE_WRITES: Final = 512
"""Writes that wait: dirty lines stay in the last-level cache until there are many. Assumed."""
DRAIN_FROM, DRAIN_TO = 0.8, 0.2
"""Shares of the write queue between which writes are drained."""
LONG: Final = float(1 << 36)
"""Bytes of a trace that is extrapolated whatever the preset."""


@lru_cache(maxsize=256)
def stream_efficiency(
    preset: str,
    pattern: Pattern = "read",
    *,
    stride: int = 0,
    granule: int = 0,
    mapping: str | None = None,
    refresh: str = "on",
    queue: int = DEVICE_QUEUE,
) -> float:
    """Share of the peak bandwidth, 0 to 1, that a pattern gets.

    Bytes that a request did not ask for but an access moves count as lost: a gather of 4 bytes from accesses of 32
    gets at most an eighth.

    Parameters
    ----------
    preset : bundled name or path.
    pattern : ``read``, ``write``, ``copy`` (two reads to a write in one stream), ``triad`` (two streams read, one
        written), ``stride`` (one access every *stride* bytes), ``gather`` (*granule* contiguous bytes at random).
    stride, granule : bytes.
    mapping : the preset's own if None.
    refresh : ``on`` (the preset's), ``all_bank``, ``per_bank`` or ``off``. Bank by bank costs a stream almost nothing,
        all banks at once costs it tRFC/tREFI.
    queue : requests of a direction that wait per channel.

    Raises
    ------
    SpecError, UnknownNameError : something of this is wrong.
    """
    if pattern not in PATTERNS:
        raise SpecError(f"no pattern {pattern!r}", expected=", ".join(PATTERNS))
    if queue < 1:
        raise SpecError(f"a queue of {queue}", expected="1 or more")
    part = load_preset(preset)
    part = _device_part(part, refresh, queue, queue)
    if pattern == "gather":
        return _gather(part, granule, mapping)
    result = simulate_dram(part, trace=_TRACES[pattern], bytes_moved=LONG, stride=stride, mapping=mapping)
    return min(1.0, result.fraction)


def stream_share(part: Preset, refresh: str, chunk: int, window: int, write_every: int = 0) -> float:
    """Share of the peak for contiguous pieces of *chunk* bytes that start shuffled within *window* bytes a channel.

    ``write_every`` n: every n-th piece is written instead of read (1: all, 0: none).
    """
    part = _device_part(part, refresh)
    requests, pieces = _enough(part), chunk // part.access_bytes
    count = -(-requests // pieces)
    i = np.arange(count, dtype=np.int64)
    late = (splitmix64(i) >> np.uint64(11)).astype(np.float64) / 2.0**53  # 0 to 1
    reach = max(1.0, window * int(part.spec.organization.channels) / chunk)
    order = np.argsort(i + late * reach, kind="stable")
    address = (order[:, None] * chunk + np.arange(pieces, dtype=np.int64) * part.access_bytes).ravel()[:requests]
    write = np.zeros(requests, dtype=np.int64)
    if write_every:
        write[:] = np.repeat((i % write_every == write_every - 1).astype(np.int64), pieces)[:requests]
    return _steady_share(part, None, address, write)


def gather_share(part: Preset, refresh: str, granule: int, mapping: str | None = None) -> float:
    """Share of the peak for reads of *granule* contiguous bytes at random."""
    return _gather(_device_part(part, refresh), granule, mapping)


def _device_part(part: Preset, refresh: str, reads: int = DEVICE_QUEUE, writes: int = DEVICE_WRITES) -> Preset:
    """A few channels of the part behind the queues of an accelerator's controller."""
    drain = {"drain_from": max(1, int(DRAIN_FROM * writes)), "drain_to": int(DRAIN_TO * writes)}
    part = variant(part, refresh, min(MODEL_CHANNELS, int(part.spec.organization.channels)), None)
    return part.replace(controller={"read_queue": reads, "write_queue": writes, **drain})


def _enough(part: Preset) -> int:
    """Requests that fill the simulated refresh intervals."""
    return int((INTERVALS + 1) * int(part.settings[at.T_REFI]) * part.buses / int(part.settings[at.T_SLOT]))


def _steady_share(part: Preset, mapping: str | None, address: NDArray[np.int64], write: NDArray[np.int64]) -> float:
    where = locate(part, check_mapping(mapping or str(part.spec.controller.mapping)), address)
    run = simulate_requests(part, where, write, samples=INTERVALS)
    (first, lost0), (last, lost1) = run.samples[0], run.samples[-1]
    accesses = float(last[at.N_RD] + last[at.N_WR] - first[at.N_RD] - first[at.N_WR])
    ticks = float(lost1[at.S_TIME] - lost0[at.S_TIME])
    return min(1.0, accesses / (ticks * part.buses / int(part.settings[at.T_SLOT])))


def _gather(part: Preset, granule: int, mapping: str | None) -> float:
    """Share of the peak for runs of *granule* bytes at random, aligned to the next power of two."""
    if not 1 <= granule <= RANDOM_BYTES:
        raise SpecError(f"a gather of {granule} bytes", expected=f"'granule' between 1 and {RANDOM_BYTES} bytes")
    access = part.access_bytes
    pieces = -(-granule // access)
    aligned = access << (pieces - 1).bit_length()
    i = np.arange(_enough(part), dtype=np.int64)
    start = (splitmix64(i // pieces) % np.uint64(RANDOM_BYTES // aligned)).astype(np.int64) * aligned
    share = _steady_share(part, mapping, start + i % pieces * access, np.zeros(len(i), dtype=np.int64))
    return share * granule / (pieces * access)
