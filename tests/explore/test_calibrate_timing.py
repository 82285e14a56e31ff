"""Times on a restless machine, with a clock that the test moves."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effsim.explore.calibrate.timing import Benchmark, HostTimer, NoisyMachineError, Samples, Sampling, measure

SAMPLING = Sampling(rounds=9, most_rounds=30, sample_s=1e-3, floor_spread=0.15)


class Machine:
    """Every call moves the clock by the cost of its benchmark times the disturbance of the moment."""

    def __init__(self, disturbance: Iterator[float]) -> None:
        self.now_s, self.disturbance = 0.0, disturbance
        self.order: list[str] = []

    def timer(self) -> HostTimer:
        return HostTimer("test clock", lambda: self.now_s)

    def benchmark(self, name: str, cost_s: float) -> Benchmark:
        def call() -> None:
            self.order.append(name)
            self.now_s += cost_s * next(self.disturbance)

        return Benchmark(name, call)


def quiet() -> Machine:
    return Machine(itertools.repeat(1.0))


def test_a_quiet_machine_gives_the_costs() -> None:
    machine = quiet()
    found = measure([machine.benchmark("a", 1e-3), machine.benchmark("b", 2e-6)], machine.timer(), SAMPLING)
    assert found["a"].steady == pytest.approx(1e-3)
    assert found["b"].steady == pytest.approx(2e-6)
    assert found["a"].quartile_spread == pytest.approx(0.0, abs=1e-9)
    assert len(found["a"].seconds) == SAMPLING.rounds


def test_rounds_are_interleaved() -> None:
    machine = quiet()
    measure([machine.benchmark(name, 1e-3) for name in "abc"], machine.timer(), SAMPLING)
    rounds = machine.order[9:]  # after the three warming calls of each
    assert all(set(rounds[i : i + 3]) == set("abc") for i in range(0, len(rounds), 3))
    assert {rounds[i] for i in range(0, len(rounds), 3)} == set("abc")


def test_bursts_and_one_lucky_sample_do_not_change_the_value() -> None:
    # A third of the calls takes three times as long; one takes half.
    disturbance = itertools.chain([1.0] * 6, [0.5], itertools.cycle([1.0, 1.0, 3.0]))
    machine = Machine(disturbance)
    found = measure([machine.benchmark("a", 1e-3)], machine.timer(), SAMPLING)
    assert found["a"].minimum == pytest.approx(0.5e-3)
    assert found["a"].steady == pytest.approx(1e-3)


def test_a_machine_without_a_floor_is_refused_by_name() -> None:
    machine = Machine(1.0 + 0.2 * (i * 7 % 40) for i in itertools.count())
    with pytest.raises(
        NoisyMachineError, match=r"too noisy to be measured by test clock: 'wild' \(30 samples"
    ) as caught:
        measure([machine.benchmark("wild", 1e-3)], machine.timer(), SAMPLING)
    assert caught.value.exit_code == 1


def test_only_restless_benchmarks_are_sampled_again() -> None:
    machine = quiet()
    wild = Machine(1.0 + 0.2 * (i * 7 % 40) for i in itertools.count())

    def call() -> None:
        machine.now_s += 1e-3 * next(wild.disturbance)

    found = measure(
        [machine.benchmark("calm", 1e-3), Benchmark("wild", call)], machine.timer(), SAMPLING, optional=["wild"]
    )
    assert len(found["calm"].seconds) == SAMPLING.rounds
    assert len(found["wild"].seconds) == SAMPLING.most_rounds
    assert found["wild"].floor_spread > SAMPLING.floor_spread


def test_what_prepares_a_sample_is_not_timed() -> None:
    machine = quiet()

    def before() -> None:
        machine.now_s += 100.0

    inner: Callable[[], object] = machine.benchmark("a", 1e-3).call
    found = measure([Benchmark("a", inner, before)], machine.timer(), SAMPLING)
    assert found["a"].steady == pytest.approx(1e-3)


def test_one_thread_is_timed_by_its_own_clock() -> None:
    assert "CPU time" in HostTimer.of_threads(1).name
    assert HostTimer.of_threads(2).name == "wall time"


@given(st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=40), st.floats(0.01, 100.0))
def test_quantiles_are_ordered_and_scale(seconds: list[float], factor: float) -> None:
    s = Samples("x", tuple(sorted(seconds)))
    assert s.minimum <= s.steady <= s.median <= s.seconds[-1]
    larger = Samples("x", tuple(sorted(v * factor for v in seconds)))
    assert larger.steady == pytest.approx(s.steady * factor)
    assert larger.floor_spread == pytest.approx(s.floor_spread, abs=1e-6)
