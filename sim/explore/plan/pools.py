"""Pools of a fleet: how replicas are shared between reading prompts and generating, and the devices they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pool:
    """Replicas that are alike; ``devices``: of each."""

    name: str
    replicas: int
    devices: int

    def as_dict(self) -> dict[str, str | int]:
        """For JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def shared(replicas: int, prefill: int, decode: int) -> tuple[int, int]:
    """*replicas* divided as near to ``prefill:decode`` as whole ones allow; at least one of either kind.

    One replica more never takes one away from either pool.

    >>> [shared(n, 2, 1) for n in (2, 3, 4, 6)]
    [(1, 1), (2, 1), (3, 1), (4, 2)]
    """
    reading = (2 * replicas * prefill + prefill + decode) // (2 * (prefill + decode))
    reading = max(1, min(replicas - 1, reading))
    return reading, replicas - reading


def packed(pools: Sequence[tuple[int, int]], unit: int) -> int:
    """Devices of whole units for (replicas, devices of each); replicas that fit a unit do not straddle two.

    Of at most two sizes: the larger go first, the smaller fill what they leave.

    >>> packed([(3, 2)], 8), packed([(1, 16)], 8), packed([(1, 4), (1, 2)], 8), packed([(2, 8), (1, 2)], 8)
    (8, 16, 8, 24)
    """
    units = sum(count * -(-size // unit) for count, size in pools if size > unit)
    small = sorted(((size, count) for count, size in pools if size <= unit and count), reverse=True)
    if not small:
        return units * unit
    size, count = small[0]
    each = unit // size
    full, rest = divmod(count, each)
    units += full + bool(rest)
    if len(small) > 1:
        other, left = small[1]
        left -= full * ((unit - each * size) // other) + bool(rest) * ((unit - rest * size) // other)
        units += max(0, -(-left // (unit // other)))
    return units * unit
