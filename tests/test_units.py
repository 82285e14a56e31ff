"""Quantities: every unit, every refusal, and the way back."""

from __future__ import annotations

import math
import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effsim.errors import UnitError
from effsim.units import ATOMS, DIMENSIONS, STRING_PATTERN, describe, format_quantity, parse

GOOD = [
    ("80 GiB", "bytes", 80 * 2**30),
    ("80GB", "bytes", 80e9),
    ("80 Gb", "bytes", 10e9),
    ("80 Gbit", "bytes", 10e9),
    ("80 Gib", "bytes", 10 * 2**30),
    ("3 KB", "bytes", 3000),
    ("3 kB", "bytes", 3000),
    ("3 KiB", "bytes", 3072),
    ("1EB", "bytes", 1e18),  # not the float 1e…
    ("1e3B", "bytes", 1000),
    ("  +.5e1 kB ", "bytes", 5000),
    ("2.039 TB/s", "bandwidth", 2.039e12),
    ("400 Gbps", "bandwidth", 50e9),
    ("400 Gbit/s", "bandwidth", 50e9),
    ("1 B/s", "bandwidth", 1.0),
    ("14 GB/ms", "bandwidth", 14e12),
    ("43.1 ms", "time", 0.0431),
    ("14 ns", "time", 14e-9),
    ("14 µs", "time", 14e-6),
    ("14 μs", "time", 14e-6),
    ("14 us", "time", 14e-6),
    ("2 min", "time", 120),
    ("3 h", "time", 10800),
    ("1 day", "time", 86400),
    ("1.41 GHz", "frequency", 1.41e9),
    ("312 TFLOP/s", "flop_rate", 312e12),
    ("312 TFLOPS", "flop_rate", 312e12),
    ("624 TOPS", "flop_rate", 624e12),
    ("624 TOP/s", "flop_rate", 624e12),
    ("2 TFLOP", "flops", 2e12),
    ("2048 FLOP/cycle", "flop_per_cycle", 2048),
    ("2048 FLOP/clk", "flop_per_cycle", 2048),
    ("16 OP/clk", "op_per_cycle", 16),
    ("128 B/clk", "bytes_per_cycle", 128),
    ("1024 bit/cycle", "bytes_per_cycle", 128),
    ("20 cycles", "cycles", 20),
    ("400 W", "power", 400),
    ("20 MW", "power", 20e6),
    ("20 mW", "power", 0.02),
    ("3 kWh", "energy", 10.8e6),
    ("0.6 pJ/FLOP", "energy_per_flop", 0.6e-12),
    ("0.6 pJ/OP", "energy_per_flop", 0.6e-12),
    ("4 pJ/bit", "energy_per_byte", 32e-12),
    ("4 pJ/B", "energy_per_byte", 4e-12),
    ("1100 mV", "voltage", 1.1),
    ("55 mA", "current", 0.055),
    ("30 kUSD", "money", 30000),
    ("$30000", "money", 30000),
    ("2.5 USD/h", "money_rate", 2.5),
    ("$2.5/hour", "money_rate", 2.5),
    ("24 USD/day", "money_rate", 1.0),
    ("87 %", "ratio", 0.87),
    ("0.87", "ratio", 0.87),
    (0.87, "ratio", 0.87),
    ("108", "count", 108),
    (108, "count", 108),
    (2039e9, "bandwidth", 2039e9),
    (0, "bandwidth", 0),
    ("0 GB", "bytes", 0),
    ("1e-400 s", "time", 0),
]


@pytest.mark.parametrize(("text", "dimension", "value"), GOOD)
def test_parses_exactly(text: str | float, dimension: str, value: float) -> None:
    assert parse(text, dimension) == value


