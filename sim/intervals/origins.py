"""How well the numbers of a device's file are known, resource by resource."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from ..errors import SpecError
from ..spec.fields import AnyQuantity
from ..spec.overrides import ORIGIN
from ..spec.yaml_loader import load_yaml

FOLDER: Final = "intervals"
GIVEN: Final = ORIGIN[1]
"""Source of a number from the command line: a what-if is taken as exact."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The bundled rules: standard deviations of ln(true / stated) by origin, paths by resource, families by kind."""

    relative: Mapping[str, float]
    resources: Mapping[str, tuple[re.Pattern[str], ...]]
    families: Mapping[str, str]


def bundled(name: str) -> Path:
    """A file of the bundled folder about intervals."""
    return Path(str(files(f"{__name__.split('.')[0]}.hw_configs"))) / FOLDER / name


@lru_cache(maxsize=1)
def rules() -> Rules:
    """The rules of ``hw_configs/intervals/uncertainty.yaml``.

    Raises:
        SpecError: the file lacks a part.
    """
    path = bundled("uncertainty.yaml")
    data: Any = load_yaml(path).data
    try:
        relative = {kind: float(entry["value"]) for kind, entry in data["relative"].items()}
        resources = {name: tuple(map(re.compile, found)) for name, found in data["resources"].items()}
        families = {kind: family for family, kinds in data["families"].items() for kind in kinds}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SpecError(f"{path}: not a file of uncertainties: {error}") from None
    return Rules(relative, resources, families)


def resource_uncertainty(leaves: Iterable[tuple[str, AnyQuantity]]) -> dict[str, float]:
    """Standard deviation of ln(time) that each resource's numbers bring, by resource.

    ``u_r = √Σ_entry (mean over the numbers of an entry of u(origin))²``; numbers set on the command line count as
    exact. *leaves* are (path, number) as :meth:`effsim.spec.fields.SpecModel.leaves` gives them.

    >>> from effsim.spec.fields import Quantity
    >>> resource_uncertainty([("memory.bandwidth", Quantity(1e12, "assumed", "a guess"))])["memory"]
    0.32
    """
    known = rules()
    found: dict[str, list[list[float]]] = {name: [[] for _ in entry] for name, entry in known.resources.items()}
    worst = max(known.relative.values())
    for path, leaf in leaves:
        own = 0.0 if leaf.source == GIVEN else known.relative.get(leaf.kind or "assumed", worst)
        for name, place in _entries(path):
            found[name][place].append(own)
    return {
        name: math.sqrt(sum((sum(values) / len(values)) ** 2 for values in entries if values))
        for name, entries in found.items()
        if any(entries)
    }


@lru_cache(maxsize=4096)
def _entries(path: str) -> tuple[tuple[str, int], ...]:
    """Entries of the rules, as (resource, place), that speak of the number at *path*."""
    return tuple(
        (name, place)
        for name, patterns in rules().resources.items()
        for place, pattern in enumerate(patterns)
        if pattern.match(path)
    )


def is_what_if(leaves: Iterable[tuple[str, AnyQuantity]]) -> bool:
    """Whether a number of the file was replaced on the command line; *leaves* as in :func:`resource_uncertainty`."""
    return any(leaf.source == GIVEN for _, leaf in leaves)
