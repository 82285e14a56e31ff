"""Tables of a run, and one operator explained, as components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from dash import html

from ..report import ranges, words
from ..report.result import Assumption, RunResult
from ..units import format_quantity
from . import parts

_DETAIL: Final = ("kind", "m", "n", "k")


def operators(result: RunResult) -> Any:
    """All operators, longest first."""
    heads = [("phase", ""), ("operator", ""), ("runs", "n"), ("time", "n"), ("share", "n"), ("bound", "")]
    heads += [("of roof", "n"), ("FLOP", "n"), ("bytes", "n"), ("energy", "n")]
    rows = [
        (
            words.plain(row.phase),
            words.plain(row.name),
            (f"{row.count:,}", row.count),
            (words.seconds(row.time_s) + ranges.ends(row.time_s, row.time_low_s, row.time_high_s), row.time_s),
            _share(row.time_s, result.time_s),
            words.plain(row.bound),
            (words.efficiency(row), row.roofline_s / row.time_s if row.time_s else 0.0),
            (words.flop_count(row.flops), row.flops),
            (words.byte_count(row.bytes_moved), row.bytes_moved),
            ("?" if row.energy_j is None else format_quantity(row.energy_j, "energy"), row.energy_j or 0.0),
        )
        for row in words.by_time(result.operators)
    ]
    return parts.table(heads, rows, name="run-operators")


def _share(part: float, whole: float) -> tuple[str, float]:
    share = part / whole if whole else 0.0
    return words.percent(share), share


def memory(result: RunResult) -> Any:
    """What fills one device."""
    capacity = float(result.memory["capacity_bytes"])
    rows = [(name, (words.gib(size), size), _share(size, capacity)) for name, size in words.memory_parts(result)]
    return parts.table([("part", ""), ("size", "n"), ("of capacity", "n")], rows)


def assumptions(listed: Sequence[Assumption]) -> Any:
    """Numbers a run leans on, with their kinds and sources."""
    heads = [("parameter", ""), ("value (SI)", "n"), ("kind", ""), ("elasticity", "n"), ("source", "source")]
    rows = [
        (
            words.plain(a.path),
            (f"{a.value:.4g}", a.value),
            a.kind,
            ("–" if a.elasticity is None else f"{a.elasticity:+.3f}".replace("-", "−"), abs(a.elasticity or 0.0)),
            words.plain(a.source),
        )
        for a in listed
    ]
    return parts.table(heads, rows)


def explained(info: Mapping[str, Any]) -> list[Any]:
    """One run of an operator: its dimensions, kernels with what each resource would need, and parameters."""
    time_s, roofline_s = float(info["time_s"]), float(info["roofline_s"])
    ends = ranges.ends(time_s, info.get("time_low_s"), info.get("time_high_s"))
    shape = ", ".join(f"{words.plain(str(k))} {shown(v)}" for k, v in info["operator"].items() if v not in ("", False))
    reached = f"reached to {words.percent(roofline_s / time_s)}" if time_s > 0.0 else ""
    cards = [
        parts.card("One run of it", words.seconds(time_s) + ends, f"{info['count']:,} in a step"),
        parts.card("Launch", words.seconds(float(info["launch_s"])), "of that time"),
        parts.card("Roofline", words.seconds(roofline_s), reached),
        parts.card("Bound by", words.plain(str(info["bound"])), str(dict(info.get("interval", {})).get("note", ""))),
    ]
    out: list[Any] = [html.P(shape, className="soft"), parts.cards(cards)]
    for row in info["rows"]:
        out += _kernel(row)
    heads = [("parameter", ""), ("value (SI)", "n"), ("kind", ""), ("elasticity", "n"), ("source", "source")]
    rows = [
        (
            words.plain(str(p["path"])),
            shown(p["value"]),
            p["kind"],
            (f"{p.get('elasticity') or 0.0:+.3f}".replace("-", "−"), abs(p.get("elasticity") or 0.0)),
            words.plain(str(p.get("source") or "")),
        )
        for p in info.get("parameters", ())
    ]
    return [*out, html.H3("Numbers behind it"), parts.table(heads, rows)] if rows else out


def _kernel(row: Mapping[str, Any]) -> list[Any]:
    title = f"Kernel {words.plain(str(row['kernel']))}: {words.seconds(float(row['time_s']))}, bound by {row['bound']}"
    tiles = f"{row['tiles']:,} tiles, {row['slots']} at a time on one processor" if row.get("tiles") else ""
    terms = sorted(row["terms"].items(), key=lambda item: -float(item[1]))
    longest = max((float(value) for _, value in terms), default=0.0) or 1.0
    lines = [
        html.Tr(
            [
                html.Td(words.plain(str(name))),
                html.Td(words.seconds(float(value)), className="n"),
                html.Td(html.Progress(value=f"{float(value) / longest:.4f}", max="1"), className="grow"),
            ]
        )
        for name, value in terms
    ]
    detail = ", ".join(f"{words.plain(str(k))} {shown(v)}" for k, v in row.get("detail", {}).items())
    return [
        html.H3(title),
        html.P(tiles, className="soft"),
        html.Table(html.Tbody(lines)),
        html.P(detail, className="soft"),
    ]


def shown(value: object) -> str:
    """A value for people, four digits."""
    return f"{value:.4g}" if isinstance(value, float) else words.plain(str(value))
