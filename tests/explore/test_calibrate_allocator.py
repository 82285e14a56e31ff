"""Pinned allocator thresholds: results up to 32 MiB come from pages that the process already has."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, resource
from effsim.explore.calibrate.allocator import keep_memory
if not keep_memory():
    print(-1)
    raise SystemExit
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def faults(size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = c.malloc(size)
    ctypes.memset(block, 1, size)
    c.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(24 << 20)
print(faults(24 << 20), faults(48 << 20))
"""


def test_large_results_are_kept_and_larger_ones_are_not() -> None:
    out = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout.split()
    if out == ["-1"]:
        pytest.skip("the C library has no thresholds")
    again, larger = map(int, out)
    assert again < 100  # of 6144 pages
    assert larger > 20  # 12288 small pages, or 24 huge ones
