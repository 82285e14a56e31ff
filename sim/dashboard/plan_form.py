"""What the Plan page asks for: a plan with another load, other prices and other changes, as assignments."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ..errors import SpecError
from ..explore.plan.configurations import Load, Source, load_base
from ..spec.build import build
from ..spec.catalogue import load_document
from ..spec.overrides import apply
from ..spec.plan import PlanSpec
from ..spec.serving import ServingSpec
from ..spec.yaml_loader import Document
from .background import whole_number
from .serve_form import MOST_SEED, expected
from .service import MAX_CHANGES, Service
from .view import View, assignments

START: Final = "llama70b_chat"
OBJECTIVES: Final = ("cost", "devices", "energy")
LEAST, MOST = 0.1, 10.0
"""Ends of the load slider."""
_MOST_LOAD: Final = 1000.0
_MOST_TEXT: Final = 80


@dataclass(frozen=True, slots=True)
class Asked:
    """A plan as a view asks for it. *prices* are (candidate, text); *load* is times the plan's own."""

    plan: str = START
    load: float = 1.0
    prices: tuple[tuple[str, str], ...] = ()
    headroom: str = ""
    objective: str = ""
    rest: tuple[str, ...] = ()
    seed: int | None = None

    @property
    def view(self) -> View:
        """The fields of the address."""
        return View.of(
            plan=self.plan,
            load=None if self.load == 1.0 else repr(self.load),
            price=[f"{name}={text}" for name, text in self.prices],
            headroom=self.headroom,
            objective=self.objective,
            set=self.rest,
            seed=None if self.seed is None else str(self.seed),
        )

    @property
    def data(self) -> dict[str, Any]:
        """For the arguments of a job."""
        names = ("plan", "load", "headroom", "objective", "seed")
        held = {name: getattr(self, name) for name in names}
        return held | {"prices": [list(pair) for pair in self.prices], "rest": list(self.rest)}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Asked:
        """What :attr:`data` gave."""
        prices = tuple((name, text) for name, text in data["prices"])
        return cls(**{**data, "prices": prices, "rest": tuple(data["rest"])})


@dataclass(frozen=True, slots=True)
class Form:
    """Values of the form's fields as texts; prices by candidate."""

    plan: str = START
    load: Any = ""
    headroom: str = ""
    objective: str = ""
    line: tuple[str, ...] = ()
    seed: Any = ""
    prices: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_view(cls, view: View) -> Form:
        """The form of an address."""
        prices = dict(text.rsplit("=", 1) for text in view.many("price") if "=" in text)
        one = view.one
        return cls(
            one("plan", START), one("load"), one("headroom"), one("objective"), view.many("set"), one("seed"), prices
        )

    @classmethod
    def of_values(cls, values: Sequence[Any], prices: Mapping[str, Any]) -> Form:
        """The form of its components' values: plan, load, headroom, objective, line of changes, seed.

        Raises:
            SpecError: they are no texts and numbers.
        """
        if any(not isinstance(value, str | int | float | None) for value in (*values, *prices.values())):
            raise SpecError("the form was not understood", expected="texts and numbers")
        plan, load, headroom, objective, line, seed = values
        held = {str(name): str(text or "").strip()[:_MOST_TEXT] for name, text in prices.items()}
        texts = [str(text or "").strip() for text in (headroom, objective)]
        return cls(str(plan), load, texts[0], texts[1], assignments(str(line or "")), seed, held)

    @property
    def asked(self) -> Asked:
        """The request of this form.

        Raises:
            SpecError: the load or the seed is no such number.
        """
        seed = None if self.seed in (None, "") else whole_number(self.seed, "the seed", 0, MOST_SEED)
        named = tuple((name, _money(text)) for name, text in self.prices.items() if text)
        return Asked(self.plan, times(self.load), named, self.headroom, self.objective, self.line, seed)


