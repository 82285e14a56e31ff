"""A DRAM preset ready to simulate: its numbers as the flat arrays of the controller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from ..errors import SpecError
from ..spec.build import build
from ..spec.catalogue import load_document
from ..spec.confine import Layers, layers
from ..spec.dram import DramSpec
from ..spec.overrides import apply
from . import layout as at
from .layout import Ints

INJECTED_PER_CHANNEL = 2
"""Requests per channel that may enter in one clock."""


@dataclass(frozen=True)
class Preset:
    """A specification with what follows from it. Times in ticks unless the name says otherwise."""

    spec: DramSpec

    @property
    def name(self) -> str:
        """Name in the file."""
        return self.spec.name

    @property
    def ticks_per_clock(self) -> int:
        """2 where the row bus works on both clock edges."""
        return 2 if self.spec.commands.half_clock else 1

    @property
    def clock_s(self) -> float:
        """Period of the command clock, s."""
        return float(self.spec.clock)

    @property
    def access_bytes(self) -> int:
        """Bytes of one access."""
        return int(self.spec.organization.access)

    @property
    def buses(self) -> int:
        """Data buses: pseudo-channels of all channels."""
        return int(self.spec.organization.channels * self.spec.organization.pseudo_channels)

    @property
    def units_per_bus(self) -> int:
        """Ranks and stacks that share a data bus."""
        return int(self.spec.organization.ranks * self.spec.organization.stacks)

    @property
    def banks_per_unit(self) -> int:
        """Banks of one rank or stack."""
        return int(self.spec.organization.bank_groups * self.spec.organization.banks)

    @property
    def slot_clocks(self) -> int:
        """Clocks from one access to the next at full rate: the burst, or tCCD_S where that is longer."""
        return int(max(self.spec.timing.burst, self.spec.timing.ccd_s))

    @property
    def peak_bytes_per_s(self) -> float:
        """Bandwidth with every data bus busy, B/s: buses · access / (slot · tCK)."""
        return self.buses * self.access_bytes / (self.slot_clocks * self.clock_s)

    @property
    def row_bytes(self) -> int:
        """Bytes of an open row."""
        return int(self.spec.organization.columns) * self.access_bytes

    @cached_property
    def settings(self) -> Ints:
        """Delays and switches by the ``T_`` and ``O_`` names of :mod:`~effsim.memory.layout`."""
        import numpy as np

        out = np.zeros(at.T_COUNT, dtype=np.int64)
        _options(self, out)
        _timing(self, out)
        return out

    @cached_property
    def keys(self) -> dict[str, str]:
        """What :func:`~effsim.memory.shares_cache.key_of` found, by refresh mode."""
        return {}

    @cached_property
    def clocked(self) -> dict[float, Preset]:
        """The part at other data rates, by clock period, as far as somebody asked for them."""
        return {}

    def replace(self, **sections: dict[str, object]) -> Preset:
        """The same part with fields of sections replaced, e.g. ``organization={"channels": 1}``."""
        changed = {name: getattr(self.spec, name).model_copy(update=fields) for name, fields in sections.items()}
        return Preset(self.spec.model_copy(update=changed))


def load_preset(name_or_path: str, assignments: tuple[str, ...] = ()) -> Preset:
    """A preset by bundled name or path; *assignments* are ``dram.path=value``.

    Raises:
        SpecError: the file or an assignment is wrong.
        UnknownNameError: no such preset.
    """
    # Bundled files do not change while we run; a user's may. Which file a name means depends on what may be read.
    known = name_or_path in catalogue()
    return _bundled(name_or_path, assignments, layers()) if known else _load(name_or_path, assignments)


def _load(name_or_path: str, assignments: tuple[str, ...]) -> Preset:
    document = load_document("dram", name_or_path)
    if assignments:
        document = apply(document, list(assignments), "dram")
    return Preset(build(DramSpec, document, root="dram"))


@lru_cache(maxsize=64)
def _bundled(name: str, assignments: tuple[str, ...], _confinement: Layers | None) -> Preset:
    return _load(name, assignments)


def _options(preset: Preset, out: Ints) -> None:
    spec = preset.spec
    o, c = spec.organization, spec.controller
    out[at.O_CHANNELS] = o.channels
    out[at.O_BUSES] = preset.buses
    out[at.O_UNITS] = preset.buses * preset.units_per_bus
    out[at.O_DOMAINS] = preset.buses * o.ranks
    out[at.O_GROUPS] = out[at.O_UNITS] * o.bank_groups
    out[at.O_BANKS] = out[at.O_GROUPS] * o.banks
    out[at.O_PER_GROUP], out[at.O_PER_UNIT] = o.banks, preset.banks_per_unit
    out[at.O_PER_CHANNEL] = out[at.O_BANKS] // o.channels
    out[at.O_SHARED] = c.scheduler == "shared_queue"
    out[at.O_DUAL] = spec.commands.buses == 2
    out[at.O_HALF] = spec.commands.half_clock
    out[at.O_CLOSED] = c.page == "closed"
    out[at.O_REFRESH] = ("off", "all_bank", "per_bank").index(spec.refresh.mode)
    out[at.O_STAGGER] = spec.refresh.staggered
    out[at.O_RQ], out[at.O_WQ], out[at.O_BQ] = c.read_queue, c.write_queue, c.bank_queue
    out[at.O_DRAIN_FROM], out[at.O_DRAIN_TO] = c.drain_from, c.drain_to
    out[at.O_DRAIN_IDLE] = c.drain_from if c.drain_idle is None else c.drain_idle
    out[at.O_POSTED] = c.posted_writes
    out[at.O_INJECT] = INJECTED_PER_CHANNEL * o.channels


class _Occupancy:
    """Ticks that commands take on their bus.

    A device acts on a command when the last part of it has come, so a delay between two commands counts from end to
    end: from start to start it is longer by what the first takes beyond a tick and shorter by what the second does.
    """

    def __init__(self, preset: Preset) -> None:
        commands, ticks = preset.spec.commands, preset.ticks_per_clock
        self.ticks = ticks
        self.act = int(commands.activate * ticks)
        self.col = int(commands.column * ticks)
        self.pre = self.ref = 1

    def delay(self, clocks: int, before: int, after: int) -> int:
        """Ticks from the start of one command to the start of the next."""
        return int(clocks) * self.ticks + before - after


def _timing(preset: Preset, out: Ints) -> None:
    t, commands, bus = preset.spec.timing, preset.spec.commands, _Occupancy(preset)
    ticks, delay, act, col, pre, ref = bus.ticks, bus.delay, bus.act, bus.col, bus.pre, bus.ref
    grouped = preset.spec.organization.bank_groups > 1
    wr_data, stack = t.cwl + t.burst, t.ccd_stack if preset.spec.organization.stacks > 1 else None
    row = {
        at.T_RCD_R: delay(t.rcd_read, act, col), at.T_RCD_W: delay(t.rcd_write, act, col),
        at.T_RAS: delay(t.ras, act, pre), at.T_RP: delay(t.rp, pre, act), at.T_RC: t.rc * ticks,
        at.T_RRD_S: t.rrd_s * ticks, at.T_RRD_L: (t.rrd_l if grouped else t.rrd_s) * ticks,
        at.T_FAW: t.faw * ticks, at.T_AW32: (t.window32 or 0) * ticks,
        at.T_RTP: delay(t.rtp, col, pre), at.T_WTP: delay(wr_data + t.wr, col, pre),
        at.T_RDA: delay(t.rtp + t.rp, col, act), at.T_WRA: delay(wr_data + t.wr + t.rp, col, act),
        at.T_PPD: t.ppd * ticks, at.T_RPA: delay(t.rp_all or t.rp, pre, act),
        at.T_RP_REF: delay(t.rp, pre, ref), at.T_RPA_REF: delay(t.rp, pre, ref), at.T_ACT_REF: delay(t.rc, act, ref),
        at.T_RFC: delay(t.rfc, ref, act), at.T_RFCB: delay(t.rfc_bank or t.rfc, ref, act),
        at.T_RREFD: delay(t.rrefd, ref, act), at.T_REFI: t.refi * ticks,
    }  # fmt: skip
    rr_s, ww_s = max(t.burst, t.ccd_s), max(t.burst, t.ccd_s)
    cross = {
        at.T_RR_X: stack or t.burst + t.rank_switch,
        at.T_WW_X: stack or t.burst,
        at.T_RW_X: t.read_to_write if stack else t.cl - t.cwl + t.burst + t.rank_switch,
        at.T_WR_X: wr_data + t.wtr_s if stack else max(1, t.cwl - t.cl + t.burst + t.rank_switch),
    }
    columns = {
        at.T_RR_S: rr_s, at.T_RR_L: max(t.burst, t.ccd_l) if grouped else rr_s,
        at.T_WW_S: ww_s, at.T_WW_L: max(t.burst, t.ccd_l_write or t.ccd_l) if grouped else ww_s,
        at.T_RW: t.read_to_write, at.T_WR_S: wr_data + t.wtr_s,
        at.T_WR_L: wr_data + (t.wtr_l if grouped else t.wtr_s), at.T_RL: t.cl + t.burst, at.T_SLOT: preset.slot_clocks,
        **cross,
    }  # fmt: skip
    sync = commands.clock_sync_after
    others = {
        at.T_C_ACT: act, at.T_C_COL: col, at.T_C_PRE: pre, at.T_C_REF: ref,
        at.T_AAD: (commands.split_activate or 0) * ticks,
        at.T_SYNC_R: 0 if sync is None else (t.cl + t.burst + sync) * ticks,
        at.T_SYNC_W: 0 if sync is None else (t.cwl + t.burst + sync) * ticks,
    }  # fmt: skip
    for key, clocks in columns.items():
        out[key] = clocks * ticks
    for key, value in (*row.items(), *others.items()):
        out[key] = value


def checked_sizes(preset: Preset, channels: int | None) -> Preset:
    """The preset with another number of channels.

    Raises:
        SpecError: not a power of two.
    """
    if channels is None:
        return preset
    if channels < 1 or channels & (channels - 1):
        raise SpecError(f"--channels {channels}", expected="a power of two, 1 or more")
    return preset.replace(organization={"channels": channels})


def catalogue() -> Sequence[str]:
    """Names of the bundled presets."""
    from ..spec.catalogue import names

    return names("dram")
