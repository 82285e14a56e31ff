"""What a change does, as components: baseline against now in cards, figures and a table, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from typing import Any, Final

from dash import dcc, html

from ..report import ranges, words
from ..report.figure_style import FONT, GRID, INK, RESOURCES
from ..report.result import RunResult
from ..units import format_quantity
from . import exports, parts
from .controls import named
from .parts import GRAPH
from .service import Asked, Service

SAVES: Final = (
    ("hardware", "Hardware YAML"),
    ("workload", "Workload YAML"),
    ("json", "Result (JSON)"),
    ("csv", "Operators (CSV)"),
)
_SAME: Final = 5e-5
_ROUNDING: Final = 1e-9
"""Part of the time below which a difference is that of floating-point sums."""
_BARS_PX, _FRAME_PX = 40, 136
_BEFORE, _NOW = ("#9aa0a6", "/"), (RESOURCES["memory"][0], "")
_HATCHES: Final = ("", "/", "x")
_PARTS: Final = tuple(colour for colour, _ in RESOURCES.values())
_UNITS: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_FASTER: Final = ("faster", "slower")
_LESS: Final = ("less", "more")
_CHEAPER: Final = ("cheaper", "dearer")


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of a run: *verdict* says what smaller and larger are, *rising* that larger is better."""

    key: str
    label: str
    value: float | None
    shown: str
    verdict: tuple[str, str] = _FASTER
    rising: bool = False
    card: bool = True
    aside: str = ""


def measures(result: RunResult) -> list[Measure]:
    """The figures of a run that are compared, headlines first."""
    return [*_times(result), *_others(result)]


def _times(result: RunResult) -> Iterator[Measure]:
    lines = words.headlines(result)
    for (name, phase), line in zip(result.phases.items(), lines, strict=False):
        each = "time_per_token_s" if name != "prefill" and "time_per_token_s" in phase else "time_s"
        yield Measure(f"{name}.{each}", line.label, phase[each], line.value)
        if "tokens_per_s" in phase:
            rate = phase["tokens_per_s"]
            label = f"Tokens a second ({name})"
            yield Measure(f"{name}.tokens_per_s", label, rate, words.rate(rate), ("slower", "faster"), True, False)
    whole = words.seconds(result.time_s) + ranges.ends(result.time_s, result.time_low_s, result.time_high_s)
    yield Measure("time_s", "Total time", result.time_s, whole)
    yield Measure("roofline_s", "Roofline", result.roofline_s, words.seconds(result.roofline_s), card=False)


def _others(result: RunResult) -> Iterator[Measure]:
    used, capacity = float(result.memory["used_bytes"]), float(result.memory["capacity_bytes"])
    line = words.memory_line(result).partition(" of ")[2]
    yield Measure("memory", "Memory of one device", used, words.gib(used), _LESS, aside=f"of {line}")
    yield Measure("capacity", "Capacity of one device", capacity, words.gib(capacity), _LESS, True, False)
    energy, cost = result.energy_j, result.cost_usd
    shown = "unknown" if energy is None else format_quantity(energy, "energy")
    if energy is not None:
        shown += ranges.ends(energy, result.energy_low_j, result.energy_high_j, "energy")
    yield Measure("energy_j", "Energy", energy, shown, _LESS)
    shown = "unknown" if cost is None else format_quantity(cost, "money")
    yield Measure("cost_usd", "Cost", cost, shown, _CHEAPER)
    yield Measure("devices", "Devices", float(result.devices), str(result.devices), ("fewer", "more"), card=False)


def difference(before: Measure | None, now: Measure) -> tuple[str, str]:
    """The relative change in words, and the class of its colour.

    >>> difference(Measure("t", "t", 2.0, "2 s"), Measure("t", "t", 1.0, "1 s"))
    ('−50.0 %, faster', 'better')
    """
    if before is None or before.value is None or now.value is None:
        known = before is None or before.value is None
        return ("not in the baseline" if known and now.value is not None else "", "soft")
    if now.value == before.value or (before.value and abs(now.value / before.value - 1.0) < _SAME):
        return "unchanged", "soft"
    larger = now.value > before.value
    change = words.signed_percent(now.value / before.value - 1.0) if before.value else "from nothing"
    word = now.verdict[int(larger)]
    return f"{change}, {word}", "better" if larger == now.rising else "worse"


