"""Speculative decoding against its closed form, and on a real model: what it gains, and where it stops gaining."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

import effsim
from effsim.errors import DoesNotFitError, SpecError
from effsim.serving.fleet import FleetPlan, serve_requests
from effsim.serving.request import Request
from effsim.serving.scheduling import Scheduling
from effsim.serving.speculation import Acceptance


class UnitCost:
    """Every step takes a second."""

    def generate_s(self, sequences: int, context: float) -> float:
        return 1.0

    def mixed_s(self, sequences: int, context: float, chunks: Sequence[tuple[int, int]], finished: int) -> float:
        return 1.0


@given(st.floats(0.0, 0.99), st.integers(1, 12))
def test_mean_tokens_are_the_closed_form(a: float, k: int) -> None:
    assert Acceptance.of([a] * k).mean_tokens == pytest.approx((1 - a ** (k + 1)) / (1 - a), rel=1e-12)


@pytest.mark.parametrize(("a", "k"), [(0.6, 3), (0.8, 5), (0.3, 8)])
def test_drawn_tokens_have_that_mean_and_distribution(a: float, k: int) -> None:
    acceptance = Acceptance.of([a] * k, seed=3)
    drawn = [acceptance.accepted(request, token) for request in range(200) for token in range(200)]
    assert 1 + sum(drawn) / len(drawn) == pytest.approx(acceptance.mean_tokens, rel=0.01)
    for j in range(1, k + 1):
        share = sum(n >= j for n in drawn) / len(drawn)
        assert share == pytest.approx(a**j, abs=0.01)


def test_positions_have_chances_of_their_own() -> None:
    assert Acceptance.of([1.0, 0.0, 1.0]).accepted(5, 7) == 1
    assert Acceptance.of([1.0, 1.0]).accepted(5, 7) == 2
    assert Acceptance.of([0.0]).accepted(5, 7) == 0


def run(load: list[Request], chances: list[float], pages: int = 10_000, **changes: object) -> tuple[float, int, int]:
    how = Scheduling("chunked", most_sequences=8, most_tokens=64, acceptance=Acceptance.of(chances), **changes)  # type: ignore[arg-type]
    plan = FleetPlan(replicas=1, pages=pages, page=4, block=0, routing="round_robin", swap_page_s=0.0, note_every_s=0.0)
    served = serve_requests(load, UnitCost(), how, plan)
    assert all(r.made == r.output for r in served.requests)
    (tally,) = served.tallies
    assert tally.history[-1][1:] == (0, 0, 0)
    return served.end_s, tally.drafted, tally.accepted


def test_a_request_takes_as_many_steps_as_its_mean_says() -> None:
    end, drafted, accepted = run([Request(0, 0.0, 1, 20_001)], [0.7] * 4)
    mean = Acceptance.of([0.7] * 4).mean_tokens
    assert end - 1.0 == pytest.approx(20_000 / mean, rel=0.01)
    assert drafted == 4 * (end - 1.0)
    assert accepted == 20_000 - (end - 1.0)


@given(
    shapes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 30), st.floats(0.0, 9.0)), min_size=1, max_size=15),
    chances=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6),
    pages=st.integers(18, 60),
    preemption=st.sampled_from(["recompute", "swap"]),
)
def test_no_token_and_no_page_is_lost(
    shapes: list[tuple[int, int, float]], chances: list[float], pages: int, preemption: str
) -> None:
    times = sorted(t for *_, t in shapes)
    load = [Request(i, t, p, o) for i, ((p, o, _), t) in enumerate(zip(shapes, times, strict=True))]
    run(load, chances, pages, preemption=preemption)


DRAFT = "workload.serving.speculative={method: draft_model, model: llama3_8b, tokens: 4, acceptance: 0.8}"


def served(*sets: str, rate: float = 0.02, requests: int = 6) -> effsim.ServeResult:
    load = [f"workload.serving.arrivals={{rate: {rate}, requests: {requests}}}", "workload.parallelism={tensor: 4}"]
    sizes = ["workload.prompt=256", "workload.generate=128"]
    return effsim.serve("system_dgx_h100", "llama3_70b_generate", set=[*load, *sizes, *sets])


def test_drafts_pay_for_one_sequence_and_not_for_a_full_batch() -> None:
    alone, drafted = served(), served(DRAFT)
    assert alone.tpot_s is not None
    assert drafted.tpot_s is not None
    assert drafted.tpot_s["mean"] < 0.75 * alone.tpot_s["mean"]
    assert drafted.cache_tokens < alone.cache_tokens  # the draft model's weights and cache take their part
    assert any("drafted tokens were accepted" in note for note in drafted.notes)
    full, poor = "workload.serving.scheduler.max_sequences=256", DRAFT.replace("0.8", "0.3")
    busy, crowded = served(full, rate=1e4, requests=256), served(full, poor, rate=1e4, requests=256)
    assert crowded.output_tokens_per_s < busy.output_tokens_per_s


def test_what_is_not_complete_is_refused() -> None:
    base = "workload.serving.speculative="
    for text, why in (
        ("{method: draft_model, tokens: 2, acceptance: 0.5}", "'model' goes with"),
        ("{method: heads, tokens: 2, acceptance: 0.5}", "'draft_time'"),
        ("{method: ngram, tokens: 3, acceptance: [0.5, 0.4]}", "names 2 positions"),
        ("{method: ngram, tokens: 3, acceptance: 1.5}", "acceptance"),
    ):
        with pytest.raises(SpecError, match=why):
            served(base + text)
    with pytest.raises(DoesNotFitError, match="no room"):
        served(base + "{method: draft_model, model: llama3_405b, tokens: 2, acceptance: 0.5}")


def test_heads_cost_what_is_stated() -> None:
    def tpot(draft_time: str) -> float:
        found = served(
            f"workload.serving.speculative={{method: heads, tokens: 2, acceptance: 1.0, draft_time: {draft_time}}}"
        )
        assert found.tpot_s is not None
        return found.tpot_s["mean"]

    # Every step makes three tokens and drafts two.
    assert tpot("3 ms") - tpot("1.5 ms") == pytest.approx(2 * 1.5e-3 / 3, rel=0.02)
