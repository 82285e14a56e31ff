"""The paged key/value cache of one replica, with a prefix cache over it.

Memory is handed out in pages of ``page`` tokens. Full blocks of a prompt have names (a block's name stands for itself
and everything before it, as a hash chain does), so a later prompt that starts with the same names finds them. A block
that nobody uses any more stays until its pages are needed; the one unused for longest goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from .tiers import Tiers


class KvPool:
    """Pages of one replica.

    Args:
        pages: how many there are.
        page: tokens a page holds.
        block: tokens a named block holds, a multiple of *page*; 0 switches the prefix cache off.

    Attributes:
        tiers: where evicted blocks go, if anywhere.

    Example:
        >>> pool = KvPool(pages=8, page=16, block=32)
        >>> pool.take(4), pool.free
        (True, 4)
        >>> pool.publish((7,), 0), pool.match((7, 8))  # two pages of the four become the block named 7
        (1, 1)
    """

    def __init__(self, pages: int, page: int, block: int = 0) -> None:
        self.pages, self.page, self.block = pages, page, block
        self.free = pages
        self._pages_a_block = block // page if block else 0
        self._users: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        self.evicted = 0
        self.tiers: Tiers | None = None

    def pages_of(self, tokens: int) -> int:
        """Pages that *tokens* need."""
        return -(-tokens // self.page)

    @property
    def available(self) -> int:
        """Free pages and those of blocks that nobody uses."""
        return self.free + len(self._idle) * self._pages_a_block

    @property
    def used(self) -> int:
        """Pages that somebody uses."""
        return self.pages - self.available

    def match(self, names: Sequence[int]) -> int:
        """How many of *names*, from the first on, are cached."""
        if not self.block:
            return 0
        for found, name in enumerate(names):
            if name not in self._users:
                return found
        return len(names)

    def hold(self, names: Sequence[int]) -> None:
        """Use cached blocks, so that they stay."""
        for name in names:
            if self._users[name] == 0:
                del self._idle[name]
            self._users[name] += 1

    def drop(self, names: Sequence[int]) -> None:
        """Stop using blocks; the last of a chain becomes idle first, so that it also goes first."""
        for name in reversed(names):
            self._users[name] -= 1
            if self._users[name] == 0:
                self._idle[name] = None

    def take(self, pages: int) -> bool:
        """Hand out *pages*, evicting idle blocks where needed; False, and nothing changed, if there are too few."""
        if pages > self.available:
            return False
        while self.free < pages:
            name, _ = self._idle.popitem(last=False)
            del self._users[name]
            if self.tiers is not None:
                self.tiers.store(name)
            self.free += self._pages_a_block
            self.evicted += 1
        self.free -= pages
        return True

    def give(self, pages: int) -> None:
        """Take *pages* back."""
        self.free += pages

    def publish(self, names: Sequence[int], held: int) -> int:
        """Turn a prompt's own pages into named blocks, all in use by it from now on.

        The first *held* of *names* are in use by it already. Where another request published a block meanwhile, its
        own copy is given back. Returns how many names were not held before.
        """
        if not self.block:
            return 0
        for name in names[held:]:
            if name in self._users:
                self.give(self._pages_a_block)
                self.hold((name,))
            else:
                self._users[name] = 1
        return len(names) - held

    def pages_of_blocks(self, blocks: int) -> int:
        """Pages of so many named blocks."""
        return blocks * self._pages_a_block