def report(service: Service, asked: Asked, baseline: Asked) -> list[Any]:
    """A run against its baseline as components.

    Raises:
        EffsimError: as :func:`effsim.run`.
    """
    before = service.run(baseline, sensitivity=False)
    now = service.run(asked, sensitivity=False)
    return [
        html.H2(words.title(now), className="first"),
        html.P(words.setup(now), className="soft", id="what-setup"),
        *parts.notes(now.notes),
        _cards(before, now),
        html.P(cause(before, now), id="what-cause"),
        parts.section("Time by resource", _plot(seconds_figure(before, now), "seconds", "Seconds by resource")),
        parts.section(
            "Memory of one device", _plot(memory_figure(before, now), "memory", "Memory of one device by what fills it")
        ),
        parts.section("In numbers", _table(before, now)),
        *[html.P(line, className="soft") for line in ranges.evidence_lines(now)],
        *[html.P(f"{line[:1].upper()}{line[1:]}.", className="soft") for line in _lines(now)],
        parts.section("Take it away", *_away(service, asked)),
    ]


def _lines(result: RunResult) -> tuple[str, str]:
    return words.cost_line(result), words.energy_line(result)


def cause(before: RunResult, now: RunResult) -> str:
    """Why it takes another time than the baseline."""
    if before is now or before.to_dict() == now.to_dict():
        return "Nothing differs from the baseline yet: move a slider or type a value."
    said = words.difference_sentence(before, now)
    limits = ", ".join(f"{words.plain(name)} {words.percent(share)}" for name, share in now.bound.items())
    old, new = (max(run.bound, key=lambda name: run.bound[name], default="") for run in (before, now))
    moved = f" What limits most was {words.plain(old)} and is now {words.plain(new)}." if old != new else ""
    return f"Against the baseline, {said}.{moved} Limited now by: {limits}."


def _cards(before: RunResult, now: RunResult) -> Any:
    old = {m.key: m for m in measures(before)}
    single = len(now.phases) == 1 and "decode" not in now.phases
    shown = [m for m in measures(now) if m.card and not (single and m.key == "time_s")]
    return parts.cards(_card(old.get(m.key), m) for m in shown)


def _card(before: Measure | None, now: Measure) -> Any:
    text, colour = difference(before, now)
    was = f"baseline {before.shown}" if before is not None and text != "unchanged" else ""
    lines = [
        html.Span(now.label, className="card-label"),
        html.B(now.shown),
        html.Span(text, className=f"what-difference {colour}") if text else None,
        html.Span(was, className="card-aside") if was else None,
        html.Span(now.aside, className="card-aside") if now.aside else None,
    ]
    marked: dict[str, Any] = {"data-key": now.key}
    return html.Div(lines, className="card", **marked)


def _table(before: RunResult, now: RunResult) -> Any:
    old = {m.key: m for m in measures(before)}
    rows: list[list[Any]] = []
    for m in measures(now):
        was = old.get(m.key)
        text, colour = difference(was, m)
        rows.append([m.label, was.shown if was else "–", m.shown, html.Span(text, className=colour)])
    first, other = words.seconds_by_resource(before), words.seconds_by_resource(now)
    for name in dict.fromkeys([*other, *first]):
        shares = [_share(s.get(name, 0.0), r) for s, r in ((first, before), (other, now))]
        gap = other.get(name, 0.0) - first.get(name, 0.0)
        same = abs(gap) <= _ROUNDING * now.time_s
        said: Any = f"{'+' if gap > 0 else '−'}{words.seconds(abs(gap))}"
        said = html.Span("unchanged", className="soft") if same else said
        rows.append([f"{words.plain(name)} (time, share)", *shares, said])
    heads = (("what", ""), ("baseline", "n"), ("now", "n"), ("difference", "n"))
    return parts.table(heads, rows, name="what-table")


def _share(value: float, result: RunResult) -> str:
    return f"{words.seconds(value)} ({words.percent(value / result.time_s if result.time_s else 0.0)})"


def _away(service: Service, asked: Asked) -> list[Any]:
    link = dcc.Link("Full run of this design point", href=f"/{asked.view.query}", id="what-full")
    return [html.P(link), parts.command(exports.command_line(service, asked))]


def saves() -> Any:
    """Buttons that save what is behind the answer."""
    buttons = [parts.button(f"what-save-{name}", text) for name, text in SAVES]
    return parts.toolbar(html.Span("Save:", className="soft"), *buttons)


