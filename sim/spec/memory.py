"""The DRAM behind a device's memory: what a hardware file says of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from ..errors import EffsimError
from .catalogue import find
from .fields import Ratio, SpecModel, Time

SHORTEST_S, LONGEST_S = 1e-10, 1e-8
"""Command clock periods of DRAM, with room: GDDR7 is near 0.28 ns, SDRAM of the 1990s was at 10 ns."""


class MemoryPart(SpecModel):
    """Names a DRAM preset. Its controller model gives the share of the bandwidth that streams and gathers reach."""

    preset: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        description="bundled DRAM preset or path of one, e.g. `hbm2e`"
    )
    refresh: Literal["all_bank", "per_bank", "off"] = Field(
        description="all_bank: a channel stands still for tRFC every tREFI; per_bank: one bank does, others go on"
    )
    clock: Time | None = Field(
        None, description="command clock period, where other than the preset's; delays keep their nanoseconds"
    )

    @field_validator("preset")
    @classmethod
    def _known(cls, preset: str) -> str:
        try:
            find("dram", preset)
        except EffsimError as error:
            raise ValueError(str(error)) from None
        return preset

    @field_validator("clock")
    @classmethod
    def _plausible(cls, clock: Time | None) -> Time | None:
        if clock is not None and not SHORTEST_S <= clock <= LONGEST_S:
            raise ValueError(f"a DRAM command clock of {float(clock):g} s; expected 0.1 ns to 10 ns")
        return clock


STREAM_FRACTION = "measured share of the bandwidth that a long read stream reaches; the DRAM part's figure if absent"


def described(part: MemoryPart | None, stream_fraction: Ratio | None) -> None:
    """Refuse a memory that neither names its DRAM nor says what a stream reaches.

    Raises:
        ValueError: names both fields.
    """
    if part is None and stream_fraction is None:
        raise ValueError("needs 'dram' (the part behind it) or 'stream_fraction' (a measured share)")
