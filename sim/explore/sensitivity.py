"""How the headline time answers to each hardware parameter: elasticities.

``elasticity = ln(T(p·1.1) / T(p)) / ln 1.1``: −0.78 means that 10 % more of the parameter takes about 7.2 % off the
time. A step of 10 % is what a buyer or an architect thinks in, and it is wide enough to see past the steps of tile
and wave counts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..devices.registry import Machine, rebuild
from ..errors import EffsimError
from ..program.program import Phase, Program
from ..readings.analytic import analytic
from ..spec.fields import IntQuantity, Quantity, SpecModel

STEP = 1.1

STRUCTURAL = re.compile(
    r"(^|\.)(price|provenance|devices)\.|\.tiles\.|split_k|(context|paged|generation)_[mn]|blocks_per_sm|threads$"
    r"|attention\.(warps|max_splits)|latent\.(rows|keys|splits|trips)|walk\.(sequences|most)|call\.(regroup_copies|latent_absorbed|append_operations)|narrow_operations"
    r"|bytes_per_thread|gemm\.cluster|loads_in_flight|max_blocks|memory\.(capacity|reserved|channels|dram)|\.size$|power\.|organization\.|unit\.count|clock\.base|\.max_devices"
)
"""Parameters that are counts of structure, prices or capacities: a 10 % change of them means nothing for the time."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Elasticity of the headline time to one parameter."""

    path: str
    value: float
    elasticity: float


def parameters(machine: Machine) -> Iterator[tuple[str, str, float]]:
    """(owner, dotted path, value) of every number in the machine's files.

    The owner is ``device``, ``system``, or the name of a further group of a mixed system.
    """
    for path, leaf in machine.spec.leaves():
        yield "device", path, float(leaf)
    for name, spec in machine.others:
        for path, leaf in spec.leaves():
            yield name, path, float(leaf)
    if machine.system is not None:
        for path, leaf in machine.system.leaves():
            yield "system", path, float(leaf)


def shown_path(machine: Machine, owner: str, path: str) -> str:
    """The path as ``--set`` takes it."""
    if owner == "system" or machine.system is None:
        return f"hardware.{path}"
    return f"hardware.{owner}.{path}"


def with_value(spec: SpecModel, path: str, value: float) -> SpecModel:
    """A copy of *spec* with the number at *path* replaced."""
    changed = _replaced(spec, path.split("."), value)
    assert isinstance(changed, SpecModel)
    return changed


def _replaced(node: object, keys: list[str], value: float) -> object:
    if not keys:
        assert isinstance(node, Quantity | IntQuantity)
        kind, source = node.kind, node.source
        if isinstance(node, IntQuantity):
            return IntQuantity(max(1, round(value)), kind, source)
        return Quantity(value, kind, source)
    key, rest = keys[0], keys[1:]
    if isinstance(node, SpecModel):
        return node.model_copy(update={key: _replaced(getattr(node, key), rest, value)})
    if isinstance(node, dict):
        return {**node, key: _replaced(node[key], rest, value)}
    assert isinstance(node, list)
    index = int(key)
    return [*node[:index], _replaced(node[index], rest, value), *node[index + 1 :]]


def sensitivities(program: Program, machine: Machine) -> tuple[Sensitivity, ...]:
    """Elasticity of the analytic time to every continuous parameter, strongest first; zeros are left out."""
    short = _representative(program)
    used = _used_dtypes(short)
    operators = tuple(dict.fromkeys(node.op for phase in short.phases for _, _, node, _ in phase.nodes()))
    base = analytic(short, machine.device).time_s
    out = []
    for owner, path, value in parameters(machine):
        if STRUCTURAL.search(path) or value == 0.0 or _unused(path, used):
            continue
        if not machine.device.depends_on(path, operators):
            continue
        grown = _ratio(path, value)
        try:
            changed = _changed(machine, owner, path, value * grown)
            changed.device.inherit(machine.device, path)
            time = analytic(short, changed.device).time_s
        except EffsimError:
            continue
        elasticity = math.log(time / base) / math.log(grown)
        if abs(elasticity) > 5e-4:
            out.append(Sensitivity(shown_path(machine, owner, path), value, elasticity))
    return tuple(sorted(out, key=lambda s: (-abs(s.elasticity), s.path)))


def _ratio(path: str, value: float) -> float:
    """The step: 10 % up; shares that would pass 1 go down instead."""
    if path.endswith(("stream_fraction", "efficiency")) and value * STEP > 1.0:
        return 1.0 / STEP
    return STEP


def _changed(machine: Machine, owner: str, path: str, value: float) -> Machine:
    if owner == "device":
        return rebuild(machine, with_value(machine.spec, path, value), machine.system)
    assert machine.system is not None
    if owner != "system":
        others = tuple((name, with_value(s, path, value) if name == owner else s) for name, s in machine.others)
        return rebuild(replace(machine, others=others), machine.spec, machine.system)
    system = with_value(machine.system, path, value)
    return rebuild(machine, machine.spec, system)  # type: ignore[arg-type]


def _representative(program: Program) -> Program:
    """One execution a phase, the middle one, weighted as all: cheap, and exact where steps differ linearly."""
    phases = []
    for phase in program.phases:
        useful = [e for e in phase.executions if e.useful and e.times > 0.0]
        idle = tuple(e for e in phase.executions if not e.useful)
        middle = useful[len(useful) // 2]
        one = replace(middle, times=sum(e.times for e in useful))
        phases.append(Phase(phase.name, (one, *idle), phase.tokens, phase.steps, phase.sequences))
    return replace(program, phases=tuple(phases))


def _used_dtypes(program: Program) -> set[str]:
    names = {"fp32"}
    for phase in program.phases:
        for _, _, node, _ in phase.nodes():
            names.add(str(getattr(node.op, "dtype", "fp32")))
    return names


def _unused(path: str, used: set[str]) -> bool:
    head, _, dtype = path.partition(".")
    return head in ("matrix", "vector") and dtype not in used
