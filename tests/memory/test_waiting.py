"""Lists of waiting requests against plain Python lists."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effsim.memory import engine
from effsim.memory import layout as at
from effsim.memory.mapping import Located
from effsim.memory.preset import load_preset

pytest.importorskip("numba")
BANKS, ROWS, REQUESTS = 3, 3, 24

steps = st.lists(st.tuples(st.sampled_from(["enter", "leave", "open", "close"]), st.integers(0, 1000)), max_size=60)


def made(choices):
    """The controller's array with requests for a few banks and rows, and the positions of banks and requests."""
    preset = load_preset("ddr4")
    bank, row, write = choices
    where = Located(np.array(bank, dtype=np.int64), np.array(row, dtype=np.int64))
    s, places = engine._array(preset, where, np.array(write, dtype=np.int64), 0, 0, 0)
    requests = [places.requests + i * at.R_WIDTH for i in range(REQUESTS)]
    return s, [places.banks + b * at.WIDTH for b in range(BANKS)], requests


def noted(s, bank, vector, w):
    return int(s[s[bank + at.B_SLOT] + (vector + w) * s[at.O_PER_CHANNEL]])


def first(requests):
    return min(requests, default=at.NEVER)


@settings(max_examples=60, deadline=None)
@given(
    choices=st.tuples(
        *(st.lists(st.integers(0, n - 1), min_size=REQUESTS, max_size=REQUESTS) for n in (BANKS, ROWS, 2))
    ),
    moves=steps,
)
def test_lists_keep_order_and_find_the_oldest(choices, moves):
    from effsim.memory.waiting import append, first_of_row, remove, set_hit, sort_out

    s, banks, requests = made(choices)
    waiting = {(bank, w): [] for bank in banks for w in range(2)}
    entering = iter(requests)
    for move, number in moves:
        bank, w = banks[number % BANKS], number // BANKS % 2
        if move == "enter" and (request := next(entering, None)) is not None:
            bank, w = int(s[request + at.R_BANK]), int(s[request + at.R_WRITE])
            append(s, bank, w, request)
            waiting[bank, w].append(request)
        elif move == "leave" and noted(s, bank, at.V_HITS, w) != at.NEVER:
            request = noted(s, bank, at.V_HITS, w)
            remove(s, bank, w, request)
            set_hit(s, bank, w, first_of_row(s, s[request + at.R_NEXT], s[bank + at.B_ROW]))
            waiting[bank, w].remove(request)
        elif move in ("open", "close"):
            s[bank + at.B_ROW] = number % ROWS if move == "open" else -1
            sort_out(s, bank)
        for (bank, w), listed in waiting.items():
            hits = [request for request in listed if s[request + at.R_ROW] == s[bank + at.B_ROW]]
            assert noted(s, bank, at.V_HEAD, w) == first(listed)
            assert noted(s, bank, at.V_HITS, w) == first(hits)
            assert noted(s, bank, at.V_ROWS, w) == first(set(listed) - set(hits))
        hit_lists = sum(noted(s, bank, at.V_HITS, w) != at.NEVER for bank, w in waiting)
        assert s[at.CHANNELS + at.C_HITS] == hit_lists
