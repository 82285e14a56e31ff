"""From an address to channel, bank and row.

An order such as ``rochrababgco`` names six fields from the highest bits to the lowest, two letters each: row, channel,
rank, bank, bank group, column. Pseudo-channels and stacks belong to the rank field, stack above pseudo-channel. Named
mappings:

- ``RoBaRaCoCh``: channel lowest, then column, rank, bank group, bank, row;
- ``MOP4CLXOR``: channel lowest, then two column bits, rank, bank group, bank, the rest of the column, row; every level
  is XORed with column bits (after Kaseridis et al., "Minimalist Open-page", MICRO 2011; the variant of Ramulator 2.1);
- ``hashed``: four accesses of a row, so that a gather of a cache line opens one (more where activations could not keep
  up with the bus otherwise: see :func:`run_bits`), then channel, bank group, rank, bank,
  the rest of the column, row; channel and bank are XORed with folded bits from above, so that no power-of-two stride
  stays in a few banks (permutation-based interleaving: Zhang et al., MICRO 2000).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..errors import UnknownNameError, nearest
from .layout import Ints
from .preset import Preset

NAMED: Final = ("hashed", "MOP4CLXOR", "RoBaRaCoCh")
FIELDS: Final = ("ro", "ra", "bg", "ba", "co", "ch")
RUN_BITS: Final = 2
"""Column bits that ``MOP4CLXOR`` puts below the bank, and the fewest that ``hashed`` does."""
FOLDS: Final = (0, 3, 7, 11)
"""Bits are folded into the bank from several distances, so that strides of one row spread as well."""

Addresses = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Located:
    """Where requests go: bank counted over all channels, and row."""

    bank: Ints
    row: Ints


@dataclass(frozen=True, slots=True)
class _Widths:
    ch: int
    ra: int
    bg: int
    ba: int
    co: int
    ro: int

    @classmethod
    def of(cls, preset: Preset) -> _Widths:
        o = preset.spec.organization
        rank = int(o.pseudo_channels) * int(o.ranks) * int(o.stacks)
        return cls(*(int(n).bit_length() - 1 for n in (o.channels, rank, o.bank_groups, o.banks, o.columns, o.rows)))


def check_mapping(name: str) -> str:
    """The mapping as it is spelled here.

    Raises:
        UnknownNameError: neither a named mapping nor an order of the six fields.
    """
    for known in NAMED:
        if name.lower() == known.lower():
            return known
    tokens = sorted(name[i : i + 2].lower() for i in range(0, len(name), 2))
    if len(name) == 2 * len(FIELDS) and tokens == sorted(FIELDS):
        return name.lower()
    wanted = f"{', '.join(NAMED)}, or an order of {' '.join(FIELDS)} such as rochrababgco"
    shown = name if len(name) <= 40 else f"{name[:40]}…"
    raise UnknownNameError(f"no address mapping {shown!r}", expected=wanted, suggestion=nearest(name[:40], NAMED))


def locate(preset: Preset, mapping: str, addresses: Addresses) -> Located:
    """Banks and rows of byte addresses, shape (n,).

    Addresses beyond the capacity wrap around.

    Raises:
        UnknownNameError: see :func:`check_mapping`.
    """
    mapping = check_mapping(mapping)
    widths = _Widths.of(preset)
    unit = addresses >> (preset.access_bytes.bit_length() - 1)
    if mapping in NAMED:
        fields = _named(mapping, unit, widths, run_bits(preset))
    else:
        fields = _ordered([mapping[i : i + 2] for i in range(0, len(mapping), 2)], unit, widths)
    return _bank(preset, fields)


def run_bits(preset: Preset) -> int:
    """Column bits below the channel in ``hashed``: so many accesses a row that one activation every tRRD, four every
    tFAW, keep the data bus busy."""
    t = preset.spec.timing
    interval = max(int(t.rrd_s), int(t.faw) / 4.0)
    bits = RUN_BITS
    while preset.slot_clocks << bits < interval:
        bits += 1
    return bits


def _take(rest: Addresses, bits: int) -> tuple[Addresses, Addresses]:
    return rest & ((1 << bits) - 1), rest >> bits


def _ordered(order: list[str], unit: Addresses, widths: _Widths) -> dict[str, Addresses]:
    fields: dict[str, Addresses] = {}
    rest = unit
    for name in reversed(order):
        fields[name], rest = _take(rest, getattr(widths, name))
    return fields


def _named(mapping: str, unit: Addresses, widths: _Widths, run: int) -> dict[str, Addresses]:
    if mapping == "RoBaRaCoCh":
        return _ordered(["ro", "ba", "bg", "ra", "co", "ch"], unit, widths)
    low = min(run if mapping == "hashed" else RUN_BITS, widths.co)
    fields: dict[str, Addresses] = {}
    if mapping == "hashed":
        column, rest = _take(unit, low)
        order = ["ch", "bg", "ra", "ba"]
    else:
        fields["ch"], rest = _take(unit, widths.ch)
        column, rest = _take(rest, low)
        order = ["ra", "bg", "ba"]
    for name in order:
        fields[name], rest = _take(rest, getattr(widths, name))
    high, rest = _take(rest, widths.co - low)
    fields["co"] = column | high << low
    fields["ro"], _ = _take(rest, widths.ro)
    if mapping == "hashed":
        _hash(fields, widths, low)
    else:
        _xor_columns(fields, widths)
    return fields


def _xor_columns(fields: dict[str, Addresses], widths: _Widths) -> None:
    shift = 0
    for name in ("ra", "bg", "ba", "ro"):
        bits = getattr(widths, name)
        if bits:
            fields[name] = fields[name] ^ (fields["co"] >> shift & ((1 << bits) - 1))
            shift += bits


def _hash(fields: dict[str, Addresses], widths: _Widths, low: int) -> None:
    """XOR every level with bits from above it; the levels below stay, so the mapping stays one to one."""
    above = fields["co"] >> low | fields["ro"] << max(0, widths.co - low)
    shift = 0
    for name in ("bg", "ra", "ba"):
        bits = getattr(widths, name)
        if bits:
            fields[name] = fields[name] ^ (_fold(above, shift) & ((1 << bits) - 1))
            shift += bits
    if widths.ch:
        inner = above << (widths.bg + widths.ra + widths.ba)
        inner |= fields["bg"] | fields["ra"] << widths.bg | fields["ba"] << (widths.bg + widths.ra)
        fields["ch"] = fields["ch"] ^ (_fold(inner, 0) & ((1 << widths.ch) - 1))


def _fold(value: Addresses, shift: int) -> Addresses:
    folded = np.zeros_like(value)
    for distance in FOLDS:
        folded ^= value >> (shift + distance)
    return folded


def _bank(preset: Preset, fields: dict[str, Addresses]) -> Located:
    o = preset.spec.organization
    pseudo = int(o.pseudo_channels)
    bus = fields["ch"] * pseudo + (fields["ra"] & (pseudo - 1))
    unit = bus * preset.units_per_bus + (fields["ra"] >> (pseudo.bit_length() - 1))
    bank = (unit * int(o.bank_groups) + fields["bg"]) * int(o.banks) + fields["ba"]
    return Located(bank.astype(np.int64), fields["ro"].astype(np.int64))
