"""One thing that makes times of a process depend on its past: when glibc gives memory back to the system.

Whether the next large result lies in pages that are still there or in new ones (a fault and 4 KiB of zeros each)
depends on thresholds that glibc moves with every release, and on what happens to lie behind the freed block. A
measurement pins them where a long-running process arrives: results up to 32 MiB come from memory the process keeps,
larger ones are mapped anew.
"""

from __future__ import annotations

import ctypes

KEPT_BYTES = 32 << 20
"""Largest threshold that glibc accepts and adapts to on 64-bit systems (DEFAULT_MMAP_THRESHOLD_MAX)."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER = (1 << 31) - 1


def keep_memory() -> bool:
    """Pin the thresholds for the rest of the process; False where the C library has none (then nothing is done)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _NEVER)) and bool(mallopt(_MMAP_THRESHOLD, KEPT_BYTES))
