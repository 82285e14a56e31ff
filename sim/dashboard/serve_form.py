"""What the Serve page asks for: controls that stand for assignments, and the request that they make.

A link holds one list of assignments (``set=``), as the command line has. Those that a control shows are taken out of
it, the rest stays in a line of text; what is asked for is the line and then the controls.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ..errors import EffsimError, SpecError
from ..program.workload_file import open_workload
from ..spec.serving import ServingSpec
from ..spec.workload import WorkloadSpec
from .background import whole_number
from .service import MAX_CHANGES, Service
from .serving_kept import MOST_REQUESTS, too_many
from .view import View, assignments

START: Final = {"hardware": "gpu_h100", "workload": "llama3_70b_serve"}
RATE: Final = "workload.serving.arrivals.rate"
SPEED: Final = "workload.serving.arrivals.speed"
CONTROLS: Final[Mapping[str, str]] = {
    "rate": RATE,
    "ttft": "workload.serving.slo.ttft",
    "tpot": "workload.serving.slo.tpot",
    "policy": "workload.serving.scheduler.policy",
    "replicas": "workload.serving.replicas",
}
"""Fields of the form by name; a recorded load has a speed in place of a rate."""
POLICIES: Final = ("static", "continuous", "chunked", "prefill_first", "decode_first")
SLOWEST, FASTEST = 0.1, 10.0
"""Ends of the load slider, times the load of the file."""
LOADS: Final = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Of a load curve, times the load that was served."""
MOST_SEED: Final = 2**32 - 1
_SERVING: Final = re.compile(r"^serving\s*:", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Asked:
    """A served load that a view asks for: choices of the shelf, all assignments, and the seed."""

    hardware: str = START["hardware"]
    workload: str = START["workload"]
    changes: tuple[str, ...] = ()
    seed: int = 0

    @property
    def view(self) -> View:
        """The fields of the address."""
        seed = str(self.seed) if self.seed else None
        return View.of(hardware=self.hardware, workload=self.workload, set=self.changes, seed=seed)

    @property
    def data(self) -> dict[str, Any]:
        """For the arguments of a job."""
        return {"hardware": self.hardware, "workload": self.workload, "set": list(self.changes), "seed": self.seed}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Asked:
        """What :attr:`data` gave."""
        return cls(data["hardware"], data["workload"], tuple(data["set"]), data["seed"])


@dataclass(frozen=True, slots=True)
class Form:
    """Values of the form's fields as texts; *rest* are assignments without a control."""

    hardware: str = START["hardware"]
    workload: str = START["workload"]
    controls: Mapping[str, str] = field(default_factory=dict)
    rest: tuple[str, ...] = ()
    seed: Any = ""

    @classmethod
    def of_view(cls, service: Service, view: View) -> Form:
        """The form of an address."""
        hardware, workload = (view.one(name, START[name]) for name in ("hardware", "workload"))
        changes = view.many("set")
        controls, rest = split(changes, load_path(service, workload, changes))
        return cls(hardware, workload, controls, rest, view.one("seed"))

    @classmethod
    def of_values(cls, values: Sequence[Any]) -> Form:
        """The form of its components' values: hardware, workload, the controls, the line of changes, the seed.

        Raises:
            SpecError: they are no texts and numbers.
        """
        if any(not isinstance(value, str | int | float | None) for value in values):
            raise SpecError("the form was not understood", expected="texts and numbers")
        hardware, workload, *controls, line, seed = values
        named = {name: "" if v is None else str(v).strip() for name, v in zip(CONTROLS, controls, strict=True)}
        return cls(str(hardware), str(workload), named, assignments(str(line or "")), seed)

    def asked(self, service: Service) -> Asked:
        """The request of this form.

        Raises:
            SpecError: the seed is no whole number; too many changes.
        """
        seed = whole_number(self.seed, "the seed", 0, MOST_SEED)
        named = {name: value for name, value in self.controls.items() if value}
        paths = {**CONTROLS, "rate": load_path(service, self.workload, self.rest)}
        changes = (*self.rest, *(f"{paths[name]}={value}" for name, value in named.items()))
        if len(changes) > MAX_CHANGES:
            raise SpecError(f"{len(changes)} changes", expected=f"at most {MAX_CHANGES}")
        return Asked(self.hardware, self.workload, changes, seed)


def split(changes: Iterable[str], load: str = RATE) -> tuple[dict[str, str], tuple[str, ...]]:
    """Assignments that controls show (*load*: that of the load), and the others.

    One that stands twice, or beside one that replaces what is around it, stays in the line: the order matters there.

    >>> split(["workload.serving.slo.ttft=2 s", "workload.batch=8"])
    ({'ttft': '2 s'}, ('workload.batch=8',))
    """
    held = [(change, change.partition("=")[0].strip()) for change in changes]
    names = {path: name for name, path in {**CONTROLS, "rate": load}.items()}
    controls: dict[str, str] = {}
    rest = []
    for change, path in held:
        around = [p for _, p in held if p == path or path.startswith(f"{p}.")]
        name = names.get(path)
        value = change.partition("=")[2].strip()
        if name is None or len(around) > 1 or not value or value == "null":
            rest.append(change)
        else:
            controls[name] = value
    return controls, tuple(rest)


def workload_spec(service: Service, choice: str, changes: Sequence[str]) -> WorkloadSpec:
    """A workload with changes.

    Raises:
        EffsimError: it or a change is wrong.
    """

    def load() -> WorkloadSpec:
        return open_workload(service.shelf.argument("workloads", choice), changes).spec

    return service.ask(("workload", choice, tuple(changes)), load, changes)


def serving_of(service: Service, choice: str, changes: Sequence[str] = ()) -> ServingSpec:
    """The load of a workload for hints; the usual one where the file is wrong."""
    try:
        return workload_spec(service, choice, changes).serving or ServingSpec()
    except EffsimError:
        return ServingSpec()


def load_path(service: Service, choice: str, changes: Sequence[str] = ()) -> str:
    """What says how large a load is: the rate of a drawn one, the speed of a recorded one."""
    return RATE if serving_of(service, choice, changes).arrivals.trace is None else SPEED


def base_rate(serving: ServingSpec) -> float:
    """Requests a second of a drawn load, speed of a recorded one."""
    a = serving.arrivals
    return float(a.rate) if a.trace is None else float(a.speed)


def with_serving(service: Service, offered: list[dict[str, str]]) -> list[dict[str, str]]:
    """Workloads that describe a load first, and marked; the others are served with the usual load."""

    def describes(value: str) -> bool:
        try:
            return _SERVING.search(service.shelf.text("workloads", value)) is not None
        except (EffsimError, OSError):
            return False

    load = {option["value"]: describes(option["value"]) for option in offered}
    first = [{**option, "label": f"{option['label']} · load"} for option in offered if load[option["value"]]]
    return first + [option for option in offered if not load[option["value"]]]


def expected(serving: ServingSpec) -> int:
    """About how many requests come; 0 where only a recording knows.

    Raises:
        DataError: more than the dashboard serves.
    """
    a = serving.arrivals
    if a.trace is not None and a.requests is None:
        return 0
    counts = [] if a.requests is None else [float(a.requests)]
    if a.duration is not None and a.trace is None:
        counts.append(math.ceil(float(a.rate) * float(a.duration)))
    count = min(counts, default=1000.0)
    if count > MOST_REQUESTS:
        raise too_many(count)
    return int(count)


def request(service: Service, asked: Asked) -> dict[str, Any]:
    """Arguments of the work ``serve``.

    Raises:
        EffsimError: a choice, the workload or a change is wrong; too many requests.
    """
    spec = workload_spec(service, asked.workload, asked.changes)
    return {
        "hardware": service.shelf.argument("hardware", asked.hardware),
        "workload": service.shelf.argument("workloads", asked.workload),
        "set": list(asked.changes),
        "seed": asked.seed,
        "root": str(service.shelf.folder),
        "requests": expected(spec.serving or ServingSpec()),
        "asked": asked.data,
    }


def curve_request(service: Service, asked: Asked) -> dict[str, Any]:
    """Arguments of the work ``load_curve``: the same at :data:`LOADS` times its load.

    Raises:
        EffsimError: as :func:`request`.
    """
    arguments = request(service, asked)
    serving = workload_spec(service, asked.workload, asked.changes).serving or ServingSpec()
    path = RATE if serving.arrivals.trace is None else SPEED
    loads = []
    for times in LOADS:
        change = f"{path}={base_rate(serving) * times!r}"
        changed = workload_spec(service, asked.workload, (*asked.changes, change)).serving or ServingSpec()
        loads.append([times, change, expected(changed)])
    return arguments | {"loads": loads}
