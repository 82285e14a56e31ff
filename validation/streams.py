"""The DRAM model against the streams that GPUs were measured to reach.

``published.csv`` has STREAM-like loops (read, scale, triad) at full occupancy. The share of the datasheet bandwidth is
compared with what the DRAM part behind the GPU gives for that mix of reading and writing.
"""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from effsim.devices.gpu.device import GpuDevice
from effsim.devices.registry import load_machine

FILE = "published.csv"
GPUS = {
    "A100-80GB": "gpu_a100",
    "A100-40GB": "gpu_a100_40gb",
    "H100-PCIe": "gpu_h100_pcie",
    "L40": "gpu_l40s",
    "MI210": "gpu_mi210",
    "V100": "gpu_v100",
    "A40": "gpu_a40",
}
"""Without H200: its loop has too few bytes in flight (its triad, which has more, is faster by a quarter)."""
WRITTEN = {"read": 0.0, "scale": 1.0 / 2.0, "triad": 1.0 / 3.0}
"""Share of the bytes that a loop writes."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One measured loop. Shares of the datasheet bandwidth."""

    hardware: str
    loop: str
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """Relative error."""
        return self.predicted / self.measured - 1.0


@dataclass(frozen=True, slots=True)
class StreamReport:
    """All loops."""

    rows: tuple[Stream, ...]

    def summary(self, loop: str = "") -> dict[str, float]:
        """n, median and worst absolute error and bias of one loop, or of all."""
        errors = [row.error for row in self.rows if loop in ("", row.loop)]
        size = sorted(map(abs, errors))
        p90 = size[min(len(size) - 1, int(0.9 * len(size)))]
        return {
            "n": len(errors),
            "median": median(size),
            "p90": p90,
            "bias": sum(errors) / len(errors),
            "worst": size[-1],
        }

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"rows": [asdict(row) | {"error": row.error} for row in self.rows], **self.summary()}


def streams(folder: Path) -> StreamReport:
    """Compare with every loop at full occupancy of a GPU in the catalogue; no rows without the table."""
    path = folder / FILE
    if not path.is_file():
        return StreamReport(())
    rows = []
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if not row["id"].startswith("stream-") or "occupancy 100" not in row["notes"]:
                continue
            hardware, loop = GPUS.get(row["hardware"]), row["model_or_op"].split()[1]
            if hardware is None or loop not in WRITTEN:
                continue
            device = load_machine(hardware).device
            assert isinstance(device, GpuDevice)
            peak = device.parameters.memory_peak_bytes_per_s
            share = device.parameters.shares.of(WRITTEN[loop])
            rows.append(Stream(hardware, loop, float(row["value"]) * 1e9 / peak, share))
    return StreamReport(tuple(rows))