def times(text: Any) -> float:
    """A factor on the load; 1 where nothing is said.

    Raises:
        SpecError: it is none.
    """
    if text in (None, ""):
        return 1.0
    try:
        value = float(text)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not 0.0 < value <= _MOST_LOAD:
        raise SpecError(f"the load {str(text)[:32]!r}", expected=f"a factor of more than 0, at most {_MOST_LOAD:g}")
    return value


def _money(text: str) -> str:
    """A bare number is in US$ an hour."""
    try:
        float(text)
    except ValueError:
        return text
    return f"{text} USD/h"


@dataclass(frozen=True, slots=True)
class Opened:
    """A plan as its file says it, with the changes of a line."""

    document: Document
    spec: PlanSpec


def opened(service: Service, choice: str, changes: Sequence[str] = ()) -> Opened:
    """A plan with ``plan.…`` changes.

    Raises:
        EffsimError: it or a change is wrong.
    """

    def load() -> Opened:
        document = apply(load_document("plans", service.shelf.argument("plans", choice)), list(changes), "plan")
        return Opened(document, build(PlanSpec, document, root="plan"))

    return service.ask(("plan file", choice, tuple(changes)), load, changes)


def candidates(spec: PlanSpec) -> list[str]:
    """Names by which prices are given."""
    return [c.name or c.hardware for c in spec.candidates]


def changes_of(service: Service, asked: Asked) -> tuple[str, ...]:
    """All that is asked for beside the file, as the command line's ``--set``.

    Raises:
        EffsimError: the plan, its workload or a change is wrong; a price for what is no candidate.
    """
    if len(asked.rest) > MAX_CHANGES:
        raise SpecError(f"{len(asked.rest)} changes", expected=f"at most {MAX_CHANGES}")
    plan = opened(service, asked.plan, asked.rest)
    out = list(asked.rest)
    if asked.headroom:
        out.append(f"plan.headroom={asked.headroom}")
    if asked.objective:
        out.append(f"plan.objective={asked.objective}")
    if asked.prices:
        known = candidates(plan.spec)
        wrong = next((name for name, _ in asked.prices if name not in known), None)
        if wrong is not None:
            raise SpecError(f"a price for {wrong[:_MOST_TEXT]!r}", expected=f"one of {', '.join(known)}")
        prices = {**(plan.document.data.get("prices") or {}), **dict(asked.prices)}
        out.append(f"plan.prices={json.dumps(prices, ensure_ascii=False)}")
    return (*out, *_load(service, asked, plan))


def _load(service: Service, asked: Asked, plan: Opened) -> list[str]:
    """Another load, as what-ifs of plans have it: a drawn load that grows lasts as long and has more requests.

    Raises:
        DataError: more requests than the dashboard serves.
    """
    typed = tuple(change for change in asked.rest if not change.startswith("plan."))

    def read() -> ServingSpec:
        return load_base(Source(plan.spec, plan.document, typed))[0].serving or ServingSpec()

    serving = service.ask(("plan load", asked.plan, asked.rest), read)
    most = max([1.0, *(float(what.load) for what in plan.spec.whatif)])
    expected(Load(asked.load * most).on(serving))
    if asked.load == 1.0:
        return []
    changed = Load(asked.load).on(serving).arrivals
    what, value = ("speed", changed.speed) if changed.trace is not None else ("rate", changed.rate)
    out = [f"workload.serving.arrivals.{what}={float(value)!r}"]
    if changed.requests is not None:
        out.append(f"workload.serving.arrivals.requests={int(changed.requests)}")
    return out


def request(service: Service, asked: Asked) -> dict[str, Any]:
    """Arguments of the work ``plan``.

    Raises:
        EffsimError: as :func:`changes_of`, or what they make of the plan is wrong.
    """
    changes = changes_of(service, asked)
    opened(service, asked.plan, changes)
    return {
        "plan": service.shelf.argument("plans", asked.plan),
        "set": list(changes),
        "seed": asked.seed,
        "root": str(service.shelf.folder),
        "asked": asked.data,
    }
