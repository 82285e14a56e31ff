"""What a fleet can be built of: every combination of device, degrees, precision, scheduler and variant of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...devices.capacity import capacity_of
from ...devices.registry import Machine, load_machine
from ...errors import EffsimError, SpecError, located
from ...program.builder import degrees_of
from ...program.source import load_model
from ...spec.architecture import ArchitectureSpec
from ...spec.build import build
from ...spec.catalogue import load_document
from ...spec.confine import is_file
from ...spec.fields import SpecModel
from ...spec.overrides import COMMAND_LINE, apply
from ...spec.plan import Candidate, PlanSlo, PlanSpec, Pools, merged
from ...spec.serving import SchedulerSpec, ServingSpec
from ...spec.serving_fleet import DisaggregatedSpec
from ...spec.workload import Parallelism, Precision, WorkloadSpec
from ...spec.yaml_loader import CommandLine, Document
from .mistakes import Assignment, culprit, of, standing, unplannable
from .pools import Pool, packed, shared


@dataclass(frozen=True, slots=True)
class Load:
    """How the load differs from the workload's own: factors on requests a second, prompts and answers."""

    rate: float = 1.0
    prompt: float = 1.0
    output: float = 1.0

    def times(self, rate: float) -> Load:
        """The same with so many times the requests."""
        return replace(self, rate=self.rate * rate)

    def on(self, serving: ServingSpec) -> ServingSpec:
        """The load, changed. A random or cut load lasts as long as before, so it has more requests."""
        a = serving.arrivals
        requests = None if a.requests is None else max(1, round(int(a.requests) * self.rate))
        if a.requests is None and a.duration is None and a.trace is None:
            requests = max(1, round(1000 * self.rate))  # the default number, as far as it reached
        faster = {"speed": float(a.speed) * self.rate} if a.trace is not None else {"rate": float(a.rate) * self.rate}
        scaled = {
            name: getattr(serving, name).model_copy(update={"scale": float(getattr(serving, name).scale) * factor})
            for name, factor in (("prompt", self.prompt), ("output", self.output))
        }
        return serving.model_copy(update={"arrivals": a.model_copy(update={**faster, "requests": requests}), **scaled})


