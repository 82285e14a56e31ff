"""Components that pages share. Dash renders text as text, so names from files need no escaping here; figures escape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from dash import dcc, html

from ..report import words
from ..report.figure_style import CONFIG
from ..report.result import RunResult

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

GRAPH: Final[Any] = CONFIG | {
    "toImageButtonOptions": {"format": "png", "scale": 2, "filename": "effsim"},
    "modeBarButtonsToRemove": ["lasso2d", "select2d", "sendChartToCloud"],
}
"""Options of every figure: the camera saves a picture, nothing is sent anywhere."""


_HEIGHT: Final = 420
"""Pixels of a figure that does not say how high it is."""


def _given(name: str, value: str) -> dict[str, Any]:
    """An attribute of a component, where it has a value."""
    return {name: value} if value else {}


def card(label: str, value: str, aside: str = "", *, key: str = "") -> Any:
    """One number with its name. *key* is for tests and scripts: ``data-key``."""
    return html.Div(
        [
            html.Span(label, className="card-label"),
            html.B(together(value)),
            html.Span(together(aside), className="card-aside"),
        ],
        className="card",
        **_given("data-key", key),
    )


def together(text: str) -> str:
    """A text whose numbers keep their percent signs on the line."""
    return text.replace(" %", "\u00a0%")


def cards(items: Iterable[Any]) -> Any:
    """Cards side by side."""
    return html.Div(list(items), className="cards")


def headline(result: RunResult) -> Any:
    """The times, the memory and what limits, as cards."""
    shown = [card(line.label, line.value, line.aside) for line in words.headlines(result)]
    first = next(iter(words.seconds_by_resource(result)), "")
    if first:
        share = words.seconds_by_resource(result)[first] / result.time_s if result.time_s else 0.0
        shown.append(card("Bottleneck", words.plain(first), f"{words.percent(share)} of the time", key="bottleneck"))
    used = words.gib(float(result.memory["used_bytes"]))
    shown.append(card("Memory of one device", used, words.memory_line(result), key="memory"))
    return cards(shown)


def notes(lines: Iterable[str]) -> list[Any]:
    """Sentences a reader should see first."""
    return [html.Div(words.plain(line), className="note") for line in lines]


def error(message: str, advice: str = "") -> Any:
    """What went wrong, and what to do."""
    return html.Div(
        [html.P(message), html.P(advice, className="soft") if advice else None], className="error", role="alert"
    )


def empty(message: str) -> Any:
    """What to do where there is nothing to show yet."""
    return html.Div(html.P(message), className="empty")


def section(title: str, *content: Any, name: str = "", soft: str = "") -> Any:
    """A part of a page with its heading; *name* makes it a target of links and tests."""
    head = [html.H2(title)] + ([html.P(soft, className="soft")] if soft else [])
    return html.Section([*head, *content], **_given("id", name))


def plot(figure: Figure | dict[str, Any], name: str = "", *, label: str = "") -> Any:
    """A figure as high as it says; *label* says what it shows to those who do not see it."""
    layout = figure["layout"]
    height = (layout.get("height") if isinstance(layout, dict) else layout.height) or _HEIGHT
    graph = dcc.Graph(
        figure=figure, config=GRAPH, responsive=True, style={"height": f"{height}px"}, **_given("id", name)
    )
    return html.Div(graph, className="figure", role="group", **_given("aria-label", label))


def table(heads: Sequence[tuple[str, str]], rows: Iterable[Sequence[Any]], *, name: str = "", caption: str = "") -> Any:
    """A table; each head is a name and a class (``n`` for numbers). Its heads sort it (see ``assets/behaviour.js``)."""
    head = html.Thead(
        html.Tr([html.Th(html.Button(text, type="button"), className=kind, scope="col") for text, kind in heads])
    )
    kinds = [kind for _, kind in heads]
    body = [html.Tr([_cell(cell, kind) for cell, kind in zip(row, kinds, strict=True)]) for row in rows]
    parts = [html.Caption(caption)] if caption else []
    inner = html.Table([*parts, head, html.Tbody(body)], className="sortable", **_given("id", name))
    return html.Div(inner, className="scroll", tabIndex=0)


def _cell(cell: Any, kind: str) -> Any:
    """A cell; a pair is what is shown and the number it is sorted by."""
    if isinstance(cell, tuple):
        shown, value = cell
        return html.Td(shown, className=kind, **_given("data-v", repr(float(value))))
    return html.Td(cell, className=kind)


def choice(
    name: str, title: str, options: Sequence[Any], value: Any, *, multi: bool = False, clearable: bool = False
) -> Any:
    """A list to choose from, with its name above."""
    return html.Div(
        [
            html.Label(title, htmlFor=name),
            dcc.Dropdown(list(options), value, id=name, multi=multi, clearable=clearable, searchable=True),
        ],
        className="field",
    )


def field(name: str, title: str, control: Any, hint: str = "") -> Any:
    """A control with its name above and a hint below."""
    return html.Div(
        [html.Label(title, htmlFor=name), control, html.Span(hint, className="hint") if hint else None],
        className="field",
    )


def text_input(
    name: str, title: str, value: str = "", *, placeholder: str = "", hint: str = "", kind: Any = "text"
) -> Any:
    """A line of text (or a number); what is typed counts when it is entered or left."""
    control = dcc.Input(
        id=name, type=kind, value=value, placeholder=placeholder, debounce=True, spellCheck="false", autoComplete="off"
    )
    return field(name, title, control, hint)


def button(name: str, text: str, *, primary: bool = False, disabled: bool = False) -> Any:
    """A button."""
    return html.Button(
        text, id=name, n_clicks=0, type="button", className="primary" if primary else "plain", disabled=disabled
    )


def toolbar(*items: Any) -> Any:
    """Buttons in a row."""
    return html.Div(list(items), className="toolbar", role="group")


def command(text: str) -> Any:
    """The command line that gives the same, to copy."""
    return html.Div(
        [html.Code(text, className="command"), dcc.Clipboard(content=text, title="copy the command", className="copy")],
        className="command-line",
    )


def waiting(content: Any) -> Any:
    """What shows that it is being computed anew."""
    return dcc.Loading(content, type="dot", delay_show=150, overlay_style={"visibility": "visible", "opacity": 0.5})


def computing() -> Any:
    """What stands where the first answer will be."""
    return html.P("Computing…", className="soft")
