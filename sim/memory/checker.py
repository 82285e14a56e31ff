"""An independent check of a command log: it knows the constraints between pairs of commands, and no controller.

Written against the preset's own numbers (clocks of the data sheet), not the delay table the controller works with. A
command of several clocks acts when its last part has come, so commands are compared by the ticks in which they end.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from .layout import ACT, COMMAND_NAMES, PRE, PREA, RD, RDA, REF, REFB, WR, WRA, Ints
from .preset import Preset

COLUMNS = (RD, WR, RDA, WRA)
WRITES = (WR, WRA)
CLOSES = (PRE, RDA, WRA)
MOST_IN_FAW = 4
MOST_IN_WINDOW = 32


@dataclass(frozen=True, slots=True)
class Violation:
    """A command that came too early, or that its bank's state does not allow."""

    rule: str
    at: int
    command: str
    bank: int
    earliest: int

    def __str__(self) -> str:
        return f"{self.command} to bank {self.bank} at tick {self.at}: {self.rule} allows it from {self.earliest}"


@dataclass
class _Bank:
    row: int = -1
    last: dict[int, int] = field(default_factory=dict)


@dataclass
class _Checker:
    preset: Preset
    banks: dict[int, _Bank] = field(default_factory=lambda: defaultdict(_Bank))
    columns: dict[int, deque[tuple[int, int, int]]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=64))
    )
    acts: dict[int, deque[tuple[int, int]]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=64)))
    closes: dict[int, int] = field(default_factory=dict)
    refreshes: dict[int, int] = field(default_factory=dict)
    found: list[Violation] = field(default_factory=list)

    def __post_init__(self) -> None:
        o, self.t = self.preset.spec.organization, self.preset.spec.timing
        self.ticks = self.preset.ticks_per_clock
        self.per_group = int(o.banks)
        self.per_unit = self.per_group * int(o.bank_groups)
        self.per_domain = self.per_unit * int(o.stacks)
        self.per_bus = self.per_domain * int(o.ranks)
        self.grouped = o.bank_groups > 1
        self.stacked = o.stacks > 1
        c = self.preset.spec.commands
        self.length = dict.fromkeys(range(len(COMMAND_NAMES)), 1)
        self.length[ACT] = int(c.activate * self.ticks)
        self.length |= dict.fromkeys(COLUMNS, int(c.column * self.ticks))

    def need(self, rule: str, start: int, kind: int, bank: int, before: int | None, clocks: int) -> None:
        """Require *clocks* between the end of what came *before* and the end of this command."""
        if before is None:
            return
        end = start + self.length[kind] - 1
        earliest = before + clocks * self.ticks
        if end < earliest:
            self.found.append(Violation(rule, end, COMMAND_NAMES[kind], bank, earliest))

    def expect(self, rule: str, ok: bool, start: int, kind: int, bank: int) -> None:
        """Require a state."""
        if not ok:
            self.found.append(Violation(rule, start, COMMAND_NAMES[kind], bank, start))

    def take(self, start: int, kind: int, bank: int, row: int) -> None:
        """Check a command, then remember it."""
        end = start + self.length[kind] - 1
        if kind == ACT:
            self._activate(start, end, bank, row)
        elif kind in COLUMNS:
            self._column(start, end, kind, bank, row)
        elif kind == PRE:
            self._precharge(start, end, kind, bank)
            self.closes[bank // self.per_domain] = end
        elif kind == PREA:
            for each in self._domain(bank):
                self._precharge(start, end, kind, each)
            self.closes[bank // self.per_domain] = end
        elif kind in (REF, REFB):
            self._refresh(start, end, kind, bank)

    def _domain(self, bank: int) -> range:
        first = bank // self.per_domain * self.per_domain
        return range(first, first + self.per_domain)

    def _activate(self, start: int, end: int, bank: int, row: int) -> None:
        b, t, d = self.banks[bank], self.t, bank // self.per_domain
        self.expect("row closed", b.row < 0, start, ACT, bank)
        for before, clocks, rule in (
            (PRE, t.rp, "tRP"), (PREA, t.rp_all or t.rp, "tRP"), (ACT, t.rc, "tRC"), (RDA, t.rtp + t.rp, "tRTP+tRP"),
            (WRA, t.cwl + t.burst + t.wr + t.rp, "tWR+tRP"), (REF, t.rfc, "tRFC"), (REFB, t.rfc_bank or t.rfc,
            "tRFCpb"),
        ):  # fmt: skip
            self.need(rule, start, ACT, bank, b.last.get(before), clocks)
        self.need("tRREFD", start, ACT, bank, self.refreshes.get(d), t.rrefd)
        recent = self.acts[d]
        for before_end, other in recent:
            same = self.grouped and other // self.per_group == bank // self.per_group
            self.need("tRRD", start, ACT, bank, before_end, t.rrd_l if same else t.rrd_s)
        if len(recent) >= MOST_IN_FAW:
            self.need("tFAW", start, ACT, bank, recent[-MOST_IN_FAW][0], t.faw)
        if t.window32 and len(recent) >= MOST_IN_WINDOW:
            self.need("t32AW", start, ACT, bank, recent[-MOST_IN_WINDOW][0], t.window32)
        recent.append((end, bank))
        b.row = row
        b.last[ACT] = end

    def _column(self, start: int, end: int, kind: int, bank: int, row: int) -> None:
        b, t = self.banks[bank], self.t
        write = kind in WRITES
        self.expect("row open", b.row == row and row >= 0, start, kind, bank)
        self.need("tRCD", start, kind, bank, b.last.get(ACT), t.rcd_write if write else t.rcd_read)
        for before_end, before, other in self.columns[bank // self.per_bus]:
            rule, clocks = self._between(before in WRITES, write, other, bank)
            self.need(rule, start, kind, bank, before_end, clocks)
        self.columns[bank // self.per_bus].append((end, kind, bank))
        b.last[kind] = end
        if kind in (RDA, WRA):
            b.row = -1

    def _between(self, wrote: bool, writes: bool, other: int, bank: int) -> tuple[str, int]:
        t = self.t
        group = self.grouped and other // self.per_group == bank // self.per_group
        crosses = other // self.per_unit != bank // self.per_unit
        data = t.cwl + t.burst
        if crosses and not self.stacked:
            switch = t.burst + t.rank_switch
            if wrote == writes:
                return "rank switch", t.burst if writes else switch
            return "rank switch", t.cwl - t.cl + switch if wrote else t.cl - t.cwl + switch
        if wrote and not writes:
            return "tWTR", data + (t.wtr_l if group else t.wtr_s)
        if writes and not wrote:
            return "tRTW", t.read_to_write
        if crosses:
            return "tCCD_R", t.ccd_stack or t.ccd_s
        long = (t.ccd_l_write or t.ccd_l) if writes else t.ccd_l
        return "tCCD", max(t.burst, long if group else t.ccd_s)

    def _precharge(self, start: int, end: int, kind: int, bank: int) -> None:
        b, t = self.banks[bank], self.t
        self.need("tRAS", start, kind, bank, b.last.get(ACT), t.ras)
        self.need("tRTP", start, kind, bank, b.last.get(RD), t.rtp)
        self.need("tWR", start, kind, bank, b.last.get(WR), t.cwl + t.burst + t.wr)
        self.need("tPPD", start, kind, bank, self.closes.get(bank // self.per_domain), t.ppd)
        b.row = -1
        b.last[kind] = end

    def _refresh(self, start: int, end: int, kind: int, bank: int) -> None:
        t = self.t
        for each in self._domain(bank) if kind == REF else (bank,):
            b = self.banks[each]
            self.expect("row closed", b.row < 0, start, kind, each)
            for before in (PRE, PREA):
                self.need("tRP", start, kind, each, b.last.get(before), t.rp)
            self.need("tRC", start, kind, each, b.last.get(ACT), t.rc)
            self.need("tRTP+tRP", start, kind, each, b.last.get(RDA), t.rtp + t.rp)
            self.need("tWR+tRP", start, kind, each, b.last.get(WRA), t.cwl + t.burst + t.wr + t.rp)
            self.need("tRFC", start, kind, each, b.last.get(REF), t.rfc)
            b.last[kind] = end
        if kind == REFB:
            self.refreshes[bank // self.per_domain] = end


def check_log(preset: Preset, log: Ints) -> Iterator[Violation]:
    """Violations of the preset's constraints in a log with columns time, command, bank, row (ticks, in order)."""
    checker = _Checker(preset)
    for at, kind, bank, row in log.tolist():
        checker.take(at, kind, bank, row)
    yield from checker.found
