"""The HTML report of a sweep: one file that needs no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from . import words
from .figure_style import base_figure
from .files import atomic_write_text
from .page import Figures, document
from .sweep_words import cell, column_title, counted, failures, shown_columns

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from ..explore.sweep.sweep import SweepResult

MOST_POINTS: Final = 5000
"""Points of a scatter plot; evenly spaced ones of more."""
MOST_ROWS: Final = 100
_FRONT, _OTHER, _BAR = "#b3261e", "#7a8fa6", "#2f6690"


def write_sweep_page(result: SweepResult, path: str | Path) -> None:
    """Write the report.

    Raises:
        DataError: the file cannot be written.
    """
    atomic_write_text(path, sweep_page(result))


def sweep_page(result: SweepResult) -> str:
    """The report as text."""
    figures, study = Figures(), result.study
    body = [f"<h1>{_e(study.name)}</h1>"]
    if study.description:
        body.append(f'<p class="soft">{_e(study.description.strip())}</p>')
    body.append(
        f"<p>{_e(counted(result))}. {_e(study.workload)} on {_e(study.hardware)}, {_e(study.reading)} reading, "
        f"method {_e(study.method)}, seed {result.seed}.</p>"
    )
    if study.constraints:
        body.append(f"<p>Constraints: {_e(', '.join(study.constraints))}.</p>")
    ok = result.table.filter([status == "ok" for status in result.table["status"].to_pylist()])
    if ok.num_rows:
        body.append("<h2>Objectives</h2>")
        body.append(figures.html(_scatter(result, ok), "Points and Pareto front"))
        body.append("<h2>Pareto front</h2>" if len(study.objectives) > 1 else "<h2>Best points</h2>")
        body.append(_table(result, result.pareto[:MOST_ROWS]))
        if result.front > MOST_ROWS:
            body.append(f'<p class="soft">{result.front - MOST_ROWS} more are in points.parquet.</p>')
    if result.importance:
        body.append(
            "<h2>What matters</h2><p class='soft'>Share of an objective's variance that a parameter explains "
            "alone (first-order Sobol index, over all points that run).</p>"
        )
        body.append(figures.html(_importance(result), "Importance of parameters"))
    body.append(_failures(result))
    return document(study.name, body)


def _e(text: str) -> str:
    return escape(words.plain(text))


def _scatter(result: SweepResult, ok: Any) -> Figure:
    """First against second objective, or against the first parameter; the front on top."""
    import plotly.graph_objects as go

    objectives = [o.name for o in result.study.objectives]
    pair = objectives[:2] if len(objectives) > 1 else [shown_columns(result)[0], *objectives]
    x_name, y_name = pair
    step = math.ceil(ok.num_rows / MOST_POINTS)
    sample = ok.take(list(range(0, ok.num_rows, step)))
    out = base_figure(460)
    for rows, name, colour, size in (
        (sample.to_pylist(), "points", _OTHER, 5),
        (list(result.pareto), "Pareto front" if len(objectives) > 1 else "best", _FRONT, 8),
    ):
        out.add_trace(
            go.Scatter(
                x=[row[x_name] for row in rows],
                y=[row[y_name] for row in rows],
                mode="markers",
                name=name,
                marker={"color": colour, "size": size},
                text=[_hover(result, row) for row in rows],
                hoverinfo="text",
            )
        )
    out.update_xaxes(title=escape(column_title(x_name)))
    out.update_yaxes(title=escape(column_title(y_name)))
    return out


def _hover(result: SweepResult, row: dict[str, Any]) -> str:
    return "<br>".join(_e(f"{column_title(n)}: {cell(n, row[n])}") for n in shown_columns(result))


def _importance(result: SweepResult) -> Figure:
    import plotly.graph_objects as go

    out = base_figure(160 + 40 * len(result.importance))
    rows = list(reversed(result.importance))
    out.add_trace(
        go.Bar(
            x=[i.value for i in rows],
            y=[escape(f"{column_title(i.path)} → {i.objective}") for i in rows],
            orientation="h",
            marker={"color": _BAR},
        )
    )
    out.update_xaxes(range=[0, 1], title="first-order Sobol index")
    return out


def _table(result: SweepResult, rows: Sequence[dict[str, Any]]) -> str:
    names = shown_columns(result)
    head = "".join(f"<th>{_e(column_title(name))}</th>" for name in names)
    lines = "".join("<tr>" + "".join(f"<td>{_e(cell(n, row[n]))}</td>" for n in names) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def _failures(result: SweepResult) -> str:
    """Points without numbers, by what was said, most frequent first."""
    rows = failures(result)[:20]
    if not rows:
        return ""
    lines = "".join(f"<tr><td>{n}</td><td>{_e(s)}</td><td>{_e(m)}</td></tr>" for (s, m), n in rows)
    head = "<tr><th>points</th><th>status</th><th>why</th></tr>"
    return f"<h2>Points without numbers</h2><table><thead>{head}</thead><tbody>{lines}</tbody></table>"
