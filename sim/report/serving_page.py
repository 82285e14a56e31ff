"""The HTML report of a served load: one file that needs no network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Final

from ..serving.metrics import PoolResult, ServeResult
from ..serving.request import Request
from ..units import format_quantity
from . import words
from .files import atomic_write_text
from .page import Figures, document, own_command
from .serving_figures import cache_figure, latency_figures, queue_figure, rate_figure, replica_figure
from .serving_lines import finished, over_time

SLOWEST: Final = 12
"""Requests in the table of those that waited longest."""


def write_serving_page(result: ServeResult, path: str | Path, *, command: str | None = None) -> None:
    """Write the report. *command* is what the page says to repeat it.

    Raises:
        DataError: the file cannot be written.
    """
    atomic_write_text(path, serving_page(result, command=command))


def serving_page(result: ServeResult, *, command: str | None = None) -> str:
    """The report as text."""
    title = f"{words.plain(result.workload)} served by {words.plain(result.hardware)}"
    body = [f"<h1>{_e(title)}</h1>", f'<p class="soft">{_e(setup_line(result))}</p>']
    body += [f'<p class="note"><strong>Note:</strong> {_e(note)}</p>' for note in result.notes]
    body += [_cards(result), "<h2>Latency</h2>", _latency_table(result)]
    if finished(result):
        body += _pictures(result)
    body += ["<h2>Replicas</h2>", _pools(result.pools), *(f"<p>{_e(line)}</p>" for line in event_lines(result))]
    if finished(result):
        body += ["<h2>Requests that waited longest for their first token</h2>", _slowest(finished(result))]
    return document(title, [*body, *_repeat(result, command if command is not None else own_command())])


def _e(text: str) -> str:
    return escape(words.plain(text))


def _t(seconds: float) -> str:
    return format_quantity(seconds, "time")


def setup_line(result: ServeResult) -> str:
    """Replicas, engine and requests in a line."""
    parts = []
    for pool in result.pools:
        ways = " × ".join(f"{name} {n}" for name, n in pool.parallelism.items())
        most = f"{pool.replicas}" if pool.most == pool.replicas else f"{pool.replicas} to {pool.most}"
        parts.append(f"{pool.name}: {most} × {pool.hardware} ({ways})")
    return f"{'; '.join(parts)}; engine {result.engine}; {result.requests:,} requests in {_t(result.duration_s)}"


def _cards(result: ServeResult) -> str:
    """What people look at first."""
    promised = f"{_t(result.slo['ttft_s'])} to the first token, {_t(result.slo['tpot_s'])} a token after"
    rate = result.completed / result.duration_s if result.duration_s else 0.0
    cards = [
        ("Goodput", f"{result.goodput_requests_per_s:.3g} requests/s", f"of {rate:.3g} requests/s that ended"),
        ("Within both promises", f"{100.0 * result.slo_attainment:.1f} %", promised),
        ("Generated", f"{result.output_tokens_per_s:,.0f} tokens/s", f"{result.output_tokens:,} tokens in all"),
        ("Busy", f"{100.0 * result.utilisation:.0f} %", "of the time for which replicas are held"),
        ("Cache", f"{100.0 * result.peak_cache_fraction:.0f} %", "full at most"),
    ]
    if result.ttft_s is not None:
        cards.insert(2, ("First token, p99", _t(result.ttft_s["p99"]), f"median {_t(result.ttft_s['p50'])}"))
    if result.tpot_s is not None:
        cards.insert(3, ("Token after it, p99", _t(result.tpot_s["p99"]), f"median {_t(result.tpot_s['p50'])}"))
    if result.cost_usd is None:
        cards.append(("Cost", "unknown", "no price"))
    else:
        million = 1e6 * result.cost_usd / max(1, result.output_tokens)
        cards.append(("Cost", words.dollars(result.cost_usd), f"{million:,.2f} US$ a million generated tokens"))
    inner = "".join(
        f'<div class="card"><span>{_e(label)}</span><b>{_e(value)}</b><span>{_e(aside)}</span></div>'
        for label, value, aside in cards
    )
    return f'<div class="cards">{inner}</div>'


def _latency_table(result: ServeResult) -> str:
    rows = [
        ("time to first token", result.ttft_s),
        ("time a token after it", result.tpot_s),
        ("gap between tokens", result.itl_s),
        ("whole request", result.e2e_s),
    ]
    if result.transfer is not None:
        rows.append(("cache to its replica", result.transfer["wait_s"]))
    names = ("mean", "p50", "p90", "p95", "p99", "max")
    head = "".join(f'<th class="n">{name}</th>' for name in names)
    lines = [
        f"<tr><td>{label}</td>{''.join(_number(_t(values[name])) for name in names)}</tr>"
        for label, values in rows
        if values is not None
    ]
    table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def _number(text: str, value: float | None = None) -> str:
    sort = "" if value is None else f' data-v="{value!r}"'
    return f'<td class="n"{sort}>{_e(text)}</td>'


def _pictures(result: ServeResult) -> list[str]:
    figures, fleet = Figures(), over_time(result)
    lead = '<p class="soft">Share of requests within a time; dashed: what was promised. Up to the 99th percentile.</p>'
    cells = [f"<div><h3>{_e(name)}</h3>{figures.html(drawn, name)}</div>" for name, drawn in latency_figures(result)]
    out = [lead, f'<div class="figures">{"".join(cells)}</div>', "<h2>Over time</h2>"]
    for name, drawn in (
        ("Requests", queue_figure(fleet)),
        ("Cache", cache_figure(fleet)),
        ("Replicas", replica_figure(fleet)),
        ("Goodput", rate_figure(result)),
    ):
        out += [f"<h3>{name}</h3>", figures.html(drawn, f"{name} over time")]
    return out


def _pools(pools: Sequence[PoolResult]) -> str:
    names = ("", "at the start", "most", "devices each", "held", "busy", "steps", "added", "given back", "cost")
    head = "".join(f'<th class="{"n" if i else ""}">{name}</th>' for i, name in enumerate(names))
    rows = []
    for pool in pools:
        cells = (
            f"{pool.replicas}",
            f"{pool.most}",
            f"{pool.devices}",
            _t(pool.replica_seconds),
            f"{100.0 * pool.utilisation:.0f} %",
            f"{pool.steps:,}",
            f"{pool.scale_outs}",
            f"{pool.scale_ins}",
            words.dollars(pool.cost_usd),
        )
        rows.append(f"<tr><td>{_e(pool.name)}</td>{''.join(_number(cell) for cell in cells)}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def event_lines(result: ServeResult) -> Iterable[str]:
    """Preemptions, failures and transfers, where there were any."""
    if result.preemptions or result.cached_tokens:
        share = 100.0 * result.cached_tokens / max(1, result.input_tokens)
        yield f"{result.preemptions:,} preemptions; {share:.1f} % of prompt tokens came from the prefix cache."
    if result.failures:
        yield (
            f"Failures of replicas: {result.failures}; {result.retries:,} retries of requests, "
            f"{result.lost_tokens:,} tokens of cache lost; none of the requests was."
        )
    if result.transfer is not None:
        size = format_quantity(float(result.transfer["bytes"]), "bytes")
        share = 100.0 * float(result.transfer["link_utilisation"])
        yield f"{result.transfer['transfers']:,} caches, {size}, went over links that were busy for {share:.1f} %."


def _slowest(requests: Sequence[Request]) -> str:
    names = ("request", "arrived", "prompt", "output", "replica", "first token", "a token after", "whole", "retries")
    head = "".join(f'<th class="n"><button type="button">{name}</button></th>' for name in names)
    rows = []
    for r in sorted(requests, key=lambda r: (-r.ttft_s, r.index))[:SLOWEST]:
        tpot = r.tpot_s
        cells = [_number(str(r.index), r.index), _number(_t(r.arrival_s), r.arrival_s)]
        cells += [_number(f"{n:,}", n) for n in (r.prompt, r.output, r.replica)]
        cells += [_number(_t(r.ttft_s), r.ttft_s), _number("–" if tpot is None else _t(tpot), tpot or 0.0)]
        cells += [_number(_t(r.e2e_s), r.e2e_s), _number(f"{r.retries}", r.retries)]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    table = f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _repeat(result: ServeResult, command: str) -> list[str]:
    from ..version import VERSION

    lead = "<h2>How to repeat this</h2>" + (f"<pre>{_e(command)}</pre>" if command else "")
    told = f"effsim {VERSION}, workload “{result.workload}”, hardware “{result.hardware}”"
    return [lead, f'<p class="soft">{_e(told)}. Same inputs and seed, same numbers.</p>']
