"""Simulated cycles a CPU-second, effsim against SCALE-Sim on the same rows: ``python benchmarks/systolic.py FOLDER``.

FOLDER holds ``scalesim_cycles.csv`` with the tool's own CPU seconds. Machines are built before the clock starts, as the
tool's start-up is not in its numbers either; every row is lowered anew in each repetition.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from effsim.devices.systolic import stalls
from effsim.devices.systolic.device import SystolicDevice
from effsim.validation.scalesim import Row, device_of, read_rows

REPETITIONS = 5
WANTED_RATIO = 10_000.0


def seconds(rows: Sequence[Row], devices: Sequence[SystolicDevice]) -> float:
    """Least CPU time of all rows over a few repetitions; nothing is remembered between rows."""
    best = float("inf")
    for _ in range(REPETITIONS):
        start = time.process_time()
        for row, device in zip(rows, devices, strict=True):
            device.kernels_of(row.operator, True)
        best = min(best, time.process_time() - start)
    return best


def main(folder: Path) -> int:
    rows = read_rows(folder)
    devices = [device_of(row) for row in rows]
    stalls.walk.compiled([1] * stalls.OPERAND_FIELDS, [1] * stalls.OPERAND_FIELDS, [1] * stalls.WRITER_FIELDS, [0] * 11)
    failed = False
    print("| rows | n | simulated cycles | SCALE-Sim, cycles/s | effsim, cycles/s | ratio |")
    print("|---|---:|---:|---:|---:|---:|")
    for mode in ("CALC", "USER", "all"):
        chosen = [i for i, row in enumerate(rows) if mode in (row.mode, "all")]
        cycles = sum(rows[i].cycles for i in chosen)
        theirs = cycles / sum(rows[i].cpu_s for i in chosen)
        ours = cycles / seconds([rows[i] for i in chosen], [devices[i] for i in chosen])
        print(f"| {mode} | {len(chosen)} | {cycles} | {theirs:.0f} | {ours:.3g} | {ours / theirs:.0f} |")
        failed |= ours < WANTED_RATIO * theirs
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
