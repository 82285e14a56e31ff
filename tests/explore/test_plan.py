"""Plans: the winner is that of brute force, more load is never cheaper, and no means no."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import effsim
from effsim.errors import SpecError
from effsim.explore.plan.configurations import Load
from effsim.explore.plan.evaluate import BrokenError, Watch
from effsim.explore.plan.explain import Upgrade, _binding
from effsim.explore.plan.pools import packed
from effsim.explore.plan.screen import LoadShape
from effsim.explore.plan.search import FINENESS, fewest, largest_load
from effsim.serving.request import Request
from effsim.spec.catalogue import names
from effsim.spec.plan import PlanSlo
from effsim.spec.serving import ServingSpec

LOAD = (
    "workload.serving={arrivals: {rate: 90, requests: 150}, prompt: {distribution: lognormal, mean: 700, cv: 0.8}, "
    "output: {distribution: lognormal, mean: 60, cv: 0.5}, scheduler: {max_sequences: 32, max_tokens: 1024}}"
)
PRICES = {"gpu_a100": 2.0, "gpu_h100": 4.5}
TTFT, TPOT = 0.25, 0.02


def tiny(**changes: Any) -> dict[str, Any]:
    plan: dict[str, Any] = {
        "kind": "plan",
        "name": "tiny",
        "workload": "llama3_8b_generate",
        "set": [LOAD, "workload.layers=8"],
        "slo": {"ttft": {"p95": f"{TTFT} s"}, "tpot": {"p95": f"{TPOT} s"}},
        "candidates": [{"hardware": name} for name in PRICES],
        "parallelism": [{"tensor": 1}, {"tensor": 2}],
        "prices": {name: f"{price} USD/h" for name, price in PRICES.items()},
        "most_devices": 6,
        "finalists": 1,
        "upgrades": False,
    }
    return plan | changes


def brute_force(rate: float = 90.0) -> tuple[float, set[tuple[str, int, int]]]:
    """Least cost over every device, degree and number of replicas, by ``effsim serve`` alone, and who has it."""
    best: tuple[float, set[tuple[str, int, int]]] = (float("inf"), set())
    for device, price in PRICES.items():
        for tensor in (1, 2):
            for replicas in range(1, 6 // tensor + 1):
                sets = [LOAD, "workload.layers=8", f"workload.parallelism={{tensor: {tensor}}}"]
                sets += [f"workload.serving.replicas={replicas}", f"workload.serving.arrivals.rate={rate}"]
                served = effsim.serve(device, "llama3_8b_generate", set=sets)
                assert served.ttft_s is not None
                assert served.tpot_s is not None
                if served.refused or served.ttft_s["p95"] > TTFT or served.tpot_s["p95"] > TPOT:
                    continue
                cost = price * replicas * tensor
                if cost < best[0]:
                    best = (cost, set())
                if cost == best[0]:
                    best[1].add((device, tensor, replicas))
    return best


@pytest.mark.slow
def test_the_winner_is_that_of_brute_force() -> None:
    cost, fleets = brute_force()
    found = effsim.plan(tiny())
    winner = found.answer.winner
    assert found.solved
    assert found.answer.proven
    assert winner is not None
    assert winner.usd_per_hour == pytest.approx(cost)
    c = winner.configuration
    assert (c.device, int(c.parallelism.tensor), winner.replicas) in fleets
    assert max(n for _, _, n in fleets) > 1, "a load that one replica carries proves nothing"


def test_its_numbers_are_those_of_serve() -> None:
    one = [{"hardware": "gpu_h100", "parallelism": [{"tensor": 1}]}]
    winner = effsim.plan(tiny(candidates=one, prices={"gpu_h100": "4 USD/h"})).answer.winner
    assert winner is not None
    assert winner.measured is not None
    m, c = winner.measured, winner.configuration
    sets = [LOAD, "workload.layers=8", f"workload.parallelism={{tensor: {int(c.parallelism.tensor)}}}"]
    served = effsim.serve(c.device, "llama3_8b_generate", set=[*sets, f"workload.serving.replicas={winner.replicas}"])
    assert m.served.ttft_s == served.ttft_s
    assert m.served.e2e_s == served.e2e_s
    hours = served.duration_s / 3600.0
    million = 1e6 * winner.usd_per_hour * hours / served.output_tokens  # type: ignore[operator]
    assert winner.usd_per_million("output") == pytest.approx(million)
    assert m.served.energy_j is not None
    least = 30.0 * served.devices * served.duration_s
    most = 700.0 * served.devices * served.duration_s
    assert least < m.served.energy_j < most, "between idle and the power limit of the boards"


@pytest.mark.slow
def test_more_load_is_never_cheaper_and_a_looser_promise_never_dearer() -> None:
    def cost(rate: float, ttft: str = f"{TTFT} s") -> float:
        whole = tiny(slo={"ttft": {"p95": ttft}, "tpot": {"p95": f"{TPOT} s"}}, parallelism=[{"tensor": 1}])
        set_ = [*whole["set"], f"workload.serving.arrivals.rate={rate}"]
        winner = effsim.plan(whole | {"set": set_}).answer.winner
        assert winner is not None
        assert winner.usd_per_hour is not None
        return winner.usd_per_hour

    by_load = [cost(rate) for rate in (20.0, 120.0)]
    assert by_load == sorted(by_load)
    assert by_load[-1] > by_load[0]
    assert cost(120.0, "2 s") <= by_load[-1]


@pytest.mark.slow
def test_processes_change_no_byte() -> None:
    one = {"parallelism": [{"tensor": 1}]}
    asked = tiny(finalists=2, whatif=[{"name": "twice", "load": 2.0}], headroom="20 %", **one)
    asked["set"] = [LOAD.replace("requests: 150", "requests: 60"), "workload.layers=2"]
    alone, together = (json.dumps(effsim.plan(asked, processes=n).as_dict()) for n in (1, 2))
    assert alone == together
    assert json.dumps(effsim.plan(asked, seed=1).as_dict()) != alone


@pytest.mark.slow
def test_no_solution_names_the_nearest_miss() -> None:
    one: dict[str, Any] = {"candidates": [{"hardware": "gpu_a100"}], "prices": {}, "parallelism": [{"tensor": 1}]}
    one["most_devices"] = 1
    # A board that its power limit does not hold: more units would not help one that it does.
    changes = [LOAD.replace("rate: 90", "rate: 200"), "workload.layers=8", "hardware.power.held=10 kW"]
    found = effsim.plan(tiny(**one, set=changes))
    assert not found.solved
    e = found.nearest
    assert e is not None
    assert e.fleet.measured is not None
    assert e.fleet.measured.worst.ratio > 1.0
    assert 0.0 < e.load < 1.0
    assert any(u.kind == "resource" and u.load > e.load for u in e.upgrades)
    less = LOAD.replace("rate: 90", f"rate: {200 * e.load!r}").replace("150", str(round(150 * e.load)))
    assert effsim.plan(tiny(**one, set=[less, "workload.layers=8"])).solved, (
        "with the load that the nearest miss is said to carry, there is a solution"
    )


def test_what_no_fleet_can_do_is_seen_without_simulating_fleets() -> None:
    asked = tiny(slo={"ttft": {"p95": "1 ms"}}, parallelism=[{"tensor": 1}], set=[LOAD, "workload.layers=2"])
    found = effsim.plan(asked)
    assert {s.status for s in found.answer.screened} == {"too_slow"}
    assert found.answer.simulations == 0
    assert not found.solved


def test_an_unknown_price_stays_unknown() -> None:
    free = {"hardware": "gpu_mi300x"}
    found = effsim.plan(
        tiny(
            candidates=[{"hardware": "gpu_h100"}, free],
            prices={"gpu_h100": "4.5 USD/h"},
            parallelism=[{"tensor": 2}],
            finalists=2,
        )
    )
    assert {f.configuration.device for f in found.answer.fleets} == {"gpu_h100"}
    assert {f.configuration.device for f in found.answer.unpriced} == {"gpu_mi300x"}
    assert all(f.usd_per_hour is None for f in found.answer.unpriced)
    assert any("no price" in note for note in found.notes)
    alone = effsim.plan(tiny(candidates=[free], prices={}, parallelism=[{"tensor": 1}]))
    assert alone.solved
    assert alone.as_dict()["winner"]["usd_per_hour"] is None


def test_a_what_if_changes_what_it_says() -> None:
    whatif = [
        {"name": "twice the load", "load": 2.0},
        {"name": "half the price", "price": 0.5},
        {"name": "faster memory", "set": ["hardware.memory.bandwidth=8 TB/s"]},
        {"name": "cheap", "prices": {"gpu_h100": "0.01 USD/h"}},
    ]
    found = effsim.plan(tiny(whatif=whatif, parallelism=[{"tensor": 1}]))
    base = found.answer.winner
    by_name = {c.name: c.answer.winner for c in found.whatif}
    assert base is not None
    assert all(w is not None and w.usd_per_hour is not None for w in by_name.values())
    cost = {name: float(w.usd_per_hour) for name, w in by_name.items() if w is not None and w.usd_per_hour is not None}
    before = float(base.usd_per_hour or 0.0)
    assert cost["twice the load"] > before
    assert cost["half the price"] == pytest.approx(before / 2)
    assert cost["faster memory"] <= before
    assert by_name["cheap"] is not None
    assert by_name["cheap"].configuration.device == "gpu_h100"


@pytest.mark.slow
def test_the_explanation_is_about_the_limit() -> None:
    only = [{"hardware": "gpu_h100", "parallelism": [{"tensor": 1}]}]
    found = effsim.plan(tiny(upgrades=True, candidates=only, prices={}))
    e = found.explanation
    assert e is not None
    assert e.load >= 1.0
    assert e.fleet.broken is not None
    assert not e.fleet.broken.holds
    assert e.fleet.broken.load == pytest.approx(e.load * FINENESS)
    more = next(u for u in e.upgrades if u.name == "one more replica")
    assert more.load > e.load
    assert more.devices == e.fleet.configuration.bought((e.fleet.replicas or 0) + 1)
    assert [m.load for m in e.curve] == sorted(m.load for m in e.curve)


@pytest.mark.parametrize("name", names("plans"))
def test_bundled_plans_are_right(name: str) -> None:
    assert effsim.check_file(name)[0] == "plan"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slo": {}}, "promises nothing"),
        ({"slo": {"ttft": {"p95": None}}}, "promises nothing"),
        ({"slo": {"ttft": {"p96": "1 s"}}}, "p96"),
        ({"candidates": [{"hardware": "gpu_h1000"}], "prices": {}}, "did you mean 'gpu_h100'"),
        (
            {"candidates": [{"hardware": "gpu_h100", "set": ["hardware.memory.bandwith=1TB/s"]}], "prices": {}},
            "did you mean",
        ),
        ({"candidates": [{"hardware": "gpu_h100"}, {"hardware": "gpu_h100"}], "prices": {}}, "stands there twice"),
        ({"prices": {"gpu_b200": "1 USD/h"}}, "no candidate"),
        ({"set": ["workload.serving.arrivals.ratee=3"]}, "ratee"),
        ({"set": ["batch=3"]}, "no assignment"),
        ({"variants": [{"name": "a", "set": ["hardware.x=1"]}]}, "on the workload"),
        ({"workload": "llama3_8b_training"}, "cannot be served"),
        ({"objective": "price"}, "objective"),
    ],
)
def test_mistakes_are_pointed_at(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as error:
        effsim.plan(tiny(**changes))
    assert error.value.location is not None


@given(st.integers(1, 60), st.integers(1, 70), st.integers(1, 60))
def test_fewest_finds_the_border_and_has_asked_both_sides(border: int, start: int, most: int) -> None:
    asked: dict[int, bool] = {}

    def holds(n: int) -> bool:
        asked[n] = n >= border
        return asked[n]

    found = fewest(holds, start, most)
    assert found == (border if border <= most else None)
    if found is not None:
        assert asked[found]
        assert found == 1 or asked[found - 1] is False
    assert len(asked) <= 16


@given(st.floats(0.1, 12.0), st.floats(0.1, 12.0))
def test_the_largest_load_does_not_depend_on_where_the_search_begins(border: float, start: float) -> None:
    found = largest_load(lambda load: load <= border, start)
    assert found <= border < found * FINENESS * 1.000001
    assert found == largest_load(lambda load: load <= border)


@given(st.integers(1, 40), st.integers(1, 16), st.integers(1, 16))
def test_replicas_are_packed_into_whole_units(replicas: int, devices: int, unit: int) -> None:
    bought = packed([(replicas, devices)], unit)
    assert bought % unit == 0
    assert bought >= replicas * devices
    assert packed([(replicas + 1, devices)], unit) >= bought
    if unit % devices == 0:
        assert bought - replicas * devices < unit


def test_a_load_that_grows_keeps_its_length_and_its_draws() -> None:
    serving = ServingSpec.model_validate({"arrivals": {"rate": 2.0, "requests": 100}})
    grown = Load(rate=2.0, prompt=4.0).on(serving)
    assert float(grown.arrivals.rate) == 4.0
    assert int(grown.arrivals.requests or 0) == 200
    assert float(grown.prompt.scale) == 4.0
    recorded = ServingSpec.model_validate({"arrivals": {"process": "trace", "trace": "x.csv"}})
    assert float(Load(rate=2.0).on(recorded).arrivals.speed) == 2.0


def test_what_binds_is_not_chosen_among_equals() -> None:
    def tried(*loads: tuple[str, str, float]) -> str:
        return _binding([Upgrade(name, kind, load, load >= 1.0, 8, None) for name, kind, load in loads], 1.1)

    memory, links = ("memory bandwidth +25 %", "resource"), ("links +25 %", "resource")
    setting = ("scheduler.max_tokens 4096", "scheduler")
    assert tried((*links, 1.16), (*memory, 1.16), (*setting, 1.16)) == "memory bandwidth or links"
    assert tried((*links, 1.22), (*memory, 1.16)) == "links"
    assert tried((*links, 1.1), (*setting, 1.16)) == "scheduler.max_tokens"
    assert tried((*links, 1.1), ("one more replica", "fleet", 2.0)) == ""


def test_a_block_is_read_once() -> None:
    requests = [Request(i, float(i), 100, 2, blocks=names) for i, names in enumerate([(1, 2), (1, 2), (1, 3)])]
    assert LoadShape.of(requests, 40).news == (100, 20, 60)
    assert LoadShape.of(requests, 0).news == (100, 100, 100)


def test_watching_ends_only_what_cannot_be_kept() -> None:
    slo = PlanSlo.model_validate({"ttft": {"p90": "1 s"}})

    def run(late: int) -> None:
        for request in Watch(slo, 20)(iter([Request(i, float(i), 8, 2) for i in range(20)])):
            request.first_token_s = request.arrival_s + (3.0 if request.index < late else 0.5)

    run(2)  # two of twenty may be late
    with pytest.raises(BrokenError):
        run(3)
