"""The result of a fit as a hardware file: the original, extended, with what has moved and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from ...spec.fields import QuantityType, SpecModel, members
from .fit import Fit

UNITS = {
    "time": "s",
    "bytes": "B",
    "bandwidth": "B/s",
    "frequency": "Hz",
    "flop_rate": "FLOP/s",
    "flop_per_cycle": "FLOP/cycle",
    "op_per_cycle": "OP/cycle",
    "bytes_per_cycle": "B/cycle",
    "cycles": "cycles",
    "power": "W",
    "ratio": "",
}
"""SI unit of a dimension as a file spells it."""


def fitted_document(result: Fit, spec: SpecModel) -> dict[str, Any]:
    """A document that extends the original file of *result*; *spec* is that file as built."""
    path = Path(result.hardware)
    named = {name: str(getattr(spec, name)) for name in ("kind", "name")}
    out: dict[str, Any] = {"extends": str(path.resolve()) if path.is_file() else result.hardware, **named}
    for moved in result.moved:
        node = out
        *inside, last = moved.path.split(".")
        for key in inside:
            node = node.setdefault(key, {})
        unit = UNITS[dimension_of(type(spec), moved.path)]
        node[last] = {"value": f"{moved.new:.6g} {unit}".strip(), "kind": "fitted", "source": result.source}
    return out


def dimension_of(model: type[BaseModel], path: str) -> str:
    """Dimension of the quantity at a dotted path of a specification.

    >>> from effsim.spec.cpu import CpuSpec
    >>> dimension_of(CpuSpec, "memory.fresh.bandwidth"), dimension_of(CpuSpec, "kernels.gemm.pack.fp32")
    ('bandwidth', 'cycles')
    """
    types: list[tuple[Any, tuple[Any, ...]]] = [(model, ())]
    for key in path.split("."):
        types = [below for kind, _ in types for below in _below(kind, key)]
    found = [m.dimension for _, markers in types for m in markers if isinstance(m, QuantityType)]
    if not found:
        raise KeyError(path)
    return found[0]


def _below(kind: Any, key: str) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """(type, markers) of what *kind* holds under *key*."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = next((f for name, f in kind.model_fields.items() if (f.alias or name) == key), None)
        if field is not None:
            yield from members(field.annotation, tuple(field.metadata))
    elif get_origin(kind) is dict:
        yield from members(get_args(kind)[1], ())
