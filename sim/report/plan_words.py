"""How a plan's answer reads, in tables and on pages."""

from __future__ import annotations

from collections.abc import Sequence

from ..explore.plan.configurations import Configuration
from ..explore.plan.explain import Explanation, Upgrade
from ..explore.plan.plan import PlanResult
from ..explore.plan.work import Found
from ..units import format_quantity

UNKNOWN = "unknown"


def seconds(value: float | None) -> str:
    """A latency; ``–`` where nothing was measured."""
    return "–" if value is None else format_quantity(value, "time")


def usd(value: float | None, digits: int = 2) -> str:
    """Money, or that it is unknown."""
    return UNKNOWN if value is None else f"{value:,.{digits}f}"


def asked(result: PlanResult) -> str:
    """Load and promises in a sentence."""
    load, spec = result.load, result.plan
    limits = ", ".join(f"{a} {b} ≤ {seconds(c)}" for a, b, c in spec.slo.limits())
    room = f", with {100 * float(spec.headroom):.0f} % more load" if spec.headroom else ""
    return (
        f"{load['requests']:,.0f} requests, {load['requests_per_s']:.3g} a second over {seconds(load['span_s'])}, "
        f"{load['prompt_mean']:,.0f} tokens in and {load['output_mean']:,.0f} out on average; {limits}{room}"
    )


def counted(result: PlanResult) -> str:
    """What was looked at."""
    answer = result.answer
    statuses: dict[str, int] = {}
    for s in answer.screened:
        statuses[s.status] = statuses.get(s.status, 0) + 1
    words = {
        "does_not_fit": "do not fit",
        "unsupported": "unsupported",
        "too_slow": "too slow even alone",
        "too_large": "beyond the largest fleet",
    }
    parts = [f"{n} {words[status]}" for status, n in statuses.items() if status != "ok"]
    head = f"{len(answer.screened)} configurations, {answer.simulations} simulations"
    return ", ".join([head, *parts])


def fleet_text(found: Found) -> str:
    """``4 × H100: 2 replicas of tensor 2, fp8 weights``."""
    c, n = found.configuration, found.shown or 0
    replicas = "1 replica" if n == 1 else f"{n} replicas"
    if c.split is not None:
        replicas = " and ".join(f"{pool.replicas} {pool.name}" for pool in c.pools(n)) + " replicas"
    return f"{c.bought(n)} × {c.device}: {replicas} of {', '.join(c.ways)}"


def replicas_text(c: Configuration, replicas: int) -> str:
    """``3``, or ``2 + 1``: prefill and decode replicas."""
    return " + ".join(str(pool.replicas) for pool in c.pools(replicas))


COLUMNS = ("fleet", "devices", "US$/h", "US$/M out", "US$/M all", "J/token", "busy", "cache")


def columns(result: PlanResult) -> list[str]:
    """Headings of the table of fleets."""
    return [*COLUMNS, *(f"{a} {b}" for a, b, _ in result.plan.slo.limits())]


def cells(found: Found) -> list[str]:
    """A row of the table of fleets."""
    m = found.measured
    assert m is not None
    c = found.configuration
    n, joules = found.shown or 0, m.joules_per_output_token
    return [
        f"{replicas_text(c, n)} × {c.label}",
        str(c.bought(n)),
        usd(c.usd_per_hour(n)),
        usd(found.usd_per_million("output")),
        usd(found.usd_per_million("all")),
        UNKNOWN if joules is None else f"{joules:.3g}",
        f"{100 * m.served.utilisation:.0f} %",
        f"{100 * m.served.peak_cache_fraction:.0f} %",
        *(seconds(p.value_s) for p in m.promises),
    ]


def winner_lines(result: PlanResult) -> list[str]:
    """The winner in sentences."""
    winner = result.answer.winner
    assert winner is not None
    m = winner.measured
    assert m is not None
    out = []
    if winner.usd_per_hour is None:
        out.append("its price is unknown; it is the one of fewest devices")
    else:
        out.append(
            f"{usd(winner.usd_per_hour)} US$ an hour; {usd(winner.usd_per_million('output'))} US$ a million tokens "
            f"out, {usd(winner.usd_per_million('all'))} in and out"
        )
    if winner.power_w is not None and m.joules_per_output_token is not None:
        out.append(
            f"{format_quantity(winner.power_w, 'power')} on average, {m.joules_per_output_token:.3g} J a token out "
            "(devices, without hosts)"
        )
    else:
        out.append("energy unknown")
    promises = ", ".join(f"{p.name} {seconds(p.value_s)} of {seconds(p.limit_s)}" for p in m.promises)
    busy, full = (100 * share for share in (m.served.utilisation, m.served.peak_cache_fraction))
    out.append(f"{promises}; {busy:.0f} % busy, cache at most {full:.0f} % full")
    return out


def limit_lines(e: Explanation, solved: bool) -> list[str]:
    """What binds, in sentences."""
    if solved:
        head = f"headroom: {e.load:.3g} times the load; beyond it {e.promise} breaks first"
    elif e.load > 0.0:
        head = f"its largest fleet carries {e.load:.3g} times the load; {e.promise} is missed first"
    else:
        head = f"{e.promise} is missed at any load"
    return [head, f"what binds: {e.binds or 'nothing single'} – {e.why}"]


def upgrade_cells(u: Upgrade, before: Explanation) -> list[str]:
    """A row of the table of upgrades."""
    cost, old = u.usd_per_hour, before.fleet.usd_per_hour
    more = "" if cost is None or old is None or u.kind == "resource" else f"{cost - old:+,.2f}"
    return [u.name, f"{u.load:.3g} ×", more or ("price unknown" if u.kind == "resource" else UNKNOWN)]


def shown_upgrades(e: Explanation) -> Sequence[Upgrade]:
    """Upgrades that change something, most load first."""
    return [u for u in e.upgrades if abs(u.load - e.load) > 1e-9] or e.upgrades


def nearest_lines(result: PlanResult) -> list[str]:
    """Why there is no solution, in sentences."""
    e = result.nearest
    if e is None:
        reasons = list(dict.fromkeys(f"{s.configuration.label}: {s.message}" for s in result.answer.screened))
        return ["no configuration can run at all", *reasons[:5]]
    m = e.fleet.measured
    assert m is not None
    missed = [p for p in m.promises if p.ratio > 1.0]
    parts = [f"{p.name} {seconds(p.value_s)} instead of {seconds(p.limit_s)}, {p.ratio:.2f} times" for p in missed]
    if m.served.refused:
        parts.append(f"{m.served.refused:,} requests are longer than the cache")
    if not parts:
        parts.append("the promises hold, but not with the headroom asked for")
    out = [f"nearest: {fleet_text(e.fleet)}: {'; '.join(parts)}", *limit_lines(e, solved=False)]
    fixes = [u for u in e.upgrades if u.holds]
    if e.load > 0.0:
        out.append(f"would be within the promises with {100 * e.load:.0f} % of the load")
    out += [f"would be within the promises with {u.name}" for u in fixes]
    if not fixes:
        out.append("no single change that was tried is enough")
    return out


def whatif_line(result: PlanResult, index: int) -> str:
    """One what-if in a sentence."""
    changed = result.whatif[index]
    winner = changed.answer.winner
    if winner is None:
        return f"{changed.name}: no solution"
    text = f"{changed.name}: {fleet_text(winner)}"
    cost = winner.usd_per_hour
    if cost is None:
        return f"{text}, price unknown"
    text += f", {usd(cost)} US$/h"
    before = None if result.answer.winner is None else result.answer.winner.usd_per_hour
    return f"{text} ({cost / before:.2f} times)" if before else text
