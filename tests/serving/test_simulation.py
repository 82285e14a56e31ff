"""The request-level simulation against hand-made step costs: what must hold whatever the times are."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effsim.errors import SpecError
from effsim.serving.fleet import FleetPlan, Served, serve_requests
from effsim.serving.metrics import latencies, percentiles, weighted_percentiles
from effsim.serving.request import Request
from effsim.serving.routing import Router
from effsim.serving.scheduling import POLICIES, Scheduling


class UnitCost:
    """Every step takes a second, and a thousandth for each prompt token."""

    def generate_s(self, sequences: int, context: float) -> float:
        return 1.0

    def mixed_s(self, sequences: int, context: float, chunks: Sequence[tuple[int, int]], finished: int) -> float:
        return 1.0 + 1e-3 * sum(q for q, _ in chunks)


def run(requests: list[Request], how: Scheduling, pages: int = 1000, replicas: int = 1, **changes: object) -> Served:
    settings: dict[str, object] = {
        "page": 4,
        "block": 0,
        "routing": "least_loaded",
        "swap_page_s": 0.0,
        "note_every_s": 0.0,
    }
    plan = FleetPlan(replicas=replicas, pages=pages, **{**settings, **changes})  # type: ignore[arg-type]
    return serve_requests(requests, UnitCost(), how, plan)  # type: ignore[arg-type]


def same(times: float, prompt: int, output: int, count: int, gap: float = 0.0) -> list[Request]:
    return [Request(i, times + gap * i, prompt, output) for i in range(count)]


def test_one_request_by_hand() -> None:
    (done,) = run(same(5.0, 100, 4, 1), Scheduling("chunked", most_tokens=64)).requests
    # Two chunks of 64 and 36 tokens, then three more tokens of a second each.
    assert done.ttft_s == pytest.approx(1.064 + 1.036)
    assert done.e2e_s == pytest.approx(2.1 + 3.0)
    assert done.tpot_s == pytest.approx(1.0)


def test_a_prompt_joins_those_that_generate_or_stops_them() -> None:
    def gap(policy: str) -> float:
        first = Request(0, 0.0, 10, 5)
        second = Request(1, 1.5, 1000, 1)
        run([first, second], Scheduling(policy, most_tokens=4096))
        return first.e2e_s

    # 1.01 s of prompt, four tokens; the other prompt takes part in one of these steps, or has a step of its own.
    assert gap("continuous") == pytest.approx(1.01 + 4.0 + 1.0)
    assert gap("prefill_first") == pytest.approx(1.01 + 4.0 + 2.0)


def test_static_batches_wait_for_their_longest() -> None:
    early, long, late = Request(0, 0.0, 10, 2), Request(1, 0.0, 10, 50), Request(2, 1.0, 10, 2)
    run([early, long, late], Scheduling("static"))
    assert early.finish_s is not None
    assert long.finish_s is not None
    assert late.admitted_s is not None
    assert early.finish_s < late.admitted_s
    assert late.admitted_s >= long.finish_s


def test_decode_first_keeps_steps_within_the_target() -> None:
    first, second = Request(0, 0.0, 10, 100), Request(1, 2.0, 400, 1)
    served = run([first, second], Scheduling("decode_first", most_tokens=4096, step_target_s=1.05))
    assert max(served.tallies[0].gaps) <= 1.05e6
    assert second.ttft_s > 7.0  # eight pieces of at most 50 tokens


def test_priority_goes_first() -> None:
    load = [Request(i, 0.1 * i, 10, 5) for i in range(4)]  # the first is alone when it arrives
    load[3].priority = -1
    run(load, Scheduling("continuous", order="priority", most_sequences=1))
    assert [r.index for r in sorted(load, key=lambda r: r.finish_s or 0.0)] == [0, 3, 1, 2]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("preemption", ["recompute", "swap"])
@given(
    shapes=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 30), st.floats(0.0, 9.0)), min_size=1, max_size=25),
    pages=st.integers(4, 60),
    replicas=st.integers(1, 3),
    prefix=st.booleans(),
)
def test_no_request_and_no_page_is_lost(
    policy: str, preemption: str, shapes: list[tuple[int, int, float]], pages: int, replicas: int, prefix: bool
) -> None:
    times = sorted(t for *_, t in shapes)
    load = [
        Request(i, t, p, o, blocks=tuple(range(p // 8)) if prefix else ())
        for i, ((p, o, _), t) in enumerate(zip(shapes, times, strict=True))
    ]
    how = Scheduling(policy, most_sequences=6, most_tokens=32, preemption=preemption)
    served = run(load, how, pages, replicas, block=8 if prefix else 0)
    assert sorted(r.index for r in served.requests + served.refused) == list(range(len(load)))
    for request in served.requests:
        assert request.made == request.output
        assert request.first_token_s is not None
        assert request.finish_s is not None
        assert request.arrival_s <= request.first_token_s <= request.finish_s
        assert request.cached < request.prompt
    for request in served.refused:
        assert -(-(request.prompt + request.output) // 4) > pages
    made = sum(sum(t.gaps.values()) for t in served.tallies)
    assert made == sum(r.output - 1 for r in served.requests)  # all but the first, whatever was computed again
    if all(t.history for t in served.tallies):
        assert all(t.history[-1][1:] == (0, 0, 0) for t in served.tallies)


@given(st.integers(1, 4), st.integers(0, 2**20))
def test_the_same_load_twice_gives_the_same(replicas: int, salt: int) -> None:
    def once() -> list[float | None]:
        load = [Request(i, (i * 7919 + salt) % 50 / 10.0, 5 + i % 7, 3 + i % 5) for i in range(30)]
        load.sort(key=lambda r: r.arrival_s)
        return [r.finish_s for r in run(load, Scheduling(), 40, replicas).requests]

    assert once() == once()


@pytest.mark.parametrize("routing", ["round_robin", "least_loaded", "prefix_affinity"])
def test_more_replicas_are_never_worse(routing: str) -> None:
    def mean(replicas: int) -> float:
        load = [Request(i, 0.3 * i, 20, 20, blocks=(i % 5,)) for i in range(200)]
        served = run(load, Scheduling(most_sequences=8), 4000, replicas, routing=routing, block=4)
        return sum(r.e2e_s for r in served.requests) / len(served.requests)

    found = [mean(n) for n in (1, 2, 4, 8)]
    assert found == sorted(found, reverse=True)


def test_shared_prefixes_are_computed_once_and_affinity_finds_them() -> None:
    def cached(routing: str) -> int:
        load = [Request(i, 2.0 * i, 40, 2, blocks=tuple(100 * (i % 4) + b for b in range(5))) for i in range(80)]
        served = run(load, Scheduling(), 4000, 4, routing=routing, block=8)
        return sum(r.cached for r in served.requests)

    # All five blocks are known from the second request of each prefix on; the last token's block is computed again.
    assert cached("prefix_affinity") == 76 * 32
    assert cached("round_robin") <= cached("prefix_affinity")


def test_the_least_recently_used_prefix_is_evicted() -> None:
    blocks = [(1, 2), (11, 12), (1, 2), (21, 22), (1, 2)]
    load = [Request(i, 10.0 * i, 17, 1, blocks=b) for i, b in enumerate(blocks)]
    served = run(load, Scheduling(), pages=10, block=8)
    # Ten pages hold two prompts of five; the first prefix is used again and again, so the others go.
    assert [r.cached for r in served.requests] == [0, 0, 16, 0, 16]
    assert served.evicted_blocks > 0


def test_unknown_routing_is_refused() -> None:
    with pytest.raises(SpecError, match="expected one of round_robin"):
        Router("nearest")


def test_percentiles_by_hand() -> None:
    assert percentiles([]) is None
    found = percentiles([float(i) for i in range(1, 101)])
    assert found is not None
    assert (found["p50"], found["p90"], found["p99"], found["max"]) == (50.0, 90.0, 99.0, 100.0)
    weighted = weighted_percentiles({1_000_000: 90, 2_000_000: 10})
    assert weighted is not None
    assert (weighted["p50"], weighted["p90"], weighted["p95"]) == (1.0, 1.0, 2.0)
    assert weighted["mean"] == pytest.approx(1.1)
    assert weighted_percentiles({}) is None


@pytest.mark.parametrize("note_every_s", [0.0, 1e9])
def test_the_fullest_cache_is_known_however_few_notes_are_kept(note_every_s: float) -> None:
    load = [*same(0.0, 10, 5, 3), *same(50.0, 10, 5, 1)]
    served = run(load, Scheduling(), note_every_s=note_every_s)
    # 14 tokens, all but the newest, are four pages of each of the three that come together.
    assert served.tallies[0].most_pages == 12
    assert served.tallies[0].most_pages >= max(used for *_, used in served.tallies[0].history)


def test_goodput_counts_requests_that_kept_both_promises() -> None:
    served = run(same(0.0, 10, 3, 4, gap=100.0), Scheduling())
    assert latencies(served, 10.0, 10.0)["slo_attainment"] == 1.0
    assert latencies(served, 0.5, 10.0)["slo_attainment"] == 0.0
    assert latencies(served, 10.0, 0.5)["goodput_requests_per_s"] == 0.0


def test_a_scheduler_that_plans_ahead_makes_newcomers_wait_a_step() -> None:
    """Steps of a second begin at whole seconds; who arrives in the middle of one joins the next, or the one after."""

    def ttft(ahead: bool) -> float:
        first, second = Request(0, 0.0, 1, 20), Request(1, 5.5, 1, 3)
        how = Scheduling("chunked", plans_ahead=ahead, on_the_way_s=0.25)
        run([first, second], how)
        return second.ttft_s

    assert ttft(False) == pytest.approx(0.5 + 1.0 + 0.25, abs=0.01)
    assert ttft(True) == pytest.approx(0.5 + 1.0 + 1.0 + 0.25, abs=0.01)


def test_an_idle_scheduler_has_nothing_planned() -> None:
    (done,) = run([Request(0, 3.3, 1, 1)], Scheduling("chunked", plans_ahead=True)).requests
    assert done.ttft_s == pytest.approx(1.001)