# --- figures: plain mappings, which are made faster than graph objects ------------------------------------------------


def _plot(figure: dict[str, Any], name: str, label: str) -> Any:
    style = {"height": f"{figure['layout']['height']}px"}  # as tall as it has rows: a graph fills its place
    options: Any = GRAPH
    graph = dcc.Graph(figure=figure, config=options, responsive=True, style=style, id=f"what-figure-{name}")
    return html.Div(graph, className="figure", role="img", **named(f"{label}: baseline against now"))


def seconds_figure(before: RunResult, now: RunResult) -> dict[str, Any]:
    """Seconds that each resource binds, baseline and now."""
    first, other = words.seconds_by_resource(before), words.seconds_by_resource(now)
    names = sorted(dict.fromkeys([*other, *first]), key=lambda n: max(first.get(n, 0.0), other.get(n, 0.0)))
    largest = max([*first.values(), *other.values()], default=0.0)
    scale, unit = next(((s, u) for s, u in _UNITS if largest >= s), _UNITS[-1])
    data = []
    for title, held, (colour, hatch) in (("now", other, _NOW), ("baseline", first, _BEFORE)):
        values = [held.get(name, 0.0) / scale for name in names]
        said = [words.seconds(held.get(name, 0.0)) for name in names]
        data.append(_bar(title, [escape(words.plain(n)) for n in names], values, said, colour, hatch))
    layout = _layout(len(names), f"time of the whole run ({unit})", bargap=0.3, barmode="group")
    layout["legend"]["traceorder"] = "reversed"
    return {"data": data, "layout": layout}


def memory_figure(before: RunResult, now: RunResult) -> dict[str, Any]:
    """What fills one device, baseline and now, against its capacity."""
    rows = [("now", now), ("baseline", before)]
    names = list(dict.fromkeys(name for _, result in rows for name, _ in words.memory_parts(result)))
    held = {title: dict(words.memory_parts(result)) for title, result in rows}
    data = []
    for index, name in enumerate(names):
        values = [held[title].get(name, 0.0) / words.GIB for title, _ in rows]
        said = [words.gib(value * words.GIB) for value in values]
        bar = _bar(
            name, [title for title, _ in rows], values, said, _PARTS[index % len(_PARTS)], ("", "/", "x")[index % 3]
        )
        data.append(bar)
    capacities = [float(result.memory["capacity_bytes"]) / words.GIB for _, result in rows]
    marks = {"symbol": "line-ns-open", "size": 34, "color": INK, "line": {"width": 3, "color": INK}}
    data.append(
        {
            "type": "scatter",
            "mode": "markers",
            "name": "capacity",
            "x": capacities,
            "y": [title for title, _ in rows],
            "marker": marks,
            "hovertemplate": "capacity %{x:.4g} GiB<extra></extra>",
        }
    )
    return {"data": data, "layout": _layout(2, "GiB", bargap=0.35, barmode="stack")}


def _bar(name: str, labels: list[str], values: list[float], said: list[str], colour: str, hatch: str) -> dict[str, Any]:
    pattern = {"shape": hatch, "fillmode": "overlay", "fgcolor": "rgba(255,255,255,.7)", "fgopacity": 1.0, "size": 6}
    return {
        "type": "bar",
        "orientation": "h",
        "name": escape(name),
        "y": labels,
        "x": values,
        "customdata": said,
        "marker": {"color": colour, "pattern": pattern},
        "hovertemplate": f"{escape(name)}: %{{y}} %{{customdata}}<extra></extra>",
    }


def _layout(rows: int, title: str, **more: Any) -> dict[str, Any]:
    axis: Callable[..., dict[str, Any]] = lambda **extra: {  # noqa: E731
        "gridcolor": GRID, "zerolinecolor": GRID, "linecolor": INK, "automargin": True, **extra
    }  # fmt: skip
    return {
        "height": _FRAME_PX + _BARS_PX * rows,
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 10, "r": 16, "t": 64, "b": 44},
        "legend": {"orientation": "h", "traceorder": "normal", "x": 0.0, "y": 1.02, "yanchor": "bottom"},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": INK, "activecolor": _NOW[0]},
        "hoverlabel": {"align": "left", "font": {"family": FONT, "size": 12}},
        "xaxis": axis(title={"text": title}),
        "yaxis": axis(showgrid=False),
        **more,
    }
