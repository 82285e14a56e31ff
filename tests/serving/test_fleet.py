"""Fleets that fail, grow and divide the work: no request is lost, and what happens when can be checked by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import simpy

from effsim.errors import UnsupportedError
from effsim.serving.autoscaling import ScalingPlan
from effsim.serving.disaggregated import DecodePool
from effsim.serving.failures import FailurePlan, Outage
from effsim.serving.fleet import Fleet, FleetPlan, Served, serve_requests
from effsim.serving.moves import Block
from effsim.serving.replica_pool import State
from effsim.serving.request import Request
from effsim.serving.scheduling import Scheduling
from effsim.serving.step_log import StepLog


class UnitCost:
    """Every step takes a second, and a thousandth for each prompt token."""

    def generate_s(self, sequences: int, context: float) -> float:
        return 1.0

    def mixed_s(self, sequences: int, context: float, chunks: Sequence[tuple[int, int]], finished: int) -> float:
        return 1.0 + 1e-3 * sum(q for q, _ in chunks)


class SlopedCost(UnitCost):
    """Steps grow with the sequences and their context, as real ones do."""

    def generate_s(self, sequences: int, context: float) -> float:
        return 0.05 + 0.01 * sequences + 1e-4 * sequences * context


PLAN = FleetPlan(replicas=1, pages=1000, page=4, block=0, routing="least_loaded", swap_page_s=0.0, note_every_s=0.0)
COST: Any = UnitCost()
HOW = Scheduling("chunked", most_tokens=4096)
DECODE = DecodePool(
    replicas=1,
    pages=1000,
    swap_page_s=0.0,
    cost=COST,
    scheduling=HOW,
    token_bytes=1.0,
    sequence_bytes=0.0,
    out_bytes_per_s=100.0,
    in_bytes_per_s=100.0,
    latency_s=0.25,
)


def run(load: list[Request], how: Scheduling = HOW, seed: int = 0, cost: Any = COST, **changes: Any) -> Served:
    return serve_requests(load, cost, how, replace(PLAN, **changes), seed=seed)


def test_a_block_knows_its_steps() -> None:
    block = Block(10.0, 8, lambda n: 0.5 * n)
    assert [block.steps_by(t) for t in (10.0, 10.3, 10.5, 10.6, 13.9, 14.0, 99.0)] == [1, 1, 1, 2, 8, 8, 8]
    assert [block.steps_by(t, whole=True) for t in (10.0, 10.3, 10.5, 10.6, 14.0)] == [0, 0, 1, 1, 8]


# --- disaggregation


def test_a_cache_travels_before_the_second_token() -> None:
    (done,) = run([Request(0, 0.0, 100, 4)], decode=DECODE).requests
    # The prompt takes 1.1 s and gives the first token; 100 tokens of a byte travel 1 s and 0.25 s; three more steps.
    assert done.ttft_s == pytest.approx(1.1)
    assert done.moved_s == pytest.approx(1.1 + 1.0 + 0.25)
    assert done.e2e_s == pytest.approx(2.35 + 3.0)
    assert done.tpot_s == pytest.approx((1.25 + 3.0) / 3)


def test_gaps_between_tokens_count_the_transfer() -> None:
    served = run([Request(0, 0.0, 100, 4)], decode=DECODE)
    gaps = {gap: n for tally in served.tallies for gap, n in tally.gaps.items()}
    assert gaps == {1_000_000: 2, 2_250_000: 1}


def test_transfers_queue_at_the_link() -> None:
    load = [Request(i, 0.0, 100, 2) for i in range(3)]
    served = run(load, Scheduling("chunked", most_tokens=300), decode=DECODE)
    # One step reads all three prompts in 1.3 s; then their caches travel one after another.
    assert [r.moved_s for r in served.requests] == pytest.approx([1.3 + 1.25, 1.3 + 2.25, 1.3 + 3.25])
    assert served.transfers is not None
    assert served.transfers.used_s == pytest.approx(3.0)
    assert served.transfers.bytes_moved == 300.0


def test_a_cache_that_travels_while_it_is_made_leaves_only_the_last_layer() -> None:
    (done,) = run([Request(0, 0.0, 100, 2)], decode=replace(DECODE, layers=10)).requests
    assert done.moved_s == pytest.approx(1.1 + 0.1 + 0.25)
    # A link that is slower than the prompt is read has the rest to do: 100 bytes at 50 B/s less 1.1 s.
    slow = replace(DECODE, layers=10, in_bytes_per_s=50.0)
    (late,) = run([Request(0, 0.0, 100, 2)], decode=slow).requests
    assert late.moved_s == pytest.approx(1.1 + 0.9 + 0.25)


def test_a_full_destination_holds_caches_where_they_were_made() -> None:
    load = [Request(0, 0.0, 40, 8), Request(1, 0.0, 40, 8)]
    served = run(load, decode=replace(DECODE, pages=12))
    first, second = served.requests
    # 12 pages hold one request of 48 tokens: the other's cache is fetched when the first has ended.
    assert first.finish_s is not None
    assert second.moved_s is not None
    assert second.moved_s >= first.finish_s
    assert second.ttft_s == first.ttft_s


def test_one_token_needs_no_transfer() -> None:
    served = run([Request(0, 0.0, 100, 1)], decode=DECODE)
    assert served.requests[0].moved_s is None
    assert served.transfers is not None
    assert served.transfers.transfers == 0


# --- failures


@pytest.mark.parametrize(
    ("resume", "end"), [(False, 2.5 + 4.5 + 1.0 + 1.01 + 9.0), (True, 2.5 + 4.5 + 1.0 + 1.015 + 4.0)]
)
def test_a_failed_replica_by_hand(resume: bool, end: float) -> None:
    plan = FailurePlan(outages=(Outage(0, 7.0, 50.0),), detection_s=1.0, resume=resume)
    served = run([Request(0, 2.5 - 1.01, 10, 10)], replicas=2, failures=plan)
    # The first token at 2.5; at 7 four more are made, the fifth is lost under way. A second later the other replica
    # reads the prompt (and, where they are kept, the five tokens), which gives a token, and makes those that remain.
    (done,) = served.requests
    assert done.finish_s == pytest.approx(end)
    assert (done.replica, done.retries, served.failures, served.retries) == (1, 1, 1, 1)
    assert served.lost_tokens == 15
    assert served.tallies[0].busy_s == pytest.approx(1.01 + 4.5)


def test_requests_wait_while_every_replica_is_down() -> None:
    plan = FailurePlan(outages=(Outage(0, 1.0, 20.0), Outage(1, 1.0, 30.0)), detection_s=2.0)
    served = run([Request(0, 5.0, 10, 2)], replicas=2, failures=plan)
    assert served.requests[0].first_token_s == pytest.approx(21.0 + 1.01)


def test_what_is_sent_to_a_replica_before_anybody_notices_is_sent_again() -> None:
    plan = FailurePlan(outages=(Outage(0, 1.0, 100.0),), detection_s=4.0)
    load = [Request(0, 2.0, 10, 2), Request(1, 2.0, 10, 2), Request(2, 6.0, 10, 2)]
    served = run(load, replicas=2, failures=plan)
    # Request 0 waits for the notice at 5; request 2 comes while it is read.
    assert [r.first_token_s for r in served.requests] == pytest.approx([5.0 + 1.01, 3.01, 6.01 + 1.01])
    assert {r.replica for r in served.requests} == {1}


def test_a_cache_on_offer_outlives_the_replica_that_was_to_fetch_it() -> None:
    plan = FailurePlan(outages=(Outage(1, 1.5, 100.0),), detection_s=0.5)
    served = run([Request(0, 0.0, 100, 4)], decode=replace(DECODE, replicas=2), failures=plan)
    (done,) = served.requests
    # Its transfer to replica 1 began at 1.1 and is given up; that is noticed at 2.0, and replica 2 fetches it.
    assert done.moved_s == pytest.approx(2.0 + 1.0 + 0.25)
    assert (done.retries, served.lost_tokens) == (0, 0)
    lost = FailurePlan(outages=(Outage(0, 1.5, 3.0),), detection_s=0.5)
    served = run([Request(0, 0.0, 100, 4)], decode=DECODE, failures=lost)
    assert served.requests[0].first_token_s == pytest.approx(4.5 + 1.1)
    assert served.requests[0].retries == 1


def test_a_fleet_that_cannot_serve_says_so() -> None:
    plan = FailurePlan(mtbf_s=2.0, mttr_s=1.0, detection_s=0.1, most_retries=50)
    with pytest.raises(UnsupportedError, match="faster than they serve"):
        run([Request(0, 0.0, 10, 500)], failures=plan)


def test_a_failed_replica_comes_back_cold() -> None:
    load = [Request(i, 10.0 * i, 17, 1, blocks=(1, 2)) for i in range(4)]
    plan = FailurePlan(outages=(Outage(0, 15.0, 1.0),), detection_s=0.0)
    assert [r.cached for r in run(load, block=8, failures=plan).requests] == [0, 16, 0, 16]


# --- autoscaling


def test_a_fleet_grows_and_shrinks_with_its_load() -> None:
    plan = ScalingPlan(1, 4, out_above=4.0, in_below=1.0, interval_s=1.0, cooldown_s=2.0, start_s=5.0)
    load = [Request(i, 0.2 * i, 10, 20) for i in range(200)] + [Request(200, 300.0, 10, 2)]
    served = run(load, Scheduling(most_sequences=4), scaling=plan)
    (pool,) = served.pools
    most = max(serving for _, serving, *_ in pool.changes)
    assert most == 4
    assert pool.changes[-1][1:] == (1, 0, 0, 0)
    first = next(t for t, _, starting, *_ in pool.changes if starting)
    # Five are in flight after a second (arrivals at 0, 0.2 … 1.0), so the first look adds one; it serves 5 s later.
    assert first == pytest.approx(1.0)
    assert next(t for t, serving, *_ in pool.changes if serving == 2) == pytest.approx(6.0)
    assert 0 < pool.paid_s < 4 * served.end_s
    steps = zip(pool.changes, [*pool.changes[1:], (served.end_s, 0, 0, 0, 0)], strict=True)
    assert pool.paid_s == pytest.approx(sum(sum(a[1:]) * (b[0] - a[0]) for a, b in steps))


@pytest.mark.parametrize("signal", ["in_flight", "queue", "utilisation"])
def test_every_signal_scales(signal: str) -> None:
    high, low = (0.9, 0.2) if signal == "utilisation" else (2.0, 0.5)
    plan = ScalingPlan(1, 3, signal, high, low, interval_s=2.0, cooldown_s=0.0, start_s=1.0)
    load = [Request(i, 0.5 * i, 10, 10) for i in range(100)]
    (pool,) = run(load, Scheduling(most_sequences=2), scaling=plan).pools
    assert pool.outs >= 2


def test_nothing_is_left_of_a_replica_that_failed_while_it_was_draining() -> None:
    """Its place is given back without it: what it lost is served elsewhere, and seems held nowhere."""
    env = simpy.Environment()
    failures = FailurePlan(outages=(Outage(1, 3.0, 2.0),), detection_s=1.0)
    fleet = Fleet(env, COST, HOW, replace(PLAN, replicas=2, failures=failures), 0)
    env.process(fleet.drive([Request(i, 0.0, 10, 9) for i in range(2)]))
    env.run(until=1.5)
    fleet.entry.drain()  # both are as busy: the last one
    place = fleet.member(1)
    env.run(until=4.5)
    assert (place.state, place.limbo) == (State.FAILED, [])
    assert place.replica is not None
    assert not place.replica.empty
    env.run(until=fleet.done)
    assert (place.state, place.replica, fleet.entry.serving()) == (State.STOPPED, None, [fleet.member(0)])
    assert [(r.replica, r.retries) for r in fleet.served().requests] == [(0, 0), (0, 1)]
    assert place.paid_s == pytest.approx(5.0)


def test_a_replica_that_failed_while_it_was_draining_does_not_count_among_the_least() -> None:
    """Three are more than needed: one drains and fails. That the other two are all there is, the scaler knows."""
    plan = ScalingPlan(2, 3, in_below=10.0, interval_s=1.0, cooldown_s=0.0, start_s=1.0)
    failures = FailurePlan(outages=(Outage(2, 1.5, 100.0),), detection_s=0.5)
    served = run([Request(i, 0.0, 10, 20) for i in range(3)], replicas=3, scaling=plan, failures=failures)
    (pool,) = served.pools
    assert pool.ins == 1
    assert pool.changes[-1][1:] == (2, 0, 0, 1)


def test_a_cache_lost_at_both_ends_is_not_counted_where_it_was_awaited() -> None:
    """Replica 1, which was to fetch it, fails, then 0, which had it: the router sees no load of it on replica 1."""
    env = simpy.Environment()
    failures = FailurePlan(outages=(Outage(1, 1.5, 50.0), Outage(0, 1.75, 5.0)), detection_s=4.0)
    plan = replace(PLAN, decode=replace(DECODE, replicas=2), failures=failures)
    fleet = Fleet(env, COST, HOW, plan, 0)
    env.process(fleet.drive([Request(0, 0.0, 100, 4)]))
    awaiting = fleet.member(1)
    env.run(until=1.6)
    assert awaiting.replica is not None
    assert (len(awaiting.limbo), awaiting.replica.load) == (1, 1)
    env.run(until=1.8)
    assert (len(awaiting.limbo), awaiting.replica.load) == (0, 0)
    env.run(until=fleet.done)
    assert fleet.served().requests[0].retries == 1


# --- more replicas, steps that are cut short


def test_more_replicas_serve_more_within_the_promise() -> None:
    """Same load, same policy: attainment grows with the replicas, within the noise of one request in a hundred."""

    def attained(replicas: int, failures: FailurePlan | None) -> float:
        load = [Request(i, 0.15 * i, 20, 20) for i in range(400)]
        served = run(load, Scheduling(most_sequences=16), cost=SlopedCost(), replicas=replicas, failures=failures)
        return sum(r.ttft_s <= 2.0 and (r.tpot_s or 0.0) <= 0.25 for r in served.requests) / len(load)

    for failures in (None, FailurePlan(mtbf_s=60.0, mttr_s=10.0, detection_s=1.0)):
        found = [attained(n, failures) for n in (1, 2, 3, 4, 6, 8)]
        assert all(b >= a - 0.01 for a, b in pairwise(found)), found
        assert found[-1] > found[0]


def test_steps_cut_short_take_the_time_they_take_alone() -> None:
    """Sequences that come while steps are taken together join the next one, and all steps take their own time."""
    decode = replace(DECODE, cost=SlopedCost(), out_bytes_per_s=1e9, in_bytes_per_s=1e9, latency_s=0.0)
    served = run([Request(i, 1.7 * i, 10, 30) for i in range(6)], decode=decode)
    coming = [(r.moved_s or 0.0, r) for r in served.requests]
    now, left, ends = 0.0, dict[int, int](), dict[int, float]()
    while coming or left:
        if not left:
            now = max(now, coming[0][0])
        while coming and coming[0][0] <= now:
            left[coming.pop(0)[1].index] = 29
        now += SlopedCost().generate_s(len(left), sum(10 + 30 - n for n in left.values()) / len(left))
        left = {i: n - 1 for i, n in left.items()}
        ends |= {i: now for i, n in left.items() if not n}
        left = {i: n for i, n in left.items() if n}
    assert [r.finish_s for r in served.requests] == pytest.approx([ends[i] for i in range(6)])
    assert all((b.moved_s or 0.0) < ends[a.index] for a, b in pairwise(served.requests))  # each meets the one before


# --- the log of steps


def test_a_log_stays_bounded_and_loses_nothing() -> None:
    log = StepLog(most=100)
    for i in range(12345):
        log.add(float(i), i + 0.75, 2, 3 * (i % 7 == 0), 5)
    assert len(log.spans) <= 101
    assert sum(s.steps for s in log.spans) == 2 * 12345
    assert sum(s.tokens for s in log.spans) == 5 * 12345
    assert sum(s.busy_s for s in log.spans) == pytest.approx(0.75 * 12345)
    assert all(a.end_s <= b.start_s for a, b in pairwise(log.spans))