BAD = [
    ("80 gb", "bytes", "'80 gb': 'gb' is ambiguous; GB (bytes) or Gb (bits)?", ""),
    ("80 gB", "bytes", "'80 gB': 'gB' is ambiguous; GB (bytes) or Gb (bits)?", ""),
    ("80 mb", "bytes", "'80 mb': 'mb' is a fraction of a bit; MB (bytes) or Mb (bits)?", ""),
    ("80 mB", "bytes", "'80 mB': 'mB' is a fraction of a byte; MB (bytes) or Mb (bits)?", ""),
    ("80 GIB", "bytes", "'80 GIB': 'GIB' is ambiguous; GiB (bytes) or Gib (bits)?", ""),
    ("80 Gbs", "bandwidth", "'80 Gbs': unknown unit 'Gbs'", "Gbps"),
    ("80 GiB", "bandwidth", "'80 GiB' is an amount of data", ""),
    (2039, "bandwidth", "2039 has no unit and would mean 2039 B/s; give a unit", ""),
    ("2039", "bandwidth", "'2039' has no unit and would mean 2039 B/s; give a unit", ""),
    (1410, "frequency", "1410 has no unit and would mean 1410 Hz; give a unit", ""),
    (5000, "time", "5000 has no unit and would mean 5000 s; give a unit", ""),
    ("1,000 B", "bytes", "'1,000 B' groups its digits; write them without separators", ""),
    ("1_000", "count", "'1_000' groups its digits; write them without separators", ""),
    ("-4 GB", "bytes", "'-4 GB' is negative", ""),
    (-4.0, "time", "-4.0 is negative", ""),
    ("nan GB", "bytes", "'nan GB' is not a finite number", ""),
    ("-inf", "time", "'-inf' is not a finite number", ""),
    (math.inf, "time", "inf is not a finite number", ""),
    ("1e300 EB", "bytes", "'1e300 EB' is too large", ""),
    ("3 TFLOPs", "flop_rate", "'3 TFLOPs': 'TFLOPs' can be read as an amount or a rate; write TFLOP or TFLOP/s", ""),
    ("3 TMAC/s", "flop_rate", "'3 TMAC/s': 'TMAC' is not a unit here; count a multiply-add as 2 FLOP", ""),
    ("3 KHz", "frequency", "'3 KHz': unknown unit 'KHz'", "kHz"),
    ("3 GB/W", "bandwidth", "'3 GB/W' is in 'GB/W', which no quantity is measured in", ""),
    ("8 GB/s/s", "bandwidth", "'8 GB/s/s': 'GB/s/s' is not a unit", ""),
    ("5 %", "count", "'5 %' is a ratio", ""),
    ("87", "ratio", "'87' is too large", ""),
    ("", "time", "the text is empty", ""),
    ("fast", "time", "'fast' does not start with a number", ""),
    (True, "count", "True is not a quantity", ""),
    (10**400, "count", "an integer of 1329 bits is not a finite number", ""),
]


@pytest.mark.parametrize(("text", "dimension", "what", "suggestion"), BAD)
def test_refuses_and_says_why(text: str | float, dimension: str, what: str, suggestion: str) -> None:
    with pytest.raises(UnitError) as caught:
        parse(text, dimension)
    tail = f"; did you mean {suggestion!r}?" if suggestion else ""
    assert str(caught.value) == f"{what}; expected {describe(dimension)}{tail}"


def test_says_what_was_expected() -> None:
    assert [describe(name) for name in ("bytes", "bandwidth", "ratio", "count")] == [
        "an amount of data such as '80 GiB'",
        "a bandwidth such as '2.039 TB/s'",
        "a ratio such as 0.87 or '87 %'",
        "a count such as 108",
    ]


@pytest.mark.parametrize("dimension", sorted(DIMENSIONS))
def test_every_unit_and_prefix(dimension: str) -> None:
    row = DIMENSIONS[dimension]
    top, bottom = row.signature
    units = [(name, size) for name, ((n, d), size) in ATOMS.items() if (n, d) == (top, bottom) and dimension != "count"]
    if bottom:
        lower = [(name, size) for name, ((n, d), size) in ATOMS.items() if (n, d) == (bottom, "")]
        upper = [(name, size) for name, ((n, d), size) in ATOMS.items() if (n, d) == (top, "")]
        units += [(f"{a}/{b}", x / y) for a, x in upper for b, y in lower]
    assert units or dimension == "count"
    for name, size in units:
        value = parse(f"3.5 {name}", dimension)
        assert value == float(Fraction("3.5") * size / row.stored), name
        assert parse(f"3.5{name}", dimension) == value
        assert math.isclose(parse(format_quantity(value, dimension, 17), dimension), value, rel_tol=1e-14)


