"""Where blocks go that the device has no room for: host memory, then a drive, each forgetting what it used least.

A block that leaves the device is copied to the first tier; what a tier has no room for moves to the next, and from the
last it is gone. A block that is fetched stays in its tier, too (as in vLLM's offloading connector), so that it need not
be written again. Writing is done beside the steps and costs them nothing; fetching takes its tier's latency and the
bytes over its bandwidth, one transfer after another.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TierPlan:
    """One tier of a replica: blocks it holds, seconds to fetch one, and the latency of a transfer."""

    name: str
    blocks: int
    block_s: float
    latency_s: float


class Tiers:
    """Named blocks outside the device, nearest first.

    Example:
        >>> tiers = Tiers((TierPlan("host", 1, 0.5, 1.0), TierPlan("drive", 1, 2.0, 4.0)))
        >>> for name in (1, 2):
        ...     tiers.store(name)
        >>> tiers.match((2, 1, 3)), tiers.fetch((2, 1))  # 2 from the host's memory, 1 from the drive
        (2, 7.5)
    """

    def __init__(self, plans: Sequence[TierPlan]) -> None:
        self.plans = tuple(plans)
        self._held: list[OrderedDict[int, None]] = [OrderedDict() for _ in self.plans]
        self._pinned = 0
        self.lost = 0
        """Blocks that left the last tier."""

    def held(self) -> list[int]:
        """Blocks of each tier; those of swapped sequences count in the first."""
        return [len(one) + (0 if i else self._pinned) for i, one in enumerate(self._held)]

    def where(self, name: int) -> int | None:
        """The nearest tier that holds a block."""
        return next((i for i, one in enumerate(self._held) if name in one), None)

    def match(self, names: Sequence[int]) -> int:
        """How many of *names*, from the first on, some tier holds."""
        for found, name in enumerate(names):
            if self.where(name) is None:
                return found
        return len(names)

    def store(self, name: int, tier: int = 0) -> None:
        """Take a block that left the device (or the tier before); a copy farther away is then not needed."""
        if tier == len(self.plans):
            self.lost += 1
            return
        for farther in self._held[tier:]:
            farther.pop(name, None)
        self._held[tier][name] = None
        self._shrink(tier)

    def _shrink(self, tier: int) -> None:
        """Move what a tier has no room for to the next."""
        held, pinned = self._held[tier], 0 if tier else self._pinned
        while held and len(held) + pinned > self.plans[tier].blocks:
            oldest, _ = held.popitem(last=False)
            self.store(oldest, tier + 1)

    def fetch(self, names: Sequence[int]) -> float:
        """Seconds to bring blocks to the device; each becomes the one used last of its tier."""
        counts = [0] * len(self.plans)
        for name in names:
            tier = self.where(name)
            assert tier is not None
            self._held[tier].move_to_end(name)
            counts[tier] += 1
        return sum(p.latency_s + n * p.block_s for p, n in zip(self.plans, counts, strict=True) if n)

    def pin(self, blocks: int) -> bool:
        """Make room in the first tier for a sequence that is swapped out; False if it is too small."""
        if self._pinned + blocks > self.plans[0].blocks:
            return False
        self._pinned += blocks
        self._shrink(0)
        return True

    def unpin(self, blocks: int) -> None:
        """Give that room back."""
        self._pinned -= blocks
