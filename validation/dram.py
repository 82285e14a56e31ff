"""The DRAM model against rows of cycle-level simulators.

A row names a simulator, its preset, an address mapping, channels and a trace (kind, bytes, stride, refresh, page
policy); the comparison is of cycles and of the row-hit rate.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from effsim.memory.simulate import simulate_dram

FILE = "dram_reference.csv"
PRESETS = {
    ("DRAMsim3", "HBM2_8Gb_x128"): "hbm2_dramsim3",
    ("DRAMsim3", "DDR4_8Gb_x8_3200"): "ddr4_dramsim3",
    ("DRAMsim3", "GDDR6_8Gb_x16"): "gddr6_dramsim3",
    ("DRAMsim3", "LPDDR4_8Gb_x16_2400"): "lpddr4",
    ("Ramulator2.1", "DDR4_8Gb_x8"): "ddr4",
    ("Ramulator2.1", "DDR5_16Gb_x8"): "ddr5",
    ("Ramulator2.1", "LPDDR5_16Gb_x16"): "lpddr5",
    ("Ramulator2.1", "GDDR6_8Gb_x16"): "gddr6",
    ("Ramulator2.1", "HBM2_8Gb"): "hbm2",
    ("Ramulator2.1", "HBM3_16Gb_8hi"): "hbm3",
    ("Ramulator2.1", "HBM4_32Gb_8Hi"): "hbm4",
}
KINDS = {
    "seq_mixed_2r1w": "mixed_2r1w",
    "triad_2r1w": "triad",
    "stride_read": "stride",
    "random_mixed_2r1w": "random_mixed",
    "chase_read": "chase",
}
WITHIN = 0.10


@dataclass(frozen=True, slots=True)
class Compared:
    """One row: what the reference and the model say. ``error`` is signed, a share of the reference."""

    simulator: str
    preset: str
    mapping: str
    kind: str
    what: str
    reference_cycles: float
    cycles: float
    reference_hits: float
    hits: float

    @property
    def error(self) -> float:
        """Relative error of the cycles."""
        return self.cycles / self.reference_cycles - 1

    @property
    def hit_error(self) -> float:
        """Difference of the row-hit rates."""
        return self.hits - self.reference_hits


@dataclass(frozen=True, slots=True)
class Summary:
    """Errors of a group of rows, as shares of the reference."""

    group: tuple[str, ...]
    n: int
    median: float
    p90: float
    bias: float
    within: float
    worst_hits: float
    worst: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "group": "/".join(self.group), "n": self.n, "median": self.median, "p90": self.p90, "bias": self.bias,
            "within_10_percent": self.within, "worst_row_hit_difference": self.worst_hits, "worst_row": self.worst,
        }  # fmt: skip


def compare_dram(folder: Path) -> list[Compared]:
    """Every row of the reference that a bundled preset stands for; empty if the folder has none."""
    path = folder / FILE
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [
        _compare(row, PRESETS[key]) for row in rows if (key := (row["sim"], row["preset"].split("/")[0])) in PRESETS
    ]


def _compare(row: dict[str, str], preset: str) -> Compared:
    kind = KINDS.get(row["trace_kind"], row["trace_kind"])
    stride = int(row["stride_B"] or 0)
    result = simulate_dram(
        preset,
        trace=kind,
        bytes_moved=float(row["bytes_total"]),
        stride=stride,
        mapping=row["mapping"],
        refresh=row["refresh"],
        channels=int(row["channels"]),
        page="closed" if row["row_policy"].upper().startswith("CLOSE") else "open",
        outstanding=1 if row["max_outstanding"] == "1" else None,
    )
    details = [row["bytes_total"], f"stride {stride}" if stride else "", "" if row["refresh"] == "on" else "no refresh"]
    what = " ".join(part for part in (row["mapping"], kind, *details) if part)
    cycles = result.time_s / (float(row["time_ns"]) / float(row["cycles"]) * 1e-9)
    return Compared(
        row["sim"], preset, row["mapping"], kind, what, float(row["cycles"]), cycles, float(row["row_hit_rate"]),
        result.row_hit_rate,
    )  # fmt: skip


def summarise(rows: Iterable[Compared], by: Callable[[Compared], tuple[str, ...]]) -> list[Summary]:
    """Errors by group, in the order of the groups' names."""
    groups: dict[tuple[str, ...], list[Compared]] = defaultdict(list)
    for row in rows:
        groups[by(row)].append(row)
    return [_summary(name, found) for name, found in sorted(groups.items())]


def _summary(name: tuple[str, ...], rows: Sequence[Compared]) -> Summary:
    errors = sorted(abs(row.error) for row in rows)
    worst = max(rows, key=lambda row: abs(row.error))
    return Summary(
        group=name,
        n=len(rows),
        median=median(errors),
        p90=errors[min(len(errors) - 1, int(0.9 * len(errors)))],
        bias=sum(row.error for row in rows) / len(rows),
        within=sum(error <= WITHIN for error in errors) / len(errors),
        worst_hits=max(abs(row.hit_error) for row in rows),
        worst=f"{worst.what}: {worst.error:+.1%}",
    )


def table(rows: Sequence[Compared]) -> list[Summary]:
    """The comparison as it is printed: by simulator, preset and kind, then by preset, then all."""
    return [
        *summarise(rows, lambda row: (row.simulator, row.preset, row.kind)),
        *summarise(rows, lambda row: (row.simulator, row.preset, "all")),
        *(summarise(rows, lambda _: ("all",)) if rows else []),
    ]


def print_table(folder: Path) -> None:
    """Print the comparison with the rows in *folder*."""
    print(
        f"{'simulator/preset/trace':44s} {'n':>3s} {'median':>7s} {'p90':>7s} {'bias':>7s} {'<10 %':>6s} {'hits':>7s} "
        " worst"
    )
    for line in table(compare_dram(folder)):
        print(
            f"{'/'.join(line.group):44s} {line.n:3d} {line.median:7.2%} {line.p90:7.2%} {line.bias:+7.2%} "
            f"{line.within:6.0%} {line.worst_hits:7.4f}  {line.worst}"
        )
