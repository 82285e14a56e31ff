"""Components on what a hardware file assumes: its numbers by origin, and what was compared with hardware."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import exp
from typing import Any, Final

from dash import dcc, html

from ..errors import EffsimError
from ..report import words
from ..report.figure_style import base_figure
from . import parts
from .accuracy import Chosen, counts
from .assumed import KINDS, Compared, Number, compared, counted, filtered, machine_of, numbers
from .service import Service
from .view import View

_EVIDENCE: Final = {
    "validated": "compared on this device",
    "transferred": "compared on other devices of the maker",
    "related": "only relatives were compared",
    "unvalidated": "never compared",
}
_COLOURS: Final = {
    "datasheet": "#0072B2",
    "measured": "#009E73",
    "fitted": "#E69F00",
    "assumed": "#D55E00",
    "unverified": "#CC79A7",
}


def assumed(service: Service, chosen: Chosen) -> Any:
    """The numbers of a hardware file by origin, and what of it was compared with hardware."""
    if not chosen.hardware:
        return parts.empty("Choose a hardware file above.")
    try:
        machine = machine_of(service, chosen.hardware)
        found, classes = numbers(machine), compared(machine)
    except EffsimError as error:
        return parts.error(str(error), "Choose another file.")
    shown = filtered(found, chosen.kinds, chosen.find)
    total = counted(found)
    told = ", ".join(f"{n:,} {kind}" for kind, n in total.items())
    link = dcc.Link("See it run", href=f"/{View.of(hardware=chosen.hardware).query}")
    out: list[Any] = [
        html.P([html.B(words.plain(machine.name)), f": {sum(total.values()):,} numbers, {told}. ", link]),
        parts.plot(_bar(total), "accuracy-figure-kinds", label=f"Numbers by kind: {told}"),
    ]
    if shown:
        said = f"{len(shown):,} of {len(found):,} lines; tiles of one origin share a line. A click on a heading sorts."
        out += [html.P(said, className="hint"), _numbers(shown)]
    else:
        out.append(parts.empty("No number is of these kinds and words. Take a filter away above."))
    return [*out, parts.section("What was compared on this device", _evidence(classes))]


def _bar(total: dict[str, int]) -> Any:
    import plotly.graph_objects as go

    out = base_figure(150)
    for kind, n in total.items():
        marker = {"color": _COLOURS.get(kind, "#999999")}
        text = {"text": [str(n)], "textposition": "inside", "insidetextanchor": "middle", "textangle": 0}
        hover = f"{n} {escape(kind)}: {escape(KINDS.get(kind, ''))}<extra></extra>"
        out.add_trace(
            go.Bar(x=[n], y=[""], orientation="h", name=escape(kind), marker=marker, hovertemplate=hover, **text)
        )
    out.update_layout(margin={"l": 0, "r": 0, "t": 60, "b": 10}, uniformtext={"minsize": 11, "mode": "hide"})
    out.update_xaxes(visible=False)
    out.update_yaxes(visible=False)
    return out


def _numbers(shown: Sequence[Number]) -> Any:
    heads = [("parameter", ""), ("value (SI)", "n"), ("kind", ""), ("source", "source")]
    rows = [
        (words.plain(n.path), (n.shown, n.values[0]), n.kind, words.plain(n.source))
        for n in sorted(shown, key=lambda n: (-list(KINDS).index(n.kind) if n.kind in KINDS else 0, n.path))
    ]
    return parts.table(heads, rows, name="accuracy-numbers")


def _evidence(classes: Sequence[Compared]) -> Any:
    found = counts(c.evidence for c in classes)
    order = list(_EVIDENCE)
    told = "; ".join(
        f"{_EVIDENCE.get(name, name)}: {n}" for name, n in sorted(found.items(), key=lambda i: _place(i[0]))
    )
    heads = [("class of kernels", ""), ("evidence", ""), ("rows", "n"), ("interval", "n"), ("measured on", "")]
    rows = [
        (
            c.name,
            (_EVIDENCE.get(c.evidence, c.evidence), order.index(c.evidence) if c.evidence in order else len(order)),
            (f"{c.rows:,}", c.rows),
            _interval(c),
            ", ".join(c.devices) or "–",
        )
        for c in sorted(classes, key=lambda c: (_place(c.evidence), c.name))
    ]
    lead = (
        f"Classes that were compared with hardware somewhere, and what that says here. {told}. The interval holds nine "
        "of ten measurements around the prediction, before what less known numbers of this device add; any class that "
        "is not in the list was never compared."
    )
    table = parts.table(heads, rows, name="accuracy-evidence")
    return html.Div([html.P(lead), html.Details([html.Summary(f"{len(rows)} classes"), table])])


def _place(evidence: str) -> int:
    return list(_EVIDENCE).index(evidence) if evidence in _EVIDENCE else len(_EVIDENCE)


def _interval(c: Compared) -> tuple[str, float]:
    low, high = exp(c.low) - 1.0, exp(c.high) - 1.0
    return f"{words.signed_percent(low)} to {words.signed_percent(high)}", high - low
