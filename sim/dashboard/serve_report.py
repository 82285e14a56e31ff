"""A served load as components: the numbers and pictures of its HTML report, on the page."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from dash import html

from ..report import words
from ..report.serving_figures import cache_figure, latency_figures, queue_figure, rate_figure, replica_figure
from ..report.serving_lines import finished, over_time
from ..report.serving_page import SLOWEST, event_lines, serving_page, setup_line
from ..serving.metrics import PERCENTILES, PoolResult, ServeResult
from ..serving.request import Request
from ..units import format_quantity
from . import exports, parts
from .figures_serve import Points, curve_figures
from .serve_form import Asked
from .service import Service

EXPORTS: Final = {
    "json": "Result (JSON)",
    "csv": "Requests (CSV)",
    "html": "Report (HTML)",
    "workload": "Workload YAML",
    "hardware": "Hardware YAML",
}
LATENCIES: Final = (
    ("ttft_s", "Time to first token"),
    ("tpot_s", "Time a token after it"),
    ("itl_s", "Gap between tokens"),
    ("e2e_s", "Whole request"),
)
_COLUMNS: Final = ("mean", *(f"p{p}" for p in PERCENTILES), "max")
_MOST_CHANGES: Final = 40
_REQUEST_FIELDS: Final = (
    "index",
    "arrival_s",
    "prompt",
    "output",
    "cached",
    "priority",
    "replica",
    "admitted_s",
    "first_token_s",
    "moved_s",
    "finish_s",
    "ttft_s",
    "tpot_s",
    "e2e_s",
    "preemptions",
    "retries",
)


def report(service: Service, asked: Asked, result: ServeResult) -> list[Any]:
    """Everything the page says about a result."""
    title = f"{words.plain(result.workload)} served by {words.plain(result.hardware)}"
    out: list[Any] = [html.H2(title, className="first"), html.P(words.plain(setup_line(result)), className="soft")]
    out += parts.notes(result.notes)
    out += [headline(result), parts.command(command(service, asked)), _toolbar()]
    out.append(parts.section("Latency", _latencies(result), *_distributions(result), name="serve-latency"))
    if finished(result):
        out.append(parts.section("Over time", *_over_time(result), name="serve-time"))
    events = [html.P(line) for line in event_lines(result)]
    out.append(parts.section("Replicas", _pools(result.pools), *events, *_changes(result.pools), name="serve-replicas"))
    if finished(result):
        out.append(parts.section("Requests that waited longest for their first token", _slowest(finished(result))))
    return out


def _t(seconds: float | None) -> str:
    return "–" if seconds is None else format_quantity(seconds, "time")


def headline(result: ServeResult) -> Any:
    """What people look at first."""
    promised = f"{_t(result.slo['ttft_s'])} to the first token, {_t(result.slo['tpot_s'])} a token after"
    rate = result.completed / result.duration_s if result.duration_s else 0.0
    goodput = f"{result.goodput_requests_per_s:.3g} requests/s"
    shown = [
        parts.card("Goodput", goodput, f"of {rate:.3g} requests/s that ended", key="goodput"),
        parts.card("Within both promises", words.percent(result.slo_attainment), promised, key="attainment"),
    ]
    for name, label in LATENCIES:
        values: Mapping[str, float] | None = getattr(result, name)
        if values is not None and name != "itl_s":
            aside = f"p50 {_t(values['p50'])}, p99 {_t(values['p99'])}"
            shown.append(parts.card(f"{label}, p95", _t(values["p95"]), aside, key=name))
    tokens = f"{result.output_tokens_per_s:,.0f} tokens/s"
    busy, full = words.percent(result.utilisation), words.percent(result.peak_cache_fraction)
    shown += [
        parts.card("Generated", tokens, f"{result.output_tokens:,} tokens in all", key="tokens"),
        parts.card("Busy", busy, "of the time for which replicas are held", key="busy"),
        parts.card("KV cache, fullest", full, f"of {result.cache_tokens:,} tokens a replica", key="cache"),
        _cost(result),
        _energy(result),
    ]
    if result.refused:
        shown.append(parts.card("Refused", f"{result.refused:,}", "requests longer than the cache", key="refused"))
    return parts.cards(shown)


def _cost(result: ServeResult) -> Any:
    if result.cost_usd is None or not result.output_tokens:
        return parts.card("Cost", "unknown", "no price in the hardware file", key="cost")
    million = 1e6 * result.cost_usd / result.output_tokens
    aside = f"a million generated tokens; {words.dollars(result.cost_usd)} in all"
    return parts.card("Cost", f"{million:,.2f} US$", aside, key="cost")


def _energy(result: ServeResult) -> Any:
    if result.energy_j is None or not result.output_tokens:
        return parts.card("Energy", "unknown", "", key="energy")
    each = format_quantity(result.energy_j / result.output_tokens, "energy")
    aside = f"a generated token; {format_quantity(result.energy_j, 'energy')} in all"
    return parts.card("Energy", each, aside, key="energy")


def _latencies(result: ServeResult) -> Any:
    rows = [(label, getattr(result, name)) for name, label in LATENCIES]
    if result.transfer is not None:
        rows.append(("Cache to its replica", result.transfer["wait_s"]))
    heads = [("", ""), *((name, "n") for name in _COLUMNS)]
    held = [(label, *((_t(v[name]), v[name]) for name in _COLUMNS)) for label, v in rows if v is not None]
    return parts.table(heads, held, name="serve-latencies")


def _distributions(result: ServeResult) -> Iterator[Any]:
    if not finished(result):
        return
    yield html.P(
        "Share of requests within a time; dashed: what was promised. Up to the 99th percentile.", className="soft"
    )
    drawn = [
        html.Div([html.H3(name.capitalize()), parts.plot(figure, f"serve-cdf-{number}", label=name)])
        for number, (name, figure) in enumerate(latency_figures(result))
    ]
    yield html.Div(drawn, className="figures three")


def _over_time(result: ServeResult) -> Iterator[Any]:
    fleet = over_time(result)
    figures = (
        ("Requests", queue_figure(fleet)),
        ("KV cache", cache_figure(fleet)),
        ("Rates that kept the promises", rate_figure(result)),
        ("Replicas", replica_figure(fleet)),
    )
    drawn = [
        html.Div([html.H3(name), parts.plot(figure, f"serve-time-{number}", label=f"{name} over time")])
        for number, (name, figure) in enumerate(figures)
    ]
    yield html.Div(drawn, className="figures")


def _pools(pools: Sequence[PoolResult]) -> Any:
    names = ("at the start", "most", "devices each", "held", "busy", "steps", "added", "given back", "cost")
    rows = [
        (
            words.plain(pool.name),
            (f"{pool.replicas}", pool.replicas),
            (f"{pool.most}", pool.most),
            (f"{pool.devices}", pool.devices),
            (_t(pool.replica_seconds), pool.replica_seconds),
            (words.percent(pool.utilisation), pool.utilisation),
            (f"{pool.steps:,}", pool.steps),
            (f"{pool.scale_outs}", pool.scale_outs),
            (f"{pool.scale_ins}", pool.scale_ins),
            (words.dollars(pool.cost_usd), pool.cost_usd or 0.0),
        )
        for pool in pools
    ]
    return parts.table([("pool", ""), *((name, "n") for name in names)], rows, name="serve-pools")


def _changes(pools: Sequence[PoolResult]) -> Iterator[Any]:
    """When replicas came, went and failed; nothing of a fleet that stays."""
    for pool in pools:
        if len(pool.changes) < 2:
            continue
        heads = [(name, "n") for name in ("time", "serving", "starting", "draining", "down")]
        rows = [[(_t(time), time), *((f"{n}", n) for n in counts)] for time, *counts in pool.changes[:_MOST_CHANGES]]
        more = len(pool.changes) - len(rows)
        title = f"{words.plain(pool.name)}: {len(pool.changes) - 1} changes" + (
            f" (the first {_MOST_CHANGES}; all are in the JSON)" if more > 0 else ""
        )
        yield html.Details([html.Summary(title), parts.table(heads, rows)], open=len(rows) <= SLOWEST)


def _slowest(requests: Sequence[Request]) -> Any:
    names = ("request", "arrived", "prompt", "output", "replica", "first token", "a token after", "whole", "retries")
    rows = []
    for r in sorted(requests, key=lambda r: (-r.ttft_s, r.index))[:SLOWEST]:
        counts = [(f"{n:,}", n) for n in (r.prompt, r.output, r.replica)]
        times = [(_t(r.ttft_s), r.ttft_s), (_t(r.tpot_s), r.tpot_s or 0.0), (_t(r.e2e_s), r.e2e_s)]
        rows.append(
            [(f"{r.index}", r.index), (_t(r.arrival_s), r.arrival_s), *counts, *times, (f"{r.retries}", r.retries)]
        )
    return parts.table([(name, "n") for name in names], rows, name="serve-slowest")


def _toolbar() -> Any:
    buttons = [parts.button(f"serve-save-{name}", text) for name, text in EXPORTS.items()]
    return parts.toolbar(html.Span("Save:", className="soft"), *buttons)


def command(service: Service, asked: Asked) -> str:
    """The command line that gives the same."""
    label = service.shelf.label
    line = ["effsim", "serve", label(asked.hardware), label(asked.workload)]
    for change in asked.changes:
        line += ["--set", change]
    return shlex.join([*line, *(["--seed", str(asked.seed)] if asked.seed else [])])


def saved(service: Service, asked: Asked, result: ServeResult, what: str) -> dict[str, Any]:
    """The file that a button saves.

    Raises:
        EffsimError: what it is made of is no longer here.
    """
    if what in ("workload", "hardware"):
        section, choice = ("workloads", asked.workload) if what == "workload" else ("hardware", asked.hardware)
        return exports.download(exports.yaml_files(service, section, choice, asked.changes))
    if what == "json":
        return {"content": json.dumps(result.as_dict(), indent=1, allow_nan=False) + "\n", "filename": "served.json"}
    if what == "csv":
        return {"content": requests_csv(result), "filename": "requests.csv"}
    return {"content": serving_page(result, command=command(service, asked)), "filename": "served.html"}


def requests_csv(result: ServeResult) -> str:
    """The requests that ended, one row each; times are seconds of simulated time, empty where not reached."""
    held = io.StringIO()
    writer = csv.writer(held, lineterminator="\n")
    writer.writerow([*_REQUEST_FIELDS, "within_slo"])
    for r in finished(result):
        writer.writerow([*(getattr(r, name) for name in _REQUEST_FIELDS), r.within(**result.slo)])
    return held.getvalue()


def curve(points: Points, *, offered: float, unit: str) -> list[Any]:
    """A load curve: pictures, and the numbers as a table."""
    drawn = [
        html.Div([html.H3(name.capitalize()), parts.plot(figure, f"serve-curve-{number}", label=name)])
        for number, (name, figure) in enumerate(curve_figures(points, offered=offered, unit=unit))
    ]
    heads = [
        (f"load ({unit})", "n"),
        *((name, "n") for name in ("× this load", "TTFT p95", "TPOT p95", "goodput", "within both", "busy", "cache")),
    ]
    rows = []
    for times, r in points:
        p95 = [None if v is None else v["p95"] for v in (r.ttft_s, r.tpot_s)]
        rows.append(
            [
                (f"{times * offered:.4g}", times),
                (f"{times:g}", times),
                *((_t(v), v or 0.0) for v in p95),
                (f"{r.goodput_requests_per_s:.3g}/s", r.goodput_requests_per_s),
                (words.percent(r.slo_attainment), r.slo_attainment),
                (words.percent(r.utilisation), r.utilisation),
                (words.percent(r.peak_cache_fraction), r.peak_cache_fraction),
            ]
        )
    return [html.Div(drawn, className="figures three"), parts.table(heads, rows, name="serve-curve-table")]
