"""Whole numbers of a workload, set without reading its file again.

No rule of a workload's file looks at these fields beside others: once the rest is checked, a number that a field can
hold is set in a copy, and the copy is what reading the file with the assignment gives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from ...spec.fields import IntQuantity
from ...spec.overrides import ORIGIN
from ...spec.workload import WorkloadSpec

_COUNT: Final = re.compile(r"workload\.(batch|prompt|generate)=([1-9][0-9]{0,8})")


def apart(assignments: Sequence[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """The assignments without those of whole numbers, and these numbers by field, the last of each.

    Where such a field is assigned in another way, too, none is taken out.

    >>> apart(("workload.batch=8", "workload.layers=2", "workload.batch=4"))
    (('workload.layers=2',), {'batch': 4})
    """
    matches = {assignment: _COUNT.fullmatch(assignment) for assignment in assignments}
    others = tuple([assignment for assignment in assignments if matches[assignment] is None])
    numbers = {match[1]: int(match[2]) for match in (matches[assignment] for assignment in assignments) if match}
    taken = {re.split(r"[.=]", other, maxsplit=2)[1].strip() for other in others if "." in other}
    if taken & numbers.keys():
        return tuple(assignments), {}
    return others, numbers


def with_counts(workload: WorkloadSpec, numbers: Mapping[str, int]) -> WorkloadSpec:
    """A copy of *workload* with these *numbers*, as assignments set them."""
    return workload.model_copy(update={name: IntQuantity(number, *ORIGIN) for name, number in numbers.items()})
