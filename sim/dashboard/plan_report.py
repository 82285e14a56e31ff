"""A plan's answer as components: the sentences, tables and pictures of its HTML report, on the page."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from dash import dcc, html

from ..explore.plan.explain import Explanation
from ..explore.plan.plan import PlanResult
from ..explore.plan.work import Found
from ..report import plan_words as say
from ..report import words
from ..report.plan_page import MOST_ROWS, cost_figure, curve_figure, plan_page, upgrade_figure
from ..spec.catalogue import load_document
from ..spec.overrides import apply
from ..units import format_quantity
from . import exports, parts
from .plan_form import Asked, changes_of
from .plan_serve import serve_view
from .service import Service

EXPORTS: Final = {"json": "Result (JSON)", "html": "Report (HTML)", "plan": "Plan YAML"}
_UNKNOWN: Final = -1.0
"""What unknown numbers are sorted by."""


def report(service: Service, asked: Asked, result: PlanResult) -> list[Any]:
    """Everything the page says about an answer."""
    answer, explained = result.answer, result.explanation
    out: list[Any] = [html.H2(words.plain(result.plan.name), className="first")]
    out.append(html.P(words.plain(f"{result.plan.workload}: {say.asked(result)}."), className="soft"))
    out += _winner(service, asked, result) if answer.winner is not None else _nearest(result)
    out += parts.notes(result.notes)
    out += [parts.command(command(service, asked)), _toolbar()]
    fleets = [*answer.fleets, *answer.unpriced]
    if fleets:
        title = "Fleets within the promises"
        out.append(
            parts.section(title, _fleets(result, fleets, "plan-fleets"), soft="The best first.", name="plan-runners")
        )
    if answer.missed:
        missed = html.Details(
            [html.Summary(f"{len(answer.missed)} that miss them"), _fleets(result, answer.missed, "")]
        )
        out.append(missed)
    if fleets or answer.missed:
        figure = parts.plot(cost_figure([*fleets, *answer.missed]), "plan-cost", label="cost against promises")
        soft = "Each point is a fleet. Up: the promise it is nearest to, over its limit; at most 1 keeps all of them."
        out.append(parts.section("Cost and promises", figure, soft=soft))
    out += _explained(explained, result.nearest)
    if result.whatif:
        lines = [say.whatif_line(result, index) for index in range(len(result.whatif))]
        out.append(parts.section("What if", _list(lines), name="plan-whatif"))
    return [*out, _screened(result)]


def _list(lines: Iterable[str]) -> Any:
    return html.Ul([html.Li(words.plain(line)) for line in lines])


def _winner(service: Service, asked: Asked, result: PlanResult) -> Iterator[Any]:
    winner = result.answer.winner
    assert winner is not None
    yield html.H3(words.plain(say.fleet_text(winner)), id="plan-winner")
    yield cards(result, winner)
    served = serve_view(service, asked, result)
    if served is not None:
        yield html.P(
            dcc.Link("Serve it, to see queues and latencies", href=f"/serve{served.view.query}", id="plan-serve")
        )


def cards(result: PlanResult, winner: Found) -> Any:
    """The winner in numbers."""
    m = winner.measured
    assert m is not None
    hourly, million = winner.usd_per_hour, winner.usd_per_million("output")
    joules, watts = m.joules_per_output_token, winner.power_w
    both = f"{say.usd(winner.usd_per_million('all'))} in and out"
    priced = "it is the fleet of fewest devices" if hourly is None else ""
    shown = [
        parts.card("Devices", str(winner.devices), f"replicas: {say.replicas_text(winner.configuration, m.replicas)}"),
        parts.card("Cost an hour", _usd(hourly), priced, key="hour"),
        parts.card("Cost a million tokens out", _usd(million), both, key="million"),
        parts.card(
            "Energy a token out",
            say.UNKNOWN if joules is None else format_quantity(joules, "energy"),
            "" if watts is None else f"{format_quantity(watts, 'power')} on average; devices, without hosts",
            key="energy",
        ),
    ]
    for p in m.promises:
        aside = f"promised {say.seconds(p.limit_s)}; {100 * p.ratio:.0f} % of it"
        shown.append(parts.card(p.name, say.seconds(p.value_s), aside, key=p.name.replace(" ", "-")))
    explained = result.explanation
    if explained is not None:
        aside = f"beyond it {explained.promise} breaks first"
        shown.append(parts.card("Headroom", f"{explained.load:.3g} × the load", aside, key="headroom"))
    busy, full = words.percent(m.served.utilisation), words.percent(m.served.peak_cache_fraction)
    return parts.cards([*shown, parts.card("Busy", busy, f"KV cache at most {full} full", key="busy")])


def _usd(value: float | None) -> str:
    return say.UNKNOWN if value is None else f"{say.usd(value)} US$"


def _nearest(result: PlanResult) -> Iterator[Any]:
    yield html.H3("No fleet keeps these promises", id="plan-winner")
    yield _list(say.nearest_lines(result))


def _fleets(result: PlanResult, fleets: Sequence[Found], name: str) -> Any:
    heads = [(title, "n" if number else "") for number, title in enumerate(say.columns(result))]
    rows = [
        [words.plain(texts[0]), *zip(texts[1:], _numbers(f), strict=True)]
        for f in fleets[:MOST_ROWS]
        if (texts := say.cells(f))
    ]
    return parts.table(heads, rows, name=name)


def _numbers(found: Found) -> list[float]:
    """What the cells of a fleet are sorted by, in the order of :func:`effsim.report.plan_words.cells`."""
    m = found.measured
    assert m is not None
    n = found.shown or 0
    values = [
        found.configuration.bought(n),
        found.configuration.usd_per_hour(n),
        found.usd_per_million("output"),
        found.usd_per_million("all"),
        m.joules_per_output_token,
        m.served.utilisation,
        m.served.peak_cache_fraction,
        *(p.value_s for p in m.promises),
    ]
    return [_UNKNOWN if value is None else float(value) for value in values]


def _explained(explained: Explanation | None, nearest: Explanation | None) -> Iterator[Any]:
    if explained is not None:
        curve = []
        if explained.curve:
            curve = [parts.plot(curve_figure(explained), "plan-curve", label="latencies over the load")]
        lines = _list(say.limit_lines(explained, solved=True))
        yield parts.section("Headroom, and what binds first", lines, *curve, name="plan-headroom")
    one = explained or nearest
    if one is not None and one.upgrades:
        figure = parts.plot(upgrade_figure(one), "plan-upgrades", label="load within the promises after one change")
        heads = [("change", ""), ("load within promises", "n"), ("US$/h more", "n")]
        rows = []
        for upgrade in one.upgrades:
            name, load, cost = say.upgrade_cells(upgrade, one)
            more = None if upgrade.usd_per_hour is None else upgrade.usd_per_hour
            rows.append([words.plain(name), (load, upgrade.load), (cost, _UNKNOWN if more is None else more)])
        yield parts.section("What the next upgrade would buy", figure, parts.table(heads, rows))


def _screened(result: PlanResult) -> Any:
    heads = [
        ("configuration", ""),
        ("replicas, by screening", ""),
        ("US$/h", "n"),
        ("first token", "n"),
        ("a token", "n"),
    ]
    rows = []
    for s in result.answer.screened[: 4 * MOST_ROWS]:
        ok = s.status == "ok"
        estimate = f"about {s.estimated} (at least {s.least})" if ok else s.status.replace("_", " ")
        times = [(say.seconds(t) if ok else "", t or _UNKNOWN) for t in (s.estimated_ttft_s, s.estimated_tpot_s)]
        cost = (say.usd(s.usd_per_hour) if ok else "", _UNKNOWN if s.usd_per_hour is None else s.usd_per_hour)
        rows.append([words.plain(s.configuration.label), estimate, cost, *times, words.plain(s.message)])
    table = parts.table([*heads, ("why not", "source")], rows)
    return parts.section("All configurations", html.Details([html.Summary(say.counted(result)), table]))


def _toolbar() -> Any:
    buttons = [parts.button(f"plan-save-{name}", text) for name, text in EXPORTS.items()]
    return parts.toolbar(html.Span("Save:", className="soft"), *buttons)


def command(service: Service, asked: Asked) -> str:
    """The command line that gives the same."""
    line = ["effsim", "plan", service.shelf.label(asked.plan)]
    for change in changes_of(service, asked):
        line += ["--set", change]
    return shlex.join([*line, *([] if asked.seed is None else ["--seed", str(asked.seed)])])


def saved(service: Service, asked: Asked, result: PlanResult, what: str) -> dict[str, Any]:
    """The file that a button saves.

    Raises:
        EffsimError: the plan is no longer here.
    """
    if what == "plan":
        return exports.download(plan_files(service, asked))
    if what == "json":
        return {"content": json.dumps(result.as_dict(), indent=1, allow_nan=False) + "\n", "filename": "plan.json"}
    return {"content": plan_page(result), "filename": "plan.html"}


def plan_files(service: Service, asked: Asked) -> exports.Files:
    """The YAML of a plan with all that was changed; changes of workload and hardware join its ``set``.

    Raises:
        EffsimError: the plan is no longer here, or a change is wrong.
    """
    changes = changes_of(service, asked)
    mine = [change for change in changes if change.startswith("plan.")]
    others = [change for change in changes if not change.startswith("plan.")]
    if others:
        with service.confined():
            document = load_document("plans", service.shelf.argument("plans", asked.plan))
            held = apply(document, mine, "plan").data.get("set") or []
        mine.append(f"plan.set={json.dumps([*held, *others], ensure_ascii=False)}")
    if asked.seed is not None:
        mine.append(f"plan.seed={asked.seed}")
    return exports.yaml_files(service, "plans", asked.plan, mine)
