"""Quantities as people write them ("80 GiB", "2.039 TB/s", "14 ns") to SI floats, and back.

Units are parsed once, at the border; inside effsim every number is SI and says its unit in its name. Money per time is
the one exception: it is stored in US dollars **per hour**, because that is what clouds quote.

Spelling is honoured exactly: ``Gb`` is 10⁹ bits, ``GB`` 10⁹ bytes, ``GiB`` 2³⁰ bytes. What could mean two things
(``gb``, ``mb``, ``FLOPs``) is refused with both readings. A multiply-add counts as 2 FLOP; ``OP`` and ``FLOP`` are one
dimension.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType

from .errors import UnitError, nearest

Signature = tuple[str, str]
"""What a unit measures: numerator and denominator, ``("data", "time")`` for a bandwidth; ``""`` where there is none."""

_SI = MappingProxyType(
    {
        "f": Fraction(1, 10**15),
        "p": Fraction(1, 10**12),
        "n": Fraction(1, 10**9),
        "u": Fraction(1, 10**6),
        "µ": Fraction(1, 10**6),  # U+00B5 micro sign, what keyboards type
        "μ": Fraction(1, 10**6),  # U+03BC Greek mu, what word processors insert
        "m": Fraction(1, 10**3),
        "": Fraction(1),
        "k": Fraction(10**3),
        "K": Fraction(10**3),
        "M": Fraction(10**6),
        "G": Fraction(10**9),
        "T": Fraction(10**12),
        "P": Fraction(10**15),
        "E": Fraction(10**18),
        "Ki": Fraction(2**10),
        "Mi": Fraction(2**20),
        "Gi": Fraction(2**30),
        "Ti": Fraction(2**40),
        "Pi": Fraction(2**50),
    }
)
_SMALL = ("p", "n", "u", "µ", "μ", "m")
_LARGE = ("k", "M", "G", "T", "P", "E")
_DATA = ("K", *_LARGE, "Ki", "Mi", "Gi", "Ti", "Pi")

_HOUR_S, _DAY_S, _MINUTE_S = 3600, 86400, 60
_BITS = Fraction(1, 8)

_BASES: tuple[tuple[str, Signature, Fraction, tuple[str, ...]], ...] = (
    ("s", ("time", ""), Fraction(1), _SMALL),
    ("min", ("time", ""), Fraction(_MINUTE_S), ()),
    ("h", ("time", ""), Fraction(_HOUR_S), ()),
    ("hour", ("time", ""), Fraction(_HOUR_S), ()),
    ("hours", ("time", ""), Fraction(_HOUR_S), ()),
    ("day", ("time", ""), Fraction(_DAY_S), ()),
    ("days", ("time", ""), Fraction(_DAY_S), ()),
    ("B", ("data", ""), Fraction(1), _DATA),
    ("b", ("data", ""), _BITS, _DATA),
    ("bit", ("data", ""), _BITS, _DATA),
    ("bps", ("data", "time"), _BITS, _DATA),
    ("Hz", ("frequency", ""), Fraction(1), ("m", *_LARGE)),
    ("FLOP", ("operation", ""), Fraction(1), _LARGE),
    ("OP", ("operation", ""), Fraction(1), _LARGE),
    ("FLOPS", ("operation", "time"), Fraction(1), _LARGE),
    ("OPS", ("operation", "time"), Fraction(1), _LARGE),
    ("cycle", ("cycle", ""), Fraction(1), _LARGE),
    ("cycles", ("cycle", ""), Fraction(1), _LARGE),
    ("clk", ("cycle", ""), Fraction(1), _LARGE),
    ("W", ("power", ""), Fraction(1), (*_SMALL, *_LARGE)),
    ("J", ("energy", ""), Fraction(1), ("f", *_SMALL, *_LARGE)),
    ("Wh", ("energy", ""), Fraction(_HOUR_S), ("m", *_LARGE)),
    ("V", ("voltage", ""), Fraction(1), ("u", "µ", "μ", "m", "k")),
    ("A", ("current", ""), Fraction(1), ("n", "u", "µ", "μ", "m", "k")),
    ("USD", ("money", ""), Fraction(1), ("k", "M", "G")),
    ("$", ("money", ""), Fraction(1), ("k", "M", "G")),
    ("%", ("", ""), Fraction(1, 100), ()),
)


@dataclass(frozen=True, slots=True)
class Dimension:
    """One row of the table of dimensions.

    ``stored`` is the size of the unit that :func:`parse` returns, in SI; ``symbol`` its spelling (``""`` for a pure
    number). A number without a unit is accepted between ``bare_min`` and ``bare_max``, both in the stored unit.
    ``scales`` are the units :func:`format_quantity` chooses from: (use from this value on, size, spelling), rising.
    """

    name: str
    label: str
    signature: Signature
    symbol: str
    example: str
    bare_min: float = 0.0
    bare_max: float = math.inf
    stored: Fraction = Fraction(1)
    scales: tuple[tuple[float, Fraction, str], ...] = ()


def _ladder(symbol: str, prefixes: str) -> tuple[tuple[float, Fraction, str], ...]:
    """Scales for *symbol* with each prefix of the space-separated list; ``-`` stands for no prefix."""
    steps = ["" if prefix == "-" else prefix for prefix in prefixes.split()]
    return tuple((float(_SI[prefix]), _SI[prefix], prefix + symbol) for prefix in steps)


_BIG = "- k M G T P E"
_ANY = "p n µ m - k M G T P E"
_FINE = "p n µ m -"
_LONG_TIMES = tuple((2.0 * size, Fraction(size), name) for size, name in ((60, "min"), (3600, "h"), (86400, "day")))
_PERCENT = ((0.0, Fraction(1, 100), "%"),)

# name, label, numerator, denominator, stored symbol, example, plausible bare numbers, scales
_ROWS = (
    ("time", "a time", "time", "", "s", "14 ns", (0.0, 3600.0), _ladder("s", _FINE) + _LONG_TIMES),
    ("bytes", "an amount of data", "data", "", "B", "80 GiB", (1.0, math.inf), _ladder("B", _BIG)),
    ("bandwidth", "a bandwidth", "data", "time", "B/s", "2.039 TB/s", (1e6, math.inf), _ladder("B/s", _BIG)),
    ("frequency", "a frequency", "frequency", "", "Hz", "1.41 GHz", (1e5, math.inf), _ladder("Hz", _BIG)),
    ("flops", "an amount of arithmetic", "operation", "", "FLOP", "2 TFLOP", (1.0, math.inf), _ladder("FLOP", _BIG)),
    ("flop_rate", "an arithmetic rate", "operation", "time", "FLOP/s", "312 TFLOP/s", (1e6, math.inf),
     _ladder("FLOP/s", _BIG)),
    ("flop_per_cycle", "an arithmetic rate per clock", "operation", "cycle", "FLOP/cycle", "2048 FLOP/cycle",
     (0.0, 1e12), _ladder("FLOP/cycle", "-")),
    ("op_per_cycle", "an operation rate per clock", "operation", "cycle", "OP/cycle", "16 OP/cycle",
     (0.0, 1e12), _ladder("OP/cycle", "-")),
    ("bytes_per_cycle", "a bandwidth per clock", "data", "cycle", "B/cycle", "128 B/cycle",
     (0.0, 1e9), _ladder("B/cycle", "-")),
    ("cycles", "a number of clock cycles", "cycle", "", "cycle", "20 cycles", (0.0, math.inf), _ladder("cycle", _BIG)),
    ("power", "a power", "power", "", "W", "400 W", (1e-3, 1e8), _ladder("W", _ANY)),
    ("energy", "an energy", "energy", "", "J", "3.2 kJ", (0.0, math.inf), _ladder("J", _ANY)),
    ("energy_per_flop", "an energy per operation", "energy", "operation", "J/FLOP", "0.6 pJ/FLOP",
     (0.0, 1e-6), _ladder("J/FLOP", _FINE)),
    ("energy_per_byte", "an energy per byte", "energy", "data", "J/B", "4 pJ/bit", (0.0, 1e-6), _ladder("J/B", _FINE)),
    ("voltage", "a voltage", "voltage", "", "V", "1.2 V", (0.0, 1e3), _ladder("V", "µ m - k")),
    ("current", "a current", "current", "", "A", "55 mA", (0.0, 1e4), _ladder("A", "n µ m - k")),
    ("money", "an amount of money", "money", "", "USD", "30000 USD", (0.0, math.inf), _ladder("USD", "-")),
    ("money_rate", "a price per time", "money", "time", "USD/h", "2.50 USD/h", (0.0, 1e6), _ladder("USD/h", "-")),
    ("ratio", "a ratio", "", "", "", "0.87 or '87 %'", (0.0, 10.0), _PERCENT),
    ("count", "a count", "", "", "", "108", (0.0, math.inf), ((0.0, Fraction(1), ""),)),
)  # fmt: skip
_STORED = {"money_rate": Fraction(1, _HOUR_S)}

DIMENSIONS: Mapping[str, Dimension] = MappingProxyType(
    {
        name: Dimension(name, label, (top, bottom), symbol, example, *bare, _STORED.get(name, Fraction(1)), scales)
        for name, label, top, bottom, symbol, example, bare, scales in _ROWS
    }
)
"""Every dimension by name. Several may share a signature (``flop_per_cycle``, ``op_per_cycle``)."""


def _atoms() -> Iterator[tuple[str, tuple[Signature, Fraction]]]:
    for symbol, signature, size, prefixes in _BASES:
        for prefix in ("", *prefixes):
            yield prefix + symbol, (signature, _SI[prefix] * size)


ATOMS: Mapping[str, tuple[Signature, Fraction]] = MappingProxyType(dict(_atoms()))
"""Every spelling of a simple unit, prefixes included: what it measures and its size in SI."""

_MAX_LENGTH = 80
_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_QUANTITY = re.compile(rf"\+?({_NUMBER})\s*(.*)", re.DOTALL)
_GROUPED = re.compile(r"[0-9][_,'’][0-9]")
_NOT_FINITE = re.compile(r"[+-]?\.?(?:nan|inf|infinity)\b", re.IGNORECASE)
_DATA_UNIT = re.compile(r"([a-zA-Zµμ]?)(i?)(b|bit)(ps|)", re.IGNORECASE)

STRING_PATTERN = rf"^\s*[+$]?\s*{_NUMBER}\s*[A-Za-zµμ%$/ ]*$"
"""What a quantity looks like, for JSON Schema; :func:`parse` is stricter."""


def parse(value: str | int | float, dimension: str) -> float:
    """Return *value* in the SI unit of *dimension* (``money_rate``: US dollars per hour).

    A bare number is taken as SI where that is plausible for the dimension; an explicit unit is always believed.

    Raises:
        UnitError: not a finite, non-negative number; unknown or ambiguous unit; another dimension; a bare number
            that is implausible without a unit.

    >>> parse("80 GiB", "bytes") == 80 * 2**30, parse("14 ns", "time"), parse("400 Gbps", "bandwidth")
    (True, 1.4e-08, 50000000000.0)
    """
    wanted = DIMENSIONS[dimension]
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise _error(wanted, f"{_shown(value)} is not a quantity")
    if not isinstance(value, str):
        return _bare(_finite(value, wanted), value, wanted)
    return _text(value, dimension)


@lru_cache(maxsize=4096)
def _text(value: str, dimension: str) -> float:
    """As :func:`parse`; hardware files say the same texts again and again."""
    wanted = DIMENSIONS[dimension]
    number, unit = _split(value, wanted)
    size = _finite(number, wanted)
    if not unit:
        return _bare(size, value, wanted)
    signature, scale = _unit(unit, value, wanted)
    if signature != wanted.signature or (not wanted.symbol and wanted.name == "count"):
        found = next((row.label for row in DIMENSIONS.values() if row.signature == signature), None)
        what = f"{value!r} is {found}" if found else f"{value!r} is in {unit!r}, which no quantity is measured in"
        raise _error(wanted, what)
    if size == 0.0:
        return 0.0
    try:
        # Exact arithmetic, rounded once: '43.1 ms' is the float 0.0431, not its neighbour.
        return float(Fraction(number) * scale / wanted.stored)
    except OverflowError:
        raise _error(wanted, f"{value!r} is too large") from None


def format_quantity(value: float, dimension: str, digits: int = 3) -> str:
    """Return *value* (in the unit :func:`parse` returns) for people, with *digits* significant digits.

    Counts are shown in full. :func:`parse` reads the text back.

    >>> format_quantity(68.9e9, "bytes"), format_quantity(0.0431, "time"), format_quantity(312e12, "flop_rate")
    ('68.9 GB', '43.1 ms', '312 TFLOP/s')
    """
    row = DIMENSIONS[dimension]
    value = float(value)
    if not math.isfinite(value):
        return f"{value} {row.symbol}".strip()
    if dimension != "count":
        # Rounding first decides the prefix: 999.9 MB with three digits is 1 GB, not 1e+03 MB.
        value = float(f"{value:.{digits}g}")
    _, size, symbol = row.scales[0]
    for start, candidate, spelling in row.scales:
        if abs(value) >= start:
            size, symbol = candidate, spelling
    number = float(Fraction(value) / size)
    if dimension != "count":
        number = float(f"{number:.{digits}g}")
    return f"{number:.{max(digits, 15)}g} {symbol}".strip()


def describe(dimension: str) -> str:
    """Return what a user should write, for messages: ``"a bandwidth such as '2.039 TB/s'"``."""
    row = DIMENSIONS[dimension]
    example = row.example if "'" in row.example or not row.symbol else repr(row.example)
    return f"{row.label} such as {example}"


def _error(wanted: Dimension, what: str, suggestion: str = "") -> UnitError:
    return UnitError(what, expected=describe(wanted.name), suggestion=suggestion)


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) >= 10**_MAX_LENGTH:
        return f"an integer of {value.bit_length()} bits"  # Python refuses to spell very long ones
    text = repr(value)
    return text if len(text) <= _MAX_LENGTH else f"{text[:_MAX_LENGTH]}…"


def _finite(value: str | int | float, wanted: Dimension) -> float:
    """Return the number as a float, refusing what is not finite or is negative."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _error(wanted, f"{_shown(value)} is not a finite number")
    if number < 0:
        raise _error(wanted, f"{_shown(value)} is negative")
    return number


