"""Command programs: the closed form against the command-by-command interpreter, and its log against pairwise timings."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from effsim.devices.pim.commands import Bank, Nest, phases_per_row, program_clocks, rows_per_phase
from effsim.devices.pim.interpreter import Interpreter, Issued
from effsim.errors import UnsupportedError

BUS = Bank(
    columns=32,
    access_bytes=32.0,
    interval=2.0,
    activate=14.0,
    activate_write=10.0,
    precharge=14.0,
    active=33.0,
    read_to_precharge=3.0,
    write_to_precharge=26.0,
    write_to_read=19.0,
    read_to_write=16.0,
    input_write=2.0,
    input_latency=10.0,
    result_read=2.0,
    result_latency=5.0,
    refresh=0.0,
    refresh_interval=math.inf,
    setup=7.0,
    rows=False,
    sets=1,
    hidden_rows=False,
    double=False,
)
ROWS = replace(BUS, rows=True, sets=2, interval=4.0, input_write=4.0, result_read=4.0)


@st.composite
def banks(draw: st.DrawFn, rows: bool, double: bool = False) -> Bank:
    return replace(
        ROWS if rows else BUS,
        columns=draw(st.sampled_from([16, 32, 64])),
        interval=draw(st.sampled_from([1.0, 2.0, 4.0])),
        activate=draw(st.sampled_from([10.0, 14.0, 56.0])),
        result_latency=draw(st.sampled_from([0.0, 5.0, 20.0])),
        input_write=draw(st.sampled_from([1.0, 2.0, 4.0])),
        sets=draw(st.sampled_from([1, 2])) if rows else 1,
        hidden_rows=draw(st.booleans()) and not rows,
        double=double,
    )


def nests(rows: bool) -> st.SearchStrategy[Nest]:
    return st.builds(
        Nest,
        st.integers(1, 3),
        st.integers(1, 6),
        st.integers(1, 5),
        st.integers(1, 16),
        st.integers(4, 140),
        st.integers(1, 8),
        st.just(False) if rows else st.booleans(),
        st.integers(1, 3),
    )


def settled(bank: Bank, nest: Nest) -> bool:
    """Inside the closed form's range: the last row of a phase is open for tRAS, and precharges of the other set hide."""
    last = nest.columns - (rows_per_phase(bank, nest) - 1) * bank.columns
    long_rows = bank.activate + (last - 1) * bank.interval >= bank.active
    hidden = nest.columns * bank.interval >= 40.0 and (nest.writes - 1) * bank.input_write >= 20.0
    return long_rows and (hidden or not bank.rows)


@pytest.mark.parametrize("rows", [False, True])
@given(data=st.data())
def test_the_closed_form_is_what_the_interpreter_issues(rows: bool, data: st.DataObject) -> None:
    bank, nest = data.draw(banks(rows)), data.draw(nests(rows))
    assume(settled(bank, nest))
    assert program_clocks(bank, nest).total == pytest.approx(Interpreter(bank).run(nest), rel=1e-12)


@given(data=st.data())
def test_double_buffers_are_a_lower_bound_that_is_nearly_reached(data: st.DataObject) -> None:
    bank, nest = data.draw(banks(False, double=True)), data.draw(nests(False))
    assume(settled(bank, nest))
    exact = Interpreter(bank).run(nest)
    assert 0.75 * exact <= program_clocks(bank, nest).total <= exact * (1 + 1e-12)
    assert exact <= Interpreter(replace(bank, double=False)).run(nest)


@pytest.mark.parametrize("rows", [False, True])
@given(data=st.data())
def test_refresh_is_its_mean_over_the_timer(rows: bool, data: st.DataObject) -> None:
    bank, nest = data.draw(banks(rows)), data.draw(nests(rows))
    assume(settled(bank, nest))
    bank = replace(bank, refresh=350.0, refresh_interval=3900.0)
    closed = program_clocks(bank, nest)
    run = Interpreter(bank, first_refresh=bank.refresh_interval / 2)
    exact = run.run(nest)
    assert abs(closed.total - exact) <= bank.refresh_loss * (1.0 + 0.05 * run.refreshes)
    assert closed.total == pytest.approx(closed.multiply + closed.exposed + closed.refresh + closed.setup)


def test_a_refresh_that_never_ends_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="refresh takes longer"):
        program_clocks(replace(BUS, refresh=350.0, refresh_interval=300.0), Nest(1, 1, 1, 1, 1, 1))


def test_one_phase_by_hand() -> None:
    # Inputs: 4 writes of 2 clocks, 10 to arrive; 40 columns 2 apart, one row change of 3 + 14 + 14; 5 and one read of 2; 7 setup.
    assert program_clocks(BUS, Nest(1, 1, 1, 4, 40, 1)).total == 4 * 2 + 10 + 38 * 2 + 31 + 5 + 2 + 7


def test_register_rows_by_hand() -> None:
    # Even chunk: 10, 7 writes, tWTR 19, 63 columns with one row change of 31 instead of 4; then 16 to the result row of the
    # other set, 7 stores, 7 setup.
    assert program_clocks(ROWS, Nest(1, 1, 1, 8, 64, 8)).total == 10 + 28 + 19 + 62 * 4 + 31 + 16 + 28 + 7


def _spacings(log: list[Issued], first: str, then: str) -> list[float]:
    """Clocks from each *first* command to the next *then* of the same set, with no other *first* between."""
    out, last = [], {}
    for issued in sorted(log, key=lambda i: i.clock):
        if issued.name == then and issued.place in last:
            out.append(issued.clock - last[issued.place])
            last.pop(issued.place)
        if issued.name == first:
            last[issued.place] = issued.clock
    return out


@pytest.mark.parametrize("rows", [False, True])
@given(data=st.data())
def test_the_log_keeps_every_pairwise_timing(rows: bool, data: st.DataObject) -> None:
    bank = replace(data.draw(banks(rows)), hidden_rows=False, refresh=350.0, refresh_interval=3900.0)
    nest = data.draw(nests(rows))
    run = Interpreter(bank, first_refresh=1950.0, keep_log=True)
    run.run(nest)
    assert all(gap >= bank.active for gap in _spacings(run.log, "activate", "precharge"))
    assert all(gap >= bank.precharge for gap in _spacings(run.log, "precharge", "activate"))
    assert all(gap >= bank.activate for gap in _spacings(run.log, "activate", "multiply"))
    assert all(gap >= bank.read_to_precharge for gap in _spacings(run.log, "multiply", "precharge"))
    times = [i.clock for i in run.log if i.name == "multiply"]
    assert len(times) == nest.runs * nest.phases * nest.columns
    assert all(b - a >= bank.interval for a, b in pairwise(times))
    for issued in run.log:
        if issued.name == "refresh":
            after = [i.clock for i in run.log if i.name == "activate" and i.clock > issued.clock]
            assert not after or min(after) >= issued.clock + bank.refresh
    if rows:
        assert all(gap >= bank.write_to_precharge for gap in _spacings(run.log, "input", "precharge"))


def test_short_phases_share_a_row() -> None:
    nest = Nest(1, 8, 1, 4, 4, 1)
    assert phases_per_row(BUS, nest) == 8
    assert program_clocks(BUS, nest).row_openings == 1
    assert program_clocks(BUS, replace(nest, columns=33)).row_openings == 16
