"""Pairs of a machine and a workload, run and put side by side: what the compare page shows and saves."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ..errors import DataError, EffsimError
from ..report import ranges, words
from ..report.result import RunResult
from ..units import format_quantity
from . import exports
from .service import START, Asked, Service
from .view import View

MOST: Final = 24
"""Pairs that are run for one page."""
ENGINE: Final = "analytic"
"""The reading of ``effsim compare`` where none is named."""
MACHINES: Final = ("gpu_a100", "gpu_h100", "gpu_mi300x")
"""What is compared before anything is chosen, on the workload that every page starts with."""
BARS: Final = {"time": "time", "share": "share of the time"}
SCHEMA: Final = "effsim/compare@1"
_SAME: Final = 1e-12
_NAME: Final = 200
"""Characters of a choice that are looked at; no name is as long."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a view asks for; choices are those of the shelf, the pairs are all of one with all of the other."""

    hardware: tuple[str, ...]
    workloads: tuple[str, ...]
    engine: str = ENGINE
    changes: tuple[str, ...] = ()
    bars: str = "time"

    @classmethod
    def of(cls, view: View) -> Comparison:
        """What a view says, with the start where it says nothing."""
        hardware, workloads = chosen(view.many("hardware")), chosen(view.many("workload"))
        return cls(
            hardware or MACHINES,
            workloads or (START["workload"],),
            view.one("engine", ENGINE),
            view.many("set"),
            view.one("bars", "time"),
        )

    @property
    def view(self) -> View:
        """The fields of the address."""
        bars = "" if self.bars == "time" else self.bars
        return View.of(hardware=self.hardware, workload=self.workloads, engine=self.engine, set=self.changes, bars=bars)

    @property
    def asked(self) -> list[Asked]:
        """One run a pair: all machines of the first workload, then those of the next."""
        return [Asked(h, w, self.engine, self.changes) for w in self.workloads for h in self.hardware]


@dataclass(frozen=True, slots=True)
class Pair:
    """A machine and a workload: what the run gave, or *why* there is none. *label* is short and its own."""

    asked: Asked
    label: str
    result: RunResult | None
    why: str = ""


