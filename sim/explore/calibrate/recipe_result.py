"""What a recipe found: numbers, how sure they are, and what they are worth on rows that they were not fitted to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ...spec.fit_recipe import LOSSES
from ..kernel_table import Score

if TYPE_CHECKING:
    from rich.console import Console

    from .entries import Entry

WORSE = 1.05
"""Rows whose median or mean absolute error grows by more than this factor got worse."""

AS_GOOD = 1.02
"""Stored numbers whose loss is within this factor of the refitted ones' are as good."""


@dataclass(frozen=True, slots=True)
class Number:
    """One fitted number, in the units of the models; ``scale`` is the size of ``unit``, in which people read it.

    ``low`` and ``high`` bound the values whose loss is within 2 % of the best (the others held); ``at_bound``: the
    best value sits on a bound of the recipe, which says that a mechanism is missing.
    """

    paths: tuple[str, ...]
    stored: float
    value: float
    low: float
    high: float
    unit: str
    scale: float
    at_bound: bool

    @property
    def holds_stored(self) -> bool:
        """Whether the number in the file lies in the flat interval."""
        return self.low * (1.0 - 1e-9) <= self.stored <= self.high * (1.0 + 1e-9)

    def text(self, value: float, digits: int = 6) -> str:
        """*value* as the file spells it."""
        return f"{value / self.scale:.{digits}g} {self.unit}".strip()


@dataclass(frozen=True, slots=True)
class Judgement:
    """Errors on one part of the rows with the stored numbers and with the fitted ones."""

    rows: str
    part: str
    stored: Score
    fitted: Score

    @property
    def worse(self) -> bool:
        """Whether rows that were not fitted to got worse."""
        grew = self.fitted.median > WORSE * self.stored.median or self.fitted.mape > WORSE * self.stored.mape
        return self.part != "fitted to" and grew


@dataclass(frozen=True, slots=True)
class StageResult:
    """Numbers that were fitted together. ``rows`` were fitted to, of ``of`` drawn; ``left`` cannot be predicted."""

    name: str
    source: str
    loss: str
    rows: int
    of: int
    left: int
    stored_loss: float
    fitted_loss: float
    numbers: tuple[Number, ...]
    judged: tuple[Judgement, ...]
    evaluations: int

    @property
    def as_good(self) -> bool:
        """Whether the stored numbers, together, are as good as the fitted ones."""
        return self.stored_loss <= AS_GOOD * self.fitted_loss

    def holds(self, number: Number) -> bool:
        """Whether the stored number may stand: in its flat interval, or all of the stage together as good."""
        return number.holds_stored or self.as_good


@dataclass(frozen=True, slots=True)
class RecipeResult:
    """All stages of a recipe; ``uncovered``: fitted entries of the file that the recipe says nothing about."""

    recipe: str
    file: str
    fraction: float
    seed: int
    stages: tuple[StageResult, ...]
    uncovered: tuple[str, ...]

    @property
    def count(self) -> int:
        """Fitted numbers of the file; several paths with one value count once."""
        return sum(len(stage.numbers) for stage in self.stages) + len(self.uncovered)

    def refused(self) -> list[str]:
        """Stored numbers that a refit does not bear out, and fitted ones without a recipe."""
        out = [
            f"{n.paths[0]} is {n.text(n.stored)}; a refit gives {n.text(n.value)}, as good from "
            f"{n.text(n.low, 3)} to {n.text(n.high, 3)} (loss {stage.stored_loss:.4g} against {stage.fitted_loss:.4g})"
            for stage in self.stages
            for n in stage.numbers
            if not stage.holds(n)
        ]
        return out + [f"{path} is called fitted, but the recipe does not fit it" for path in self.uncovered]

    def entries(self) -> list[Entry]:
        """What to write."""
        from .entries import Entry

        return [
            Entry(path, n.text(n.value), self.source(stage, n))
            for stage in self.stages
            for n in stage.numbers
            for path in n.paths
        ]

    def source(self, stage: StageResult, number: Number) -> str:
        """What a fitted number cites."""
        held = [j for j in stage.judged if j.part != "fitted to"]
        n = sum(j.fitted.n for j in held if j.part == "held out")
        errors = ", ".join(f"{100 * j.fitted.median:.1f} %" for j in held)
        return (
            f"{stage.source}: effsim calibrate --fit {self.recipe}, stage {stage.name}, {stage.rows} of {stage.of} "
            f"rows drawn by their content (seed {self.seed}), {LOSSES[stage.loss]}; within 2 % of the best from "
            f"{number.text(number.low, 3)} to {number.text(number.high, 3)}; median error on the {n} other rows"
            f"{' and on further tables' if any(j.part == 'never fitted to' for j in held) else ''}: {errors}"
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        out = asdict(self)
        for stage, held in zip(out["stages"], self.stages, strict=True):
            for number, n in zip(stage["numbers"], held.numbers, strict=True):
                number["stored_stands"] = held.holds(n)
            for judged, j in zip(stage["judged"], held.judged, strict=True):
                judged["worse"] = j.worse
        return out | {"count": self.count, "refused": self.refused()}

    def print(self, console: Console) -> None:
        """Numbers and errors, stage by stage."""
        from rich.table import Table

        for stage in self.stages:
            title = (
                f"{stage.name}: {stage.rows} of {stage.of} rows, {LOSSES[stage.loss]}: {stage.fitted_loss:.4f} "
                f"(stored numbers {stage.stored_loss:.4f}), {stage.evaluations} evaluations"
            )
            numbers = Table("number", "stored", "fitted", "as good from", "to", "", title=title)
            for n in stage.numbers:
                words = [] if stage.holds(n) else ["stored one does not stand"]
                words += ["at a bound"] if n.at_bound else []
                cells = (n.text(n.stored), n.text(n.value), n.text(n.low, 3), n.text(n.high, 3), ", ".join(words))
                numbers.add_row(" = ".join(n.paths), *cells)
            console.print(numbers)
            errors = Table("rows", "", "n", "median", "p90", "bias", "stored: median", "p90", "bias", "")
            for j in stage.judged:
                new, old = (
                    (f"{100 * s.median:.1f} %", f"{100 * s.p90:.1f} %", f"{100 * s.bias:+.1f} %")
                    for s in (j.fitted, j.stored)
                )
                errors.add_row(j.rows, j.part, str(j.fitted.n), *new, *old, "worse" if j.worse else "")
            console.print(errors)
            if stage.left:
                console.print(f"{stage.left} rows of {stage.name} cannot be predicted and were left out")
        console.print(f"fitted numbers in {self.file}: {self.count}")
        for path in self.uncovered:
            console.print(f"not in the recipe: {path}")
