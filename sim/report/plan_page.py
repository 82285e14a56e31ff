"""The HTML report of a plan: one file that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final

from . import plan_words as say
from . import words
from .figure_style import base_figure
from .files import atomic_write_text
from .page import Figures, document

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from ..explore.plan.explain import Explanation
    from ..explore.plan.plan import PlanResult
    from ..explore.plan.work import Found

MOST_ROWS: Final = 60
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#B59F00")
_SYMBOLS: Final = ("circle", "diamond", "square", "triangle-up", "cross", "star", "x", "hexagon")
_LIMIT: Final = "#b3261e"


def write_plan_page(result: PlanResult, path: str | Path) -> None:
    """Write the report.

    Raises:
        DataError: the file cannot be written.
    """
    atomic_write_text(path, plan_page(result))


def plan_page(result: PlanResult) -> str:
    """The report as text."""
    figures, spec, answer = Figures(), result.plan, result.answer
    body = [f"<h1>{_e(spec.name)}</h1>"]
    if spec.description:
        body.append(f'<p class="soft">{_e(spec.description.strip())}</p>')
    body.append(f"<p>{_e(spec.workload)}: {_e(say.asked(result))}.</p>")
    if answer.winner is not None:
        body.append(f"<h2>{_e(say.fleet_text(answer.winner))}</h2>")
        body.append(_list(say.winner_lines(result)))
    else:
        body.append("<h2>No solution</h2>")
        body.append(_list(say.nearest_lines(result)))
    fleets = [*answer.fleets, *answer.unpriced]
    shown = [*fleets, *answer.missed]
    if shown:
        body.append("<h2>Fleets</h2>")
        body.append(_table(say.columns(result), [say.cells(f) for f in fleets[:MOST_ROWS]]))
        body.append("<h2>Cost and promises</h2>")
        body.append(
            '<p class="soft">Each point is a fleet. Up: the promise it is nearest to, over its limit; at most 1 keeps '
            "all of them.</p>"
        )
        body.append(figures.html(cost_figure(shown), "Cost and promises of the simulated fleets"))
    explained = result.explanation
    if explained is not None:
        body.append("<h2>Headroom, and what binds</h2>")
        body.append(_list(say.limit_lines(explained, solved=True)))
        if explained.curve:
            body.append(figures.html(curve_figure(explained), "Latencies over the load"))
    one = explained or result.nearest
    if one is not None and one.upgrades:
        body.append("<h2>What the next upgrade would buy</h2>")
        body.append(figures.html(upgrade_figure(one), "Load within the promises after one change"))
        rows = [say.upgrade_cells(u, one) for u in one.upgrades]
        body.append(_table(("change", "load within promises", "US$/h more"), rows))
    if result.whatif:
        body.append("<h2>What if</h2>")
        body.append(_list([say.whatif_line(result, i) for i in range(len(result.whatif))]))
    body.append("<h2>All configurations</h2>")
    body.append(f'<p class="soft">{_e(say.counted(result))}.</p>')
    body.append(_screened(result))
    if result.notes:
        body.append("<h2>Notes</h2>" + _list(result.notes))
    return document(spec.name, body)


def _e(text: str) -> str:
    return escape(words.plain(text))


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{_e(line)}</li>" for line in lines) + "</ul>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    # What a row is about keeps room to be read where the rest of a table is scrolled.
    wide = ' style="min-width: 9rem"'
    top = "".join(f"<th{'' if number else wide}>{_e(name)}</th>" for number, name in enumerate(head))
    lines = "".join("<tr>" + "".join(f"<td>{_e(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table>"


def _screened(result: PlanResult) -> str:
    rows = []
    for s in result.answer.screened:
        ok = s.status == "ok"
        estimate = f"about {s.estimated} (at least {s.least})" if ok else s.status.replace("_", " ")
        rows.append(
            [
                s.configuration.label,
                estimate,
                say.usd(s.usd_per_hour) if ok else "",
                say.seconds(s.estimated_ttft_s) if ok else "",
                say.seconds(s.estimated_tpot_s) if ok else "",
                s.message,
            ]
        )
    head = ("configuration", "replicas, by screening", "US$/h", "first token", "a token", "why not")
    return _table(head, rows[: 4 * MOST_ROWS])


def cost_figure(fleets: Sequence[Found]) -> Figure:
    """Cost (devices where no price is known) against the worst promise over its limit, a colour a device."""
    import plotly.graph_objects as go

    out = base_figure(440)
    priced = any(_cost(f) is not None for f in fleets)
    devices = list(dict.fromkeys(f.configuration.device for f in fleets))
    for index, device in enumerate(devices):
        points = [f for f in fleets if f.configuration.device == device and f.measured is not None]
        points = [f for f in points if not priced or _cost(f) is not None]
        out.add_trace(
            go.Scatter(
                x=[_cost(f) if priced else _devices(f) for f in points],
                y=[f.measured.worst.ratio for f in points if f.measured is not None],
                mode="markers",
                name=escape(device),
                marker={
                    "color": _COLOURS[index % len(_COLOURS)],
                    "symbol": _SYMBOLS[index % len(_SYMBOLS)],
                    "size": 11,
                },
                text=[_e(say.fleet_text(f)) for f in points],
                hoverinfo="text",
            )
        )
    out.add_hline(y=1.0, line={"color": _LIMIT, "dash": "dash", "width": 1.5})
    out.update_xaxes(title="US$ an hour" if priced else "devices", rangemode="tozero")
    out.update_yaxes(title="worst promise over its limit", rangemode="tozero")
    return out


def _devices(found: Found) -> int:
    return found.configuration.bought(found.shown or 0)


def _cost(found: Found) -> float | None:
    price = found.configuration.price
    return None if price is None else price * _devices(found)


def curve_figure(explained: Explanation) -> Figure:
    """Every promised latency over its limit, against the load."""
    import plotly.graph_objects as go

    out = base_figure(400)
    points = sorted(explained.curve, key=lambda m: m.load)
    for index, first in enumerate(points[0].promises):
        out.add_trace(
            go.Scatter(
                x=[m.load for m in points],
                y=[m.promises[index].ratio for m in points],
                mode="lines+markers",
                name=first.name,
                line={"color": _COLOURS[index % len(_COLOURS)]},
                marker={"symbol": _SYMBOLS[index % len(_SYMBOLS)], "size": 8},
                text=[f"{first.name}: {say.seconds(m.promises[index].value_s)} at {m.load:.3g} × load" for m in points],
                hoverinfo="text",
            )
        )
    out.add_hline(y=1.0, line={"color": _LIMIT, "dash": "dash", "width": 1.5})
    out.add_vline(x=1.0, line={"color": "#999999", "dash": "dot", "width": 1.5})
    out.update_xaxes(title="load, over the planned load", rangemode="tozero")
    out.update_yaxes(title="latency over its limit", rangemode="tozero")
    return out


def upgrade_figure(explained: Explanation) -> Figure:
    """The load that fits within the promises after each change, against what fits now."""
    import plotly.graph_objects as go

    rows = sorted(explained.upgrades, key=lambda u: (u.load, u.name))
    out = base_figure(140 + 30 * len(rows))
    out.add_trace(
        go.Bar(
            x=[u.load for u in rows],
            y=[_e(u.name) for u in rows],
            orientation="h",
            marker={"color": [_COLOURS[0] if u.load > explained.load * 1.001 else "#999999" for u in rows]},
            text=[f"{u.load:.2f}" for u in rows],
            textposition="outside",
            cliponaxis=False,
        )
    )
    out.add_vline(x=explained.load, line={"color": _LIMIT, "dash": "dash", "width": 1.5})
    widest = max((u.load for u in rows), default=1.0)
    out.update_xaxes(title="load it carries, times the planned (dashed: now)", range=[0.0, 1.2 * max(widest, 0.1)])
    out.update_layout(showlegend=False, margin={"b": 70})
    return out
