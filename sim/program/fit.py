"""The smallest number of devices that a workload fits, and where it does not: by how much, and what would help."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from ..errors import DoesNotFitError, UnsupportedError
from ..graph.dtypes import size_of
from ..spec.workload import WorkloadSpec
from ..units import format_quantity
from .builder import Builder
from .memory import Capacity
from .program import Degrees, Memory

MOST_DEVICES = 1024
"""Up to how many devices a remedy is looked for."""


def candidates(capacity: Capacity) -> Iterator[Degrees]:
    """Tensor degrees inside the innermost level first, then pipelines over several of them."""
    tensor = 1
    while tensor <= capacity.inner_devices:
        yield Degrees(tensor=tensor)
        tensor *= 2
    widest = tensor // 2
    pipeline = 2
    while widest * pipeline <= capacity.devices:
        yield Degrees(tensor=widest, pipeline=pipeline)
        pipeline *= 2


def smallest_fit(builder: Builder) -> tuple[Degrees, Memory, str]:
    """The first candidate that fits, its memory, and a note where one device does not.

    Raises:
        DoesNotFitError: none does; says by how much and what would make it fit.
    """
    best: tuple[Degrees, Memory] | None = None
    alone: Memory | None = None
    for degrees in candidates(builder.capacity):
        try:
            memory = builder.memory(degrees)
        except UnsupportedError:
            if alone is None:
                raise
            continue
        alone = alone or memory
        best = (degrees, memory)
        if memory.fits:
            return degrees, memory, _fit_note(builder, degrees, alone)
    assert best is not None
    raise DoesNotFitError(why_not(builder, *best))


def _fit_note(builder: Builder, degrees: Degrees, alone: Memory) -> str:
    if degrees.devices == 1:
        return ""
    need, have = _bytes(alone.used_bytes), _bytes(alone.capacity_bytes)
    ways = " × ".join(f"{name} {n}" for name, n in degrees.shown().items() if n > 1)
    return (
        f"{need} do not fit the {have} of one {builder.capacity.device}: "
        f"sharded over {degrees.devices} devices ({ways}), the smallest that fits"
    )


def why_not(builder: Builder, degrees: Degrees, memory: Memory) -> str:
    """By how much a workload does not fit, and what would make it fit."""
    over = memory.used_bytes - memory.capacity_bytes
    parts = ", ".join(f"{name} {_bytes(size)}" for name, size in memory.parts().items())
    head = (
        f"{builder.workload.name} does not fit {degrees.devices} × {builder.capacity.device}: "
        f"{_bytes(memory.used_bytes)} a device of {_bytes(memory.capacity_bytes)}, {_bytes(over)} too much ({parts})"
    )
    remedies = _remedies(builder, degrees)
    return f"{head}; would fit with {', or '.join(remedies)}" if remedies else f"{head}; no single change makes it fit"


def _remedies(builder: Builder, degrees: Degrees) -> list[str]:
    """Single changes that make the workload fit, each checked with the same memory model."""
    w = builder.workload
    out: list[str] = []

    def fits(changed: WorkloadSpec, capacity: Capacity | None = None, d: Degrees = degrees) -> bool:
        try:
            return replace(builder, workload=changed, capacity=capacity or builder.capacity).memory(d).fits
        except UnsupportedError:
            return False

    word = size_of(w.precision.weights or w.precision.activations)
    if w.model is not None and w.task != "training_step":
        for name in ("int8", "int4"):  # weight-only types that every device can store and widen
            precision = w.precision.model_copy(update={"weights": name, "group_size": 128 if name == "int4" else 0})
            if size_of(name) < word and fits(w.model_copy(update={"precision": precision})):
                out.append(f"{name} weights (precision.weights: {name})")
                break
    image = builder.model is not None and builder.model.patches is not None
    shorter = 0 if image else _largest(lambda n: fits(w.model_copy(update={"prompt": n})), int(w.prompt))
    if shorter:
        out.append(f"a prompt of at most {shorter} tokens")
    fewer = _largest(lambda n: fits(w.model_copy(update={"batch": n})), int(w.batch))
    if fewer:
        out.append(f"a batch of at most {fewer}")
    if w.task == "training_step":
        out += _training_remedies(builder, degrees)
    more = _more_devices(builder, degrees)
    if more is not None:
        ways = ", ".join(f"{name} {n}" for name, n in more.shown().items())
        joined = builder.capacity.devices
        beyond = f", more than the {joined} that are joined here" if more.devices > joined else ""
        out.append(f"{more.devices} devices ({ways}{beyond})")
    return out


def _training_remedies(builder: Builder, degrees: Degrees) -> list[str]:
    """Recomputation and ZeRO, where they make a training step fit."""
    w, out = builder.workload, list[str]()
    options: list[dict[str, object]] = [{"recompute": "full"}]
    if degrees.data > 1:
        options += [{"zero": 1}, {"zero": 3}, {"zero": 3, "recompute": "full"}]
    for option in options:
        changed = w.model_copy(update={"training": w.training.model_copy(update=option)})
        if replace(builder, workload=changed).memory(degrees).fits:
            out.append(" and ".join(f"training.{name}: {value}" for name, value in option.items()))
            break
    return out


def _more_devices(builder: Builder, degrees: Degrees) -> Degrees | None:
    """Smallest degrees with more devices that would hold the workload; None if none up to 1024 devices."""
    for factor in (2, 4, 8, 16, 32, 64, 128):
        for grown in (
            replace(degrees, tensor=degrees.tensor * factor),
            replace(degrees, pipeline=degrees.pipeline * factor),
        ):
            try:
                if grown.devices <= MOST_DEVICES and builder.memory(grown).fits:
                    return grown
            except UnsupportedError:
                continue
    return None


def _largest(fits: Callable[[int], bool], limit: int) -> int:
    """Largest whole number below *limit* that fits; 0 if none (bisection: memory grows with it)."""
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def _bytes(size: float) -> str:
    """Memory sizes read in GiB, as device memories are built and reported."""
    return f"{size / 2**30:.3g} GiB" if size >= 2**28 else format_quantity(size, "bytes")
