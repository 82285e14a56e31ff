"""Intervals in words: ``43.1 ms (38–49)``, what stands behind one, and whether two of them overlap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..units import format_quantity
from .result import OperatorRow, RunResult

_DIGITS: Final = 3
_SHOWN_CAUSES: Final = 3
_VISIBLE_SHARE: Final = 0.005
_MEANINGS: Final = {
    "validated": "in kernels measured on this device",
    "transferred": "in kernels measured on other devices",
    "related": "in relatives of measured kernels",
    "unvalidated": "in what was never compared with hardware (unvalidated: the interval is wide)",
}


def ends(value: float, low: float | None, high: float | None, dimension: str = "time") -> str:
    """The interval in the unit of *value*, in brackets; empty where there is none.

    >>> ends(0.0431, 0.0381, 0.0489)
    ' (38.1–48.9)'
    >>> ends(0.9, 0.6, 1.5)
    ' (600–1500)'
    """
    if low is None or high is None or value <= 0.0:
        return ""
    number = float(format_quantity(value, dimension).partition(" ")[0])
    scale = number / float(f"{value:.{_DIGITS}g}")
    return f" ({_plain(low * scale)}–{_plain(high * scale)})"


def _plain(number: float) -> str:
    """Three digits without an exponent.

    >>> _plain(1234.5), _plain(0.01234)
    ('1230', '0.0123')
    """
    return f"{float(f'{number:.{_DIGITS}g}'):.12g}"


def percent_ends(row: OperatorRow) -> str:
    """The interval of an operator relative to its time, as ``−14 +25 %``; a dash where there is none.

    >>> percent_ends(OperatorRow("a", "linear", "step", 1, 1.0, 1.0, 2.0, 1.0, "memory", {}, {}, 1.5, 3.0))
    '−25 +50 %'
    """
    if row.time_low_s is None or row.time_high_s is None or row.time_s <= 0.0:
        return "–"
    below, above = (100.0 * (end / row.time_s - 1.0) for end in (row.time_low_s, row.time_high_s))
    return f"−{abs(below):.0f} +{above:.0f} %"


def phase_ends(phase: Mapping[str, float], name: str) -> str:
    """The interval of ``time`` or ``time_per_token`` of a phase, in brackets."""
    return ends(phase[f"{name}_s"], phase.get(f"{name}_low_s"), phase.get(f"{name}_high_s"))


def evidence_lines(result: RunResult) -> list[str]:
    """What an interval means, what stands behind it, and what makes it wide; empty without one."""
    if result.time_low_s is None or result.time_high_s is None:
        return []
    if result.engine == "roofline":
        return [
            "A roofline is a lower bound: the interval reaches from it to the top of what the kernels are expected "
            "to take."
        ]
    shares = [
        f"{100.0 * share:.0f} % {_MEANINGS[name]}" for name, share in result.evidence.items() if share >= _VISIBLE_SHARE
    ]
    lines = ["In brackets: where nine of ten measurements are expected. Of the time, " + "; ".join(shares) + "."]
    parts = [
        f"{cause} (−{format_quantity(below, 'time')}, +{format_quantity(above, 'time')})"
        for cause, (below, above) in list(result.interval_causes.items())[:_SHOWN_CAUSES]
    ]
    if parts:
        lines.append(f"Widest causes: {'; '.join(parts)}.")
    if not result.whole_runs:
        lines.append(
            "Whole runs with this engine were not compared: the interval is that of the operators, not of software "
            "around them."
        )
    return lines


def overlap_sentence(first: RunResult, other: RunResult) -> str:
    """Whether the intervals of two machines tell which is faster; empty where one is missing."""
    if first.time_low_s is None or first.time_high_s is None or other.time_low_s is None or other.time_high_s is None:
        return ""
    if first.time_high_s < other.time_low_s or other.time_high_s < first.time_low_s:
        return "the intervals are apart"
    return "the intervals overlap: which is faster is not certain"
