"""Every functional model against PyTorch in float64, with error bounds that follow from the arithmetic.

A case draws shapes, options and values (also ones made to break a model: infinities, NaN, huge logits, subnormals,
rows that see nothing, sums that cancel), runs the model, runs PyTorch's own formulation in float64, and divides the
difference by a bound: ``gamma(n) sum |a||b|`` for sums of products, running error analysis for longer chains
(:mod:`effsim.validation.numerics.bounds`). Conversions to narrow formats, copies and integer sums must be exact.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from effsim.errors import SpecError, UnsupportedError

if TYPE_CHECKING:
    from .case import Case, Compare, Draw

SCHEMA = "effsim/numerics@1"


@dataclass(frozen=True, slots=True)
class NumericsRow:
    """One case.

    Attributes:
        name: the case.
        models: names in :mod:`effsim.models.registry`.
        cases: comparisons made, each on data of its own; ``adversarial`` of them on data made to break the model.
        checks: arrays compared in them.
        worst: largest difference as a share of its bound; above 1 is a failure, ``inf`` where results must be equal.
        bound: median bound as a share of the largest value, over checks that need not be exact: what they can see.
        failures: what exceeded its bound, the first few.
    """

    name: str
    models: tuple[str, ...]
    cases: int
    adversarial: int
    checks: int
    worst: float
    bound: float
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """No bound was exceeded."""
        return not self.failures


@dataclass(frozen=True, slots=True)
class NumericsReport:
    """All rows of one run."""

    seed: int
    examples: int
    rows: tuple[NumericsRow, ...]

    def failures(self) -> list[str]:
        """One line a failure; empty when every model stays within its bounds."""
        return [f"{row.name}: {failure}" for row in self.rows for failure in row.failures]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; an infinite ratio is null."""
        rows = []
        for row in self.rows:
            worst = row.worst if row.worst != float("inf") else None
            rows.append(asdict(row) | {"worst": worst, "passed": row.passed})
        return {"schema": SCHEMA, "seed": self.seed, "examples": self.examples, "rows": rows}

    def text(self) -> str:
        """The table as people read it."""
        width = max(len(row.name) for row in self.rows)
        lines = [f"{'model':{width}s} {'cases':>6s} {'checks':>7s} {'worst/bound':>11s} {'bound/value':>11s}"]
        for row in self.rows:
            counts = f"{row.cases:6d} {row.checks:7d} {row.worst:11.3f} {row.bound:11.1e}"
            lines.append(f"{row.name:{width}s} {counts}  {'pass' if row.passed else 'FAIL'}")
        return "\n".join([*lines, *(f"  {failure}" for failure in self.failures())])


def all_cases() -> tuple[Case, ...]:
    """Every case; importing them imports PyTorch.

    Raises:
        UnsupportedError: PyTorch is not installed.
    """
    try:
        from . import attention, convolutions, gradients, products, rows, scan_gradients, sequence, tokens
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise UnsupportedError("comparing the functional models needs PyTorch: pip install 'effsim[torch]'") from None
    modules = (products, attention, rows, convolutions, sequence, tokens, gradients, scan_gradients)
    return tuple(case for module in modules for case in module.CASES)


def validate_numerics(seed: int = 0, examples: int = 20, models: Sequence[str] = ()) -> NumericsReport:
    """Compare the functional models with PyTorch.

    Args:
        seed: of everything that is drawn; the same seed gives the same report.
        examples: random comparisons a case; each adversarial comparison runs a quarter as often.
        models: only cases whose name contains one of these words; empty is all.

    Raises:
        SpecError: fewer than one example, or no case of these names.
        UnsupportedError: PyTorch is not installed.
    """
    if examples < 1:
        raise SpecError(f"examples is {examples}; expected at least 1")
    chosen = [case for case in all_cases() if not models or any(word in case.name for word in models)]
    if not chosen:
        raise SpecError(f"no comparison is called {', '.join(models)}")
    return NumericsReport(seed, examples, tuple(_run(case, seed, examples) for case in chosen))


def _run(case: Case, seed: int, examples: int) -> NumericsRow:
    from .case import RandomDraw

    rare = -(-examples // 4)
    plan = [(case.compare, i) for i in range(examples)] + [(f, i) for f in case.adversarial for i in range(rare)]
    worst, bounds, failures, checks = 0.0, [], [], 0
    for compare, example in plan:
        # The name enters the seed, so that a case draws the same whichever others run.
        draw = RandomDraw([seed, example, zlib.crc32(f"{case.name} {compare.__name__}".encode())])
        for what, ratio, tightness in _measured(compare, draw):
            checks += 1
            worst = max(worst, ratio)
            if tightness > 0:
                bounds.append(tightness)
            if not ratio <= 1.0:
                failures.append(f"{compare.__name__} {example} {what}: {ratio:.3g} times its bound")
    typical = sorted(bounds)[len(bounds) // 2] if bounds else 0.0
    adversarial = rare * len(case.adversarial)
    return NumericsRow(
        case.name, case.models, len(plan), adversarial, checks, worst, typical, tuple(failures[:5])
    )  # fmt: skip


def _measured(compare: Compare, draw: Draw) -> list[tuple[str, float, float]]:
    return [(check.what, check.ratio(), check.tightness()) for check in compare(draw)]