def chosen(value: Any) -> tuple[str, ...]:
    """The choices that a list sends, each once; anything that is no text is left out.

    >>> chosen(["gpu_a100", "gpu_a100", 3, None])
    ('gpu_a100',)
    """
    values = [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else []
    return tuple(dict.fromkeys(v[:_NAME] for v in values if isinstance(v, str) and v))


def run_pairs(service: Service, comparison: Comparison, *, sensitivity: bool = False) -> list[Pair]:
    """Run every pair; one that does not run says why and does not keep the others from running.

    Raises:
        DataError: more pairs than :data:`MOST`.
    """
    asked = comparison.asked
    if len(asked) > MOST:
        shape = f"{len(comparison.hardware)} × {len(comparison.workloads)}"
        raise DataError(f"{shape} are {len(asked)} pairs; at most {MOST} are compared at a time")
    out = []
    for one, label in zip(asked, _labels(service, comparison), strict=True):
        try:
            out.append(Pair(one, label, service.run(one, sensitivity=sensitivity)))
        except EffsimError as error:
            out.append(Pair(one, label, None, str(error)))
    return out


def _labels(service: Service, comparison: Comparison) -> list[str]:
    """Short names of the pairs: of what differs between them."""
    name = service.shelf.label
    out = []
    for one in comparison.asked:
        parts = []
        if len(comparison.hardware) > 1 or len(comparison.workloads) == 1:
            parts.append(name(one.hardware))
        if len(comparison.workloads) > 1:
            parts.append(name(one.workload))
        out.append(" · ".join(parts))
    return out


def ran(pairs: Iterable[Pair]) -> list[RunResult]:
    """Results of the pairs that run, under their labels (figures tell pairs apart by the name of the hardware)."""
    return [replace(pair.result, hardware=pair.label) for pair in pairs if pair.result is not None]


# --- numbers


@dataclass(frozen=True, slots=True)
class Column:
    """One number of every pair: its name in the CSV, how it is shown (with what goes below it), and whether less is
    better (-1), more (1) or neither (0).
    """

    key: str
    head: str
    value: Callable[[RunResult], float | None]
    shown: Callable[[RunResult], tuple[str, str]]
    better: int = 0
    always: bool = True


def _phase(result: RunResult, name: str, key: str) -> float | None:
    value = result.phases.get(name, {}).get(key)
    return None if value is None else float(value)


def _phase_shown(name: str, key: str) -> Callable[[RunResult], tuple[str, str]]:
    def shown(result: RunResult) -> tuple[str, str]:
        value = _phase(result, name, f"{key}_s")
        return ("–", "") if value is None else (words.seconds(value), ranges.phase_ends(result.phases[name], key))

    return shown


def _time_shown(result: RunResult) -> tuple[str, str]:
    return words.seconds(result.time_s), ranges.ends(result.time_s, result.time_low_s, result.time_high_s)


def _tokens_shown(result: RunResult) -> tuple[str, str]:
    value = words.tokens_per_s(result)
    return "–" if value is None else words.rate(value).removesuffix(" tokens/s"), ""


def _memory_shown(result: RunResult) -> tuple[str, str]:
    used, capacity = float(result.memory["used_bytes"]), float(result.memory["capacity_bytes"])
    return words.gib(used), f"of {words.gib(capacity)}: {'fits' if fits(result) else 'DOES NOT FIT'}"


def fits(result: RunResult) -> bool:
    """Whether the memory of one device is enough."""
    used, capacity = float(result.memory["used_bytes"]), float(result.memory["capacity_bytes"])
    return bool(result.memory.get("fits", used <= capacity))


def bottleneck(result: RunResult) -> tuple[str, float]:
    """The resource that binds most of the time, with its share."""
    return max(result.bound.items(), key=lambda item: item[1], default=("–", 0.0))


def _bottleneck_shown(result: RunResult) -> tuple[str, str]:
    name, share = bottleneck(result)
    return words.plain(name), words.percent(share)


def _energy_shown(result: RunResult) -> tuple[str, str]:
    if result.energy_j is None:
        return "?", ""
    ends = ranges.ends(result.energy_j, result.energy_low_j, result.energy_high_j, "energy")
    return format_quantity(result.energy_j, "energy"), ends


def _cost_shown(result: RunResult) -> tuple[str, str]:
    value = words.dollars_per_million(result)
    known = value is not None or result.cost_usd is None
    return (words.dollars(value), "") if known else ("–", "")


def _roof(result: RunResult) -> float | None:
    return result.roofline_s / result.time_s if result.time_s > 0.0 else None


def _roof_shown(result: RunResult) -> tuple[str, str]:
    share = _roof(result)
    return "–" if share is None else words.percent(share), ""


COLUMNS: Final = (
    Column("devices", "devices", lambda r: float(r.devices), lambda r: (str(r.devices), "")),
    Column("time_s", "time", lambda r: r.time_s, _time_shown, -1),
    Column(
        "ttft_s", "TTFT", lambda r: _phase(r, "prefill", "time_s"), _phase_shown("prefill", "time"), -1, always=False
    ),
    Column(
        "time_per_token_s",
        "per token",
        lambda r: _phase(r, "decode", "time_per_token_s"),
        _phase_shown("decode", "time_per_token"),
        -1,
        always=False,
    ),
    Column("tokens_per_s", "tokens/s", words.tokens_per_s, _tokens_shown, 1, always=False),
    Column("memory_used_bytes", "memory", lambda r: float(r.memory["used_bytes"]), _memory_shown),
    Column("bound_share", "bottleneck", lambda r: bottleneck(r)[1], _bottleneck_shown),
    Column("energy_j", "energy", lambda r: r.energy_j, _energy_shown, -1),
    Column("usd_per_million_tokens", "US$/M tokens", words.dollars_per_million, _cost_shown, -1),
    Column("roofline_share", "of roof", _roof, _roof_shown, 1),
)


def columns(pairs: Sequence[Pair]) -> list[Column]:
    """The columns that some pair has a number for."""
    results = [pair.result for pair in pairs if pair.result is not None]
    return [c for c in COLUMNS if c.always or any(c.value(r) is not None for r in results)]


def best(pairs: Sequence[Pair], column: Column) -> set[int]:
    """Places of the best pairs of a column: of each workload where there are several machines, else of all.

    Nothing is best where fewer than two are known or all are equal.
    """
    if not column.better:
        return set()
    several = len({pair.asked.hardware for pair in pairs}) > 1
    groups: dict[str, dict[int, float]] = {}
    for place, pair in enumerate(pairs):
        value = None if pair.result is None else column.value(pair.result)
        if value is not None:
            groups.setdefault(pair.asked.workload if several else "", {})[place] = value
    out: set[int] = set()
    for group in groups.values():
        top = (min if column.better < 0 else max)(group.values())
        winners = {place for place, value in group.items() if abs(value - top) <= _SAME * abs(top)}
        out |= winners if len(winners) < len(group) else set()
    return out


def differences(service: Service, pairs: Sequence[Pair]) -> list[tuple[str, list[str]]]:
    """Sentences against the first that runs: machines of each workload, or the workloads of a single machine."""
    name = service.shelf.label
    several = len({pair.asked.hardware for pair in pairs}) > 1
    groups: dict[str, list[tuple[Pair, RunResult]]] = {}
    for pair in pairs:
        if pair.result is not None:
            shown = pair.result if several else replace(pair.result, hardware=name(pair.asked.workload))
            groups.setdefault(pair.asked.workload if several else "", []).append((pair, shown))
    out = []
    for workload, group in groups.items():
        first = group[0][1]
        title = f"Against {first.hardware}" + (f", {name(workload)}" if len(groups) > 1 else "")
        lines = [words.difference_sentence(first, other) for _, other in group[1:]]
        if lines:
            out.append((words.plain(title), lines))
    return out


# --- to take away


def command_lines(service: Service, comparison: Comparison, pairs: Sequence[Pair]) -> list[str]:
    """The commands that compute the same, one a workload, without the machines that do not run it."""
    name = service.shelf.label
    out = []
    for workload in comparison.workloads:
        machines = [p.asked.hardware for p in pairs if p.asked.workload == workload and p.result is not None]
        if not machines:
            continue
        parts = ["effsim", "compare", *(name(machine) for machine in machines), name(workload)]
        if comparison.engine != ENGINE:
            parts += ["--engine", comparison.engine]
        for change in comparison.changes:
            parts += ["--set", change]
        out.append(shlex.join(parts))
    return out


def pairs_csv(service: Service, pairs: Sequence[Pair]) -> str:
    """One row a pair, SI units; what is unknown is empty, what does not run says why."""
    heads = ["hardware", "workload", "hardware_name", "workload_name", "engine"]
    numbers = [c.key for c in COLUMNS]
    more = ["time_low_s", "time_high_s", "memory_capacity_bytes", "fits", "bottleneck", "error"]
    held = io.StringIO()
    writer = csv.writer(held, lineterminator="\n")
    writer.writerow([*heads, *numbers, *more])
    for pair in pairs:
        r = pair.result
        label = service.shelf.label
        row: list[Any] = [label(pair.asked.hardware), label(pair.asked.workload)]
        if r is None:
            row += ["", "", pair.asked.engine, *("" for _ in numbers), "", "", "", "", "", pair.why]
        else:
            row += [r.hardware, r.workload, r.engine, *(c.value(r) for c in COLUMNS), r.time_low_s, r.time_high_s]
            row += [r.memory["capacity_bytes"], str(fits(r)).lower(), bottleneck(r)[0], ""]
        writer.writerow([exports.safe(cell) for cell in row])
    return held.getvalue()


def saved(service: Service, comparison: Comparison, what: str) -> dict[str, Any]:
    """The file that a button saves: the pairs that run, a file a workload where the command line has one each.

    Raises:
        DataError: nothing runs.
    """
    if what == "csv":
        return {"content": pairs_csv(service, run_pairs(service, comparison)), "filename": "compare.csv"}
    if what == "yaml":
        return exports.download(_yaml(service, comparison))
    pairs = run_pairs(service, comparison, sensitivity=True)
    files: exports.Files = {}
    for workload in comparison.workloads:
        mine = [pair for pair in pairs if pair.asked.workload == workload]
        results = [pair.result for pair in mine if pair.result is not None]
        if results:
            name = "compare" if len(comparison.workloads) == 1 else f"compare_{exports.stem(service, workload)}"
            files[f"{name}.{what}"] = _file(service, comparison, mine, results, what)
    if not files:
        raise DataError("no pair runs, so there is nothing to save")
    return exports.download(files)


def _file(
    service: Service, comparison: Comparison, pairs: Sequence[Pair], results: Sequence[RunResult], what: str
) -> str:
    if what == "json":
        data = {"schema": SCHEMA, "results": [result.to_dict() for result in results]}
        return json.dumps(data, indent=1, allow_nan=False)
    from ..report.page import page

    return page(list(results), command="\n".join(command_lines(service, comparison, pairs)))


def _yaml(service: Service, comparison: Comparison) -> exports.Files:
    out: exports.Files = {}
    for section, choices in (("hardware", comparison.hardware), ("workloads", comparison.workloads)):
        for choice in choices:
            out |= exports.yaml_files(service, section, choice, comparison.changes)
    return out