def test_every_spelling_measures_one_thing() -> None:
    sizes = {"mW": Fraction(1, 1000), "MW": Fraction(10**6), "Gb": Fraction(10**9, 8), "GB": Fraction(10**9)}
    assert {name: ATOMS[name][1] for name in sizes} == sizes
    assert not {"mb", "mB", "gb", "gB", "kb/s", "Ms", "ks"} & set(ATOMS)


@given(st.sampled_from(sorted(DIMENSIONS)), st.floats(1e-18, 1e24), st.integers(1, 17))
def test_what_is_shown_is_read_back(dimension: str, value: float, digits: int) -> None:
    text = format_quantity(value, dimension, digits)
    tolerance = 5.01 * 10.0**-digits + 1e-14 if dimension != "count" else 1e-14
    assert math.isclose(parse(text, dimension), value, rel_tol=tolerance)


@given(st.sampled_from(sorted(DIMENSIONS)), st.text(max_size=30) | st.floats() | st.integers())
def test_any_input_is_read_or_refused(dimension: str, value: str | float) -> None:
    try:
        number = parse(value, dimension)
    except UnitError:
        return
    assert 0 <= number < math.inf


@given(st.sampled_from(sorted(DIMENSIONS)), st.floats(1e-6, 1e6), st.sampled_from(sorted(ATOMS)))
def test_schema_pattern_admits_what_parses(dimension: str, value: float, unit: str) -> None:
    text = f"{value} {unit}"
    try:
        parse(text, dimension)
    except UnitError:
        return
    assert re.search(STRING_PATTERN, text)


@pytest.mark.parametrize(
    ("value", "dimension", "digits", "text"),
    [
        (68.9e9, "bytes", 3, "68.9 GB"),
        (999.9e6, "bytes", 3, "1 GB"),
        (999.9e6, "bytes", 2, "1 GB"),
        (430, "bytes", 2, "430 B"),
        (0.0431, "time", 3, "43.1 ms"),
        (100.0, "time", 3, "100 s"),
        (300.0, "time", 3, "5 min"),
        (9000.0, "time", 3, "2.5 h"),
        (604800.0, "time", 3, "7 day"),
        (0.0, "time", 3, "0 ps"),
        (2.039e12, "bandwidth", 4, "2.039 TB/s"),
        (312e12, "flop_rate", 3, "312 TFLOP/s"),
        (1.41e9, "frequency", 3, "1.41 GHz"),
        (32e-12, "energy_per_byte", 3, "32 pJ/B"),
        (0.6e-12, "energy_per_flop", 3, "0.6 pJ/FLOP"),
        (0.873, "ratio", 3, "87.3 %"),
        (16896, "count", 3, "16896"),
        (1234567.0, "money", 3, "1230000 USD"),
        (2.5, "money_rate", 3, "2.5 USD/h"),
        (-0.5, "time", 3, "-500 ms"),
        (math.inf, "bandwidth", 3, "inf B/s"),
    ],
)
def test_shows_for_people(value: float, dimension: str, digits: int, text: str) -> None:
    assert format_quantity(value, dimension, digits) == text


def test_bare_numbers_mean_si_at_the_bounds() -> None:
    for name, row in DIMENSIONS.items():
        if row.bare_min > 0:
            assert parse(row.bare_min, name) == row.bare_min
            with pytest.raises(UnitError, match="give a unit"):
                parse(row.bare_min * 0.99, name)
        if math.isfinite(row.bare_max):
            assert parse(row.bare_max, name) == row.bare_max
            with pytest.raises(UnitError, match=r"give a unit|too large"):
                parse(row.bare_max * 1.01, name)
