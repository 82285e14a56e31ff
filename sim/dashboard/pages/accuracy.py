"""Accuracy: predicted against measured, by GPU and kind, and what of a machine's file is assumed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from dash import ClientsideFunction, Input, Output, State, dcc, html, no_update
from dash.exceptions import PreventUpdate

from ...errors import EffsimError
from ...report import words
from ...validation.record import Figure as Score
from .. import parts
from ..accuracy import CHECKS, ENDINGS, Chosen, counts, offered, receive_rows, rows_of, selected, target
from ..app import Page
from ..assumed import KINDS
from ..assumed_parts import assumed
from ..comparison import chosen as texts
from ..figures_accuracy import error_figure, scatter_figure, spread_figure
from ..pickers import Uploads, picker, register_picker
from ..service import Service
from ..uploads import decode
from ..view import View

_MOST_COLUMNS: Final = 8
_DARKEST: Final = 0.5
"""Median error from which cells of the table by GPU grow no darker."""
_UNKNOWN: Final = -1.0
_MEANING: Final = (
    "An error is predicted / measured − 1: of times, negative is too fast; of tokens/s, too slow. Median and p90 are "
    "of its size, the bias is its mean with sign. Nothing was fitted row by row, but some parameters were fitted on "
    "tables of A100 and H100 (fitted numbers say so below), so those two are judged by tighter targets. Inside is the "
    "share of measurements in the predicted interval, of rows that it was not fitted on; it promises nine of ten. A "
    "median of few rows says little, and what is not in the table was never compared with hardware."
)
_GIVE: Final = (
    "No single measurements come with effsim. With the public tables at hand, effsim validate --data FOLDER --rows "
    "rows.parquet writes every measurement beside its prediction; upload that file above to see them."
)


def layout(service: Service, view: View, uploads: Uploads) -> Any:
    """The forms as the view says; the answers follow."""
    chosen = Chosen.of(view)
    where, what = offered(chosen.check)
    checks = [{"label": f"{name}: {words_}", "value": name} for name, words_ in CHECKS.items()]
    upload = dcc.Upload(
        html.Button("Upload rows (.csv, .parquet)…", type="button", className="link"),
        id="accuracy-rows-upload",
        accept=",".join(ENDINGS),
        className="upload",
        className_active="upload active",
    )
    said = html.Span(_said(service, chosen), id="accuracy-rows-said", className="said", role="status")
    form = html.Div(
        [
            parts.choice("accuracy-check", "What was compared", checks, chosen.check),
            parts.choice(
                "accuracy-where", "GPUs, machines or sources (none: all)", where, list(chosen.where), multi=True
            ),
            parts.choice("accuracy-what", "Kinds (none: all)", what, list(chosen.what), multi=True),
            html.Div([upload, said], className="upload-row wide"),
        ],
        className="form",
    )
    kinds = [{"label": f"{name}: {words_}", "value": name} for name, words_ in KINDS.items()]
    second = html.Div(
        [
            picker(service, "accuracy-hardware", "hardware", "Hardware", chosen.hardware, uploads),
            parts.choice("accuracy-kinds", "Kinds of numbers (none: all)", kinds, list(chosen.kinds), multi=True),
            parts.text_input("accuracy-find", "Words in path or source", chosen.find, placeholder="memory bandwidth"),
        ],
        className="form",
    )
    held = [dcc.Store(id="accuracy-rows", data=chosen.rows), dcc.Store(id="accuracy-rows-sent")]
    first = parts.waiting(html.Div(id="accuracy-report"))
    below = [html.H2("What is assumed"), second, parts.waiting(html.Div(id="accuracy-assumed"))]
    return [html.H1("Accuracy"), *held, form, first, *below]


def _said(service: Service, chosen: Chosen) -> str:
    return f"{service.shelf.label(chosen.rows)} is shown" if service.shelf.upload(chosen.rows) else ""


def register(app: Any, service: Service) -> None:
    """The callbacks of the page."""
    register_picker(app, service, "accuracy-hardware", "hardware")
    names = [f"accuracy-{name}" for name in ("check", "where", "what", "hardware", "kinds", "find")]
    held = [Input("accuracy-rows", "data"), *[Input(name, "value") for name in names]]

    @app.callback(  # type: ignore[untyped-decorator]
        Output("link", "data", allow_duplicate=True), *held, prevent_initial_call="initial_duplicate"
    )
    def link(*values: Any) -> Any:
        return {"path": PAGE.path, "query": asked(*values).view.query}

    @app.callback(Output("accuracy-report", "children"), *held[:4])  # type: ignore[untyped-decorator]
    def show(rows: Any, check: Any, where: Any, what: Any) -> Any:
        return answer(service, asked(rows, check, where, what, "", [], ""))

    @app.callback(Output("accuracy-assumed", "children"), *held[4:])  # type: ignore[untyped-decorator]
    def assume(hardware: Any, kinds: Any, find: Any) -> Any:
        return assumed(service, asked("", "", [], [], hardware, kinds, find))

    @app.callback(  # type: ignore[untyped-decorator]
        Output("accuracy-where", "options"),
        Output("accuracy-where", "value"),
        Output("accuracy-what", "options"),
        Output("accuracy-what", "value"),
        Input("accuracy-check", "value"),
        prevent_initial_call=True,
    )
    def offer(check: Any) -> Any:
        where, what = offered(asked("", check, [], [], "", [], "").check)
        return where, [], what, []

    app.clientside_callback(
        ClientsideFunction("effsim", "sent"),
        Output("accuracy-rows-sent", "data"),
        Output("accuracy-rows-said", "children"),
        Output("accuracy-rows-upload", "contents"),
        Input("accuracy-rows-upload", "contents"),
        State("accuracy-rows-upload", "filename"),
        prevent_initial_call=True,
    )

    @app.callback(  # type: ignore[untyped-decorator]
        Output("accuracy-rows", "data"),
        Output("accuracy-rows-said", "children", allow_duplicate=True),
        Input("accuracy-rows-sent", "data"),
        prevent_initial_call=True,
    )
    def arrived(sent: Any) -> Any:
        return received(service, sent)

    @app.callback(  # type: ignore[untyped-decorator]
        Output("download", "data", allow_duplicate=True),
        Input("accuracy-save", "n_clicks"),
        *[State(part.component_id, part.component_property) for part in held],
        prevent_initial_call=True,
    )
    def save(clicks: Any, *values: Any) -> Any:
        if not clicks:
            raise PreventUpdate
        return {"content": scores_csv(selected(asked(*values))), "filename": "accuracy.csv"}


def received(service: Service, sent: Any) -> Any:
    """The token of a file of rows that arrived, and what to say of it."""
    if not isinstance(sent, dict):
        raise PreventUpdate
    try:
        content = decode(str(sent.get("contents", "")))
        kept = receive_rows(service.shelf, str(sent.get("name", "")), content)
    except EffsimError as error:
        return no_update, parts.error(service.shelf.readable(str(error)))
    return kept.token, f"{kept.label} is shown"


def asked(rows: Any, check: Any, where: Any, what: Any, hardware: Any, kinds: Any, find: Any) -> Chosen:
    """What the forms ask for; a value that no control gives is left out."""
    found = [next(iter(texts(value)), "") for value in (rows, check, hardware, find)]
    return Chosen(
        check=found[1] if found[1] in CHECKS else "kernels",
        where=texts(where),
        what=texts(what),
        rows=found[0],
        hardware=found[2],
        kinds=texts(kinds),
        find=found[3],
    )


def answer(service: Service, chosen: Chosen) -> Any:
    """Figures of the selection, and single rows where they were given."""
    scores = selected(chosen)
    if not scores:
        shown: list[Any] = [parts.empty("Nothing of this was compared. Take a filter away above.")]
    else:
        shown = _record(chosen, scores)
    try:
        return [*shown, *_rows(service, chosen)]
    except EffsimError as error:
        return [*shown, parts.error(str(error))]


def _record(chosen: Chosen, scores: Sequence[Score]) -> list[Any]:
    total = sum(score.n for score in scores)
    limits = [(score, limit) for score in scores if (limit := target(score)) is not None]
    met = sum(score.median <= limit for score, limit in limits)
    widest, best = scores[0], scores[-1]
    cards = [
        parts.card("Measurements", f"{total:,}", f"in {len(scores)} figures", key="rows"),
        parts.card("Within their targets", f"{met} of {len(limits)}", "figures that have one", key="met"),
        parts.card("Largest median", words.percent(widest.median), f"{widest.where}: {widest.what}"),
        parts.card("Smallest median", words.percent(best.median), f"{best.where}: {best.what}"),
    ]
    places = sorted({score.where for score in scores})
    if len(places) <= _MOST_COLUMNS:
        table = _heat(scores, places)
    else:
        table = parts.empty(f"Choose at most {_MOST_COLUMNS} of the {len(places)} places above for a table by place.")
    soft = "Medians of the errors' size; darker is worse, ▲ is beyond its target, a dot was never compared."
    spread = parts.plot(spread_figure(scores), "accuracy-figure-spread", label="How errors are spread")
    hint = (
        "" if all(s.quantiles for s in scores) else "This record has no spread of the signed errors: sizes are shown."
    )
    return [
        parts.cards(cards),
        html.P(_MEANING, className="soft"),
        parts.section("By place and kind", table, soft=soft),
        parts.section("How errors are spread", spread, soft=hint),
        parts.section("In numbers", _table(scores), parts.toolbar(parts.button("accuracy-save", "Save (CSV)"))),
    ]


def _heat(scores: Sequence[Score], places: Sequence[str]) -> Any:
    """Median errors as a table that says and colours them."""
    held = {(score.where, score.what): score for score in scores}
    head = html.Tr([html.Th("kind", scope="col"), *(html.Th(place, scope="col", className="n") for place in places)])
    rows = []
    for what in sorted({score.what for score in scores}):
        cells = [_heat_cell(held.get((place, what))) for place in places]
        rows.append(html.Tr([html.Th(words.plain(what), scope="row"), *cells]))
    inner = html.Table([html.Thead(head), html.Tbody(rows)], id="accuracy-heat", className="heat")
    return html.Div(inner, className="scroll", tabIndex=0)


def _heat_cell(score: Score | None) -> Any:
    if score is None:
        return html.Td("·", className="n soft", title="never compared")
    limit = target(score)
    beyond = limit is not None and score.median > limit
    alpha = 0.65 * min(1.0, score.median / _DARKEST) ** 0.5
    told = f"{score.n:,} rows, p90 {words.percent(score.p90)}, bias {words.signed_percent(score.bias)}"
    told += "" if limit is None else f", target {words.percent(limit)}"
    mark = "▲ " if beyond else ""
    style = {"background": f"rgba(213, 94, 0, {alpha:.2f})"}
    return html.Td(f"{mark}{words.percent(score.median)}", className="n", style=style, title=told)


def _table(scores: Sequence[Score]) -> Any:
    heads = [("where", ""), ("what", "")]
    heads += [(name, "n") for name in ("n", "median", "target", "p90", "bias", "inside", "worst")]
    rows = []
    for score in scores:
        limit = target(score)
        beyond = limit is not None and score.median > limit
        rows.append(
            (
                words.plain(score.where),
                words.plain(score.what),
                (f"{score.n:,}", score.n),
                (words.percent(score.median), score.median),
                ("–", _UNKNOWN) if limit is None else (f"{'▲ ' if beyond else ''}{words.percent(limit)}", limit),
                (words.percent(score.p90), score.p90),
                (words.signed_percent(score.bias), score.bias),
                ("–", _UNKNOWN) if score.inside is None else (words.percent(score.inside), score.inside),
                ("–", _UNKNOWN) if score.worst is None else (words.signed_percent(score.worst), abs(score.worst)),
            )
        )
    return parts.table(heads, rows, name="accuracy-table", caption="A click on a heading sorts.")


def scores_csv(scores: Sequence[Score]) -> str:
    """The figures as CSV, errors as fractions."""
    import csv
    import io

    from ...validation.record import LEVELS
    from ..exports import safe

    held = io.StringIO()
    writer = csv.writer(held, lineterminator="\n")
    spread = [f"error_at_{level:g}" for level in LEVELS]
    writer.writerow(["check", "where", "what", "n", "median", "target", "p90", "bias", "inside", "worst", *spread])
    for s in scores:
        row = [s.check, safe(s.where), safe(s.what), s.n, s.median, target(s), s.p90, s.bias, s.inside, s.worst]
        writer.writerow([*row, *(s.quantiles or [None] * len(LEVELS))])
    return held.getvalue()


def _rows(service: Service, chosen: Chosen) -> list[Any]:
    """Every measurement beside its prediction, where a visitor gave them."""
    rows = rows_of(service, chosen)
    if rows is None:
        return [parts.section("Every measurement", parts.empty(_GIVE))]
    if not len(rows):
        return [parts.section("Every measurement", parts.empty("The file has no rows of this selection."))]
    out: list[Any] = []
    units = rows.of("unit")
    for unit in counts(units):
        import numpy as np

        mine = rows.where(np.array(units) == unit)
        drawn = scatter_figure(mine, unit)
        soft = f"{len(mine):,} rows in {unit}; on the dashed line they are equal, above it effsim says more."
        name = f"accuracy-figure-scatter-{len(out)}"
        out.append(parts.section("Predicted against measured", parts.plot(drawn, name, label="Scatter"), soft=soft))
    errors = rows.error
    size = np.abs(errors)
    told = f"{len(rows):,} rows: median size {words.percent(float(np.median(size)))}, bias "
    told += f"{words.signed_percent(float(np.mean(errors)))}. Rows of servers' stages and percentiles are in the file, "
    told += "not in the record above."
    drawn = parts.plot(error_figure(rows), "accuracy-figure-errors", label="Histogram of errors")
    return [*out, parts.section("Errors of the rows", drawn, soft=told)]


PAGE: Final = Page("/accuracy", "Accuracy", layout, register)