@dataclass(frozen=True, slots=True)
class Configuration:
    """One way to build and run a replica; how many replicas a fleet has is what a plan looks for.

    Attributes:
        device: name in reports, and ``hardware`` with ``on_hardware`` assignments what it is.
        workload: model and load with every choice applied.
        price: US$ an hour for one device; None where unknown.
        unit: devices are bought in multiples of it, and a replica that fits one lies in one.
        most_devices: largest fleet.
        ways: what tells configurations of one device apart, for people.
    """

    device: str
    hardware: str
    on_hardware: tuple[str, ...]
    workload: WorkloadSpec
    price: float | None
    unit: int
    most_devices: int
    ways: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Name in reports."""
        return ", ".join((self.device, *self.ways))

    @property
    def parallelism(self) -> Parallelism:
        """Degrees of one replica, given by now."""
        assert isinstance(self.workload.parallelism, Parallelism)
        return self.workload.parallelism

    @property
    def split(self) -> DisaggregatedSpec | None:
        """Pools that read prompts and generate, if they are apart; their replicas are a ratio here."""
        return None if self.workload.serving is None else self.workload.serving.disaggregated

    @property
    def replica_devices(self) -> int:
        """Devices of one replica (of one that reads prompts, where pools are apart)."""
        return degrees_of(self.parallelism).devices

    @property
    def fewest(self) -> int:
        """Fewest replicas of a fleet: one of each pool."""
        return 1 if self.split is None else 2

    def pools(self, replicas: int) -> tuple[Pool, ...]:
        """The pools of a fleet of so many replicas in all."""
        split, devices = self.split, self.replica_devices
        if split is None:
            return (Pool("replicas", replicas, devices),)
        reading, generating = shared(replicas, int(split.prefill_replicas), int(split.decode_replicas))
        decode = devices if split.decode_tensor is None else int(split.decode_tensor)
        return Pool("prefill", reading, devices), Pool("decode", generating, decode)

    def used(self, replicas: int) -> int:
        """Devices that so many replicas run on."""
        return sum(pool.replicas * pool.devices for pool in self.pools(replicas))

    def fleet(self, replicas: int) -> Configuration:
        """The same with so many replicas divided once and for all, and without a name: equal for equal fleets."""
        return replace(self, workload=self.divided({p.name: p.replicas for p in self.pools(replicas)}), ways=())

    def divided(self, replicas: Mapping[str, int]) -> WorkloadSpec:
        """The workload served by so many replicas of each pool."""
        serving, split = self.workload.serving, self.split
        assert serving is not None
        if split is None:
            changed = serving.model_copy(update={"replicas": type(serving.replicas)(replicas["replicas"])})
        else:
            counts = {f"{name}_replicas": type(serving.replicas)(count) for name, count in replicas.items()}
            changed = serving.model_copy(update={"disaggregated": split.model_copy(update=counts)})
        return self.workload.model_copy(update={"serving": changed})

    def bought(self, replicas: int) -> int:
        """Devices that have to be bought for so many replicas."""
        return packed([(pool.replicas, pool.devices) for pool in self.pools(replicas)], self.unit)

    def holding(self, first: int, last: int) -> int:
        """Fewest replicas whose first and last pool (often the same) have at least so many."""

        def holds(n: int) -> bool:
            pools = self.pools(n)
            return pools[0].replicas >= first and pools[-1].replicas >= last

        low, high = self.fewest - 1, self.fewest
        while not holds(high):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if holds(middle) else (middle, high)
        return high

    @property
    def most_replicas(self) -> int:
        """Largest number of replicas within the largest fleet; 0 if not even the fewest are."""
        if self.bought(self.fewest) > self.most_devices:
            return 0
        smallest = min(pool.devices for pool in self.pools(self.fewest))
        low, high = self.fewest, self.most_devices // smallest + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.bought(middle) <= self.most_devices else (low, middle)
        return low

    def usd_per_hour(self, replicas: int) -> float | None:
        """What the fleet costs; None where the price is unknown."""
        return None if self.price is None else self.price * self.bought(replicas)


@dataclass(frozen=True, slots=True)
class Source:
    """A plan with the document it was read from, which errors point into; ``typed``: assignments beside it."""

    plan: PlanSpec
    document: Document
    typed: tuple[str, ...] = ()
    price_factor: float = 1.0

    @property
    def folder(self) -> Path:
        """Folder that relative paths refer to."""
        return Path(self.document.file).parent

    def file(self, name: str) -> str:
        """A file beside the plan, or the name as it is."""
        nearby = self.folder / name
        return str(nearby) if is_file(nearby) else name

    @property
    def assignments(self) -> tuple[Assignment, ...]:
        """Those that hold for every candidate."""
        return (*standing(self.plan.set, "set"), *standing(self.typed, COMMAND_LINE))

    def blamed(self, error: EffsimError, *path: str | int) -> EffsimError:
        """*error* at a place of the plan, unless it has a better one; assignments have none of their own."""
        if isinstance(error, SpecError) and isinstance(error.location, CommandLine):
            error = type(error)(error.what, path=error.path, expected=error.expected, suggestion=error.suggestion)
        typed = path[:1] == (COMMAND_LINE,)
        return located(error, CommandLine(COMMAND_LINE, int(path[1])) if typed else self.document.location(path))


def load_base(source: Source, extra: Sequence[Assignment] = ()) -> tuple[WorkloadSpec, Path]:
    """The workload of a plan with its assignments, and the folder it stands in.

    Raises:
        SpecError: it or an assignment is wrong, with its position.
    """
    plan = source.plan
    try:
        document = load_document("workloads", source.file(plan.workload))
    except EffsimError as error:
        raise source.blamed(error, "workload") from None
    assigned = of((*source.assignments, *extra), "workload")

    def attempt(texts: Sequence[str]) -> WorkloadSpec:
        return build(WorkloadSpec, apply(document, texts, "workload"), root="workload")

    try:
        workload = attempt([one.text for one in assigned])
    except EffsimError as error:
        wrong = culprit(assigned, error, attempt)
        raise source.blamed(error, *(("workload",) if wrong is None else wrong.place)) from None
    if workload.model is None or workload.task == "training_step":
        what = f"{workload.name} cannot be served; expected a 'model', with task prefill, decode or generate"
        raise source.blamed(SpecError(what), "workload")
    return _with_trace(workload, source), Path(document.file).parent


def _with_trace(workload: WorkloadSpec, source: Source) -> WorkloadSpec:
    """The workload with a trace that stands beside the plan found there."""
    serving = workload.serving
    if serving is None or serving.arrivals.trace is None:
        return workload
    beside = source.folder / serving.arrivals.trace
    if not is_file(beside):
        return workload
    arrivals = serving.arrivals.model_copy(update={"trace": str(beside.resolve())})
    return workload.model_copy(update={"serving": serving.model_copy(update={"arrivals": arrivals})})


def enumerate_configurations(source: Source, extra: Sequence[Assignment] = ()) -> list[Configuration]:
    """Every combination, in the order of the plan. *extra* assignments hold for all (what-ifs).

    Raises:
        SpecError: a candidate, a choice or an assignment is wrong, with its position.
    """
    plan = source.plan
    base, folder = load_base(source, extra)
    try:
        model = load_model(str(base.model), folder)
    except EffsimError as error:
        raise source.blamed(error, "workload") from None
    known = {name for c in plan.candidates for name in (c.name, c.hardware)}
    for name in plan.prices:
        if name not in known:
            raise source.blamed(SpecError(f"a price for {name!r}, which is no candidate"), "prices", name)
    found: dict[tuple[str, tuple[str, ...]], Configuration] = {}
    for index, candidate in enumerate(plan.candidates):
        for one in _of_candidate(source, index, candidate, base, model, extra):
            found.setdefault((one.device, one.ways), one)
    return list(found.values())


def _of_candidate(
    source: Source,
    index: int,
    candidate: Candidate,
    base: WorkloadSpec,
    model: ArchitectureSpec,
    extra: Sequence[Assignment],
) -> Iterator[Configuration]:
    plan = source.plan
    place = ("candidates", index)
    assigned = (*source.assignments, *standing(candidate.set, *place, "set"), *extra)
    on_hardware = of(assigned, "hardware")
    hardware = source.file(candidate.hardware)
    try:
        machine = load_machine(hardware, [one.text for one in on_hardware])
    except EffsimError as error:
        wrong = culprit(on_hardware, error, lambda texts: load_machine(hardware, texts))
        raise source.blamed(error, *((*place, "hardware") if wrong is None else wrong.place)) from None
    precisions = candidate.precision or plan.precision or [Precision.model_construct(_fields_set=set())]
    degrees = candidate.parallelism or plan.parallelism
    several = len(precisions) > 1
    for p in auto_degrees(machine, model) if degrees == "auto" else degrees:
        for precision in precisions:
            for serving, named in _ways_to_serve(source, candidate, base, extra):
                types = merged(serving.precision, precision)
                workload = serving.model_copy(update={"precision": types, "parallelism": p})
                ways = (_degrees_text(p), *((_types_text(types),) if several else ()), *named, _pools_text(workload))
                yield Configuration(
                    device=candidate.name or candidate.hardware,
                    hardware=hardware,
                    on_hardware=tuple(one.text for one in on_hardware),
                    workload=workload,
                    price=_price(source, candidate, machine),
                    unit=_unit(candidate, machine),
                    most_devices=int(candidate.most_devices or plan.most_devices),
                    ways=tuple(way for way in ways if way),
                )


def _ways_to_serve(
    source: Source, candidate: Candidate, base: WorkloadSpec, extra: Sequence[Assignment]
) -> Iterator[tuple[WorkloadSpec, tuple[str, ...]]]:
    """The workload under every variant, scheduler and division into pools, with what tells them apart."""
    plan = source.plan
    served = [(base, ())] if not plan.variants else []
    no = unplannable(base.serving or ServingSpec()) if not plan.variants else None
    if no is not None:
        raise source.blamed(no, "workload")
    for index, variant in enumerate(plan.variants):
        changed, _ = load_base(source, (*standing(variant.set, "variants", index, "set"), *extra))
        no = unplannable(changed.serving or ServingSpec())
        if no is not None:
            raise source.blamed(no, "variants", index)
        served.append((changed, (variant.name,)))  # type: ignore[arg-type]
    for workload, named in served:
        serving = _promised(workload.serving or ServingSpec(), plan.slo)
        schedulers: list[SchedulerSpec | None] = [*plan.scheduler] or [None]
        divisions: list[Pools | str | None] = [*(candidate.disaggregation or plan.disaggregation)] or [None]
        for how in schedulers:
            text = (_fields_text(how),) if how is not None and len(plan.scheduler) > 1 else ()
            for pools in divisions:
                update: dict[str, object] = {} if how is None else {"scheduler": merged(serving.scheduler, how)}
                update |= {} if pools is None else {"disaggregated": _divided(serving, pools)}
                yield workload.model_copy(update={"serving": serving.model_copy(update=update)}), (*named, *text)


def _divided(serving: ServingSpec, pools: Pools | str) -> DisaggregatedSpec | None:
    """The pools of a choice; what it leaves out is as the workload says."""
    if isinstance(pools, str):
        return None
    base = serving.disaggregated or DisaggregatedSpec()
    names = {"prefill": "prefill_replicas", "decode": "decode_replicas"}
    given = {names.get(name, name): getattr(pools, name) for name in ("prefill", "decode", *pools.model_fields_set)}
    return base.model_copy(update=given)


def _promised(serving: ServingSpec, slo: PlanSlo) -> ServingSpec:
    """The serving part with the plan's promises: what counts as good, and what decode-first steps aim at."""
    limits = {latency: limit for latency, _, limit in slo.limits() if latency in ("ttft", "tpot")}
    return serving.model_copy(update={"slo": serving.slo.model_copy(update=limits)})


