"""What every report says in the same words: headlines, sentences, shares, and which numbers matter.

Nothing here knows a terminal or HTML; the callers escape and lay out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ..explore.sensitivity import STEP
from ..units import format_quantity
from . import ranges
from .result import Assumption, Ceiling, OperatorRow, RunResult

GIB: Final = 2.0**30
WEAK_KINDS: Final = ("assumed", "fitted", "unverified")
"""Kinds of numbers that a reader should know a result leans on."""

MATTERS: Final = 1e-3
"""Smallest |elasticity| of a number that is worth a line of its own: 10 % of it moves the time by 0.01 %."""

_SMALLEST_GIB: Final = 0.005
_WHOLE_NUMBERS_FROM: Final = 100.0
_FINE_PERCENT_BELOW: Final = 0.1
_MILLION: Final = 1e6
_SAME_ROOF: Final = 0.05
_SAME_TIME: Final = 5e-4
_VISIBLE: Final = 0.01
_REASONS: Final = 4
_TELLING: Final = 1.5

PHASE_TITLES: Final = {"prefill": "Prefill", "decode": "Decode", "step": "Step"}
MEMORY_PARTS: Final = (
    ("weights", "weights_bytes"),
    ("KV cache", "kv_cache_bytes"),
    ("state", "state_bytes"),
    ("activations", "activation_bytes"),
    ("gradients", "gradient_bytes"),
    ("optimizer", "optimizer_bytes"),
    ("transient", "transient_bytes"),
    ("reserved", "reserved_bytes"),
)


def plain(text: str) -> str:
    """*text* without control characters, so that a name in a file cannot steer a terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def shorten(text: str, width: int) -> str:
    """*text* cut at *width* characters, with an ellipsis where something is missing."""
    return text if len(text) <= width else f"{text[: width - 1].rstrip()}…"


def seconds(value: float) -> str:
    """A time for people, three digits."""
    return format_quantity(value, "time")


def gib(size: float) -> str:
    """Bytes of memory in GiB with two decimals."""
    if 0.0 < size < _SMALLEST_GIB * GIB:
        return "<0.01 GiB"
    return f"{size / GIB:.2f} GiB"


def rate(tokens_per_s: float) -> str:
    """A token rate for people."""
    shown = f"{tokens_per_s:,.0f}" if tokens_per_s >= _WHOLE_NUMBERS_FROM else f"{tokens_per_s:.3g}"
    return f"{shown} tokens/s"


def percent(share: float) -> str:
    """A share of 1 as a percentage with one decimal."""
    return f"{100.0 * share:.1f} %".replace("-", "−")


def signed_percent(change: float) -> str:
    """A relative change with its sign; two decimals below a tenth of a percent."""
    value = 100.0 * change
    digits = 1 if abs(value) >= _FINE_PERCENT_BELOW else 2
    return f"{value:+.{digits}f} %".replace("-", "−")


def is_training(result: RunResult) -> bool:
    """Whether the run is a training step (it holds optimizer states or updates weights)."""
    return any(row.kind == "optimizer_step" for row in result.operators)


def title(result: RunResult) -> str:
    """``workload on hardware``, with the number of devices where there are several.

    The hardware may be one device or a system of which only some devices work, so the number stands apart.
    """
    devices = f", {result.devices} devices" if result.devices > 1 else ""
    return plain(f"{result.workload} on {result.hardware}{devices}")


def setup(result: RunResult) -> str:
    """Engine, devices and how they share the work."""
    ways = " × ".join(f"{plain(name)} {n}" for name, n in result.parallelism.items() if n > 1)
    devices = f"{result.devices} device{'s' if result.devices > 1 else ''}"
    return f"engine {result.engine}, {devices}{f' ({ways})' if ways else ''}"


def dollars(cost_usd: float | None) -> str:
    """A cost for a column; a question mark where no price is known."""
    return "?" if cost_usd is None else f"${cost_usd:.3g}"


@dataclass(frozen=True, slots=True)
class Headline:
    """One line at the top of a report: what, how much, and what goes with it."""

    label: str
    value: str
    aside: str = ""


def headlines(result: RunResult) -> list[Headline]:
    """The times a reader came for: TTFT of a prefill, time per token of a decode, step time, and the whole."""
    out: list[Headline] = []
    for name, phase in result.phases.items():
        out.append(_headline(name, phase, is_training(result)))
    if len(result.phases) > 1:
        whole = seconds(result.time_s) + ranges.ends(result.time_s, result.time_low_s, result.time_high_s)
        out.append(Headline("Total time", whole))
    if result.time_s > 0.0:
        share = percent(result.roofline_s / result.time_s)
        out.append(Headline("Roofline", seconds(result.roofline_s), f"no schedule is faster; reached to {share}"))
    return out


