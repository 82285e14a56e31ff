"""Which of several assignments is wrong, and what cannot be planned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ...errors import EffsimError, SpecError
from ...spec.serving import ServingSpec


class Assignment(NamedTuple):
    """``path=value`` and where it stands in the plan."""

    text: str
    place: tuple[str | int, ...]


def standing(texts: Sequence[str], *place: str | int) -> list[Assignment]:
    """Assignments of a list of the plan."""
    return [Assignment(text, (*place, number)) for number, text in enumerate(texts)]


def of(assignments: Iterable[Assignment], prefix: str) -> list[Assignment]:
    """Those on ``hardware`` or on ``workload``."""
    return [one for one in assignments if one.text.startswith(f"{prefix}.")]


def culprit(
    assignments: Sequence[Assignment], error: EffsimError, attempt: Callable[[Sequence[str]], Any]
) -> Assignment | None:
    """The assignment with which *attempt* begins to fail as all together do; None if none of them is to blame.

    Assignments may need one another, so that one alone may be wrong where all are right: only the same complaint
    counts.

    >>> def attempt(texts):
    ...     if "b" in texts:
    ...         raise SpecError("b is wrong")
    >>> culprit(standing(["a", "b", "c"], "set"), SpecError("b is wrong"), attempt)
    Assignment(text='b', place=('set', 1))
    """
    for count in range(len(assignments) + 1):
        try:
            attempt([one.text for one in assignments[:count]])
        except EffsimError as found:
            if _complaint(found) == _complaint(error):
                return assignments[count - 1] if count else None
    return None


def _complaint(error: EffsimError) -> str:
    """What is wrong, wherever it stands: the last assignment of a list has another number than before."""
    return error.what if isinstance(error, SpecError) else str(error)


def unplannable(serving: ServingSpec) -> SpecError | None:
    """Why a way to serve has no fixed number of devices of one kind; None where it has.

    Failures are fine: the devices of a replica that failed are still paid for. An outage has to be of a replica that
    every fleet has.
    """
    if serving.autoscaling is not None:
        return SpecError(
            "'autoscaling' changes the devices that a plan looks for; a plan finds a fleet that stays",
            expected="no 'autoscaling' (workload.serving.autoscaling=null); compare with effsim serve",
        )
    split = serving.disaggregated
    if split is not None and split.decode_hardware is not None:
        return SpecError(
            "'decode_hardware' makes a fleet of two kinds of device, whose prices a plan does not add up",
            expected="pools of one kind of device; 'decode_tensor' gives those that generate a degree of their own",
        )
    late = [o.replica for o in (serving.failures.outages if serving.failures is not None else ()) if o.replica]
    if late:
        return SpecError(
            f"an outage of replica {late[0]}, which smaller fleets do not have", expected="of replica 0, or an 'mtbf'"
        )
    return None