def _bare(number: float, value: object, wanted: Dimension) -> float:
    """Accept a number without a unit where it is plausible as SI; zero is zero in any unit."""
    if number == 0 or wanted.bare_min <= number <= wanted.bare_max:
        return number
    if not wanted.symbol:
        raise _error(wanted, f"{_shown(value)} is too large")
    raise _error(wanted, f"{_shown(value)} has no unit and would mean {number:g} {wanted.symbol}; give a unit")


def _split(value: str, wanted: Dimension) -> tuple[str, str]:
    """Return number and unit of a text."""
    text = value.strip()
    if not text:
        raise _error(wanted, "the text is empty")
    if len(text) > _MAX_LENGTH:
        raise _error(wanted, f"{_shown(value)} is too long for a quantity")
    if _NOT_FINITE.match(text):
        raise _error(wanted, f"{value!r} is not a finite number")
    if _GROUPED.search(text):
        raise _error(wanted, f"{value!r} groups its digits; write them without separators")
    if text.startswith("$"):
        amount = re.match(rf"\$\s*({_NUMBER})(.*)", text)
        text = f"{amount[1]} ${amount[2]}" if amount else text
    match = _QUANTITY.fullmatch(text)
    if match is None:
        negative = re.match(r"[-−]\s*[0-9.]", text)
        raise _error(wanted, f"{value!r} is negative" if negative else f"{value!r} does not start with a number")
    return match[1], match[2].strip()


