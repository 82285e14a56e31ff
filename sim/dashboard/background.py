"""Long work on a page: a button that starts it, its progress, a button that ends it, and its answer when it is there.

Nothing starts without the button. A request whose work was started before, by whomever, finds it: what is running shows
its progress, what is done shows its result at once. The browser holds the name of a piece of work and nothing else; a
name that is not one of this page's kind does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dash import Input, Output, State, ctx, dcc, html, no_update
from dash.exceptions import PreventUpdate

from ..errors import EffsimError
from . import parts
from .jobs import Job
from .service import Service

EVERY_MS: Final = 400
"""Between two looks at work that is not done."""
_LONG_KEY: Final = 64
_AGAIN: Final = "Change what is asked for, or start it again."


@dataclass(frozen=True, slots=True)
class Background:
    """Work of one kind on a page; ids of its components start with *name*.

    Attributes:
        kind: of :data:`effsim.dashboard.work.WORK`.
        verb, doing: on the button, and beside the progress.
        unit: what the progress counts.
        request: arguments of the work for the values of the form; raises an EffsimError where they are wrong.
        report: components of a job that is done.
        idle: what to do where there is nothing yet.
    """

    name: str
    kind: str
    verb: str
    doing: str
    unit: str
    request: Callable[[Service, Sequence[Any]], Mapping[str, Any]]
    report: Callable[[Service, Job], Any]
    idle: str

    def job(self, service: Service, held: Any) -> Job | None:
        """The job that a browser says it looks at; None unless it is one of this kind."""
        key = held.get("key") if isinstance(held, dict) else None
        if not isinstance(key, str) or len(key) > _LONG_KEY:
            return None
        found = service.jobs.get(key)
        return found if found is not None and found.kind == self.kind else None


def start_button(work: Background) -> Any:
    """The button that starts the work."""
    return parts.button(f"{work.name}-start", work.verb, primary=True)


def panel(work: Background) -> Any:
    """Progress with its button to cancel, what went wrong, and the place of the report."""
    name = work.name
    said: dict[str, Any] = {"aria-label": work.doing}
    bar = html.Div(
        [
            html.Progress(id=f"{name}-bar", **said),
            html.Span(id=f"{name}-words", className="soft", role="status"),
            parts.button(f"{name}-cancel", "Cancel"),
        ],
        id=f"{name}-work",
        className="work",
        hidden=True,
    )
    return html.Div(
        [
            dcc.Store(id=f"{name}-job"),
            dcc.Store(id=f"{name}-ended"),
            dcc.Interval(id=f"{name}-tick", interval=EVERY_MS, disabled=True),
            bar,
            html.Div(id=f"{name}-said"),
            parts.waiting(html.Div(id=f"{name}-report")),
        ]
    )


def register_background(app: Any, service: Service, work: Background, form: Sequence[Input]) -> None:
    """The callbacks of a panel; *form* is what the request is made of."""
    name = work.name

    @app.callback(  # type: ignore[untyped-decorator]
        Output(f"{name}-job", "data"),
        Output(f"{name}-said", "children"),
        Input(f"{name}-start", "n_clicks"),
        *form,
        State(f"{name}-job", "data"),
    )
    def ask(clicks: Any, *values: Any) -> Any:
        clicked = ctx.triggered_id == f"{name}-start" and bool(clicks)
        return asked(service, work, values[:-1], values[-1], start=clicked)

    @app.callback(  # type: ignore[untyped-decorator]
        Output(f"{name}-work", "hidden"),
        Output(f"{name}-bar", "value"),
        Output(f"{name}-bar", "max"),
        Output(f"{name}-words", "children"),
        Output(f"{name}-tick", "disabled"),
        Output(f"{name}-ended", "data"),
        Input(f"{name}-job", "data"),
        Input(f"{name}-tick", "n_intervals"),
        prevent_initial_call=True,
    )
    def watch(held: Any, _ticks: Any) -> Any:
        return watched(service, work, held)

    @app.callback(  # type: ignore[untyped-decorator]
        Output(f"{name}-report", "children"), Input(f"{name}-ended", "data"), prevent_initial_call=True
    )
    def show(ended: Any) -> Any:
        return shown(service, work, ended)

    @app.callback(  # type: ignore[untyped-decorator]
        Output(f"{name}-words", "children", allow_duplicate=True),
        Input(f"{name}-cancel", "n_clicks"),
        State(f"{name}-job", "data"),
        prevent_initial_call=True,
    )
    def cancel(clicks: Any, held: Any) -> Any:
        job = work.job(service, held)
        if not clicks or job is None or job.ended:
            raise PreventUpdate
        service.jobs.cancel(job.key)
        return "cancelling…"


def asked(service: Service, work: Background, values: Sequence[Any], held: Any, *, start: bool) -> tuple[Any, Any]:
    """What the form asks for: (the job, what to say). Only *start* starts anything; else it is looked for."""
    try:
        arguments = work.request(service, values)
        job = service.jobs.start(work.kind, arguments) if start else service.jobs.find(work.kind, arguments)
    except EffsimError as error:
        return no_update, parts.error(service.shelf.readable(str(error)), "Nothing was started.")
    if job is not None and (start or job.state not in ("failed", "cancelled")):
        # Pressed again after a failure, the job has its old name: the count makes it news.
        again = held.get("count", 0) if isinstance(held, dict) else 0
        return {"key": job.key, "count": again + 1 if isinstance(again, int) else 1}, None
    if work.job(service, held) is None:
        return no_update, parts.empty(work.idle)
    return no_update, parts.notes([f"What is below is of other settings. Press {work.verb} for these."])


def watched(service: Service, work: Background, held: Any) -> tuple[Any, ...]:
    """The state of a job: (bar hidden, done, total, words, stop looking, what has ended)."""
    job = work.job(service, held)
    if job is None:
        return True, None, None, "", True, None
    if job.ended:
        return True, None, None, "", True, {"key": job.key, "state": job.state, "count": held.get("count")}
    return False, job.done if job.total else None, job.total or 1, _words(work, job), False, None


def _words(work: Background, job: Job) -> str:
    if job.state == "waiting":
        return "waiting for other work to end"
    if job.stop.is_set():
        return "cancelling…"
    share = f"{job.done:,} of {job.total:,} {work.unit}, " if job.total else ""
    return f"{work.doing}: {share}{job.seconds:.0f} s"


def shown(service: Service, work: Background, ended: Any) -> Any:
    """The report of a job that has ended, or why there is none; nothing for one that has not."""
    job = work.job(service, ended)
    if job is None or not job.ended:
        return None
    if job.state == "cancelled":
        return parts.empty(f"Cancelled. Press {work.verb} to start again.")
    if job.state == "failed":
        return parts.error(service.shelf.readable(job.message), _AGAIN)
    try:
        with service.confined():
            return work.report(service, job)
    except EffsimError as error:
        return parts.error(str(error), _AGAIN)


def whole_number(value: Any, name: str, default: int, most: int) -> int:
    """A number field as a whole number; *default* where it is empty.

    Raises:
        SpecError: it is none, or not from 0 to *most*.
    """
    from ..errors import SpecError

    if value is None or value == "":
        return default
    text = str(value)[:32].strip()
    number = float(text) if _is_number(text) else -1.0
    if number != int(number) or not 0 <= number <= most:
        raise SpecError(f"{name} {text!r}", expected=f"a whole number from 0 to {most}")
    return int(number)


def _is_number(text: str) -> bool:
    import math

    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


Saved = Callable[[Service, Any, str], tuple[Any, Any]]
"""(service, the key of what ended, name of a button) → (a file, what went wrong)."""


def register_saves(app: Any, service: Service, one: Background, names: Iterable[str], saved: Saved) -> None:
    """The callbacks of the buttons that save a result."""

    @app.callback(  # type: ignore[untyped-decorator]
        Output("download", "data", allow_duplicate=True),
        Output(f"{one.name}-said", "children", allow_duplicate=True),
        *[Input(f"{one.name}-save-{name}", "n_clicks") for name in names],
        State(f"{one.name}-ended", "data"),
        prevent_initial_call=True,
    )
    def save(*values: Any) -> Any:
        if not any(values[:-1]):
            raise PreventUpdate
        return saved(service, values[-1], str(ctx.triggered_id).removeprefix(f"{one.name}-save-"))


def saved_file(service: Service, one: Background, ended: Any, write: Callable[[Job], Any]) -> tuple[Any, Any]:
    """(the file that *write* makes of a job that is done, what went wrong)."""
    job = one.job(service, ended)
    if job is None or job.state != "done":
        return no_update, parts.error("This result is no longer held.", f"Press {one.verb} again.")
    try:
        return write(job), no_update
    except EffsimError as error:
        return no_update, parts.error(service.shelf.readable(str(error)))
