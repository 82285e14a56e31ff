"""Agreement with other simulators on the same work: DRAM controllers, systolic arrays, processing in memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import dram, pim, scalesim, streams


@dataclass(frozen=True, slots=True)
class Peers:
    """Summaries of every simulator compared with."""

    dram: tuple[dram.Summary, ...]
    streams: streams.StreamReport
    systolic: tuple[scalesim.Summary, ...]
    gemv: pim.GemvReport
    pim_gpt: tuple[pim.Speedups, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "dram": [row.as_dict() for row in self.dram],
            "streams": self.streams.as_dict(),
            "systolic": [asdict(row) for row in self.systolic],
            "pim_gemv": self.gemv.as_dict(),
            "pim_gpt": [asdict(row) for row in self.pim_gpt],
        }

    def failures(self) -> list[str]:
        """Bounds that are broken: DRAM 10 % of the bandwidth, SCALE-Sim exact in CALC, PIM 5 %."""
        out = [f"{'/'.join(row.group)}: p90 {100 * row.p90:.1f} %" for row in self.dram if row.p90 > DRAM_P90]
        out += [
            f"SCALE-Sim {s.mode}: {s.n - s.exact} rows differ"
            for s in self.systolic
            if s.mode == "CALC" and s.exact < s.n
        ]
        worst = max(abs(row.error) for row in self.gemv.rows)
        return out + ([f"PIM GEMV: worst row {100 * worst:.1f} %"] if worst > PIM_WORST else [])


DRAM_P90 = 0.10
"""Largest 90th percentile of DRAM bandwidth errors of a preset."""

PIM_WORST = 0.05
"""Largest error of a GEMV in cycles."""


def present(folder: Path) -> bool:
    """Whether the reference tables of other simulators are in *folder* (they are a part of it that may be missing)."""
    return all((folder / name).is_file() for name in (dram.FILE, scalesim.FILE))


def compare(folder: Path) -> Peers:
    """Compare with the reference rows in *folder*.

    Raises:
        DataError: a table is missing or unreadable.
    """
    rows = dram.compare_dram(folder)
    return Peers(
        tuple(dram.table(rows)),
        streams.streams(folder),
        tuple(scalesim.validate(folder)),
        pim.gemv(folder),
        tuple(pim.pim_gpt()),
    )


Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]
"""Title, head and rows of one table."""


def tables(found: Peers) -> list[Table]:
    """What is printed and written, a table a kind of simulator."""
    dram_rows: list[tuple[str, ...]] = [
        (
            ", ".join(row.group),
            str(row.n),
            f"{100 * row.median:.2f} %",
            f"{100 * row.p90:.2f} %",
            f"{100 * row.bias:+.2f} %",
            f"{100 * row.within:.0f} %",
            f"±{row.worst_hits:.4f}",
            row.worst,
        )
        for row in found.dram
        if row.group[-1] == "all"
    ]
    systolic_rows: list[tuple[str, ...]] = [
        (
            s.mode,
            str(s.n),
            str(s.exact),
            f"{100 * s.median:.2f} %",
            f"{100 * s.p90:.2f} %",
            str(s.within),
            f"{100 * s.worst:.1f} %",
            s.worst_row,
            f"{s.own_ratio:.2f}",
        )
        for s in found.systolic
    ]
    gemv_rows: list[tuple[str, ...]] = [
        (
            f"{r.outputs} × {r.inputs}",
            str(r.batch),
            f"{r.measured_clocks:.0f}",
            f"{r.predicted_clocks:.0f}",
            f"{100 * r.error:+.2f} %",
        )
        for r in found.gemv.rows
    ]
    stream_rows: list[tuple[str, ...]] = [
        (row.hardware, row.loop, f"{row.measured:.3f}", f"{row.predicted:.3f}", f"{100 * row.error:+.1f} %")
        for row in found.streams.rows
    ]
    for loop in ("read", "scale", "triad", "") if stream_rows else ():
        s = found.streams.summary(loop)
        median, bias, worst = (
            f"{100 * s[key]:{form}} %" for key, form in (("median", ".1f"), ("bias", "+.1f"), ("worst", ".1f"))
        )
        stream_rows.append((f"{s['n']} rows", loop or "all", f"median {median}", f"bias {bias}", f"worst {worst}"))
    return [
        ("DRAM: streams measured on GPUs, share of the datasheet bandwidth", STREAM_HEAD, stream_rows),
        ("DRAM: bandwidth of DRAMsim3 and Ramulator 2.1", DRAM_HEAD, dram_rows),
        ("Systolic arrays: cycles of SCALE-Sim 3", SYSTOLIC_HEAD, systolic_rows),
        ("Processing in memory: GEMV on an HBM-PIM simulator", GEMV_HEAD, gemv_rows),
    ]


STREAM_HEAD = ("GPU", "loop", "measured", "DRAM model", "error")
DRAM_HEAD = ("simulator, preset", "n", "median", "p90", "bias", "within 10 %", "row hits", "worst row")
SYSTOLIC_HEAD = ("mode", "n", "exact", "median", "p90", "within 10 %", "worst", "worst row", "default mode / tool")
GEMV_HEAD = ("outputs × inputs", "vectors", "reference clocks", "predicted", "error")


def sections(found: Peers) -> list[str]:
    """The part of the accuracy page about other simulators, in Markdown."""
    parts = [
        "## Other simulators",
        "The same traces, layers and products on cycle-level tools of the field; errors are of their figures.",
    ]
    for title, head, rows in tables(found):
        body = ["| " + " | ".join(row) + " |" for row in rows]
        parts += [f"### {title}", "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *body])]
    claim = (
        "Published: 41 to 137 times a T4, 631 to 1074 times a CPU. Which baseline is meant decides what can be reached:"
    )
    return [*parts, "### PIM-GPT against other machines", claim, pim.speedups_markdown(found.pim_gpt)]
