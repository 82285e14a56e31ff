"""What a DRAM preset says: organisation, timings in clocks, refresh, energy, and the controller in front of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .fields import Bytes, Count, Current, EnergyPerByte, NonNegativeCount, SpecModel, Time, Voltage
from .hardware import Provenance

PowerOfTwo = Annotated[Count, Field(description="a power of two")]


class Organization(SpecModel):
    """How many of everything. A *rank* shares the data bus with others; a *stack* (SID) is a die group of one rank."""

    channels: PowerOfTwo = Field(description="channels of the device the preset stands for")
    pseudo_channels: PowerOfTwo = Field(description="halves of a channel with data buses of their own")
    ranks: PowerOfTwo = Field(description="ranks that share one data bus")
    stacks: PowerOfTwo = Field(description="die groups that share activation limits but switch columns more slowly")
    bank_groups: PowerOfTwo = Field(description="bank groups of one rank; 1: no groups, the long delays do not apply")
    banks: PowerOfTwo = Field(description="banks of one group")
    rows: PowerOfTwo = Field(description="rows of one bank")
    columns: PowerOfTwo = Field(description="accesses in one row")
    access: Bytes = Field(description="bytes moved by one burst")
    devices: Count = Field(description="chips that work together on one burst")


class Timing(SpecModel):
    """Delays between commands, in clocks, named as in the JEDEC standards without the leading t."""

    burst: Count = Field(description="clocks of the data bus that one access takes")
    cl: Count = Field(description="read command to its first data")
    cwl: Count = Field(description="write command to its first data")
    rcd_read: Count = Field(description="activation to a read of that row")
    rcd_write: Count = Field(description="activation to a write of that row")
    rp: Count = Field(description="precharge to the next activation of that bank")
    rp_all: Count | None = Field(default=None, description="after an all-bank precharge, where it differs")
    ras: Count = Field(description="activation to the precharge of that bank")
    rc: Count = Field(description="activation to the next activation of one bank")
    rrd_s: Count = Field(description="activations of different bank groups")
    rrd_l: Count = Field(description="activations within one bank group")
    faw: Count = Field(description="window of at most four activations")
    window32: Count | None = Field(default=None, description="window of at most 32 activations (t32AW)")
    ccd_s: Count = Field(description="columns of different bank groups")
    ccd_l: Count = Field(description="columns within one bank group")
    ccd_l_write: Count | None = Field(default=None, description="writes within one bank group; ccd_l if absent")
    ccd_stack: Count | None = Field(default=None, description="columns of different stacks (tCCD_R)")
    wtr_s: Count = Field(description="end of write data to a read of another bank group")
    wtr_l: Count = Field(description="end of write data to a read of the same bank group")
    wr: Count = Field(description="end of write data to the precharge of that bank")
    rtp: Count = Field(description="read to the precharge of that bank")
    read_to_write: Count = Field(description="read command to write command")
    rank_switch: NonNegativeCount = Field(default=0, description="idle bus clocks between ranks (tRTRS)")
    ppd: NonNegativeCount = Field(default=0, description="precharge to precharge of different banks")
    rfc: Count = Field(description="all-bank refresh to the next command")
    rfc_bank: Count | None = Field(
        default=None, description="per-bank refresh to the next command of that bank; needed by per_bank refresh"
    )
    rrefd: NonNegativeCount = Field(default=0, description="per-bank refresh to activation of another bank")
    refi: Count = Field(description="average interval of all-bank refreshes of one rank")


class Commands(SpecModel):
    """How commands reach the device."""

    buses: Literal[1, 2] = Field(description="1: shared; 2: row and column commands on buses of their own")
    half_clock: bool = Field(
        default=False, description="row bus works on both clock edges; precharge takes half a clock"
    )
    activate: Annotated[float, Field(ge=0.5, le=4)] = Field(default=1.0, description="clocks of the command bus")
    column: Annotated[float, Field(ge=0.5, le=4)] = Field(
        default=1.0, description="clocks of the command bus that a read or write takes"
    )
    split_activate: Count | None = Field(
        default=None, description="second half of an activation follows within so many"
    )
    clock_sync_after: Count | None = Field(
        default=None,
        description="idle clocks after the data of a column command, beyond which the data clock is synced",
    )


class Controller(SpecModel):
    """Queues and policies."""

    scheduler: Literal["shared_queue", "bank_queues"] = Field(
        description="shared_queue: one window of reads and one of writes, oldest ready command first, an activated "
        "request before others; bank_queues: transactions move one a clock into short queues per bank, served "
        "round robin"
    )
    page: Literal["open", "closed"] = Field(
        default="open", description="open: a row stays open until another is wanted; closed: it closes after use"
    )
    mapping: str = Field(description="address mapping: a name or an order of fields")
    read_queue: Count = Field(description="reads that wait at one channel")
    write_queue: Count = Field(description="writes that wait at one channel")
    bank_queue: NonNegativeCount = Field(default=0, description="bank_queues: requests that wait at one bank")
    drain_from: Count = Field(description="writes that start a drain")
    drain_to: NonNegativeCount = Field(description="shared_queue: writes at which a drain ends")
    drain_idle: Count | None = Field(
        default=None, description="bank_queues: with more writes than this a drain starts when no bank has work"
    )
    posted_writes: bool = Field(description="a write is done when it is accepted, not when its data is sent")


class Refresh(SpecModel):
    """Refresh of rows."""

    mode: Literal["all_bank", "per_bank", "off"] = Field(
        description="all banks of a rank together, one bank after another, or never"
    )
    staggered: bool = Field(description="ranks take turns within tREFI instead of starting together")


class Idd(SpecModel):
    """Currents of one chip."""

    vdd: Voltage = Field(description="supply voltage of the core")
    idd0: Current = Field(description="mean of activations and precharges of one bank, back to back at tRC")
    idd2n: Current = Field(description="standby, all banks precharged")
    idd3n: Current = Field(description="standby, a row open")
    idd4r: Current = Field(description="reading without pause")
    idd4w: Current = Field(description="writing without pause")
    idd5b: Current = Field(description="during all-bank refreshes, back to back")


class DramEnergy(SpecModel):
    """Energy: currents of the data sheet, or what one byte costs. Null is unknown."""

    idd: Idd | None = Field(default=None, description="currents of one chip, as in its data sheet")
    access: EnergyPerByte | None = Field(default=None, description="all of it, from cell to pin")


class DramSpec(SpecModel):
    """A DRAM part with its controller."""

    kind: Literal["dram"] = Field(description="says that this file describes a DRAM part")
    name: Annotated[str, Field(min_length=1, max_length=120)] = Field(description="shown in reports")
    description: str = Field(default="", description="free text")
    provenance: Provenance | None = Field(default=None, description="origin of numbers that state none")
    clock: Time = Field(description="command clock period")
    organization: Organization = Field(description="how many of everything")
    timing: Timing = Field(description="delays between commands, in clocks")
    commands: Commands = Field(description="how commands reach the device")
    controller: Controller = Field(description="queues and policies")
    refresh: Refresh = Field(description="refresh of rows")
    energy: DramEnergy = Field(
        default_factory=DramEnergy, description="energy of commands and data; unknown stays null"
    )

    @model_validator(mode="after")
    def _consistent(self) -> DramSpec:
        for field in ("channels", "pseudo_channels", "ranks", "stacks", "bank_groups", "banks", "rows", "columns"):
            count = int(getattr(self.organization, field))
            if count & (count - 1):
                raise ValueError(f"'organization.{field}' must be a power of two, not {count}")
        access = int(self.organization.access)
        if access & (access - 1) or access != self.organization.access:
            raise ValueError("'organization.access' must be a power of two of bytes")
        if self.timing.rc < self.timing.ras:
            raise ValueError("'timing.rc' is shorter than 'timing.ras'")
        if self.timing.refi <= self.timing.rfc:
            raise ValueError("'timing.refi' must be longer than 'timing.rfc'")
        if self.controller.scheduler == "bank_queues" and not self.controller.bank_queue:
            raise ValueError("'bank_queues' needs 'controller.bank_queue'")
        if self.refresh.mode == "per_bank" and self.timing.rfc_bank is None:
            raise ValueError("per-bank refresh needs 'timing.rfc_bank'")
        o = self.organization
        banks = int(o.stacks * o.bank_groups * o.banks)
        if self.refresh.mode == "per_bank" and self.timing.refi < banks * max(1, self.timing.rrefd):
            raise ValueError(
                f"'timing.refi' is too short for per-bank refresh: {banks} banks, 'timing.rrefd' apart, come round in "
                f"{int(banks * max(1, self.timing.rrefd))} clocks"
            )
        return self