def auto_degrees(machine: Machine, model: ArchitectureSpec) -> Iterator[Parallelism]:
    """Tensor degrees in powers of two up to what is joined innermost; experts also divided over as many devices."""
    inner = capacity_of(machine).inner_devices
    runs = [leaf for run in model.layers for leaf in run.leaves_runs()]
    experts = any(run.ffn is not None and run.ffn.kind == "moe" for run in runs)
    tensor = 1
    while tensor <= inner:
        yield Parallelism(tensor=tensor)
        if experts and tensor > 1:
            yield Parallelism(tensor=tensor, expert=tensor)
        tensor *= 2


def _degrees_text(p: Parallelism) -> str:
    names = ("tensor", "context", "pipeline", "data", "expert")
    shown = [f"{name} {int(getattr(p, name))}" for name in names if int(getattr(p, name)) > 1]
    return " × ".join(shown) or "tensor 1"


def _pools_text(workload: WorkloadSpec) -> str:
    """How prompts and generation are apart; empty where they are not."""
    split = None if workload.serving is None else workload.serving.disaggregated
    if split is None:
        return ""
    wide = "" if split.decode_tensor is None else f", decode tensor {int(split.decode_tensor)}"
    return f"prefill:decode {int(split.prefill_replicas)}:{int(split.decode_replicas)}{wide}"


def _types_text(precision: Precision) -> str:
    weights = precision.weights or precision.activations
    cache = precision.kv_cache or precision.activations
    return f"{weights} weights" + (f", {cache} cache" if cache != precision.activations else "")


def _fields_text(choice: SpecModel) -> str:
    names = [name for name in type(choice).model_fields if name in choice.model_fields_set]
    return ", ".join(f"{name} {getattr(choice, name)}" for name in names)


def _price(source: Source, candidate: Candidate, machine: Machine) -> float | None:
    """US$ an hour for one device: the plan's, the candidate's, that of the hardware file, or unknown."""
    prices = source.plan.prices
    named = [float(prices[name]) for name in (candidate.name, candidate.hardware) if name in prices]
    own = None if candidate.price is None else float(candidate.price)
    price = named[0] if named else own if own is not None else machine.price_usd_per_hour
    return None if price is None else price * source.price_factor


def _unit(candidate: Candidate, machine: Machine) -> int:
    if candidate.unit is not None:
        return int(candidate.unit)
    return 1 if machine.system is None else sum(int(group.count) for group in machine.system.devices)
