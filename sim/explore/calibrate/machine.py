"""What the operating system knows of this machine: cores, caches, vector instructions, memory."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError

KIB = 1024
VECTOR_BITS = (("avx512f", 512), ("avx2", 256), ("avx", 256), ("asimd", 128), ("neon", 128), ("sse2", 128))
"""Instruction sets by the names the kernel prints, with the width of their registers."""

UNKNOWN_CACHES = {1: 32 * KIB, 2: 512 * KIB, 3: 8192 * KIB}
"""Caches assumed where the kernel does not describe them (containers, some virtual machines)."""


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """Read, not measured.

    ``cores`` are those this process may use; ``caches`` bytes by level: level 1 and 2 of one core, level 3 in all;
    ``guessed`` levels are assumed. ``vector_bits``: width of a vector register. ``multiply_add``: fused.
    """

    model: str
    vendor: str
    cores: int
    threads_per_core: int
    caches: Mapping[int, int]
    guessed: frozenset[int]
    l3_slices: int
    vector_bits: int
    multiply_add: bool
    flags: frozenset[str]
    memory_bytes: int


def discover(root: Path = Path("/")) -> MachineFacts:
    """Read ``/proc`` and ``/sys`` below *root*.

    Raises:
        DataError: this is no Linux system.
    """
    cpuinfo = root / "proc/cpuinfo"
    if not cpuinfo.is_file():
        raise DataError(f"{cpuinfo}: not found; this machine can be measured under Linux only")
    text = cpuinfo.read_text(errors="replace")
    flags = frozenset(_field(text, "flags").split() or _field(text, "Features").split())
    own = root == Path("/")
    usable = sorted(os.sched_getaffinity(0)) if own else list(range(len(re.findall(r"^processor", text, re.M))))
    siblings = _siblings(root, usable)
    caches, slices = _caches(root, usable)
    guessed = frozenset(level for level in UNKNOWN_CACHES if level not in caches)
    bits = next((width for name, width in VECTOR_BITS if name in flags), 128)
    return MachineFacts(
        model=_field(text, "model name") or platform.processor() or platform.machine(),
        vendor=_field(text, "vendor_id"),
        cores=max(1, len(usable) // siblings),
        threads_per_core=siblings,
        caches={**UNKNOWN_CACHES, **caches},
        guessed=guessed,
        l3_slices=slices,
        vector_bits=bits,
        multiply_add="fma" in flags or "asimd" in flags,
        flags=flags,
        memory_bytes=_memory(root),
    )


def _field(text: str, name: str) -> str:
    found = re.search(rf"^{name}\s*:\s*(.*)$", text, re.M)
    return found.group(1).strip() if found else ""


def cpu_list(text: str) -> list[int]:
    """Numbers of a kernel list.

    >>> cpu_list("0-2,5")
    [0, 1, 2, 5]
    """
    out: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            out += range(int(first), int(last or first) + 1)
    return out


def _siblings(root: Path, usable: list[int]) -> int:
    """Hardware threads of a core, of those that may be used."""
    path = root / f"sys/devices/system/cpu/cpu{usable[0]}/topology/thread_siblings_list"
    if not path.is_file():
        return 1
    return max(1, len(set(cpu_list(path.read_text())) & set(usable)))


def _caches(root: Path, usable: list[int]) -> tuple[dict[int, int], int]:
    """(bytes by level of data and unified caches, number of separate last-level caches among the usable cores)."""
    sizes: dict[int, int] = {}
    groups: dict[str, int] = {}
    for cpu in usable:
        for index in sorted((root / f"sys/devices/system/cpu/cpu{cpu}/cache").glob("index*")):
            try:
                kind, level = (index / "type").read_text().strip(), int((index / "level").read_text())
                size = cache_bytes((index / "size").read_text())
                shared = (index / "shared_cpu_list").read_text().strip()
            except (OSError, ValueError):
                continue
            if kind == "Instruction":
                continue
            if level == 3:
                groups[shared] = size
            elif cpu == usable[0]:
                sizes[level] = size
    if groups:
        sizes[3] = sum(groups.values())
    return sizes, max(1, len(groups))


def cache_bytes(text: str) -> int:
    """Bytes of a size as the kernel writes it.

    >>> cache_bytes("36608K"), cache_bytes("2M")
    (37486592, 2097152)
    """
    found = re.fullmatch(r"\s*(\d+)\s*([KMG]?)\s*", text)
    if not found:
        raise ValueError(text)
    return int(found.group(1)) * {"": 1, "K": KIB, "M": KIB**2, "G": KIB**3}[found.group(2)]


def _memory(root: Path) -> int:
    path = root / "proc/meminfo"
    found = re.search(r"^MemTotal:\s*(\d+) kB", path.read_text() if path.is_file() else "", re.M)
    return int(found.group(1)) * KIB if found else 8 * KIB**3
