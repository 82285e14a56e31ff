"""From a control that was used to a change: what a slider, a line of text or a button of the what-if page says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from dash import no_update
from dash.exceptions import PreventUpdate

from ..devices.registry import load_machine
from ..errors import EffsimError
from ..program.workload_file import load_workload
from . import controls
from .parameters import NOTHING, Parameter, Tree, assigned, path_of, tree
from .service import MAX_CHANGES, Asked, Service

KINDS: Final = ("what-slider", "what-text", "what-choice")
BUTTONS: Final = ("what-reset", "what-pin-now", "what-unpin")
MAX_TEXT: Final = 2000
"""Characters of a value or a search that are looked at."""


def tree_of(service: Service, asked: Asked, changes: tuple[str, ...]) -> Tree:
    """The parameters of the files with these changes.

    Raises:
        EffsimError: a file or a change is wrong.
    """

    def make() -> Tree:
        machine = load_machine(service.shelf.argument("hardware", asked.hardware), changes)
        workload, _ = load_workload(service.shelf.argument("workloads", asked.workload), changes)
        return tree(machine, workload)

    return service.ask(("tree", asked.hardware, asked.workload, changes), make, changes)


def acted(service: Service, asked: Asked, pin: tuple[str, ...], trigger: Any, value: Any) -> tuple[Any, Any]:
    """Changes and pinned changes after a control was used; what changes nothing is no update."""
    if trigger in BUTTONS:
        if not value:
            raise PreventUpdate
        if trigger == "what-reset":
            return [], no_update
        return no_update, list(asked.changes) if trigger == "what-pin-now" else []
    if not isinstance(trigger, dict) or not isinstance(path := trigger.get("path"), str):
        raise PreventUpdate
    if trigger.get("type") == "what-undo":
        if not value:
            raise PreventUpdate
        return list(_undone(service, asked, path)), no_update
    try:
        held = parameter_of(service, asked, path)
    except EffsimError:
        held = None
    text = _text(trigger.get("type"), held, value, asked.changes)
    now = "" if held is None else controls.present(held, asked.changes).text
    if text is None or (text == (now or NOTHING) and held is not None):
        raise PreventUpdate
    back = held is not None and text == (held.text or NOTHING)
    parameter = held or Parameter(path, "")
    changes = assigned(asked.changes, parameter, None if back else text)
    if changes == asked.changes or len(changes) > MAX_CHANGES:
        raise PreventUpdate
    return list(changes), no_update


def _undone(service: Service, asked: Asked, path: str) -> tuple[str, ...]:
    try:
        held = parameter_of(service, asked, path)
    except EffsimError:  # other changes may be wrong: this one goes nevertheless
        held = None
    return assigned(asked.changes, held or Parameter(path, ""), None)


def followed(service: Service, asked: Asked, lists: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Values of the sliders, texts, choices and classes of the rows with these paths, as the changes say."""
    changed = {path_of(change) for change in asked.changes}
    out: list[list[Any]] = []
    for kind, paths in zip((*KINDS, "what-row"), lists, strict=True):
        out.append([_followed(service, asked, kind, str(path), str(path) in changed) for path in paths])
    return out


def _followed(service: Service, asked: Asked, kind: str, path: str, changed: bool) -> Any:
    if kind == "what-row":
        return controls.row_class(changed)
    try:
        held = parameter_of(service, asked, path)
    except EffsimError:
        held = None
    if held is None:
        return no_update
    now = controls.present(held, asked.changes)
    if kind == "what-slider":
        around = controls.scale(held)
        return no_update if around is None else controls.slider_position(around, now)
    return now.text or (NOTHING if kind == "what-choice" else "")


def parameter_of(service: Service, asked: Asked, path: str) -> Parameter | None:
    """A parameter as its file gives it; one that only a change brings, as that change does."""
    held = tree_of(service, asked, ()).parameters.get(path)
    if held is None:
        above = tuple(c for c in asked.changes if path.startswith(f"{path_of(c)}."))
        held = tree_of(service, asked, above).parameters.get(path) if above else None
    return held


def _text(kind: Any, held: Parameter | None, value: Any, changes: Sequence[str]) -> str | None:
    """What a control says, as ``--set`` takes it; None where it says nothing new."""
    if kind == "what-slider":
        return _slid(held, value, changes)
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        return None
    text = value.strip()
    return text or (NOTHING if held is None or held.optional or not held.text else held.text)


def _slid(held: Parameter | None, value: Any, changes: Sequence[str]) -> str | None:
    around = controls.scale(held) if held is not None else None
    try:
        position = float(value)
    except (TypeError, ValueError):
        return None
    if around is None or held is None or not math.isfinite(position):
        return None
    now = controls.present(held, changes).number
    at = around.position(now if now is not None else around.base)
    if abs(position - at) < around.step / 2:  # where it was drawn: nobody moved it
        return None
    return held.text if abs(position - around.position(around.base)) < around.step / 2 else around.text(position)