def _headline(name: str, phase: Mapping[str, float], training: bool) -> Headline:
    tokens = rate(phase["tokens_per_s"]) if "tokens_per_s" in phase else ""
    whole = seconds(phase["time_s"])
    shown = whole + ranges.phase_ends(phase, "time")
    if name == "prefill":
        return Headline("Time to first token (TTFT)", shown, tokens)
    if "time_per_token_s" in phase:
        aside = f"{tokens}; {whole} in all" if tokens else f"{whole} in all"
        each = seconds(phase["time_per_token_s"]) + ranges.phase_ends(phase, "time_per_token")
        return Headline("Time per token (decode)", each, aside)
    if training:
        return Headline("Step time (training)", shown, tokens)
    return Headline(f"Time ({name})", shown)  # an explicit list of operators has no tokens


def memory_parts(result: RunResult) -> list[tuple[str, float]]:
    """Name and bytes of what fills one device, zero parts left out."""
    parts = ((label, float(result.memory.get(key, 0.0))) for label, key in MEMORY_PARTS)
    return [(label, size) for label, size in parts if size > 0.0]


def memory_line(result: RunResult) -> str:
    """Used of capacity, per device, and whether that fits."""
    used, capacity = float(result.memory["used_bytes"]), float(result.memory["capacity_bytes"])
    verdict = "fits" if result.memory.get("fits", used <= capacity) else "DOES NOT FIT"
    full = f", {percent(used / capacity)}" if capacity > 0.0 else ""
    return f"{gib(used)} of {gib(capacity)} a device{full}: {verdict}"


def energy_line(result: RunResult) -> str:
    """The energy, or why it is unknown and what it cannot exceed."""
    if result.energy_j is not None:
        ends = ranges.ends(result.energy_j, result.energy_low_j, result.energy_high_j, "energy")
        return f"energy {format_quantity(result.energy_j, 'energy')}{ends} (devices alone, without host and links)"
    reason = "energy unknown (per-operation energies are not in the hardware file)"
    if result.energy_limit_j is None:
        return f"{reason}; no power limit is given either"
    return f"{reason}; at most {format_quantity(result.energy_limit_j, 'energy')} at the power limit"


def tokens_per_s(result: RunResult) -> float | None:
    """Tokens a second: those generated where it decodes, else those of its first phase that has any."""
    decode = result.phases.get("decode")
    phases = [decode] if decode is not None else list(result.phases.values())
    return next((float(phase["tokens_per_s"]) for phase in phases if phase.get("tokens_per_s")), None)


def dollars_per_million(result: RunResult) -> float | None:
    """US dollars for a million of the tokens of :func:`tokens_per_s`; None without a price or without tokens."""
    tokens = tokens_per_s(result)
    if result.cost_usd is None or tokens is None or result.time_s <= 0.0:
        return None
    return result.cost_usd / result.time_s / tokens * _MILLION


def cost_line(result: RunResult) -> str:
    """The cost with the standing of its price, or why it is unknown."""
    if result.cost_usd is None:
        return "cost unknown (no price in the hardware file)"
    line = f"cost {format_quantity(result.cost_usd, 'money')}"
    each = dollars_per_million(result)
    if "decode" in result.phases and each is not None:
        line += f", {format_quantity(each, 'money')} a million tokens generated"
    price = next((a for a in result.assumptions if ".price." in f".{a.path}."), None)
    return f"{line} (price is {price.kind}: {plain(price.source)})" if price else line


def sensitivity_sentence(row: Mapping[str, float | str]) -> str:
    """``hardware.memory.bandwidth +10 % → −7.8 %``: the change of the time that 10 % more brings."""
    change = STEP ** float(row["elasticity"]) - 1.0
    return f"{plain(str(row['path']))} +{STEP - 1.0:.0%} → {signed_percent(change)}".replace("10%", "10 %")


def strongest(result: RunResult, limit: int = 5) -> list[Mapping[str, float | str]]:
    """The sensitivities with the largest |elasticity|."""
    return sorted(result.sensitivity, key=lambda row: -abs(float(row["elasticity"])))[:limit]


def weak_assumptions(result: RunResult) -> tuple[list[Assumption], str]:
    """Assumed, fitted and unverified numbers that the time depends on, and a count of all other numbers.

    Without sensitivities nobody knows what matters; then all of them are listed.
    """
    ranked = bool(result.sensitivity)
    listed = [a for a in result.assumptions if a.kind in WEAK_KINDS and (not ranked or _matters(a))]
    listed.sort(key=lambda a: (-abs(a.elasticity or 0.0), a.path))
    rest = Counter(a.kind for a in result.assumptions if a not in listed)
    counted = ", ".join(f"{n} {kind}" for kind, n in sorted(rest.items()))
    return listed, counted


def _matters(assumption: Assumption) -> bool:
    return assumption.elasticity is not None and abs(assumption.elasticity) > MATTERS


