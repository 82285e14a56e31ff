"""Components of the sweep page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from dash import dcc, html

from ..explore.sweep.sampling import choice
from ..report import words
from ..report.sweep_words import column_title, counted, failures
from ..spec.study import METRICS, ParameterSpec, StudySpec
from ..version import VERSION
from . import parts, sweep_figures, sweep_heat, sweep_work
from .jobs import Job
from .service import Service
from .sweep_points import MOST_DRAWN, Points, full_run
from .sweep_view import HOW, Chosen, Controls

MOST_ROWS: Final = 100
MOST_REASONS: Final = 20
FEW_REASONS: Final = 5
EXPORTS: Final = {
    "parquet": "Points (Parquet)",
    "csv": "Points (CSV)",
    "yaml": "Study (YAML)",
    "html": "Report (HTML)",
}
EXAMPLES: Final = {
    "llama70b_serving_choices": "Batch, GPUs and types for Llama-3-70B: 60 points",
    "gpu_what_if": "Bandwidth and clock of a GPU that does not exist yet: 1,024 points",
}
"""Bundled studies to start with, and what they are."""
_SHOWN_VALUES: Final = 8
_GRAPH: Final[Any] = parts.GRAPH | {"modeBarButtonsToRemove": ["sendChartToCloud"]}


# --- before there are points ------------------------------------------------------------------------------------------


def describe(study: StudySpec, count: int) -> Any:
    """What running a study will do."""
    how = {
        "grid": "every combination",
        "random": "drawn at random",
        "sobol": "a Sobol sequence",
        "optuna": "chosen one after the other by Optuna",
    }
    lines = [
        f"{count:,} points ({how[study.method]}): {study.workload} on {study.hardware}, {study.reading} reading.",
        "Wanted: "
        + ", ".join(f"{o.name} as {'small' if o.goal == 'min' else 'large'} as can be" for o in study.objectives),
    ]
    if study.constraints:
        lines.append("Constraints: " + ", ".join(study.constraints))
    if study.set:
        lines.append("Set for every point: " + ", ".join(study.set))
    rows = [(parameter.path, _values(parameter)) for parameter in study.parameters]
    axes = parts.table([("What varies", ""), ("Values", "")], rows)
    body = [html.P(study.description.strip(), className="soft")] if study.description else []
    body += [html.P(line) for line in lines]
    return [html.H2(study.name, className="first"), *body, html.Details([html.Summary("What varies"), axes], open=True)]


def _values(parameter: ParameterSpec) -> str:
    given = parameter.range
    if given is not None:
        scale = ", even ratios" if given.scale == "log" else ""
        return f"{given.low} to {given.high}{scale}{f', {given.points} values' if given.points else ''}"
    texts = [choice(value).text for value in parameter.values or []]
    more = f", and {len(texts) - _SHOWN_VALUES} more" if len(texts) > _SHOWN_VALUES else ""
    return ", ".join(texts[:_SHOWN_VALUES]) + more


def progress(job: Job, done: int, total: int) -> Any:
    """How far the work is; nothing once it is done."""
    if job.state == "failed":
        return parts.error(job.message, "Change the study and upload it again, or press Run to try once more.")
    if job.state == "cancelled":
        kept = f"{done:,} of {total:,} points are kept. " if done else ""
        return html.Div(f"Cancelled. {kept}Run goes on with what is missing.", className="note")
    if job.ended:
        return None
    said = "waiting for other work to end" if job.state == "waiting" else f"{done:,} of {total:,} points"
    label: dict[str, Any] = {"aria-label": "points evaluated"}
    bar = html.Progress(value=str(done), max=str(max(1, total)), **label)
    return html.Div([bar, html.P(f"{said}, {job.seconds:.0f} s", role="status")])


# --- the points -------------------------------------------------------------------------------------------------------


def report(service: Service, points: Points, source: str, controls: Controls, chosen: Chosen) -> list[Any]:
    """Everything about the points of a source."""
    result = points.result
    out = [html.H2(result.study.name, className="first"), html.P(counted(result) + ".")]
    out += parts.notes(_notes(points))
    out += [parts.cards(_best(points)), parts.command(sweep_work.command(service, points, source)), _toolbar(points)]
    out += [dcc.Store(id="sweep-id", data=source), dcc.Store(id="sweep-chosen", data=chosen.as_data())]
    if not points.ok.any():
        return [*out, parts.error("No point runs.", "What stands in the way is said below."), failed(points)]
    out.append(_points(points, controls, chosen))
    out.append(html.Div(panel(service, points, controls.point), id="sweep-panel", role="status"))
    out.append(
        parts.section(
            "Parallel coordinates",
            _graph(
                "sweep-parallel", sweep_figures.parallel(points, controls, chosen), "a line a point across all axes"
            ),
            soft="Drag along an axis to select points; click on it to select all again.",
        )
    )
    out.append(_heat(points, controls, chosen))
    out.append(_tables(service, points, chosen))
    if result.importance:
        out.append(
            parts.section(
                "What matters",
                _graph("sweep-importance", sweep_figures.importance(points), "importance of the parameters"),
                soft="Share of an objective's variance that a parameter explains alone (first-order Sobol index, over "
                "all points that run).",
            )
        )
    return [*out, failed(points)]


def _notes(points: Points) -> list[str]:
    out = []
    if not points.opened.known:
        out.append(
            "The file does not name its study, so its objectives are guessed, and points cannot be run again. Files "
            "that effsim sweep writes name it."
        )
    elif points.opened.version != VERSION:
        out.append(f"These points are of effsim {points.opened.version}; this is {VERSION}: full runs may differ.")
    if points.study.constraints and not points.feasible.any():
        out.append("No point keeps every constraint.")
    if len(points.drawn) < int(points.ok.sum()):
        out.append(
            f"Figures draw {len(points.drawn):,} of {int(points.ok.sum()):,} points, evenly spaced (at most about "
            f"{MOST_DRAWN:,}), and the whole front. The heat map and the tables are of all."
        )
    return out


def _best(points: Points) -> Iterable[Any]:
    """The best point by each objective."""
    for name, row in points.result.best.items():
        word = "Smallest" if points.goal(name) == "min" else "Largest"
        if row is not None:
            where = ", ".join(f"{column_title(p)} {points.text(p, row[p])}" for p in points.parameters)
            yield parts.card(f"{word} {name}", points.text(name, row[name]), where, key=f"best-{name}")
    yield parts.card("On the Pareto front" if len(points.objectives) > 1 else "Best points", f"{points.result.front:,}")


def _toolbar(points: Points) -> Any:
    shown = {name: text for name, text in EXPORTS.items() if name != "yaml" or points.opened.known}
    buttons = [parts.button(f"sweep-save-{name}", text) for name, text in shown.items()]
    hidden = [html.Div(parts.button(f"sweep-save-{n}", t), hidden=True) for n, t in EXPORTS.items() if n not in shown]
    return parts.toolbar(html.Span("Save:", className="soft"), *buttons, *hidden, html.Span(id="sweep-save-said"))


def _graph(name: str, figure: Any, label: str) -> Any:
    # A height of its own: a responsive figure that is drawn anew would otherwise take what its frame then has.
    style = {"height": f"{figure['layout']['height']}px"}
    graph = dcc.Graph(id=name, figure=figure, config=_GRAPH, responsive=True, style=style)
    said: dict[str, Any] = {"aria-label": label}
    return html.Div(graph, className="figure sweep-figure", role="group", **said)


def _named(names: Iterable[str]) -> list[dict[str, str]]:
    return [{"label": column_title(name), "value": name} for name in names]


def _points(points: Points, controls: Controls, chosen: Chosen) -> Any:
    logs = html.Fieldset(
        [
            html.Legend("Logarithmic"),
            dcc.Checklist(
                [{"label": "across", "value": "x"}, {"label": "up", "value": "y"}],
                [*controls.log],
                id="sweep-log",
                inline=True,
            ),
        ],
        className="sweep-logs",
    )
    form = html.Div(
        [
            parts.choice("sweep-x", "Across", _named(points.numeric), controls.x),
            parts.choice("sweep-y", "Up", _named(points.numeric), controls.y),
            parts.choice("sweep-colour", "Colour", _named(points.colourable), controls.colour),
            logs,
            parts.text_input(
                "sweep-point",
                "Point",
                "" if controls.point is None else str(controls.point),
                kind="number",
                placeholder="number of a point",
            ),
        ],
        className="form sweep-form",
    )
    chosen_line = html.Div(
        [
            html.Span(selected_words(points, chosen), id="sweep-count", role="status"),
            parts.button("sweep-clear", "Clear selection"),
        ],
        className="toolbar",
    )
    return parts.section(
        "Points",
        form,
        _graph("sweep-scatter", sweep_figures.scatter(points, controls, chosen), "points and Pareto front"),
        chosen_line,
        soft="Click a point for its values and its full run. Box and lasso (above the figure) select; double-click to "
        "see all.",
    )


def _heat(points: Points, controls: Controls, chosen: Chosen) -> Any:
    axes = _named(points.parameters)
    form = html.Div(
        [
            parts.choice("sweep-heat-z", "Shown", _named(points.numeric), controls.heat_z),
            parts.choice("sweep-heat-x", "Across", axes, controls.heat_x),
            parts.choice("sweep-heat-y", "Up", axes, controls.heat_y),
            parts.choice("sweep-how", "Each cell", [{"label": t, "value": n} for n, t in HOW.items()], controls.how),
        ],
        className="form sweep-form",
    )
    figure = sweep_heat.heat(points, controls, chosen.mask(points))
    return parts.section(
        "Heat map",
        form,
        _graph("sweep-heat", figure, "an objective over two axes"),
        soft="Of the selected points that run, or of all; bright is better.",
    )


def selected_words(points: Points, chosen: Chosen) -> str:
    """How many points are selected."""
    total = int(points.ok.sum())
    if not chosen.source:
        return f"All {total:,} points that run are shown; nothing is selected."
    mask = chosen.mask(points)
    return (
        f"{int(mask.sum()):,} of {total:,} points are selected, {int(mask[points.front].sum()):,} of them on the front."
    )


def _tables(service: Service, points: Points, chosen: Chosen) -> Any:
    several = len(points.objectives) > 1
    front = points.front[:MOST_ROWS]
    more = f"the first {MOST_ROWS} of {points.result.front:,}" if points.result.front > len(front) else ""
    title = "Pareto front" if several else "Best points"
    shown = rows(service, points, front.tolist(), "sweep-front", more) if len(front) else parts.empty(_no_front(points))
    return html.Div([parts.section(title, shown), html.Div(selection(service, points, chosen), id="sweep-selection")])


def _no_front(points: Points) -> str:
    return "No point keeps every constraint." if points.study.constraints else "No point has all objectives."


def selection(service: Service, points: Points, chosen: Chosen) -> Any:
    """The table of what is selected, the best by the first objective first."""
    if not chosen.source:
        return None
    places = np.flatnonzero(chosen.mask(points))
    if not len(places):
        return parts.section("Selected points", parts.empty("No point that runs is inside. Select a larger area."))
    name = points.objectives[0]
    sign = 1.0 if points.goal(name) == "min" else -1.0
    order = np.argsort(sign * points.columns[name].values[places], kind="stable")
    shown = places[order][:MOST_ROWS].tolist()
    more = f"the {MOST_ROWS} best by {name} of {len(places):,}" if len(places) > MOST_ROWS else ""
    return parts.section("Selected points", rows(service, points, shown, "sweep-selected", more))


def rows(service: Service, points: Points, places: Sequence[int], name: str, caption: str = "") -> Any:
    """Points as a table; each ends with the link to its full run."""
    shown = [*dict.fromkeys([*points.parameters, *points.objectives])]
    heads = [("Point", "n"), *((column_title(n), "" if points.columns[n].words else "n") for n in shown)]
    heads += [("Bound by", ""), ("Full run", "")]
    listed = points.result.table.take(list(places)).to_pylist()
    return parts.table(heads, [_row(service, points, row, shown) for row in listed], name=name, caption=caption)


def _row(service: Service, points: Points, row: dict[str, Any], shown: Sequence[str]) -> list[Any]:
    query, _ = full_run(service.shelf, points, row)
    link = dcc.Link("Run", href=f"/{query}", title=f"the full run of point {row['index']}") if query else "–"
    cells = [_cell(points, name, row[name]) for name in shown]
    return [(str(row["index"]), row["index"]), *cells, words.plain(str(row["bound"])), link]


def _cell(points: Points, name: str, value: Any) -> Any:
    text = words.plain(points.text(name, value))
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (text, float(value)) if number else text


def panel(service: Service, points: Points, index: int | None) -> Any:
    """All values of one point, and the link to its full run."""
    if index is None:
        return None
    place = points.place(index)
    if place is None:
        last = int(points.index.max())
        return parts.error(
            f"There is no point {index}.", f"Points have numbers from 0 to {last:,}; click one in the figure."
        )
    row = points.row(place)
    query, why = full_run(service.shelf, points, row)
    replicas = row.get("fleet.replicas", int(points.study.fleet.replicas))
    go = dcc.Link("Full run", href=f"/{query}", id="sweep-full", className="primary") if query else None
    said = f"No full run: {why}." if why else ""
    if query and replicas != 1:
        said = f"The full run is that of one of {replicas:,.0f} copies: rates, energy, cost and devices are this part."
    values = [(column_title(name), words.plain(points.text(name, row[name]))) for name in points.parameters]
    metrics = [(name, words.plain(points.text(name, row[name]))) for name in [*METRICS, "bound", "feasible"]]
    if row["status"] != "ok":
        metrics = [("status", str(row["status"])), ("why", words.plain(str(row["message"])))]
    lists = [
        html.Dl([html.Div([html.Dt(name), html.Dd(text)], className="sweep-pair") for name, text in group])
        for group in (values, metrics)
    ]
    head = html.Div([html.H3(f"Point {index}"), go, html.Span(said, className="soft")], className="toolbar")
    return html.Div([head, *lists], className="sweep-panel card")


def failed(points: Points) -> Any:
    """Points without numbers, by what was said."""
    found = failures(points.result)
    if not found:
        return None
    listed = [((f"{n:,}", n), status, words.plain(message)) for (status, message), n in found[:MOST_REASONS]]
    more = f"the {MOST_REASONS} most frequent of {len(found):,} reasons" if len(found) > MOST_REASONS else ""
    heads = [("Points", "n"), ("Status", ""), ("Why", "")]
    total = len(points.ok) - int(points.ok.sum())
    summary = html.Summary(f"{total:,} points, and why")
    table = parts.table(heads, listed, name="sweep-failed", caption=more)
    few = len(listed) <= FEW_REASONS
    return parts.section("Points without numbers", html.Details([summary, table], open=few))
