"""What a user writes to fit numbers of a hardware file reproducibly: the ``kind: fit`` file.

A recipe names the tables, the rows, the split, the order and the bounds, so that whoever has the same tables gets the
same numbers. Tables are named relative to the folder of measurements, which is no part of the recipe.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator, model_validator

from .fields import SpecModel
from .study import Scalar, split_number

MOST_FITTED: Final = 12
"""Fitted numbers that a generation may have, shared by its members: with more, anything can be fitted."""

LOSSES: Final = {
    "absolute": "mean of |ln(predicted / measured)|",
    "soft": "mean soft-L1 of ln(predicted / measured), scale 0.1",
    "median": "median of |predicted / measured - 1|",
}
"""What a fit makes small, in words."""


class FitSplit(SpecModel):
    """Which rows are fitted to; the others only judge. Equal work falls on one side, whatever its place in a table."""

    fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(description="share of the rows that are fitted to")
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = Field(description="of the split and of the samples")


class FitSpan(SpecModel):
    """Numbers between two bounds, both included."""

    low: float = Field(description="smallest value of the column")
    high: float = Field(description="largest value of the column")

    @model_validator(mode="after")
    def _ordered(self) -> FitSpan:
        if not self.low <= self.high:
            raise ValueError(f"'low' ({self.low:g}) is above 'high' ({self.high:g})")
        return self


class FitRows(SpecModel):
    """Rows of one table."""

    table: Annotated[str, Field(min_length=1, max_length=400)] = Field(
        description="file, relative to the folder of measurements"
    )
    labels: Annotated[list[str], Field(min_length=1, max_length=32)] = Field(
        description="which of its rows, by the labels of 'effsim validate kernels', such as 'linear bfloat16'"
    )
    device: str | None = Field(None, description="hardware that ran them; that of the recipe if absent")
    where: dict[str, list[Scalar] | FitSpan] = Field(
        default_factory=dict, description="by column of the kernel table: values that are kept, or a span"
    )
    without: dict[str, list[Scalar]] = Field(
        default_factory=dict, description="by column of the kernel table: values that are left out"
    )
    most: Annotated[int, Field(ge=4, le=100_000)] = Field(1000, description="rows that are drawn of a larger table")
    quantity: Literal["time", "power"] = Field("time", description="what is compared: seconds, or watts")
    watts: FitSpan | None = Field(None, description="measured watts of rows that are kept")
    readings: Annotated[int, Field(ge=0, le=1000)] = Field(
        0, description="rows whose watts are the mean of fewer readings are left out"
    )

    @field_validator("table")
    @classmethod
    def _inside(cls, table: str) -> str:
        path = PurePosixPath(table)
        if path.is_absolute() or ".." in path.parts or "\\" in table:
            raise ValueError(f"{table[:60]!r} leads out of the folder of measurements")
        return table


class FitParameter(SpecModel):
    """One number to fit, between bounds that physics sets; several paths share one value and count once."""

    paths: Annotated[list[str], Field(min_length=1, max_length=8)] = Field(
        description="dotted paths in the hardware file"
    )
    low: str | float = Field(description="smallest value, with the unit that the file is written in")
    high: str | float = Field(description="largest value, in the same unit")

    @model_validator(mode="after")
    def _bounds(self) -> FitParameter:
        low, high = split_number(self.low), split_number(self.high)
        if low[1] != high[1]:
            raise ValueError(f"'low' is in {low[1] or 'no unit'!r}, 'high' in {high[1] or 'no unit'!r}: write one unit")
        if not 0.0 < low[0] < high[0]:
            raise ValueError(f"'low' ({self.low}) must be above zero and below 'high' ({self.high})")
        return self


class FitStage(SpecModel):
    """Numbers that are fitted together, to the same rows. Tables count the same, however many rows they have."""

    name: Annotated[str, Field(min_length=1, max_length=60)] = Field(description="shown in reports and in sources")
    source: Annotated[str, Field(min_length=1, max_length=400)] = Field(description="what the tables are, for people")
    loss: Literal["absolute", "soft", "median"] = Field(
        "absolute", description="what is made small: " + "; ".join(f"{k}: {v}" for k, v in LOSSES.items())
    )
    rows: Annotated[list[FitRows], Field(min_length=1, max_length=32)] = Field(description="tables to fit to")
    judge: list[FitRows] = Field(default_factory=list, description="further tables, never fitted to, that judge only")
    parameters: Annotated[list[FitParameter], Field(min_length=1, max_length=4)] = Field(description="what is fitted")


class FitSpec(SpecModel):
    """How the fitted numbers of one hardware file come about."""

    kind: Literal["fit"] = Field(description="always 'fit'")
    name: Annotated[str, Field(min_length=1, max_length=60)] = Field(description="shown in reports and in sources")
    description: str = Field("", description="free text")
    writes: str = Field(description="file that holds the numbers: a bundled generation or hardware, or a path")
    device: str = Field(description="hardware whose rows are fitted; takes the numbers from that file")
    split: FitSplit = Field(description="which rows are fitted to")
    stages: Annotated[list[FitStage], Field(min_length=1, max_length=MOST_FITTED)] = Field(
        description="one after another; rows of a stage must not depend on numbers of a later one"
    )

    @model_validator(mode="after")
    def _few_and_once(self) -> FitSpec:
        names = [stage.name for stage in self.stages]
        paths = [path for stage in self.stages for parameter in stage.parameters for path in parameter.paths]
        for kind, found in (("stage", names), ("path", paths)):
            twice = next((one for one in found if found.count(one) > 1), None)
            if twice is not None:
                raise ValueError(f"{kind} {twice!r} stands there twice")
        count = sum(len(stage.parameters) for stage in self.stages)
        if count > MOST_FITTED:
            raise ValueError(f"{count} fitted numbers; a file may have {MOST_FITTED}")
        return self
