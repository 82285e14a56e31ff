"""``effsim serve``: request-level serving simulation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Hardware, Html, Json, Parquet, Quiet, Seed, Set, Trace, Workload, console, print_json

if TYPE_CHECKING:
    from ..serving.metrics import ServeResult


def serve(
    hardware: Hardware,
    workload: Workload,
    rate: Annotated[float | None, typer.Option(metavar="R", help="Requests a second (serving.arrivals.rate).")] = None,
    requests: Annotated[
        int | None, typer.Option(metavar="N", help="How many requests (serving.arrivals.requests; default 1000).")
    ] = None,
    replay: Annotated[
        str | None, typer.Option(metavar="FILE", help="Recorded load: Azure CSV, Mooncake JSONL, vllm bench JSON.")
    ] = None,
    set_: Set = None,
    seed: Seed = 0,
    json_: Json = False,
    html: Html = None,
    trace: Trace = None,
    parquet: Parquet = None,
    quiet: Quiet = False,
) -> None:
    """Serve a load of requests: time to first token, time between tokens, goodput, queues and cache."""
    from .. import serve as simulate
    from .progress import progress

    assignments = list(set_ or [])
    if rate is not None:
        assignments.append(f"workload.serving.arrivals.rate={rate}")
    if replay is not None:
        assignments += ["workload.serving.arrivals.process=trace", f"workload.serving.arrivals.trace={replay}"]
    if requests is not None:
        assignments.append(f"workload.serving.arrivals.requests={requests}")
    bar = partial(progress, label="serving", quiet=quiet or json_)
    result = simulate(hardware, workload, set=assignments, seed=seed, progress=bar, record=trace is not None)
    if html is not None:
        from ..report.serving_page import write_serving_page

        write_serving_page(result, html)
    if trace is not None:
        from ..report.serving_trace import write_serving_trace

        write_serving_trace(result, trace)
    if parquet is not None:
        from ..report.serving_files import write_serving_parquet

        write_serving_parquet(result, parquet)
    if json_:
        print_json(result.as_dict())
    elif not quiet:
        _show(result)


def _show(result: ServeResult) -> None:
    from rich.table import Table

    from ..units import format_quantity

    out = console()
    out.print(f"{result.workload} on {result.hardware}: {'; '.join(_pools(result))}; {result.devices} devices")
    out.print(
        f"{result.completed:,} of {result.requests:,} requests in {format_quantity(result.duration_s, 'time')}: "
        f"{result.completed / result.duration_s if result.duration_s else 0.0:.3g} requests/s, "
        f"{result.output_tokens_per_s:,.0f} tokens/s; "
        f"{100 * result.utilisation:.0f} % busy, cache at most {100 * result.peak_cache_fraction:.0f} % full"
    )
    table = Table("", "mean", "p50", "p90", "p95", "p99", "max", box=None, pad_edge=False)
    rows: tuple[tuple[str, Mapping[str, float] | None], ...] = (
        ("time to first token", result.ttft_s),
        ("time a token after it", result.tpot_s),
        ("gap between tokens", result.itl_s),
        ("whole request", result.e2e_s),
    )
    for name, values in rows:
        if values is not None:
            table.add_row(name, *(format_quantity(v, "time") for v in values.values()))
    out.print(table)
    promised = " and ".join(format_quantity(v, "time") for v in result.slo.values())
    out.print(
        f"{100 * result.slo_attainment:.1f} % within {promised} (first token, each token after): "
        f"goodput {result.goodput_requests_per_s:.3g} requests/s"
    )
    if result.preemptions or result.cached_tokens:
        shares = 100 * result.cached_tokens / max(1, result.input_tokens)
        out.print(f"{result.preemptions:,} preemptions; {shares:.1f} % of prompt tokens came from the prefix cache")
    if result.failures:
        lost = f"{result.lost_tokens:,} tokens of cache lost"
        out.print(f"failures of replicas: {result.failures}; {result.retries:,} retries of requests, {lost}")
    if result.transfer is not None:
        moved = format_quantity(float(result.transfer["bytes"]), "bytes")
        wait = result.transfer["wait_s"]
        waited = "" if wait is None else f", {format_quantity(wait['p99'], 'time')} (p99) from prompt to arrival"
        out.print(f"{result.transfer['transfers']:,} caches moved, {moved}{waited}")
    if result.cost_usd is not None and result.output_tokens:
        million = 1e6 * result.cost_usd / result.output_tokens
        out.print(f"{result.cost_usd:,.2f} US$, {million:,.2f} US$ a million generated tokens")
    if result.energy_j is not None and result.output_tokens:
        each = format_quantity(result.energy_j / result.output_tokens, "energy")
        out.print(f"{format_quantity(result.energy_j, 'energy')}, {each} a generated token")
    for note in result.notes:
        out.print(f"note: {note}")


def _pools(result: ServeResult) -> list[str]:
    """Replicas of each kind, in words."""
    out = []
    for pool in result.pools:
        ways = " × ".join(f"{name} {n}" for name, n in pool.parallelism.items())
        count = f"{pool.replicas}" if pool.replicas == pool.most else f"{pool.replicas} (up to {pool.most})"
        name = "replica" if pool.name == "replicas" else f"{pool.name} replica"
        name += "s" if pool.most > 1 else ""
        elsewhere = f" on {pool.hardware}" if pool.hardware != result.hardware else ""
        out.append(f"{count} {name} of {ways}{elsewhere}")
    return out