def by_time(rows: Iterable[OperatorRow]) -> list[OperatorRow]:
    """Rows, longest first."""
    return sorted(rows, key=lambda row: (-row.time_s, row.name))


def efficiency(row: OperatorRow) -> str:
    """Roofline time over time, or a dash for what has no roofline (host work, idling)."""
    return percent(row.roofline_s / row.time_s) if row.time_s > 0.0 and row.roofline_s > 0.0 else "–"


def seconds_by_resource(results: RunResult | Sequence[OperatorRow]) -> dict[str, float]:
    """Seconds of the run that each resource binds, largest first."""
    rows = results.operators if isinstance(results, RunResult) else results
    totals: dict[str, float] = {}
    for row in rows:
        for name, value in row.terms.items():
            totals[name] = totals.get(name, 0.0) + value
    return dict(sorted(totals.items(), key=lambda item: (-item[1], item[0])))


def difference_sentence(first: RunResult, other: RunResult) -> str:
    """Why *other* takes another time than *first*: the resources whose seconds account for the difference."""
    gap = other.time_s - first.time_s
    name = plain(other.hardware)
    if abs(gap) <= _SAME_TIME * first.time_s or other.time_s <= 0.0:
        return f"{name} takes the same time"
    ratio = first.time_s / other.time_s
    verdict = f"is {ratio:.2f}× as fast" if ratio >= 1.0 else f"takes {1.0 / ratio:.2f}× the time"
    before, after = seconds_by_resource(first), seconds_by_resource(other)
    changes = {key: after.get(key, 0.0) - before.get(key, 0.0) for key in before | after}
    ordered = sorted(changes.items(), key=lambda item: -abs(item[1]))
    largest = [(key, change) for key, change in ordered if abs(change) > _VISIBLE * abs(gap)][:_REASONS]
    # Where large changes nearly cancel, shares of what remains tell nothing.
    telling = all(abs(change / gap) <= _TELLING for _, change in largest)
    parts = ", ".join(
        f"{key} {_signed_seconds(change)}{f' ({percent(change / gap)} of it)' if telling else ''}"
        for key, change in largest
    )
    certain = ranges.overlap_sentence(first, other)
    return f"{name} {verdict} ({_signed_seconds(gap)}): {parts}{f'; {certain}' if certain else ''}"


def _signed_seconds(value: float) -> str:
    return f"{'−' if value < 0 else '+'}{seconds(abs(value))}"


def working_devices(result: RunResult) -> int:
    """Devices that work at one time on an operator: an inference pipeline has one stage at work for a batch.

    Totals of FLOPs and bytes divided by this and by the operator's time give what one device attains.
    """
    pipeline = 1 if is_training(result) else result.parallelism.get("pipeline", 1)
    return max(1, result.devices // max(1, pipeline))


@dataclass(frozen=True, slots=True)
class RoofPoint:
    """An operator on the roofline plot: FLOP/byte, FLOP/s of one device, share of its own roof, the roof's name."""

    row: OperatorRow
    intensity: float
    attained: float
    share: float
    roof: str


def roof_points(result: RunResult) -> list[RoofPoint]:
    """Every operator that has a roofline, longest first; intensity and rate are 0 without FLOPs."""
    devices = working_devices(result)
    out = []
    for row in by_time(result.operators):
        if row.roofline_s <= 0.0 or row.time_s <= 0.0:
            continue
        intensity = row.flops / row.bytes_moved if row.bytes_moved else 0.0
        attained = row.flops / row.time_s / devices
        out.append(RoofPoint(row, intensity, attained, row.roofline_s / row.time_s, roof_name(result, row, devices)))
    return out


def roof_name(result: RunResult, row: OperatorRow, devices: int) -> str:
    """The roof whose time is the operator's roofline time; the links for what only moves between devices."""
    if row.kind in ("collective", "host_transfer"):
        return "links" if row.kind == "collective" else "host link"
    times = {c.name: _roof_time(c, row) / devices for c in result.ceilings if not c.link}
    name = min(times, key=lambda key: abs(times[key] / row.roofline_s - 1.0), default="")
    if name and abs(times[name] / row.roofline_s - 1.0) <= _SAME_ROOF:
        return name
    return f"{row.bound} (several)" if row.bound in ("matrix", "vector", "memory", "l2") else "several"


def _roof_time(ceiling: Ceiling, row: OperatorRow) -> float:
    work = row.flops if ceiling.kind == "compute" else row.bytes_moved
    return work / ceiling.value if ceiling.value > 0.0 else 0.0


def flop_count(value: float) -> str:
    """FLOPs with a prefix only (the heading says the unit)."""
    return format_quantity(value, "flops").removesuffix("FLOP").strip() if value else "–"


def byte_count(value: float) -> str:
    """Bytes moved, in decimal units as bandwidths are."""
    return format_quantity(value, "bytes") if value else "–"
