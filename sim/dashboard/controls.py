"""Controls of parameters: a slider and a line of text for a number, a list for a choice, and where a value is from."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from dash import dcc, html

from ..errors import UnitError
from ..units import parse
from .parameters import NOTHING, Parameter, path_of, resolve_text

SPAN: Final = 3.0
"""Sliders reach from an eighth of a value to eight times it: so many doublings to each side."""
_FEW: Final = 64
"""Counts that are small get a slider up to here."""
_FINE: Final = 1 / 16
_PARTS: Final = 100
_DIGITS: Final = 3
_MANY: Final = 12
_COUNT_STEP: Final = 0.02


@dataclass(frozen=True, slots=True)
class Scale:
    """Positions of a slider: doublings of *base* (``log``), or the value itself."""

    parameter: Parameter
    base: float
    low: float
    high: float
    step: float
    log: bool

    def position(self, value: float) -> float:
        """Where a value is, on a step of the slider and within its ends."""
        where = math.log2(value / self.base) if self.log and value > 0.0 else value
        if self.log and value <= 0.0:
            where = self.low
        stepped = self.low + round((min(self.high, max(self.low, where)) - self.low) / self.step) * self.step
        return round(stepped, 6)

    def text(self, position: float) -> str:
        """The value at a position, as ``--set`` takes it: three digits, whole where it must be."""
        where = min(self.high, max(self.low, position))
        value = self.base * 2.0**where if self.log else where
        if self.parameter.whole:
            value = max(self.parameter.least, float(round(value)))
        elif abs(where) > self.step / 2 or not self.log:
            value = float(f"{value:.{_DIGITS}g}")
        if self.parameter.most is not None:
            value = min(value, self.parameter.most)
        return self.parameter.written(value)


def scale(parameter: Parameter) -> Scale | None:
    """The slider of a parameter around the value that its file gives; None for what has no useful one."""
    value, most = parameter.number, parameter.most
    if value is None or parameter.choices:
        return None
    if most is not None and most <= 1.0:
        step = most / _PARTS
        return Scale(parameter, value, max(parameter.least, step), most, step, log=False)
    if value <= 0.0:
        return None
    low, high = -SPAN, SPAN
    if parameter.whole:
        low = math.log2(max(1.0, value / 2**SPAN) / value)
        high = max(SPAN, math.log2(_FEW / value))
    if most is not None:
        high = min(high, math.log2(most / value))
    if high <= low:
        return None
    return Scale(parameter, value, low, high, _COUNT_STEP if parameter.whole else _FINE, log=True)


def present(parameter: Parameter, changes: Sequence[str]) -> Parameter:
    """The parameter with what the changes say of it."""
    mine = [change for change in changes if path_of(change) == parameter.path]
    if not mine:
        return parameter
    text = mine[-1].partition("=")[2].strip()
    text = "" if text == NOTHING else text
    choices = parameter.choices
    if choices and text and text not in choices:
        choices = (text, *choices)
    changed = "changed here"
    return replace(parameter, text=text, number=_number(parameter, text), choices=choices, kind="", source=changed)


def _number(parameter: Parameter, text: str) -> float | None:
    try:
        if parameter.dimension:
            return parse(text, parameter.dimension)
    except UnitError:
        return parameter.number
    found = resolve_text(text)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else parameter.number


def element_id(kind: str, path: str) -> str:
    """The id that Dash gives the element of a control."""
    return json.dumps({"path": path, "type": kind}, separators=(",", ":"))


def named(label: str) -> dict[str, Any]:
    """A name for those who do not see a component."""
    return {"aria-label": label}


def control(held: Parameter, now: Parameter, title: str, *, changed: bool, labels: Any = str) -> Any:
    """A parameter as its file gives it (*held*) and as it is *now*; *labels* makes choices readable."""
    name = {"path": now.path}
    if now.choices:
        offered = [{"label": labels(choice), "value": choice} for choice in now.choices]
        if now.optional or not now.text:
            offered = [{"label": "(not given)", "value": NOTHING}, *offered]
        made = dcc.Dropdown(
            offered,
            now.text or NOTHING,
            id={"type": "what-choice", **name},
            clearable=False,
            searchable=len(offered) > _MANY,
        )
        row: list[Any] = [made]
        target = element_id("what-choice", now.path)
    else:
        text = dcc.Input(
            id={"type": "what-text", **name},
            value=now.text,
            type="text",
            debounce=True,
            spellCheck="false",
            autoComplete="off",
            placeholder="not given",
        )
        row = [*_slider(held, now, title), text]
        target = element_id("what-text", now.path)
    label = html.Label(title, htmlFor=target, title=now.path)
    inner = [html.Div([label, _origin(now)], className="what-name"), html.Div(row, className="what-row")]
    return html.Div(inner, className=row_class(changed), id={"type": "what-row", "path": now.path})


def _slider(held: Parameter, now: Parameter, title: str) -> list[Any]:
    around = scale(held)
    if around is None:
        return []
    low, high = round(around.low, 6), round(around.high, 6)
    slider = dcc.Slider(
        low,
        high,
        around.step,
        marks=None,
        value=slider_position(around, now),
        id={"type": "what-slider", "path": now.path},
        updatemode="mouseup",
        allow_direct_input=False,
        tooltip={"placement": "top", **({"transform": "effsimFactor"} if around.log else {})},
    )
    marked: dict[str, Any] = {"data-label": f"{title}, slider"} | ({"data-log": ""} if around.log else {})
    return [html.Div(slider, className="what-range", **marked)]


def slider_position(around: Scale, now: Parameter) -> float:
    """Where the slider of a parameter stands."""
    return around.position(now.number if now.number is not None else around.base)


def row_class(changed: bool) -> str:
    """The class of a parameter's row."""
    return "what-parameter what-moved" if changed else "what-parameter"


def _origin(parameter: Parameter) -> Any:
    """Kind, source and meaning: behind a word to open."""
    if not (parameter.source or parameter.hint):
        return None
    said = [html.P(line) for line in (parameter.hint, parameter.source) if line]
    word = parameter.kind or ("changed" if parameter.text and parameter.source else "about")
    aloud = named(f"{word}: {parameter.path}")
    summary = html.Summary(word, title=parameter.source or parameter.hint, **aloud)
    return html.Details([summary, *said, html.Code(parameter.path)], className="what-origin")
