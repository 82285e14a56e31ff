"""Prefix cache and tiers: least recently used first, prefixes whole, nothing lost that is not counted."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

import effsim
from effsim.serving.fleet import FleetPlan, Served, serve_requests
from effsim.serving.kv_pool import KvPool
from effsim.serving.request import Request
from effsim.serving.scheduling import POLICIES, Scheduling
from effsim.serving.tiers import TierPlan, Tiers

PARENTS = {0: None, 1: 0, 2: 1, 3: 1, 4: 0, 5: 4, 6: None, 7: 6, 8: 7, 9: 8}
"""A forest of blocks: what each stands behind."""


def chain(leaf: int) -> tuple[int, ...]:
    """A block and everything before it, first to last."""
    parent = PARENTS[leaf]
    return (leaf,) if parent is None else (*chain(parent), leaf)


@given(
    steps=st.lists(st.tuples(st.sampled_from(sorted(PARENTS)), st.booleans()), max_size=60),
    pages=st.integers(4, 12),
    tiers=st.lists(st.integers(0, 4), max_size=2),
)
def test_the_prefix_cache_is_a_tree_that_loses_its_oldest_leaves(
    steps: list[tuple[int, bool]], pages: int, tiers: list[int]
) -> None:
    """Users come and go with chains of blocks; a list of uses says which block must be the next to go."""
    pool = KvPool(pages, page=4, block=4)
    pool.tiers = Tiers([TierPlan(str(i), n, 1.0, 0.0) for i, n in enumerate(tiers)]) if tiers else None
    users: list[tuple[int, ...]] = []
    last_use: dict[int, int] = {}
    for time, (leaf, leaves) in enumerate(steps):
        if leaves and users:
            names = users.pop(0)
            pool.drop(names)
            last_use |= dict.fromkeys(names, time)
            continue
        names = chain(leaf)
        found = pool.match(names)
        before = {name for name in PARENTS if pool.match((name,))}
        assert set(names[:found]) <= before
        assert found == len(names) or names[found] not in before
        pool.hold(names[:found])
        if not pool.take(len(names) - found):
            pool.drop(names[:found])
            last_use |= dict.fromkeys(names[:found], time)
            continue
        gone = before - {name for name in PARENTS if pool.match((name,))}
        in_use = {name for user in (*users, names[:found]) for name in user}
        kept = before - gone - in_use
        assert not gone & in_use
        assert all(last_use[g] <= last_use[k] for g in gone for k in kept)
        pool.publish(names, found)
        users.append(names)
        cached = {name for name in PARENTS if pool.match((name,))}
        assert all(PARENTS[name] is None or PARENTS[name] in cached for name in cached)  # prefixes stay whole
        in_use = {name for user in users for name in user}
        assert pool.used == len(in_use)
        assert pool.free + len(cached) == pages
        assert in_use <= cached
    if pool.tiers is not None:
        assert all(n <= most for n, most in zip(pool.tiers.held(), tiers, strict=True))


@given(
    names=st.lists(st.integers(0, 30), max_size=80),
    sizes=st.lists(st.integers(0, 6), min_size=1, max_size=3),
)
def test_tiers_hold_the_blocks_used_last_in_order(names: list[int], sizes: list[int]) -> None:
    """Without fetches a chain of LRU tiers is one LRU list, cut into pieces."""
    tiers = Tiers([TierPlan(str(i), n, 1.0, 0.0) for i, n in enumerate(sizes)])
    order: list[int] = []
    for name in names:
        tiers.store(name)
        order = [name, *(n for n in order if n != name)][: sum(sizes)]
        start = 0
        for tier, size in enumerate(sizes):
            piece = order[start : start + size]
            assert {n for n in range(31) if tiers.where(n) == tier} == set(piece)
            start += size
    assert sum(tiers.held()) == len(order)


def test_swapped_sequences_take_room_of_blocks() -> None:
    tiers = Tiers([TierPlan("host", 4, 1.0, 0.0), TierPlan("drive", 2, 1.0, 0.0)])
    for name in range(4):
        tiers.store(name)
    assert tiers.pin(3)
    assert not tiers.pin(2)
    assert tiers.held() == [4, 2]  # one block beside three of a sequence; the two used before it on the drive
    assert (tiers.where(3), tiers.where(2), tiers.where(1), tiers.where(0)) == (0, 1, 1, None)
    tiers.unpin(3)
    assert tiers.held() == [1, 2]


class UnitCost:
    """Every step takes a second, and a hundredth for each prompt token."""

    def generate_s(self, sequences: int, context: float) -> float:
        return 1.0

    def mixed_s(self, sequences: int, context: float, chunks: Sequence[tuple[int, int]], finished: int) -> float:
        return 1.0 + 1e-2 * sum(q for q, _ in chunks)


def run(load: list[Request], pages: int, **changes: object) -> Served:
    how = Scheduling("chunked", most_sequences=4, most_tokens=4096, **changes)  # type: ignore[arg-type]
    plan = FleetPlan(replicas=1, pages=pages, page=4, block=4, routing="round_robin", swap_page_s=0.1, note_every_s=0.0)
    return serve_requests(load, UnitCost(), how, plan)


def alternating() -> list[Request]:
    """Two users with prompts of 100 blocks each, three rounds; the device holds one of them."""
    names = [tuple(1000 * user + i for i in range(100)) for user in range(2)]
    return [Request(i, 100.0 * i, 401, 2, blocks=names[i % 2]) for i in range(6)]


HOST = (TierPlan("host", 500, 1e-3, 0.05),)


@pytest.mark.parametrize("blocking", [False, True])
def test_a_prompt_is_fetched_instead_of_computed(blocking: bool) -> None:
    cold = run(alternating(), 101).requests
    warm = run(alternating(), 101, tiers=HOST, blocking_fetch=blocking).requests
    assert [r.cached for r in cold] == [0] * 6
    assert [r.cached for r in warm] == [0, 0, 400, 400, 400, 400]
    assert cold[-1].ttft_s == pytest.approx(1.0 + 4.01)
    # Latency, a hundred blocks, a step of one token.
    assert warm[-1].ttft_s == pytest.approx(0.05 + 0.1 + 1.0 + 0.01)


def test_others_wait_only_for_fetches_that_block() -> None:
    def last_token(blocking: bool) -> tuple[float, int]:
        load = [*alternating()[:2], Request(2, 200.0, 1, 30), Request(3, 210.5, 401, 2, blocks=alternating()[0].blocks)]
        slow = (TierPlan("drive", 500, 0.05, 0.0),)
        served = run(load, 150, tiers=slow, blocking_fetch=blocking)
        found = served.requests[2].finish_s
        assert found is not None
        return found, served.tallies[0].fetched_tokens // 4

    (late, blocks), (early, others) = last_token(True), last_token(False)
    assert blocks == others > 50
    assert late - early == pytest.approx(0.05 * blocks, abs=0.02)


def test_the_drive_keeps_what_the_host_has_no_room_for() -> None:
    tiers = (TierPlan("host", 50, 1e-3, 0.0), TierPlan("drive", 500, 1e-2, 0.2))
    done = run(alternating(), 101, tiers=tiers).requests[-1]
    assert done.cached == 400
    assert done.ttft_s > 0.2 + 0.5 + 1.0


@pytest.mark.parametrize("policy", POLICIES)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 30), st.floats(0.0, 9.0)), min_size=1, max_size=20),
    pages=st.integers(8, 60),
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=2),
    preemption=st.sampled_from(["recompute", "swap"]),
    blocking=st.booleans(),
    ahead=st.booleans(),
)
def test_no_request_and_no_page_is_lost_with_tiers(
    policy: str,
    shapes: list[tuple[int, int, float]],
    pages: int,
    sizes: list[int],
    preemption: str,
    blocking: bool,
    ahead: bool,
) -> None:
    times = sorted(t for *_, t in shapes)
    load = [
        Request(i, t, p, o, blocks=tuple(100 * (i % 3) + b for b in range(p // 4)))
        for i, ((p, o, _), t) in enumerate(zip(shapes, times, strict=True))
    ]
    tiers = tuple(TierPlan(str(i), n, 0.1, 0.5) for i, n in enumerate(sizes))
    how = Scheduling(
        policy,
        most_sequences=6,
        most_tokens=32,
        preemption=preemption,
        tiers=tiers,
        blocking_fetch=blocking,
        plans_ahead=ahead,
    )
    plan = FleetPlan(1, pages, 4, 4, "round_robin", 0.1, 0.0)
    served = serve_requests(load, UnitCost(), how, plan)
    assert sorted(r.index for r in served.requests + served.refused) == list(range(len(load)))
    assert all(r.made == r.output and r.cached < r.prompt for r in served.requests)
    (tally,) = served.tallies
    if tally.history:
        assert tally.history[-1][1:] == (0, 0, 0)


def test_tiers_of_a_real_model() -> None:
    """Twenty users with long prompts, more than the device has room for: host memory spares most of them."""
    load = (
        "workload.serving={arrivals: {rate: 4, requests: 120}, prefix: {tokens: 8192, groups: 20}, prompt: {mean: 64}"
    )
    tier = "{name: host memory, capacity: 256 GiB, bandwidth: 50 GB/s, latency: 20 us}"

    def found(cache: str) -> effsim.ServeResult:
        sets = [f"{load}, output: {{mean: 32}}, cache: {cache}}}", "workload.parallelism={tensor: 1}"]
        return effsim.serve("gpu_h100", "llama3_8b_generate", set=sets)

    without = found("{memory_fraction: 0.3}")
    behind = found(f"{{memory_fraction: 0.3, offload: [{tier}]}}")
    assert without.ttft_s is not None
    assert behind.ttft_s is not None
    assert behind.ttft_s["p50"] < 0.5 * without.ttft_s["p50"]
    assert behind.cached_tokens > 1.5 * without.cached_tokens
    assert any("fetched from host memory" in note for note in behind.notes)


@pytest.mark.parametrize("policy", ["continuous", "chunked", "prefill_first", "decode_first", "static"])
@pytest.mark.parametrize("workload", ["mamba_2_8b_decode", "jamba_generate"])
def test_states_are_served_by_every_policy(workload: str, policy: str) -> None:
    """Recurrent layers hold a state a sequence, which no other prompt can share."""
    load = "workload.serving={arrivals: {rate: 20, requests: 40}, prefix: {tokens: 512, groups: 1}, "
    load += f"prompt: {{mean: 64}}, output: {{mean: 16}}, scheduler: {{policy: {policy}}}}}"
    found = effsim.serve("system_dgx_h100", workload, set=[load, "workload.parallelism={tensor: 8}"])
    assert (found.completed, found.cached_tokens) == (40, 0)
