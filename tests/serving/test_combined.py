"""Everything a fleet can do at once: no request, page or token is lost, and the same seed gives the same run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import simpy
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from effsim.serving.autoscaling import ScalingPlan
from effsim.serving.disaggregated import DecodePool
from effsim.serving.failures import FailurePlan, Outage
from effsim.serving.fleet import Fleet, FleetPlan, Served, serve_requests
from effsim.serving.replica_pool import State
from effsim.serving.request import Request
from effsim.serving.scheduling import POLICIES, Scheduling
from effsim.serving.speculation import Acceptance
from effsim.serving.tiers import TierPlan


class SlopedCost:
    """Steps grow with the sequences and their context, as real ones do."""

    def generate_s(self, sequences: int, context: float) -> float:
        return 0.05 + 0.01 * sequences + 1e-4 * sequences * context

    def mixed_s(self, sequences: int, context: float, chunks: Sequence[tuple[int, int]], finished: int) -> float:
        return self.generate_s(sequences, context) + 1e-2 * sum(q for q, _ in chunks)


@dataclass(frozen=True)
class Setting:
    """A fleet and its load: (prompt, output, arrival, which prefix) of every request."""

    shapes: tuple[tuple[int, int, float, int], ...]
    how: Scheduling
    plan: FleetPlan
    seed: int


BLOCK = 8


@st.composite
def schedulings(draw: st.DrawFn, policy: str, on_the_way_s: float) -> Scheduling:
    """Any way of scheduling with a policy."""
    sizes = draw(st.lists(st.integers(0, 12), max_size=2))
    chances = draw(st.none() | st.lists(st.sampled_from([0.0, 0.4, 0.9, 1.0]), min_size=1, max_size=4))
    return Scheduling(
        policy,
        draw(st.sampled_from(["fcfs", "priority"])),
        most_sequences=draw(st.integers(1, 6)),
        most_tokens=draw(st.sampled_from([8, 32])),
        preemption=draw(st.sampled_from(["recompute", "swap"])),
        acceptance=None if chances is None else Acceptance.of(chances, seed=draw(st.integers(0, 3))),
        tiers=tuple(TierPlan(str(i), n, 0.1, draw(st.sampled_from([0.0, 0.5, 4.0]))) for i, n in enumerate(sizes)),
        blocking_fetch=draw(st.booleans()),
        state_swap_s=draw(st.sampled_from([0.0, 0.3])),
        plans_ahead=draw(st.booleans()),
        on_the_way_s=on_the_way_s,
    )


@st.composite
def cases(draw: st.DrawFn, policy: str) -> Setting:
    """Any fleet."""
    replicas, way = draw(st.integers(1, 2)), draw(st.sampled_from([0.0, 0.02]))
    split = draw(st.booleans())
    decode = None
    if split:
        decode = DecodePool(
            replicas=draw(st.integers(1, 2)),
            pages=draw(st.integers(10, 40)),
            swap_page_s=0.05,
            cost=SlopedCost(),
            scheduling=draw(schedulings(draw(st.sampled_from(POLICIES)), way)),
            token_bytes=1.0,
            sequence_bytes=0.0,
            out_bytes_per_s=draw(st.sampled_from([2.0, 1e9])),
            in_bytes_per_s=100.0,
            latency_s=0.25,
            layers=draw(st.sampled_from([0, 8])),
            stateful=draw(st.booleans()),
        )
    last = replicas + (decode.replicas if decode is not None else 0) - 1
    outages = st.builds(Outage, st.integers(0, last), st.floats(0, 60), st.floats(0.1, 30))
    failures = st.none() | st.builds(
        FailurePlan,
        mtbf_s=st.sampled_from([None, 40.0, 200.0]),
        mttr_s=st.sampled_from([1.0, 20.0]),
        outages=st.lists(outages, max_size=4).map(tuple),
        detection_s=st.sampled_from([0.0, 3.0]),
        resume=st.booleans(),
    )
    scaling = st.none() | st.builds(
        ScalingPlan,
        least=st.just(1),
        most=st.integers(2, 4),
        signal=st.sampled_from(["in_flight", "queue", "utilisation"]),
        out_above=st.sampled_from([0.5, 3.0]),
        in_below=st.sampled_from([0.1, 0.4]),
        step=st.integers(1, 2),
        interval_s=st.sampled_from([0.7, 5.0]),
        cooldown_s=st.sampled_from([0.0, 8.0]),
        start_s=st.sampled_from([0.0, 6.0]),
    )
    plan = FleetPlan(
        replicas=replicas,
        pages=draw(st.integers(8, 60)),
        page=4,
        block=draw(st.sampled_from([0, BLOCK])),
        routing=draw(st.sampled_from(["round_robin", "least_loaded", "prefix_affinity"])),
        swap_page_s=0.05,
        note_every_s=0.0,
        decode=decode,
        failures=draw(failures),
        scaling=draw(scaling),
        record=True,
    )
    shape = st.tuples(st.integers(1, 60), st.integers(1, 30), st.floats(0.0, 60.0), st.integers(0, 2))
    shapes = draw(st.lists(shape, min_size=1, max_size=25))
    return Setting(tuple(shapes), draw(schedulings(policy, way)), plan, draw(st.integers(0, 9)))


def run(setting: Setting) -> tuple[Served, Fleet]:
    times = sorted(t for _, _, t, _ in setting.shapes)
    load = [
        Request(i, t, p, o, i % 3, blocks=tuple(100 * group + b for b in range(p // BLOCK)))
        for i, ((p, o, _, group), t) in enumerate(zip(setting.shapes, times, strict=True))
    ]
    env = simpy.Environment()
    fleet = Fleet(env, SlopedCost(), setting.how, setting.plan, setting.seed)
    env.process(fleet.drive(load))
    env.run(until=fleet.done)
    return fleet.served(), fleet


def check_requests(setting: Setting, served: Served) -> None:
    """Every request ends once, with all its tokens."""
    assert sorted(r.index for r in served.requests + served.refused) == list(range(len(setting.shapes)))
    for r in served.requests:
        assert (r.prompt, r.made) == (setting.shapes[r.index][0], r.output)
        assert r.first_token_s is not None
        assert r.finish_s is not None
        assert r.admitted_s is not None
        times = [r.arrival_s, r.admitted_s, r.first_token_s, r.finish_s]
        assert all(a <= b + 1e-9 for a, b in pairwise(times))
        assert 0 <= r.cached < r.prompt
    for r in served.refused:
        assert (r.made, r.first_token_s, r.finish_s) == (0, None, None)


def check_pages(fleet: Fleet) -> None:
    """Where a replica lives, nothing is held at the end, and nothing waits or travels between them.

    One that has failed keeps what it lost until its place is used again or given back.
    """
    transfers = fleet.transfers
    assert transfers is None or not (transfers._moves or transfers._queue or transfers._busy)
    for pool in fleet.pools:
        assert not pool.backlog
        for member in pool.members:
            assert not member.limbo
            replica = member.replica
            if replica is None or member.state is State.FAILED:
                continue
            assert replica.empty
            assert replica.pool.used == 0
            assert replica.pool.free + len(replica.pool._idle) * replica.pool._pages_a_block == replica.pool.pages
            assert not replica._holdings._held
            assert not replica._holdings._swapped
            tiers = replica.pool.tiers
            if tiers is not None:
                assert tiers._pinned == 0
                assert all(n <= plan.blocks for n, plan in zip(tiers.held(), tiers.plans, strict=True))


def check_tokens(setting: Setting, served: Served) -> None:
    """What replicas counted is what requests have."""
    failures, tallies = setting.plan.failures, served.tallies
    made, outputs = sum(t.tokens for t in tallies), sum(r.output for r in served.requests)
    kept = failures is None or failures.resume
    assert made == outputs if kept else made >= outputs
    assert all(0 <= t.accepted <= t.drafted for t in tallies)
    if failures is None:
        assert all(t.history[-1][1:] == (0, 0, 0) for t in tallies if t.history)
        assert (served.failures, served.retries, served.lost_tokens) == (0, 0, 0)
        computed = sum(t.prompt_tokens - t.recomputed_tokens for t in tallies)
        assert computed == sum(r.prompt - r.cached for r in served.requests)
        assert sum(r.preemptions for r in served.requests) == sum(t.preemptions for t in tallies)
    if kept:  # every token but the first came some time after the one before, and these times are all there is
        gaps = [(gap, n) for t in tallies for gap, n in t.gaps.items()]
        assert all(gap >= 0 and n >= 0 for gap, n in gaps)
        assert sum(n for _, n in gaps) == sum(r.output - 1 for r in served.requests)
        spent = sum((r.finish_s or 0.0) - (r.first_token_s or 0.0) for r in served.requests)
        assert sum(1e-6 * gap * n for gap, n in gaps) == pytest.approx(spent, abs=1e-6 * outputs)


def check_time(served: Served) -> None:
    """Replicas work while they are paid for, and their logs say all that they did."""
    assert served.retries == sum(r.retries for r in served.requests)
    for pool in served.pools:
        assert sum(t.busy_s for t in pool.tallies) <= pool.paid_s + 1e-6
        for tally, log in zip(pool.tallies, pool.logs, strict=True):
            assert log is not None
            assert sum(s.steps for s in log.spans) == tally.steps
            assert sum(s.tokens for s in log.spans) == tally.tokens
            assert tally.busy_s <= served.end_s + 1e-6
            times = [t for t, *_ in tally.history]
            assert times == sorted(times)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=35, phases=[Phase.generate], deadline=None)
@given(data=st.data())
def test_nothing_is_lost_whatever_is_combined(policy: str, data: st.DataObject) -> None:
    setting = data.draw(cases(policy))
    served, fleet = run(setting)
    check_requests(setting, served)
    check_pages(fleet)
    check_tokens(setting, served)
    check_time(served)
    again, _ = run(setting)
    assert [r.finish_s for r in again.requests] == [r.finish_s for r in served.requests]
    assert [t.history for t in again.tallies] == [t.history for t in served.tallies]


class UnitCost:
    """Every step takes a second."""

    def generate_s(self, sequences: int, context: float) -> float:
        return 1.0

    def mixed_s(self, sequences: int, context: float, chunks: Sequence[tuple[int, int]], finished: int) -> float:
        return 1.0


PLAN = FleetPlan(1, 100, 4, 0, "round_robin", 0.0, 0.0)


def test_tokens_that_wait_for_a_prompt_read_alone_come_late() -> None:
    """Prompts first: the second prompt is read from 2 s to 3 s, between two tokens of the first request."""
    load = [Request(0, 0.0, 4, 4), Request(1, 1.5, 4, 2)]
    served = serve_requests(load, UnitCost(), Scheduling("prefill_first"), PLAN)
    assert [(r.first_token_s, r.finish_s) for r in served.requests] == [(1.0, 5.0), (3.0, 4.0)]
    assert served.tallies[0].gaps == {1_000_000: 3, 2_000_000: 1}


def test_a_sequence_sent_away_makes_its_next_token_late() -> None:
    """Four pages hold one of two requests to its end: the younger one's cache is computed again after 4 s."""
    load = [Request(0, 0.0, 7, 4), Request(1, 0.0, 7, 4)]
    served = serve_requests(load, UnitCost(), Scheduling("chunked"), replace(PLAN, pages=4))
    first, second = served.requests
    assert (first.finish_s, first.preemptions, second.preemptions) == (4.0, 0, 1)
    gaps = served.tallies[0].gaps
    assert sum(1e-6 * gap * n for gap, n in gaps.items()) == pytest.approx(
        sum((r.finish_s or 0.0) - (r.first_token_s or 0.0) for r in served.requests)
    )
    assert max(gaps) > 1_000_000