def _unit(unit: str, value: str, wanted: Dimension) -> tuple[Signature, Fraction]:
    """Return what *unit* measures and its size in SI."""
    parts = [part.strip() for part in unit.split("/")]
    found = [ATOMS.get(part) or _refuse(part, value, wanted) for part in parts]
    if len(found) == 1:
        return found[0]
    if len(found) > 2 or any(signature[1] or not signature[0] for signature, _ in found):
        raise _error(wanted, f"{value!r}: {unit!r} is not a unit")
    (top, top_size), (bottom, bottom_size) = found
    return (top[0], bottom[0]), top_size / bottom_size


def _refuse(part: str, value: str, wanted: Dimension) -> tuple[Signature, Fraction]:
    """Raise the error that says most about an unknown unit."""
    data = _DATA_UNIT.fullmatch(part)
    if data and (data[1] or part in {"BPS", "Bps", "BIT", "Bit"}):
        raise _error(wanted, f"{value!r}: {part!r} is {_data_reading(part, data)}")
    if part.lower().endswith(("flops", "ops")):
        stem = part[:-1].rstrip("sS")
        raise _error(wanted, f"{value!r}: {part!r} can be read as an amount or a rate; write {stem} or {stem}/s")
    if part.upper().endswith(("MAC", "MACS", "MAC/S")):
        raise _error(wanted, f"{value!r}: {part!r} is not a unit here; count a multiply-add as 2 FLOP")
    fitting = [name for name, (signature, _) in ATOMS.items() if signature == wanted.signature]
    close = nearest(part, fitting) or nearest(part, ATOMS) if part else ""
    raise _error(wanted, f"{value!r}: unknown unit {part!r}", suggestion=close)


def _data_reading(part: str, match: re.Match[str]) -> str:
    """Say why a unit of data is refused: prefixes below one, or a case that hides bytes or bits."""
    prefix, binary, rate = match[1].upper(), match[2].lower(), "/s" if match[4] else ""
    readings = f"{prefix}{binary}B{rate} (bytes) or {prefix}{binary}b{rate} (bits)?"
    if not binary and match[1] in _SMALL:
        return f"a fraction of a {'byte' if match[3] == 'B' else 'bit'}; {readings}"
    return f"ambiguous; {readings}"
