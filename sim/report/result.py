"""The result of a run: plain numbers with their origins, and the ways to look at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..readings.result import Timeline

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SCHEMA = "effsim/result@1"


@dataclass(frozen=True, slots=True)
class OperatorRow:
    """One operator over the whole run.

    ``count`` is how often it runs in one step; ``flops`` and ``bytes_moved`` are totals of all devices, ``time_s`` and
    ``roofline_s`` wall-clock. ``terms`` splits ``time_s`` by resource. ``cycles`` are those of one run
    by cause (ideal, fill, stall, drain …), where the device tells them apart. Rows of a run add up to its time.
    ``time_low_s`` and ``time_high_s`` are its interval (:mod:`effsim.intervals`), ``evidence`` what stands behind it.
    ``energy_j`` is what it adds to idle power, in joules of all devices; None where the hardware file does not say.
    """

    name: str
    kind: str
    phase: str
    count: int
    flops: float
    bytes_moved: float
    time_s: float
    roofline_s: float
    bound: str
    terms: Mapping[str, float] = field(default_factory=dict)
    cycles: Mapping[str, float] = field(default_factory=dict)
    time_low_s: float | None = None
    time_high_s: float | None = None
    evidence: str = ""
    energy_j: float | None = None


@dataclass(frozen=True, slots=True)
class Assumption:
    """A number that is no datasheet figure: where it stands, what it is, where it comes from, how much it matters."""

    path: str
    value: float
    kind: str
    source: str
    elasticity: float | None = None


@dataclass(frozen=True, slots=True)
class Ceiling:
    """One roof of the roofline plot: a compute peak (FLOP/s) or a bandwidth (bytes/s), of one device.

    ``link`` marks bandwidths between devices, under which only communication lies.
    """

    name: str
    kind: str
    value: float
    link: bool = False


@dataclass(frozen=True, slots=True)
class RunResult:
    """Everything that ``effsim run`` found out: seconds, bytes, joules, US dollars.

    ``memory`` is per device; ``flops`` and ``bytes_moved`` are of all devices. ``roofline_s`` is the lower bound of
    ``time_s``. ``notes`` are the sentences at the top of a report (automatic sharding, warnings).
    ``energy_j`` is ``idle_energy_j``, what all devices draw whatever runs, and what the operators add to it; None where
    a part is unknown.
    ``time_low_s`` and ``time_high_s`` hold the time for nine measurements in ten of what was validated
    (:mod:`effsim.intervals`); ``evidence`` is the share of the time by what stands behind it, ``interval_causes`` the
    seconds below and above that each cause brings, largest first; ``whole_runs`` says where whole runs with this engine
    profile were compared (empty: nowhere, and the interval is that of the operators).
    """

    hardware: str
    workload: str
    engine: str
    devices: int
    parallelism: Mapping[str, int]
    time_s: float
    roofline_s: float
    phases: Mapping[str, Mapping[str, float]]
    memory: Mapping[str, float | bool]
    flops: float
    bytes_moved: float
    energy_j: float | None
    energy_limit_j: float | None
    cost_usd: float | None
    bound: Mapping[str, float]
    operators: tuple[OperatorRow, ...]
    sensitivity: tuple[Mapping[str, float | str], ...]
    assumptions: tuple[Assumption, ...]
    ceilings: tuple[Ceiling, ...] = ()
    notes: tuple[str, ...] = ()
    timeline: Timeline = field(default_factory=Timeline)
    time_low_s: float | None = None
    time_high_s: float | None = None
    energy_low_j: float | None = None
    energy_high_j: float | None = None
    evidence: Mapping[str, float] = field(default_factory=dict)
    interval_causes: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    whole_runs: str = ""
    idle_energy_j: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON of ``--json`` as plain Python."""
        return {
            "schema": SCHEMA,
            "hardware": self.hardware,
            "workload": self.workload,
            "engine": self.engine,
            "devices": self.devices,
            "parallelism": dict(self.parallelism),
            "time_s": self.time_s,
            "time_low_s": self.time_low_s,
            "time_high_s": self.time_high_s,
            "roofline_s": self.roofline_s,
            "phases": {name: dict(phase) for name, phase in self.phases.items()},
            "memory": dict(self.memory),
            "flops": self.flops,
            "bytes": self.bytes_moved,
            "energy_j": self.energy_j,
            "energy_low_j": self.energy_low_j,
            "energy_high_j": self.energy_high_j,
            "energy_limit_j": self.energy_limit_j,
            "idle_energy_j": self.idle_energy_j,
            "cost_usd": self.cost_usd,
            "bound": dict(self.bound),
            "operators": [
                {
                    "name": row.name,
                    "kind": row.kind,
                    "phase": row.phase,
                    "count": row.count,
                    "flops": row.flops,
                    "bytes": row.bytes_moved,
                    "time_s": row.time_s,
                    "time_low_s": row.time_low_s,
                    "time_high_s": row.time_high_s,
                    "evidence": row.evidence,
                    "bound": row.bound,
                    "roofline_s": row.roofline_s,
                    "energy_j": row.energy_j,
                    "terms": dict(row.terms),
                    **({"cycles": dict(row.cycles)} if row.cycles else {}),
                }
                for row in self.operators
            ],
            "sensitivity": [dict(row) for row in self.sensitivity],
            "assumptions": [
                {"path": a.path, "value": a.value, "kind": a.kind, "source": a.source, "elasticity": a.elasticity}
                for a in self.assumptions
            ],
            "interval": {
                "evidence": dict(self.evidence),
                "whole_runs": self.whole_runs or None,
                "causes": [
                    {"cause": cause, "below_s": below, "above_s": above}
                    for cause, (below, above) in self.interval_causes.items()
                ],
            },
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        """The JSON text of ``--json``; NaN and infinity cannot occur in it."""
        import json

        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def to_frame(self) -> Any:
        """The operator table as a pandas DataFrame, or a pyarrow Table where only pyarrow is there.

        Raises:
            DataError: neither is installed.
        """
        from .frames import to_frame

        return to_frame(self)

    def figure(self, which: str = "operators") -> Figure:
        """A Plotly figure: ``operators``, ``energy``, ``roofline``, ``memory``, ``timeline`` or ``sensitivity``.

        Raises:
            UnknownNameError: no such figure.
        """
        from .figures import figure

        return figure(self, which)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from .page import fragment

        return fragment(self)