def test_a_swapped_sequence_returns_only_when_its_next_step_has_room() -> None:
    """Its pages fit beside a prompt that is fetched, but not the page it opens: it must not come and go for ever."""
    names = tuple(range(6))
    load = [
        Request(0, 0.0, 24, 1, blocks=names),  # leaves six blocks, which the next one drives into the tier
        Request(1, 10.0, 30, 1, blocks=tuple(range(10, 17))),
        Request(2, 20.0, 4, 12),
        Request(3, 22.5, 24, 1, blocks=names),
    ]
    how = Scheduling("chunked", preemption="swap", tiers=(TierPlan("drive", 50, 1.0, 5.0),))
    served = serve_requests(load, UnitCost(), how, replace(PLAN, pages=8, block=4))
    assert len(served.requests) == 4
    assert served.requests[2].preemptions == 1
    assert served.tallies[0].fetched_tokens > 0


def test_a_draining_replica_keeps_its_devices_while_prompts_end_together() -> None:
    """Of two prompts that end in one step one has more to say: the replica is not given back between them."""
    env = simpy.Environment()
    load = [Request(0, 0.0, 4, 9), Request(1, 0.0, 4, 1), Request(2, 0.0, 4, 9), Request(3, 0.0, 4, 9)]
    fleet = Fleet(env, UnitCost(), Scheduling("chunked"), replace(PLAN, replicas=2), 0)
    env.process(fleet.drive(load))
    env.run(until=0.5)
    fleet.entry.drain()
    env.run(until=fleet.done)
    served = fleet.served()
    assert [t.busy_s for t in served.tallies] == [9.0, 9.0]
    assert served.pools[0].paid_s >= 18.0
